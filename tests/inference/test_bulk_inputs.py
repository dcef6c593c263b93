"""What bulk prediction reads: lists, columns of tables, and remote stores."""

import json
import os

import numpy as np
import pytest

from tests.faults.stand_in import SIZE, StandIn
from tests.helpers import photo
from tests.inference.conftest import COUNT
from topformer_d2.data.images import encode_image, write_image
from topformer_d2.errors import InputError
from topformer_d2.files import stores
from topformer_d2.inference.bulk import inputs, list_inputs, predict_in_bulk, reading
from topformer_d2.inference.prediction_files import output_names


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


@pytest.mark.parametrize("name", ["none.txt", "none.parquet"])
def test_a_list_that_is_not_there(name, tmp_path):
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow", reason="the extra ray has it")
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


def test_a_folder_by_uri_with_a_name_that_is_not_utf_8_is_told(tmp_path):
    pytest.importorskip("pyarrow", reason="the extra ray has it")
    open(os.path.join(os.fsencode(tmp_path), b"\xff.png"), "wb").close()
    with pytest.raises(InputError, match=r"^`input` file://\S+ has a file .* not UTF-8"):
        list_inputs(tmp_path.as_uri(), "input")


@pytest.mark.parametrize("line", [b"http://[::1/a.png", b"file:///\xff.png", b"file:///a%00.png"])
def test_a_line_that_is_no_uri_is_told_before_anything(tmp_path, line):
    (tmp_path / "list.txt").write_bytes(b"/a.png\n" + line)
    with pytest.raises(InputError, match=r"^`input` (http|file)://\S+ is no URI"):
        list_inputs(tmp_path / "list.txt", "input")
    with pytest.raises(InputError, match=r"^`input` (http|file)://\S+ is no URI"):
        list_inputs(os.fsdecode(line), "input")
