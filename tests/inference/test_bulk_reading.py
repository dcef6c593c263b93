"""An image that cannot be read: whether it is its own fault, or that of its disk or store."""

import errno
import io
import json
import os

import numpy as np
import pytest
from detectron2.utils.file_io import PathManager

from tests.faults.stand_in import SIZE, StandIn
from tests.inference.conftest import COUNT
from topformer_d2.data.images import encode_image
from topformer_d2.errors import InputError
from topformer_d2.files import stores
from topformer_d2.inference.bulk import list_inputs, predict_in_bulk, reading
from topformer_d2.inference.bulk.partitions import Item
from topformer_d2.inference.bulk.work import read_items


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
