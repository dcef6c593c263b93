"""Prediction in partitions, in this process: what is written, continued, refused and rejected."""

import json
import os
import random
import re
import shutil
import sys
import weakref
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.faults.bulk import SIZE, StandIn, bulk, contents, write_inputs
from tests.helpers import REPOSITORY, photo, save_untrained, topformer
from topformer_d2 import Predictor, get_config
from topformer_d2.cli import predict_bulk
from topformer_d2.data.images import encode_image, write_image
from topformer_d2.errors import InputError
from topformer_d2.inference import write_predictions
from topformer_d2.inference.batches import FilePrediction
from topformer_d2.inference.bulk import identify_model, inputs, list_inputs, predict_in_bulk
from topformer_d2.inference.bulk.attempts import Attempts, predict_counted, read_counted
from topformer_d2.inference.bulk.partitions import Item, Partitions
from topformer_d2.inference.bulk.work import Result, in_process

COUNT = 20  # images, in three partitions


@pytest.fixture
def photos(tmp_path):
    write_inputs(tmp_path / "in", COUNT)
    return tmp_path / "in"


class Recording:
    """in_process, with the numbers of the partitions that it was given."""

    def __init__(self, change=lambda results: results):
        self.numbers = []
        self._change = change

    def __call__(self, partitions, work):
        given = list(partitions)
        self.numbers += [items[0].partition for items in given]
        yield from self._change(in_process(given, work))


def test_partitions_depend_on_the_sorted_list_and_the_size_alone():
    paths = [f"/p/{i}" for i in range(7)]
    partitions = Partitions(paths, paths, list(range(7)), 3)
    assert [len(partitions.places(i)) for i in range(len(partitions))] == [3, 3, 1]
    assert [item.path for item in partitions.items(1)] == paths[3:6]
    assert partitions.items(2) == [Item(2, 6, "/p/6", "/p/6", 6)]
    assert partitions.digest_of(1) == Partitions(paths[:6], paths, paths, 3).digest_of(1)
    assert partitions.digest_of(1) != Partitions(paths, paths, paths, 2).digest_of(1)
    with pytest.raises(InputError, match="partition_size"):
        Partitions(paths, paths, paths, 0)


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    """A model of both tasks: its config and weights."""
    folder = tmp_path_factory.mktemp("joint")
    keys = ["INPUT.MIN_SIZE_TEST", "96", "INPUT.MAX_SIZE_TEST", "96", "MODEL.DEVICE", "cpu"]
    cfg = get_config(
        "multitask_lite_topformer_t_synthetic", [*keys, "TEST.DETECTIONS_PER_IMAGE", "5"]
    )
    return cfg, save_untrained(cfg, folder / "model.pth")


