"""The .json beside a model's files: what is refused, and what the message names."""

import hashlib
import json
import shutil

import pytest

from topformer_d2 import get_config
from topformer_d2.errors import InputError
from topformer_d2.inference.export_info import ExportInfo
from topformer_d2.inference.formats.description_file import (
    check_takes_place,
    read_description,
    write_description,
)
from topformer_d2.inference.model_info import ModelInfo


@pytest.fixture(scope="module")
def info():
    model = ModelInfo.from_config(get_config("seg_topformer_t_synthetic"))
    return ExportInfo(model, outputs=("logits",), size=(64, 80))


@pytest.fixture
def path(info, tmp_path):
    """m.param, m.bin and m.json."""
    path = tmp_path / "m.param"
    path.write_bytes(b"layers")
    path.with_suffix(".bin").write_bytes(b"weights")
    write_description(info, path, (".bin",))
    return path


def test_what_was_written_is_read(path, info):
    found, contents = read_description(path, (".bin",))
    assert found == info
    assert contents == {".param": b"layers", ".bin": b"weights"}
    values = json.loads(path.with_suffix(".json").read_text())
    assert values["files"][".bin"] == {"size": 7, "sha256": hashlib.sha256(b"weights").hexdigest()}
    assert values["topformer_d2"]["explanation"]["preprocessing"]


def test_all_files_can_be_renamed_together(path, info):
    for file in list(path.parent.iterdir()):
        file.rename(file.with_stem("other"))
    assert read_description(path.with_stem("other"), (".bin",))[0] == info


@pytest.mark.parametrize("name", ["m.param", "m.bin", "m.json"])
def test_a_missing_file_is_named(path, name):
    path.with_name(name).unlink()
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        read_description(path, (".bin",))


@pytest.mark.parametrize("name", ["m.param", "m.bin", "m.json"])
@pytest.mark.parametrize("damage", ["a bit", "cut", "empty"])
def test_a_damaged_file_is_named(path, name, damage):
    file = path.with_name(name)
    content = bytearray(file.read_bytes())
    if damage == "a bit":
        content[len(content) // 2] ^= 1
    file.write_bytes(content[: {"a bit": None, "cut": -3, "empty": 0}[damage]])
    with pytest.raises(
        InputError, match=rf"/{name} .*copy (m\.param, m\.bin and m\.json|it) again"
    ):
        read_description(path, (".bin",))


def test_files_of_two_models_are_not_mixed(path, info):
    other = path.with_name("other.param")
    shutil.copy(path, other)
    other.with_suffix(".bin").write_bytes(b"heights")  # of the same size
    write_description(info, other, (".bin",))
    shutil.copy(other.with_suffix(".bin"), path.with_suffix(".bin"))
    with pytest.raises(InputError, match=r"m\.bin was damaged, or is not the file that m\.json"):
        read_description(path, (".bin",))


@pytest.mark.parametrize(
    "content", [b"{}", b"[1]", b"no json", b'{"topformer_d2": 1, "files": {}}', b"\xff"]
)
def test_another_json_is_refused(path, content):
    path.with_suffix(".json").write_bytes(content)
    with pytest.raises(InputError, match=r"m\.json does not describe a model"):
        read_description(path, (".bin",))


def test_a_description_of_other_files_is_refused(path):
    path.rename(path.with_suffix(".mnn"))
    with pytest.raises(InputError, match=r"m\.json describes files \.param and \.bin and not"):
        read_description(path.with_suffix(".mnn"))


def test_only_a_description_of_the_same_format_is_written_over(path):
    check_takes_place(path)
    check_takes_place(path.with_name("new.mnn"))
    with pytest.raises(InputError, match=r"`path` .*m\.mnn: m\.json .*of a \.param file"):
        check_takes_place(path.with_suffix(".mnn"))
    path.with_suffix(".json").write_text('{"of": "a user"}')
    with pytest.raises(InputError, match=r"m\.json .*no model's description"):
        check_takes_place(path)
