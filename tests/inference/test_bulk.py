"""Prediction in partitions, in this process: what is written, continued, refused and rejected."""

import dataclasses
import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.faults.stand_in import SIZE, StandIn, bulk, contents
from tests.helpers import photo, save_untrained
from tests.inference.conftest import COUNT
from topformer_d2 import Predictor, get_config
from topformer_d2.data.images import write_image
from topformer_d2.errors import InputError
from topformer_d2.inference import write_predictions
from topformer_d2.inference.bulk import identify_model, list_inputs, predict_in_bulk
from topformer_d2.inference.bulk.partitions import Item, Partitions, done_partitions
from topformer_d2.inference.bulk.work import in_process


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
    # A run's own file beside it has another name in each run, and is gone.
    assert f"{tmp_path / 'out/part-000002/labels'}{os.sep}" in found[1]["reason"]
    record = json.loads((tmp_path / "out/part-000000/record.json").read_text())
    assert (record["inputs"], record["done"], record["rejected"]) == (SIZE, SIZE - 1, 1)
    again = bulk(photos, tmp_path / "out")
    assert again.rejected == 2 and again.earlier == again.done == COUNT - 1


def test_a_folder_in_the_place_of_the_rejects_is_told(photos, tmp_path):
    (tmp_path / "out/rejects.jsonl").mkdir(parents=True)
    with pytest.raises(InputError, match=r"rejects\.jsonl is a folder.*move it away"):
        bulk(photos, tmp_path / "out")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda part: (part / "labels/00002_label.png").unlink(), "00002_label.png is missing"),
        (lambda part: (part / "boxes.jsonl").write_bytes(b"x"), "has 1 bytes"),
        (lambda part: (part / "record.json").unlink(), "part-000000 has no record.json"),
        (lambda part: (part / "record.json").write_text("[]"), "record.json is no record"),
        (lambda part: (part / "record.json").write_text(""), "out/part-000000, and it is made"),
        (lambda part: (part / "record.json").write_text("[" * 10**5), "out/part-000000, and it is"),
        (lambda part: (part.parent / "manifest.json").write_text(""), "or remove the folder"),
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


class Finding(StandIn):
    """A stand-in that finds boxes in dark images alone."""

    def __call__(self, images):
        scenes = super().__call__(images)
        return [
            dataclasses.replace(scene, boxes=[], classes=[], scores=[])
            if image.mean() > 9
            else scene
            for image, scene in zip(images, scenes, strict=True)
        ]


@pytest.mark.parametrize(("name", "kind"), [("n{}", "string"), ("{}", "int64")])
def test_tables_without_boxes_have_the_columns_of_the_others(tmp_path, name, kind):
    dataset = pytest.importorskip("pyarrow.dataset", reason="the extra ray has it")
    (tmp_path / "in").mkdir()
    for i in range(4):
        image = np.full((4, 5, 3), 0 if i == 3 else 200, np.uint8)
        write_image(tmp_path / "in" / f"{name.format(i)}.png", image)
    paths = list_inputs(tmp_path / "in")
    keys = {"identity": {}, "partition_size": 2, "box_format": "parquet"}
    predict_in_bulk(Finding(), paths, tmp_path / "out", **keys)
    files = sorted((tmp_path / "out").glob("part-*/boxes.parquet"))
    table = dataset.dataset([str(file) for file in files], format="parquet").to_table()
    assert str(table.schema.field("image_id").type) == kind
    expected = name.format(3) if kind == "string" else 3
    assert table.column("image_id").to_pylist() == [expected]


def test_records_that_are_kept_do_not_grow_with_the_images(photos, tmp_path):
    bulk(photos, tmp_path / "out")
    paths = list_inputs(photos)
    records = done_partitions(tmp_path / "out", Partitions(paths, paths, paths, SIZE))
    assert len(records) == 3 and not any(record.files for record in records.values())


def test_an_unknown_format_is_told(photos, tmp_path):
    for key in ("label_format", "box_format"):
        with pytest.raises(InputError, match=f"`{key}` is 'gif'"):
            bulk(photos, tmp_path / "out", **{key: "gif"})
    with pytest.raises(InputError, match="s3://bucket"):
        bulk(photos, "s3://bucket/out")


def test_files_and_folders_are_as_the_umask_has_them(photos, tmp_path):
    before = os.umask(0o027)
    try:
        bulk(photos, tmp_path / "out")
    finally:
        os.umask(before)
    modes = {(path.is_dir(), path.stat().st_mode & 0o777) for path in (tmp_path / "out").rglob("*")}
    assert modes == {(True, 0o750), (False, 0o640)}
