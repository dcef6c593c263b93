"""What bulk prediction reads: lists, columns of tables, and remote stores."""

import errno
import io
import json
import os

import numpy as np
import pytest
from detectron2.utils.file_io import PathManager

from tests.faults.stand_in import SIZE, StandIn, write_inputs
from tests.helpers import photo
from topformer_d2.data.images import encode_image, write_image
from topformer_d2.errors import InputError
from topformer_d2.files import stores
from topformer_d2.inference.bulk import inputs, list_inputs, predict_in_bulk, reading
from topformer_d2.inference.bulk.partitions import Item
from topformer_d2.inference.bulk.work import read_items
from topformer_d2.inference.prediction_files import output_names

COUNT = 20  # images


@pytest.fixture
def photos(tmp_path):
    write_inputs(tmp_path / "in", COUNT)
    return tmp_path / "in"


def test_lists_of_paths(photos, tmp_path, monkeypatch, caplog):
    names = sorted(str(path) for path in photos.iterdir())
    assert list_inputs(photos) == names
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text(f"in/00003.png\n\n{names[1]}\n" + "in/00003.png\n" * 2)
    assert list_inputs("list.txt") == [names[1], names[3]]
    assert "names 1 images more than once" in caplog.text
    (tmp_path / "none.txt").write_text("\n")
    with pytest.raises(InputError, match=r"none\.txt"):
        list_inputs("none.txt")
    photo(photos / "00003_label.png")
    assert list_inputs(photos) == names


def test_lines_are_the_bytes_of_names(tmp_path):
    names = ["/p/ph\u0085oto.png", "/p/\u3000x.png", "/p/a\u2028b.png", "/p/caf\udce9.png"]
    content = "\ufeff" + "\r\n".join(names) + " \t\n"
    (tmp_path / "list.txt").write_bytes(content.encode(errors="surrogateescape"))
    assert list_inputs(tmp_path / "list.txt") == sorted(names)
    (tmp_path / "windows.txt").write_bytes("/p/a.png\r\n".encode("utf-16"))
    with pytest.raises(InputError, match=r"`input` .*windows\.txt has zero bytes.*UTF-8"):
        list_inputs(tmp_path / "windows.txt", "input")
    for name in ("none.txt", "none.parquet"):
        with pytest.raises(InputError, match=rf"^`input` .*{name} cannot be read: No such file"):
            list_inputs(tmp_path / name, "input")


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
    for kind in (arrow.large_string(), arrow.string_view()):
        other = arrow.table({"path": arrow.array(["/a.png"]).cast(kind), "note": ["x"]})
        parquet.write_table(other, tmp_path / "s.parquet")
        assert list_inputs(tmp_path / "s.parquet") == ["/a.png"]
    (tmp_path / "bad.parquet").write_bytes(b"no table")
    with pytest.raises(InputError, match=r"bad\.parquet cannot be read as Parquet"):
        list_inputs(tmp_path / "bad.parquet")
    (tmp_path / "many.parquet").mkdir()
    for i, name in enumerate(("/c.png", "/d.png")):
        categories = arrow.table({"path": arrow.array([name]).dictionary_encode()})
        parquet.write_table(categories, tmp_path / f"many.parquet/part-{i}.snappy.parquet")
    (tmp_path / "many.parquet/_SUCCESS").touch()
    assert list_inputs(tmp_path / "many.parquet") == ["/c.png", "/d.png"]


def test_lists_in_a_remote_store(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="the extra ray has it")
    parquet = pytest.importorskip("pyarrow.parquet")
    names = ["memory://b/x y.png", "/a.png"]
    (tmp_path / "list.txt").write_text("\n".join(names))
    parquet.write_table(arrow.table({"path": names}), tmp_path / "list.parquet")
    for extension in (".txt", ".parquet"):
        uri = (tmp_path / "list").as_uri() + extension
        assert list_inputs(uri) == ["/a.png", "memory://b/x y.png"]
    for extension in (".txt", ".parquet"):
        with pytest.raises(InputError, match=rf"^`input` file://.*none{extension} cannot be read"):
            list_inputs((tmp_path / "none").as_uri() + extension, "input")


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
    (tmp_path / "list.txt").write_text("nosuch://a/b.png\n")
    for source in ("nosuch://a/b", tmp_path / "list.txt"):
        with pytest.raises(InputError, match=r"^`input` nosuch://a/b.*not known: nosuch.* fsspec"):
            list_inputs(source, "input")


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
    read = [reading.read_pixels(uri, 1000) for uri in uris]
    assert sorted(image[0, 0, 0] for image in read) == sorted(values.values())
    assert len(read) == len(values)


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

    monkeypatch.setattr(reading, "open_store", silent)
    monkeypatch.setattr(stores, "_WAITS", (0.0, 0.0))
    with pytest.raises(OSError, match="does not answer"):
        predict_in_bulk(StandIn(), ["s3://b/a.png"], tmp_path / "out", identity={})
    assert len(calls) == 3 and not list((tmp_path / "out").glob("part-*"))


