"""A config is data: no file of a config runs code, is fetched unasked or fills the memory."""

import os
import time

import pytest
from detectron2.config import get_cfg

from topformer_d2 import Predictor, get_config
from topformer_d2.config import config_folder, load_config
from topformer_d2.config.files import MAX_BYTES, parse_config, read_config
from topformer_d2.errors import InputError

TAGS = [
    '!!python/object/apply:os.system ["touch {ran}"]',
    "!!python/object/new:os.mkdir [{ran}]",
    "!!python/object/apply:eval [\"open('{ran}', 'w')\"]",
    "!!python/name:os.system",
    "!!python/module:os",
    "!!python/tuple [1, 2]",
    "!own [1, 2]",
    "!<tag:yaml.org,2002:python/object/apply:os.mkdir> [{ran}]",
]


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("place", ["file", "base", "key", "list", "predictor"])
def test_no_file_of_a_config_makes_an_object(tmp_path, tag, place):
    ran = tmp_path / "ran"
    tag = tag.format(ran=ran)
    text = {"key": f"? {tag}\n: 1\n", "list": f"INPUT: {{CROP: {{SIZE: [1, {tag}]}}}}"}
    evil, given = tmp_path / "evil.yaml", tmp_path / "given.yaml"
    evil.write_text(text.get(place, f"VERSION: 2\nMODEL:\n  WEIGHTS: {tag}\n"))
    given.write_text("_BASE_: evil.yaml\n")
    path = given if place == "base" else evil
    with pytest.raises(InputError, match=r"evil\.yaml: (line \d: the tag|.*scanning a tag)"):
        Predictor(str(path)) if place == "predictor" else load_config(path)
    assert not ran.exists()


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/a.yaml", "HTTPS://x/a.yaml", "s3://b/a", "detectron2://a.yaml"]
)
def test_remote_files_are_refused_unasked(tmp_path, monkeypatch, url):
    def fetch(path, mode):
        if path == url:
            raise AssertionError("it was fetched")
        return open(path, mode)

    monkeypatch.setattr("topformer_d2.files.reading.PathManager.open", fetch)
    (tmp_path / "a.yaml").write_text(f"_BASE_: [{url}]\n")
    for path in (url, tmp_path / "a.yaml"):
        with pytest.raises(InputError, match=r"remote.* allow_remote=True"):
            load_config(path)
    with pytest.raises(AssertionError, match="it was fetched"):
        load_config(tmp_path / "a.yaml", allow_remote=True)


def test_bases_as_detectron2_has_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "sub").mkdir()
    (tmp_path / "home.yaml").write_text("A: {X: 1, Y: 1}\nB: 1\n")
    (tmp_path / "absolute.yaml").write_text("A: {Y: 2}\nC: &c [1, 2]\nD: *c\n")
    (tmp_path / "sub/list.yaml").write_text(f"_BASE_: [~/home.yaml, {tmp_path}/absolute.yaml]\n")
    (tmp_path / "sub/top.yaml").write_text("_BASE_: ../sub/list.yaml\nB: 3\n")
    expected = {"A": {"X": 1, "Y": 2}, "B": 3, "C": [1, 2], "D": [1, 2]}
    path = str(tmp_path / "sub/top.yaml")
    assert read_config(path) == expected == get_cfg().load_yaml_with_base(path)
    for shipped in config_folder().glob("*.yaml"):
        values = read_config(str(shipped))
        if values["SOLVER"].get("SCHEDULE") == "":  # of a file that names LR_SCHEDULER_NAME alone
            del values["SOLVER"]["SCHEDULE"]
        if values["SOLVER"].get("EPOCHS") == 0:  # likewise of MAX_ITER
            del values["SOLVER"]["EPOCHS"]
        assert values == get_cfg().load_yaml_with_base(str(shipped))