def test_files_are_those_of_write_predictions(joint, tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(5):
        photo(tmp_path / ("in" if i else ".") / f"{i}.png", 60 + i, 80, i)
    paths = sorted(str(path) for path in tmp_path.rglob("*.png"))
    predictor = Predictor(*joint, num_threads=1)
    write_predictions(predictor, paths, tmp_path / "one", json_file=tmp_path / "one.jsonl")
    result = predict_in_bulk(
        predictor, paths, tmp_path / "out", identity=identify_model(*joint), partition_size=2
    )
    assert (result.inputs, result.done, result.rejected, result.earlier) == (5, 5, 0, 0)
    expected = {
        str(path.relative_to(tmp_path / "one")): path.read_bytes()
        for path in (tmp_path / "one").rglob("*.png")
    }
    parts = sorted((tmp_path / "out").glob("part-*"))
    found = {
        str(path.relative_to(part / "labels")): path.read_bytes()
        for part in parts
        for path in (part / "labels").rglob("*.png")
    }
    assert len(parts) == 3 and len(found) == 5 and found == expected
    lines = b"".join((part / "boxes.jsonl").read_bytes() for part in parts)
    assert lines == (tmp_path / "one.jsonl").read_bytes() and lines.count(b"\n") == 25
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["counts"] == {"inputs": 5, "done": 5, "rejected": 0, "partitions": 3}
    assert len(manifest["model"]["weights_sha256"]) == 64 and "torch" in manifest["versions"][0]


def test_a_second_run_does_only_what_is_missing(photos, tmp_path):
    out, engine = tmp_path / "out", Recording()
    bulk(photos, out, engine=engine)
    whole = contents(out)
    assert engine.numbers == [0, 1, 2] and len(whole) == COUNT + 2 * 3
    shutil.rmtree(out / "part-000001")
    times = {path: path.stat().st_mtime_ns for path in out.glob("part-*/record.json")}
    result = bulk(photos, out, engine=engine)
    assert engine.numbers == [0, 1, 2, 1] and result.earlier == COUNT - SIZE
    assert contents(out) == whole and all(p.stat().st_mtime_ns == t for p, t in times.items())
    assert bulk(photos, out, engine=engine).earlier == COUNT and len(engine.numbers) == 4


def test_results_may_come_in_any_order_and_twice(photos, tmp_path):
    def shuffle(results):
        found = [result for some in results for result in some] * 2
        random.Random(1).shuffle(found)
        return ([result] for result in found)

    bulk(photos, tmp_path / "one")
    result = bulk(photos, tmp_path / "out", engine=Recording(shuffle))
    assert result.done == COUNT
    assert contents(tmp_path / "out") == contents(tmp_path / "one")


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_run_that_is_stopped_leaves_whole_partitions(photos, tmp_path, stop):
    def stopping(results):
        found = [result for some in results for result in some]
        yield found[: SIZE + 3]
        raise stop

    out = tmp_path / "out"
    with pytest.raises(type(stop) if isinstance(stop, OSError) else stop):
        bulk(photos, out, engine=Recording(stopping))
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "part-000000"]
    bulk(photos, tmp_path / "one")
    engine = Recording()
    assert bulk(photos, out, engine=engine).done == COUNT and engine.numbers == [1, 2]
    assert contents(out) == contents(tmp_path / "one")


