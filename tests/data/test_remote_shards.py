"""Shards of a remote store are copied to this machine, checked, and read as those of a folder."""

import errno
import json
import os

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from tests.helpers import REPOSITORY
from topformer_d2.config import load_config
from topformer_d2.data.registered import load_records
from topformer_d2.data.shard_files import open_shard
from topformer_d2.data.shard_writer import write_shards
from topformer_d2.data.shards import read_member
from topformer_d2.errors import InputError
from topformer_d2.files import read_bytes, stores

fsspec = pytest.importorskip("fsspec")
URI = "memory://bucket/shards"


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store in memory with shards, and the folder that they were copied from."""
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(stores, "_WAITS", (0.0, 0.0))
    monkeypatch.setattr("topformer_d2.data.shard_writer._MIB", 60_000)
    folder = tmp_path / "mine"
    write_shards("synthetic_multitask_train", str(folder), 1)
    memory = fsspec.filesystem("memory")
    # Each test has another address: an index is kept as long as the process runs.
    uri = f"{URI}/{tmp_path.name}"
    for path in folder.iterdir():
        memory.pipe(f"/bucket/shards/{tmp_path.name}/{path.name}", path.read_bytes())
    yield memory, folder, uri
    memory.rm("/bucket", recursive=True)


def copies(tmp_path):
    return sorted((tmp_path / "cache").rglob("*.tar"))


def test_a_dataset_is_read_from_a_store(tmp_path, store):
    _, folder, uri = store
    entry = {
        **{"IMAGES": f"shard://{uri}/images", "LABELS": f"shard://{uri}/labels"},
        **{"CLASSES": f"shard://{uri}/classes.txt", "BOXES": f"shard://{uri}/boxes.json"},
    }
    path = tmp_path / "c.yaml"
    base = REPOSITORY / "configs/multitask_lite_topformer_t_synthetic.yaml"
    path.write_text(
        f"_BASE_: {base}\nDATASETS:\n  TRAIN: [mine]\n  FOLDERS: {json.dumps({'mine': entry})}\n"
    )
    load_config(path)
    try:
        records = load_records("mine")
        local = load_records("synthetic_multitask_train")
        classes = MetadataCatalog.get("mine").thing_classes
    finally:
        DatasetCatalog.remove("mine")
        MetadataCatalog.remove("mine")
    assert classes == MetadataCatalog.get("synthetic_multitask_train").thing_classes
    assert len(records) == 12
    for one, other in zip(records, local, strict=True):
        for key in ("file_name", "sem_seg_file_name"):
            assert read_bytes(one[key]) == read_bytes(other[key])
        assert len(one["annotations"]) == len(other["annotations"])
    shards = sorted(folder.glob("*.tar"))
    assert len(shards) > 1
    assert [each.read_bytes() for each in copies(tmp_path)] == [
        each.read_bytes() for each in shards
    ]


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_a_folder_of_shards_may_have_the_name_of_a_kind(store, kind):
    memory, folder, uri = store
    place = f"{uri}/{kind}"
    for path in folder.iterdir():
        memory.pipe(f"{place.removeprefix('memory:/')}/{path.name}", path.read_bytes())
    assert read_member(f"shard://{place}/classes.txt") == (folder / "classes.txt").read_bytes()
    assert PathManager.isfile(f"shard://{place}/boxes.json")
    assert len(PathManager.ls(f"shard://{place}/labels")) == 12
    assert read_member(f"shard://{place}/images/00003.png") == read_member(
        f"shard://{uri}/images/00003.png"
    )


def test_only_what_is_read_is_copied_and_once(tmp_path, store, monkeypatch):
    memory, _, uri = store
    asked = []
    get = type(memory).get_file
    monkeypatch.setattr(
        type(memory), "get_file", lambda *a, **k: asked.append(a[1]) or get(*a, **k)
    )
    first = read_member(f"shard://{uri}/images/00000.png")
    assert read_member(f"shard://{uri}/labels/00000.png") and len(first) > 1000
    assert [path.name for path in copies(tmp_path)] == ["000000.tar"]
    assert len(asked) == 1 and asked[0].endswith("000000.tar")


@pytest.mark.parametrize("left", [0, 10], ids=["empty", "cut off"])
def test_a_copy_of_another_size_is_made_anew(tmp_path, store, left):
    """As a disk has after a loss of power."""
    _, folder, uri = store
    expected = read_member(f"shard://{uri}/images/00000.png")
    (copy,) = copies(tmp_path)
    os.truncate(copy, left)
    open_shard.cache_clear()  # as in the next process
    assert read_member(f"shard://{uri}/images/00000.png") == expected
    assert copy.read_bytes() == (folder / "000000.tar").read_bytes()


def test_a_shard_of_another_size_in_the_store_is_refused(tmp_path, store):
    memory, folder, uri = store
    content = (folder / "000000.tar").read_bytes()
    memory.pipe(f"{uri.removeprefix('memory:/')}/000000.tar", content[:-512])
    told = rf"000000\.tar has {len(content) - 512} bytes, and should have {len(content)}"
    with pytest.raises(InputError, match=told):
        read_member(f"shard://{uri}/images/00000.png")
    assert copies(tmp_path) == []


def test_what_is_missing_in_a_store_is_named(store):
    _, _, uri = store
    with pytest.raises(InputError, match=r"memory://bucket/nothing/index\.json cannot be read"):
        PathManager.isdir("shard://memory://bucket/nothing/images")
    with pytest.raises(FileNotFoundError):
        read_member(f"shard://{uri}/images/x.png")
    assert not PathManager.exists(f"shard://{uri}/x.txt")
    assert PathManager.isfile(f"shard://{uri}/classes.txt")
    with pytest.raises(InputError, match=r"nosuch://b/shards/index\.json cannot be opened"):
        PathManager.ls("shard://nosuch://b/shards/images")


@pytest.mark.parametrize(
    ("error", "calls", "raised"),
    [
        (ConnectionResetError("gone"), 3, OSError),
        (KeyError("a library's own"), 3, OSError),
        (PermissionError("the token has expired"), 1, PermissionError),
        (OSError(errno.ENOSPC, "No space left on device"), 1, OSError),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_store_that_does_not_answer_is_asked_again(
    tmp_path, store, monkeypatch, error, calls, raised
):
    memory, _, uri = store
    asked = []

    def fail(*_args, **_kwargs):
        asked.append(1)
        raise error

    read_member(f"shard://{uri}/classes.txt")
    PathManager.ls(f"shard://{uri}/images")
    monkeypatch.setattr(type(memory), "get_file", fail)
    with pytest.raises(raised) as found:
        read_member(f"shard://{uri}/images/00000.png")
    assert len(asked) == calls and copies(tmp_path) == []
    assert found.value.errno in (errno.EIO, errno.EPERM, errno.ENOSPC)