LAUGHS = "a0: &a0 [x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"# nothing\n", "is empty"),
        (b"--- \n", "is text|is a value"),
        (b"3", "the config is a value, 3; it takes KEY: VALUE"),
        (b"- 1", r"the config is a list, \[1\]"),
        (b"text", "the config is text, 'text'"),
        (b"A: 1\nA: 2", "line 2: the key 'A' is there twice"),
        (b"A: {B: 1,\n B: 2}", "line 2: the key 'B' is there twice"),
        (b"A: {1.5: 2}", "line 1: a key is '1.5'; put it in quotes"),
        (b"on: 1", "a key is 'on'; put it in quotes"),
        (b"? [1]\n: 2", "a key is"),
        (b"a: [1", "not YAML that can be read"),
        (b"a: 1\n---\nb: 2", "not YAML that can be read"),
        (b"a: \x00", "not YAML that can be read"),
        (b"a: 2001-99-99", "not YAML that can be read"),
        (b"a: !!bool maybe", "not YAML that can be read"),
        (b"a: !!int ''", "not YAML that can be read"),
        (b"a: !!timestamp soon", "not YAML that can be read"),
        (b"caf\xe9: 1", "not UTF-8"),
        (b"\xff\xfea\x00:\x001\x00", "not UTF-8"),
        (b"a: &a [*a]", "contains itself"),
        (b"a: &a {b: *a}", "contains itself"),
        (LAUGHS.encode(), "with its aliases written out"),
        (b"a: " + b"[" * 3000, "nested too deep"),
        (b"a: " + b"[" * 60 + b"]" * 60, "40 levels"),
        (b"a: " + b"{a: " * 3000, "nested too deep"),
        (b"a: " + b"1" * 5000, "a whole number has 5000 characters"),
        (b"a: 1\n" * (MAX_BYTES // 5 + 1), "larger than"),
        (b"_BASE_: 3", "_BASE_ is 3; it takes a path or a list"),
        (b"_BASE_: [a, {b: 1}]", "takes a path or a list|does not exist"),
        (b"_BASE_: my.yaml", "leads back to the same file: .*my.yaml -> .*my.yaml"),
        (b"_BASE_: ./other.yaml", "leads back to the same file"),
        (b"_BASE_: gone.yaml", r"gone\.yaml, which .*my\.yaml names as _BASE_, does not exist"),
        (b"_BASE_: .", "is a folder"),
        (b'_BASE_: "a\\0b"', "takes a path or a list"),
        (b"_BASE_: base.yaml\nA: {B: 1}", "A has keys of its own, but in its _BASE_ it is 1"),
        (b"VERSION: two", "VERSION is 'two'; this Detectron2 takes 1 to 2"),
        (b"VERSION: 3", "VERSION is 3"),
        (b"VERSION: 0", "VERSION is 0"),
        (b"MODEL: 3", "MODEL is 3; it takes keys of its own"),
        (b"SOLVER: {BASE_LR: {A: 1}}", "SOLVER.BASE_LR is .* it takes a number"),
        (b"SOLVER: {BASE_LR: '" + b"-" * 9000 + b"1'}", "my.yaml: a value cannot be used"),
        (b"INPUT: {CROP: {SIZE: !!binary aGk=}}", "INPUT.CROP.SIZE|my.yaml"),
        (b"INPUT: {CROP: {SIZE: !!set {a}}}", "my.yaml"),
    ],
)
def test_what_is_not_a_config_is_one_error(tmp_path, content, message):
    path = tmp_path / "my.yaml"
    path.write_bytes(content)
    (tmp_path / "other.yaml").write_text("_BASE_: [my.yaml]")
    (tmp_path / "base.yaml").write_text("A: 1")
    start = time.process_time()
    with pytest.raises(InputError, match=message) as refused:
        load_config(path)
    assert "my.yaml" in str(refused.value)
    assert time.process_time() - start < 20  # the slowest takes some 3


def test_bases_that_multiply_are_bounded(tmp_path):
    for i in range(30):
        (tmp_path / f"{i}.yaml").write_text(f"_BASE_: [{i + 1}.yaml, {i + 1}.yaml]")
    (tmp_path / "30.yaml").write_text("A: 1")
    with pytest.raises(InputError, match=r"0\.yaml: _BASE_ leads to more than 50 files"):
        read_config(str(tmp_path / "0.yaml"))


def test_what_is_not_a_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    for name, message in [
        ("pipe.yaml", "is a pipe"),
        ("folder.yaml", "is a folder"),
        ("loop.yaml", "cannot be read"),
        ("gone.yaml", "does not exist"),
    ]:
        with pytest.raises(InputError, match=rf"{name}.*{message}"):
            load_config(tmp_path / name)