def test_a_full_disk_names_the_partition_and_leaves_nothing_half(photos, tmp_path, monkeypatch):
    write = Path.write_bytes

    def full(path, content):
        if path.name == "00011_label.png":
            raise OSError(28, "No space left on device", str(path))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"part-000001'?$"):
        bulk(photos, tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["manifest.json", "part-000000"]


def test_results_that_an_engine_loses_are_noticed(photos, tmp_path):
    def losing(results):
        return ([result for result in some if result.place != 9] for some in results)

    with pytest.raises(InputError, match=rf"{COUNT - SIZE} images are done and 0 rejected"):
        bulk(photos, tmp_path / "out", engine=Recording(losing))
    assert not (tmp_path / "out/part-000001").exists()
    assert json.loads((tmp_path / "out/manifest.json").read_text())["counts"] is None


def test_images_that_cannot_be_done_are_rejected(photos, tmp_path):
    (photos / "00003.png").write_bytes(b"no image")
    photo(photos / f"{'n' * 250}.png")  # whose label map's name is too long
    result = bulk(photos, tmp_path / "out")
    assert (result.inputs, result.done, result.rejected) == (COUNT + 1, COUNT - 1, 2)
    lines = (tmp_path / "out/rejects.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [Path(each["path"]).name[:9] for each in found] == ["00003.png", "n" * 9]
    assert "not an image" in found[0]["reason"] and "too long" in found[1]["reason"]
    record = json.loads((tmp_path / "out/part-000000/record.json").read_text())
    assert (record["inputs"], record["done"], record["rejected"]) == (SIZE, SIZE - 1, 1)
    assert bulk(photos, tmp_path / "out").rejected == 2


def differing_size(photos, out):
    predict_in_bulk(
        StandIn(), list_inputs(photos), out, identity={"stand-in": 1}, partition_size=SIZE + 1
    )


def differing_model(photos, out):
    predict_in_bulk(
        StandIn(), list_inputs(photos), out, identity={"stand-in": 2}, partition_size=SIZE
    )


def differing_inputs(photos, out):
    photo(photos / "new.png")
    bulk(photos, out)


@pytest.mark.parametrize(
    ("again", "key"),
    [
        (differing_model, "model.stand-in is 2 and was 1"),
        (differing_size, f"inputs.partition_size is {SIZE + 1} and was {SIZE}"),
        (differing_inputs, f"inputs.count is {COUNT + 1} and was {COUNT}"),
        (lambda photos, out: bulk(photos, out, label_format="rle"), "settings.labels is 'rle'"),
        (lambda photos, out: bulk(photos, out, max_pixels=9**9), "settings.max_pixels is"),
    ],
)
def test_another_run_into_the_same_folder_is_refused(photos, tmp_path, again, key):
    out = tmp_path / "out"
    bulk(photos, out)
    before = contents(out)
    with pytest.raises(InputError) as error:
        again(photos, out)
    assert key in str(error.value) and "out" in str(error.value)
    assert contents(out) == before


def test_the_keys_of_a_config_and_the_weights_tell_models_apart(joint):
    cfg, weights = joint
    one, other = identify_model(cfg, weights, tile_size=None), cfg.clone()
    other.INPUT.MIN_SIZE_TEST, other.OUTPUT_DIR = 64, "/elsewhere"
    two = identify_model(other, weights, tile_size=None)
    differing = {key for key in one["config"] if one["config"][key] != two["config"][key]}
    assert differing == {"INPUT.MIN_SIZE_TEST"}
    assert one["weights_sha256"] == two["weights_sha256"] and one["tile_size"] is None


@pytest.mark.parametrize(
    ("path", "beside", "counts"),
    [
        *(("m.onnx", ".bin", False), ("m.xml", ".bin", True), ("m.param", ".bin", True)),
        *(("m.param", ".json", True), ("m.tflite", ".json", True), ("m.tflite", ".bin", False)),
    ],
)
def test_a_model_is_all_of_its_files(tmp_path, path, beside, counts):
    model = tmp_path / path
    model.write_bytes(b"graph")
    other = model.with_suffix(beside)
    other.write_bytes(b"one")
    before = identify_model(model)
    other.write_bytes(b"two")
    assert (identify_model(model) != before) == counts


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda part: (part / "labels/00002_label.png").unlink(), "00002_label.png is missing"),
        (lambda part: (part / "boxes.jsonl").write_bytes(b"x"), "has 1 bytes"),
        (lambda part: (part / "record.json").unlink(), "part-000000 has no record.json"),
        (lambda part: (part / "record.json").write_text("[]"), "record.json is no record"),
        (lambda part: part.rename(part.with_name("part-000009")), "part-000009 is of no partition"),
        (lambda part: (part.parent / "manifest.json").unlink(), "manifest.json is not"),
    ],
)
def test_partitions_that_were_changed_are_told(photos, tmp_path, damage, named):
    bulk(photos, tmp_path / "out")
    damage(tmp_path / "out/part-000000")
    with pytest.raises(InputError) as error:
        bulk(photos, tmp_path / "out")
    assert named in str(error.value)