def test_a_process_opens_a_store_once(photos):
    pytest.importorskip("pyarrow", reason="the extra ray has it")
    inputs._open_root.cache_clear()
    uris = list_inputs(photos.as_uri())
    assert all(reading.read_pixels(uri, 10**6).size > 100 for uri in uris) and len(uris) == COUNT
    found = inputs._open_root.cache_info()
    assert found.misses == 1 and found.hits > COUNT


class Refusing:
    """A store whose library has errors of its own."""

    def get_file_info(self, _):
        raise RuntimeError("AccessDenied")

    open_input_stream = get_file_info


def test_errors_of_a_library_name_the_address(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow", reason="the extra ray has it")
    for module in (inputs, reading):
        monkeypatch.setattr(module, "open_store", lambda uri: (Refusing(), "b/a.png"))
    monkeypatch.setattr(stores, "_WAITS", (0.0,))
    with pytest.raises(InputError, match=r"s3://b/in .*RuntimeError: AccessDenied"):
        list_inputs("s3://b/in")
    with pytest.raises(OSError, match=r"RuntimeError: AccessDenied.*s3://b/a\.png"):
        predict_in_bulk(StandIn(), ["s3://b/a.png"], tmp_path / "out", identity={})
    assert not list((tmp_path / "out").glob("part-*"))


class Denying:
    """A store with files of which some may not be read, as its library says it."""

    def __init__(self, error, denied):
        self.error, self.denied = error, denied

    def open_input_stream(self, path):
        if path in self.denied:
            raise self.error
        return io.BytesIO(encode_image("a.png", np.zeros((4, 5, 3), np.uint8)))


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "Access Denied"),
        OSError("When reading: AWS Error ACCESS_DENIED during HeadObject operation"),
    ],
)
@pytest.mark.parametrize("denied", [0, 15, 19])
def test_one_image_that_may_not_be_read_is_rejected(tmp_path, monkeypatch, error, denied):
    uris = [f"s3://b/{i:02d}.png" for i in range(COUNT)]
    store = Denying(error, {uris[denied]})
    monkeypatch.setattr(reading, "open_store", lambda uri: (store, uri))
    monkeypatch.setattr(reading, "_read_last", {})
    monkeypatch.setattr(stores, "_WAITS", (60.0,))  # a denial is not tried again
    result = predict_in_bulk(StandIn(), uris, tmp_path / "out", identity={})
    assert (result.done, result.rejected) == (COUNT - 1, 1)
    (line,) = (tmp_path / "out/rejects.jsonl").read_text().splitlines()
    assert json.loads(line)["path"] == uris[denied]


def test_images_that_are_read_together_are_tried_where_no_others_are_known(monkeypatch):
    uris = [f"s3://b/{i}.png" for i in range(3)]
    store = Denying(PermissionError(13, "Access Denied"), {uris[0]})
    monkeypatch.setattr(reading, "open_store", lambda uri: (store, uri))
    monkeypatch.setattr(reading, "_read_last", {})
    items = [Item(0, i, uri, str(i), i) for i, uri in enumerate(uris)]
    (block,) = read_items(items, 1000)
    assert [found.problem is None for _, found in block] == [False, True, True]


def test_a_part_of_a_store_that_may_not_be_read_is_rejected_whatever_is_read_first(
    tmp_path, monkeypatch
):
    uris = [f"s3://b/{part}/{i}.png" for part in "ab" for i in range(COUNT)]
    store = Denying(PermissionError(13, "Access Denied"), set(uris[:COUNT]))
    monkeypatch.setattr(reading, "open_store", lambda uri: (store, uri))
    monkeypatch.setattr(reading, "_read_last", {})
    keys = {"identity": {}, "partition_size": 5}
    result = predict_in_bulk(StandIn(), uris, tmp_path / "out", **keys)
    assert (result.done, result.rejected) == (COUNT, COUNT)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE])