def test_a_byte_order_mark_and_merge_keys(tmp_path):
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfVERSION: 2\nSEED: 3\n")
    assert load_config(tmp_path / "bom.yaml").SEED == 3
    assert parse_config("a: &a {x: 1}\nb: {<<: *a, y: 2}", "f") == {
        "a": {"x": 1},
        "b": {"x": 1, "y": 2},
    }


def test_an_old_version_is_converted_as_by_detectron2(tmp_path):
    (tmp_path / "old.yaml").write_text("MODEL: {WEIGHT: a.pth}\n")
    assert load_config(tmp_path / "old.yaml").MODEL.WEIGHTS == "a.pth"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("MODEL.DEVICE: cpu", "key: MODEL.DEVICE; .* MODEL: {DEVICE: ...}"),
        ("VERSION: 1\nMODEL: {WEIGHTS: a.pth}", "key: MODEL.WEIGHTS; .* VERSION 2"),
        ("MODEL: {WEIGHTS: 3}", "MODEL.WEIGHTS is 3 .write '3'.; it takes text"),
        (
            "DATASETS: {FOLDERS: {'': {IMAGES: x, BOXES: y}}}",
            "DATASETS.FOLDERS .* without a name",
        ),
    ],
)
def test_a_known_key_in_the_wrong_form_is_shown_in_the_right_one(tmp_path, content, message):
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(InputError, match=message):
        load_config(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["SOLVER.BASE_LR"], "pairs of KEY VALUE"),
        ("SOLVER.BASE_LR 1", "pairs of KEY VALUE"),
        ([3, 4], "pairs of KEY VALUE"),
        (["SEED", "1", "--resume"], "--resume stands among .* come before"),
        (["SEED", "1", "--num-gpus", "2"], "--num-gpus stands among"),
        (["MODEL", {"DEVICE": "cpu"}], r"Non-existent key: MODEL: .* such as MODEL\.\w+"),
        (["MODEL.TEACHER", "a"], r"MODEL\.TEACHER: .* such as MODEL\.TEACHER\.PIXELS\.CONFIG"),
        (["OUTPUT_DIR.o", "1"], "Non-existent key: OUTPUT_DIR.o"),
        (["SOLVER.BASE_LR.X", "1"], r"Non-existent key: SOLVER.BASE_LR.X \(did you mean"),
        (["_BASE_", "a.yaml"], "Non-existent key: _BASE_"),
        (["SOLVER.BASE_LR", "{[]: 1}"], "SOLVER.BASE_LR: its value cannot be used"),
        (["SOLVER.BASE_LR", "-" * 99999 + "1"], "SOLVER.BASE_LR: its value cannot be used"),
        (["SOLVER.BASE_LR", "1"], r"SOLVER.BASE_LR is 1 \(write 1.0\)"),
        (["SOLVER.MAX_ITER", "1e5"], "SOLVER.MAX_ITER is 100000.0; it takes a whole number"),
        (["OUTPUT_DIR", "3"], """OUTPUT_DIR is 3 .write "'3'".; it takes text"""),
        (["SOLVER.BASE_LR", "\x1b[2J"], r"SOLVER.BASE_LR is \\x1b\[2J; it takes a number"),
    ],
)
def test_opts_that_are_not_keys_and_values(opts, message):
    with pytest.raises(InputError, match=rf"command line: .*{message}"):
        get_config("seg_topformer_t", opts)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SOLVER: {MAX_ITER: 0x" + "f" * 9000 + "}", "line 1: a whole number has 9002 characters"),
        ("SOLVER: {STEPS: [1, 0x" + "f" * 9000 + "]}", "line 1: a whole number has 9002"),
        ('_BASE_: "\\ud800.yaml"', "line 1: text has half a character"),
        ('OUTPUT_DIR: "a\\udc80"', "line 1: text has half a character"),
    ],
)
def test_values_that_cannot_be_written(tmp_path, text, words):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=rf"a\.yaml: {words}"):
        load_config(tmp_path / "a.yaml")


def test_numbers_of_a_command_line_that_cannot_be_written():
    for key in ("TEST.EVAL_PERIOD", "MODEL.ROI_HEADS.NUM_CLASSES"):
        with pytest.raises(InputError, match=f"command line: {key}: its value cannot be used"):
            load_config("", [key, "0x" + "f" * 9000])
    with pytest.raises(InputError, match=r"command line: SOLVER\.STEPS: its value"):
        load_config("", ["SOLVER.STEPS", "(0x" + "f" * 9000 + ",)"])