def test_label_maps_as_lines(photos, tmp_path):
    from pycocotools import mask

    bulk(photos, tmp_path / "out", label_format="rle")
    lines = (tmp_path / "out/part-000002/labels.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [each["image_id"] for each in found] == [16, 17, 18, 19]
    pixels = sum(mask.decode(each["rle"]) * each["class"] for each in found[0]["label"])
    shades = np.random.default_rng(16).integers(0, 255, (48, 64, 3), dtype=np.uint8)[..., 0]
    assert np.array_equal(pixels, shades // 64)
    assert not (tmp_path / "out/part-000002/labels").exists()


def test_boxes_as_a_table(photos, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra ray has it")
    bulk(photos, tmp_path / "out", box_format="parquet")
    bulk(photos, tmp_path / "lines")
    found = parquet.read_table(tmp_path / "out/part-000001/boxes.parquet").to_pylist()
    lines = (tmp_path / "lines/part-000001/boxes.jsonl").read_text().splitlines()
    assert found == [json.loads(line) for line in lines] and len(found) == SIZE


def test_an_unknown_format_is_told(photos, tmp_path):
    for key in ("label_format", "box_format"):
        with pytest.raises(InputError, match=f"`{key}` is 'gif'"):
            bulk(photos, tmp_path / "out", **{key: "gif"})
    with pytest.raises(InputError, match="s3://bucket"):
        bulk(photos, "s3://bucket/out")


def test_a_table_gives_images_back_and_keeps_none_of_them():
    pytest.importorskip("pyarrow", reason="the extra ray has it")
    from topformer_d2.inference.bulk import tables

    items = [Item(0, i, f"/p/\udcff{i}.png", f"\udcff{i}", i) for i in range(2)]
    assert tables.items_of(tables.items_table(items)) == items
    image = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    block = [(items[0], FilePrediction("a", image=image)), (items[1], FilePrediction("b"))]
    block[1][1].problem = "none there"
    found = [tables.read_of(row) for row in tables.rows_of(tables.images_table(block))]
    assert [item for item, _ in found] == items and found[1][1].problem == "none there"
    assert np.array_equal(found[0][1].image, image) and found[1][1].image is None
    kept = weakref.ref(image)
    del image, block
    assert kept() is None


def dying(places, seen):
    """A step that ends its process at such a place, for which SystemExit stands."""

    def step(batch):
        results = []
        for item, *_ in [each if isinstance(each[0], Item) else (each,) for each in batch]:
            seen[item.place] += 1
            if item.place in places:
                raise SystemExit
            results.append(Result(item.partition, item.place, b"x"))
        return results

    return step


def until_it_lives(call):
    """The answer of a call that is made again as Ray does it, and how often that was."""
    for number in range(1, 100):
        try:
            return call(), number
        except SystemExit:
            continue
    raise AssertionError("it has no end")


def test_an_image_that_ends_its_process_is_found():
    attempts, seen = Attempts(), Counter()
    batch = [
        (Item(0, i, f"/p/{i}", f"{i}", i), FilePrediction(f"/p/{i}", np.zeros(1))) for i in range(4)
    ]
    step = dying({2}, seen)
    results, calls = until_it_lives(lambda: predict_counted(batch, step, attempts))
    assert [result.place for result in results] == [0, 1, 2, 3]
    assert [result.problem is None for result in results] == [True, True, False, True]
    assert "/p/2" in results[2].problem and calls == 7 and seen[2] == 6
    items = [item for item, _ in batch]

    def read(items):
        step(items)
        yield [(item, FilePrediction(item.path)) for item in items]

    attempts = Attempts()
    blocks, _ = until_it_lives(lambda: list(read_counted(items, read, attempts)))
    problems = [found.problem for block in blocks for _, found in block]
    assert [problem is None for problem in problems] == [True, True, False, True]


def test_a_process_that_dies_of_something_else_costs_no_image():
    attempts = Attempts()
    batch = [(Item(0, i, f"/p/{i}", f"{i}", i), FilePrediction(f"/p/{i}")) for i in range(3)]
    for _ in range(20):  # lost nodes, each before the answer has come
        attempts.begin(("predict", 0, 3))
    results = predict_counted(batch, dying(set(), Counter()), attempts)
    assert all(result.problem is None for result in results)
    assert attempts.begin(("predict", 0, 3)) == 1


def test_lists_of_paths(photos, tmp_path, monkeypatch, caplog):
    names = sorted(str(path) for path in photos.iterdir())
    assert list_inputs(photos) == names
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text(f"in/00003.png\n\n{names[1]}\nin/00003.png\n")
    assert list_inputs("list.txt") == [names[1], names[3]] and "more than once" in caplog.text
    (tmp_path / "none.txt").write_text("\n")
    with pytest.raises(InputError, match=r"none\.txt"):
        list_inputs("none.txt")
    photo(photos / "00003_label.png")
    assert list_inputs(photos) == names


def test_a_column_of_paths(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="the extra ray has it")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = arrow.table({"path": ["/b.png", "/a.png"], "note": ["x", "y"], "n": [1, 2]})
    parquet.write_table(table, tmp_path / "p.parquet")
    assert list_inputs(tmp_path / "p.parquet") == ["/a.png", "/b.png"]
    parquet.write_table(table.rename_columns(["one", "two", "n"]), tmp_path / "q.parquet")
    with pytest.raises(InputError, match="columns: one, two, n"):
        list_inputs(tmp_path / "q.parquet", "input")
    parquet.write_table(table.select(["note", "n"]), tmp_path / "r.parquet")
    assert len(list_inputs(tmp_path / "r.parquet")) == 2
    (tmp_path / "bad.parquet").write_bytes(b"no table")
    with pytest.raises(InputError, match=r"bad\.parquet cannot be read as Parquet"):
        list_inputs(tmp_path / "bad.parquet")


def test_images_of_a_remote_store(photos, tmp_path):
    pytest.importorskip("pyarrow", reason="the extra ray has it")
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    for path in [*sorted(photos.iterdir())[:9], photos / "notes.md"]:
        path.touch()
        store.pipe(f"/bulk/{path.name}", path.read_bytes())
    store.pipe("/bulk/00004.png", b"no image")
    uris = list_inputs("memory://bulk")
    assert len(uris) == 9 and uris[0] == "memory://bulk/00000.png"
    out = tmp_path / "out"
    keys = {"identity": {}, "partition_size": SIZE}
    result = predict_in_bulk(StandIn(), [*uris, "memory://bulk/missing.png"], out, **keys)
    assert (result.done, result.rejected) == (8, 2)
    local = predict_in_bulk(StandIn(), list_inputs(photos), tmp_path / "local", **keys)
    assert local.done == COUNT
    name = "part-000000/labels/00001_label.png"
    assert (out / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
    rejects = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    assert [each["path"] for each in rejects] == [uris[4], "memory://bulk/missing.png"]
    with pytest.raises(InputError, match="nothing is there"):
        list_inputs("memory://elsewhere")
    with pytest.raises(InputError, match="nosuch://"):
        list_inputs("nosuch://a/b")


def test_names_that_are_no_urls(photos, tmp_path):
    pytest.importorskip("pyarrow", reason="the extra ray has it")
    source = tmp_path / "photos"
    source.mkdir()
    values = {}
    names = ["a b.png", "a%20b.png", "x#y.png", "q?z.png", "caf\u00e9.png"]
    for i, name in enumerate(names):
        write_image(source / name, np.full((4, 5, 3), 20 * i, np.uint8))
        values[name] = 20 * i
    uris = list_inputs(f"file://{source}")
    read = [inputs.read_remote(uri, 1000) for uri in uris]
    assert sorted(read) == sorted((source / name).read_bytes() for name in values)
    assert len(set(read)) == len(values)


def test_a_name_that_is_not_utf_8(tmp_path):
    source = tmp_path / "photos"
    source.mkdir()
    for name in (b"\xff2.png", b"a%b.png"):
        with open(os.path.join(os.fsencode(source), name), "wb") as f:
            f.write(encode_image("a.png", np.zeros((4, 5, 3), np.uint8)))
    for _ in range(2):
        result = predict_in_bulk(StandIn(), list_inputs(source), tmp_path / "out", identity={})
        assert (result.done, result.rejected) == (2, 0)


def test_a_store_that_does_not_answer_ends_the_run_and_rejects_nothing(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow", reason="the extra ray has it")
    calls = []

    def silent(uri):
        calls.append(uri)
        raise OSError("connection reset")

    monkeypatch.setattr(inputs, "open_store", silent)
    monkeypatch.setattr(inputs, "_WAITS", (0.0, 0.0))
    with pytest.raises(OSError, match="does not answer"):
        predict_in_bulk(StandIn(), ["s3://b/a.png"], tmp_path / "out", identity={})
    assert len(calls) == 3 and not list((tmp_path / "out").glob("part-*"))


MODEL = ("--model", "camvid_t")


def command(photos, tmp_path, *words):
    return topformer("predict", "--input", photos, "--output", tmp_path / "out", *words)


def test_the_command(photos, tmp_path, monkeypatch):
    made = {}

    def engine(**keys):
        made.update(keys)
        return in_process

    monkeypatch.setattr(predict_bulk, "RayEngine", engine)
    for path in sorted(photos.iterdir())[4:]:
        path.unlink()
    (photos / "00002.png").write_bytes(b"")
    words = (*MODEL, "--engine", "ray", "--actors", 3, "--partition-size", 3)
    for _ in range(2):
        result = command(photos, tmp_path, *words)
        assert result.returncode == 1 and "3 of 4 images done" in result.stdout, result.stderr
        assert "1 images" in result.stderr and "rejects.jsonl" in result.stderr
    assert "4 of them by earlier runs" in result.stdout
    assert made == {"actors": 3, "address": None, "gpus_per_actor": 0}
    assert len(list((tmp_path / "out").glob("part-*/labels/*_label.png"))) == 3
    result = command(photos, tmp_path, *words, "--max-pixels", 100000)
    assert result.returncode == 1 and "settings.max_pixels" in result.stderr


def test_the_example_of_the_page(photos, tmp_path, monkeypatch, capsys):
    page = (REPOSITORY / "docs/bulk.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.S)
    photos.rename(tmp_path / "photos")
    (tmp_path / "photos/00001.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    assert capsys.readouterr().out == f"{COUNT - 1} 1\n"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--track",), "--track does not go with --engine ray"),
        (("--save-json", "a.jsonl"), "--save-json does not go with --engine ray"),
        (("--save-labels", "coco"), "--save-labels does not go with --engine ray"),
        (("--min-score", 0.5), "--min-score does not go with --engine ray"),
        (("--gpus-per-actor", 0.5), "--gpus-per-actor"),
        (("--actors", 0), "--actors is 0"),
        (("--partition-size", 0), "--partition-size is 0"),
    ],
)
def test_options_that_do_not_go_with_it(photos, tmp_path, words, named):
    pytest.importorskip("ray")
    result = command(photos, tmp_path, *MODEL, "--engine", "ray", *words)
    assert result.returncode == 1 and f"error: {named}" in result.stderr
    assert not (tmp_path / "out").exists()


def test_options_that_need_it_and_what_it_does_not_read(photos, tmp_path):
    result = command(photos, tmp_path, *MODEL, "--actors", 2)
    assert result.returncode == 1 and "--actors is for --engine ray" in result.stderr
    for source in ("camera", "camera:1"):
        result = command(source, tmp_path, *MODEL, "--engine", "ray")
        assert result.returncode == 1 and "no video or camera" in result.stderr
    (tmp_path / "a.mp4").write_bytes(b"x")
    result = command(tmp_path / "a.mp4", tmp_path, *MODEL, "--engine", "ray")
    assert result.returncode == 1 and "no video or camera" in result.stderr


def test_without_ray_the_command_says_what_to_install(photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    result = command(photos, tmp_path, *MODEL, "--engine", "ray")
    assert result.returncode == 1 and "pip install topformer_d2[ray]" in result.stderr
    assert not os.path.exists(tmp_path / "out")