def test_a_disk_that_fails_ends_the_run_and_rejects_nothing(photos, tmp_path, monkeypatch, number):
    count = 0

    def failing(path, mode):
        nonlocal count
        count += 1
        if count > 3:
            raise OSError(number, os.strerror(number), path)
        return open(path, mode)

    monkeypatch.setattr(PathManager, "open", failing)
    monkeypatch.setattr(reading, "open", failing, raising=False)
    keys = {"identity": {}, "partition_size": 2}
    with pytest.raises(OSError, match=f"{os.strerror(number)}, and no other image") as error:
        predict_in_bulk(StandIn(), list_inputs(photos), tmp_path / "out", **keys)
    assert error.value.filename == str(photos / "00003.png")
    assert [path.name for path in (tmp_path / "out").glob("part-*")] == ["part-000000"]
    monkeypatch.undo()
    assert predict_in_bulk(StandIn(), list_inputs(photos), tmp_path / "out", **keys).rejected == 0


def test_a_list_from_another_folder_rejects_nothing(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_read_last", {})
    (tmp_path / "list.txt").write_text("".join(f"in/{i:05d}.png\n" for i in range(COUNT)))
    monkeypatch.chdir(photos)
    keys = {"identity": {}, "partition_size": SIZE}
    with pytest.raises(OSError, match="No such file or directory, and no other image"):
        predict_in_bulk(StandIn(), list_inputs(tmp_path / "list.txt"), tmp_path / "out", **keys)
    monkeypatch.chdir(tmp_path)
    for path in sorted(photos.iterdir())[: SIZE + 1]:  # a whole partition, and more
        path.unlink()
    result = predict_in_bulk(
        StandIn(), list_inputs(tmp_path / "list.txt"), tmp_path / "out", **keys
    )
    assert (result.done, result.rejected) == (COUNT - SIZE - 1, SIZE + 1)


def test_few_images_of_many_stores_are_kept():
    of_two = [f"/{i}.png" for i in range(100)] + [f"s3://b/{i}.png" for i in range(100)]
    kept = reading.some_of(of_two)
    assert [sum(path.startswith(start) for path in kept) for start in ("/", "s3://b/")] == [8, 8]
    assert len(reading.some_of([f"http://{i}.org/a.png" for i in range(10**4)])) <= 64
    assert reading.some_of(of_two[:3]) == of_two[:3] and reading.some_of([]) == []


def test_a_store_that_lets_nothing_be_read_any_more_rejects_nothing(tmp_path, monkeypatch):
    uris = [f"s3://b/{i:02d}.png" for i in range(COUNT)]
    store = Denying(PermissionError("the token has expired"), set())
    monkeypatch.setattr(reading, "open_store", lambda uri: (store, uri))
    monkeypatch.setattr(reading, "_read_last", {})
    reading.read_pixels(uris[0], 1000)
    store.denied.add(uris[1])
    with pytest.raises(InputError, match=r"01\.png may not be read"):
        reading.read_pixels(uris[1], 1000)  # as uris[0] still may
    store.denied.update(uris)
    with pytest.raises(PermissionError, match="expired"):
        predict_in_bulk(StandIn(), uris, tmp_path / "out", identity={})
    assert not list((tmp_path / "out").glob("part-*"))


@pytest.mark.parametrize("local", ["/photos/a.png", "/b/photos/a.png"])
def test_names_do_not_depend_on_the_working_folder(tmp_path, monkeypatch, local):
    paths = [local, "s3://b/photos/c.png", "s3://b/d.png"]
    monkeypatch.chdir(tmp_path)
    names = output_names(paths)
    monkeypatch.chdir("/")
    assert output_names(paths) == names == [local[1:-4], "s3:/b/photos/c", "s3:/b/d"]
    assert output_names(paths[1:]) == ["photos/c", "d"]


def test_earlier_outputs_in_a_remote_store_are_told_once(photos, caplog):
    pytest.importorskip("pyarrow", reason="the extra ray has it")
    for name in ("00001_label.png", "00002_label.png"):
        write_image(photos / name, np.zeros((4, 5), np.uint8))
    assert len(list_inputs(photos.as_uri())) == COUNT
    (record,) = caplog.records
    assert record.args[1] == 2 and "00001_label.png" in record.args[2]
