"""What is wrong with shards is named: their index, their path, a file in them."""

import json
import os
import re

import pytest
from detectron2.utils.file_io import PathManager

from topformer_d2.data.folders import register_folder
from topformer_d2.data.images import read_image
from topformer_d2.data.registered import check_dataset_present
from topformer_d2.data.shards import read_index, read_member
from topformer_d2.errors import InputError


def broken(folder, change):
    path = folder / "index.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c.pop("format"), "format"),
        (lambda c: c.update(format="other"), "its format is 'other'"),
        (lambda c: c["shards"][0].update(name="../a.tar"), "'../a.tar' is not a file's name"),
        (lambda c: c["images"].append(c["images"][0]), "a name stands there twice"),
        (lambda c: c["images"][0].__setitem__(1, 1), "a shard's number"),
        (lambda c: c["images"][0].__setitem__(2, 511), "a file is not within its shard"),
        (lambda c: c["labels"][0].__setitem__(3, 1 << 40), "a file is not within its shard"),
        (lambda c: c["labels"].append(["x.png", 0, *[2**63 - 1] * 2]), "a file is not within"),
        (lambda c: c["labels"][0].__setitem__(3, 1 << 70), "'labels' .* whole numbers"),
        (lambda c: c["images"][0].__setitem__(2, 512.0), "'images' .* whole numbers"),
        (lambda c: c["images"][0].__setitem__(2, "512"), "'images' .* whole numbers"),
        (lambda c: c["images"].__setitem__(0, 7), r"'images' are \[name, number of the shard"),
        (lambda c: c["images"][0].pop(), r"'images' are \[name, number of the shard"),
        (lambda c: c.update(images={"a": 1}), r"'images' are \[name, number of the shard"),
        (lambda c: c.pop("shards"), "no list of 'shards'"),
        (lambda c: c["shards"][0].update(size=1.5), r"the size of '000000\.tar' is 1\.5"),
    ],
)
def test_a_damaged_index(shards, change, named):
    entry, (path,) = shards
    broken(path.parent, change)
    with pytest.raises(InputError, match=rf"index\.json is not an index .*{named}") as found:
        PathManager.ls(entry["IMAGES"])
    assert "Error" not in str(found.value)


def test_an_index_that_is_no_json_is_told_once(shards):
    entry, (path,) = shards
    (path.parent / "index.json").write_text("{")
    with pytest.raises(InputError, match=r"damaged: it is not JSON.* data convert`$") as found:
        PathManager.ls(entry["IMAGES"])
    assert str(found.value).count("index.json") == 1


def test_an_index_of_other_shards_is_told_where_a_file_is_read(shards):
    """Sizes are equal, and a label lies where the index has another's."""
    entry, (path,) = shards

    def swap(content):
        first, second = content["labels"][:2]
        first[1:], second[1:] = second[1:], first[1:]

    read_member(f"{entry['LABELS']}/00000.png")
    broken(path.parent, swap)
    PathManager.ls(entry["LABELS"])
    read_member(f"{entry['IMAGES']}/00000.png")
    told = r"labels/00000\.png cannot be read: .*000000\.tar has '00001\.label\.png' at its place"
    with pytest.raises(InputError, match=told):
        read_member(f"{entry['LABELS']}/00000.png")


@pytest.mark.parametrize(
    ("images", "named"),
    [
        ("shard://{0}/nothing/images", r"but {0}/nothing/index\.json is missing"),
        ("shard://{0}/mine", "but a path of shards ends in /images or /labels"),
        ("shard://{0}/mine/nothing.json", "but there is none of this name"),
        ("shard://zzz://bucket/images", r"^DATASETS\.FOLDERS\.mine: zzz://bucket/.* zzz"),
    ],
)
def test_a_wrong_path_of_shards_is_named(tmp_path, shards, forget, images, named):
    pytest.importorskip("fsspec")
    entry = {**shards[0], "IMAGES": images.format(tmp_path)}
    with pytest.raises(InputError, match=named.format(re.escape(str(tmp_path)))):
        register_folder("mine", entry, str(tmp_path / "cache"))
        check_dataset_present("mine")


def test_a_shard_that_is_missing_or_cut_off(shards):
    entry, (path,) = shards
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(InputError, match=rf"000000\.tar has {len(content) - 1} bytes.* copy it"):
        read_member(f"{entry['IMAGES']}/00000.png")
    path.unlink()
    with pytest.raises(InputError, match=r"000000\.tar is missing"):
        read_index(str(path.parent))


def test_damage_within_a_shard_names_the_image(shards):
    entry, (path,) = shards
    shard, offset, _ = read_index(str(path.parent)).find("images", "00002.png")
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(bytes(100))
    with pytest.raises(InputError, match=r"shard://.*/images/00002\.png cannot be read"):
        read_image(f"{entry['IMAGES']}/00002.png")
    assert (shard, read_image(f"{entry['IMAGES']}/00003.png").shape) == (0, (64, 80, 3))


@pytest.mark.parametrize("has_pread", [True, False])
def test_a_shard_that_ends_while_it_is_open_is_named_with_the_sample(
    shards, monkeypatch, has_pread
):
    if not has_pread:  # as on Windows
        monkeypatch.delattr(os, "pread")
    entry, (path,) = shards
    last = f"{entry['IMAGES']}/00011.png"
    whole = read_member(last)
    _, offset, size = read_index(str(path.parent)).find("images", "00011.png")
    assert len(whole) == size
    os.truncate(path, offset + size - 5)
    ends = f"{re.escape(str(path))} ends at byte {offset + size - 5}"
    with pytest.raises(InputError, match=rf"images/00011\.png cannot be read: {ends}"):
        read_member(last)
    with pytest.raises(InputError, match=rf"images/00011\.png cannot be read: {ends}"):
        read_image(last)
