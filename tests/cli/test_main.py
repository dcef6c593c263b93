"""The command itself: its verbs, what it says of a mistake, and the scripts that call it."""

import runpy
import subprocess
import sys

import pytest

from tests.helpers import REPOSITORY, topformer
from topformer_d2 import cli
from topformer_d2.cli import VERBS, main
from topformer_d2.cli.parsing import Parser


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_examples(verb):
    result = topformer(*verb.split(), "--help")
    assert result.returncode == 0 and f"\n  topformer {verb}" in result.stdout


def test_help_lists_the_verbs():
    result = topformer("--help")
    assert result.returncode == 0 and all(f"\n  {verb} " in result.stdout for verb in VERBS)
    listed = topformer("data", "--help").stdout
    assert "\n  data view " in listed and "\n  train " not in listed
    assert topformer().returncode == topformer("data").returncode == 2
    assert topformer("--version").returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "'trian' is not a verb (did you mean 'train'?)"),
        (["data", "chek"], "'data chek' is not a verb (did you mean 'data check'?)"),
        (["test"], "'test' is not a verb (did you mean 'eval'?)"),
        (["infer"], "'infer' is not a verb (did you mean 'predict'?)"),
        (["--verison"], "there is no --verison (did you mean '--version'?)"),
        (["data", "--hlep"], "there is no --hlep (did you mean '--help'?)"),
        (
            ["predict", "--outptu", "x", "--input", "y"],
            "error: there is no --outptu (did you mean '--output'?)\n",
        ),
        (["predict", "--modle", "x"], "there is no --modle (did you mean '--model'?)"),
        (["train", "--reusme"], "--reusme (did you mean '--resume'?)"),
        (["train", "--config-file", "x", "A", "1", "--reusme"], "(did you mean '--resume'?)"),
        (["data", "prepare", "camvd"], "'camvd' (did you mean 'camvid'?)"),
        (["data", "prepare", "camvid", "--source", "x", "--rot=y"], "(did you mean '--root'?)"),
        (
            ["export", "--config-file", "x", "A", "1", "--format", "onnx", "--output", "y.onnx"],
            "--format stands among the pairs of KEY VALUE: options come first",
        ),
        (["export", "--format", "onxn"], "argument --format: 'onxn' (did you mean 'onnx'?)"),
    ],
)
def test_a_mistyped_word_has_the_nearest_beside_it(words, message):
    result = topformer(*words)
    assert result.returncode == 2 and message in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "--model", "", "--input", "x", "--output", "y"],
        ["predict", "--model", "m.onnx", "--input", "x", "--output", ""],
        ["convert", "", "a.pth"],
        ["data", "check", "--config-file", "", "x"],
        ["data", "prepare", "camvid", "--source", "x", "--source", ""],
    ],
)
def test_an_empty_word_is_refused(words):
    result = topformer(*words)
    assert result.returncode == 2 and " is empty\n" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "--model", "{}", "--input", "x", "--output", "y", "--save-json", "{}"],
        ["predict", "--model", "m.onnx", "--input", "{}", "--output", "{}"],
        ["convert", "{}", "{}", "--extract", "sem_seg"],
        ["quantize", "--model", "{}", "--images", "x", "--output", "{}"],
        ["data", "check", "--config-file", "{}", "--json", "{}"],
    ],
)
def test_a_result_does_not_replace_its_source(tmp_path, words):
    file = tmp_path / "a.pth"
    file.write_bytes(b"weights")
    (tmp_path / "link.pth").symlink_to(file)
    names = iter([str(file), str(tmp_path / "link.pth")])
    result = topformer(*(next(names) if word == "{}" else word for word in words))
    assert result.returncode == 2 and "would replace it" in result.stderr
    assert file.read_bytes() == b"weights"


def test_closed_streams_take_what_is_written(monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert main(["convert", "nowhere.pth", "a.pth"]) == 1
    with sys.stdout, sys.stderr:  # as files that can be written to
        assert not sys.stdout.isatty() and sys.stderr.write("x") == 1


def test_a_mistake_is_told_without_pytorch():
    for words in (["--help"], ["trian"]):
        program = (
            "import runpy, sys\n"
            "try:\n    runpy.run_module('topformer_d2', run_name='__main__')\n"
            "finally:\n    print('torch' in sys.modules, 'numpy' in sys.modules)\n"
        )
        command = [sys.executable, "-c", program, *words]
        # As `python -m topformer_d2` has it while the package is imported.
        program = f"import sys; sys.argv[0] = '-m'; sys.orig_argv += ['topformer_d2']\n{program}"
        command[2] = program
        result = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
        assert result.stdout.endswith("False False\n"), result.stderr


@pytest.mark.parametrize("script", ["tools/train_net.py", "datasets/prepare_camvid.py"])
def test_a_script_of_a_checkout_is_interrupted_in_order_while_pytorch_is_imported(script):
    program = (
        "import builtins, runpy\n"
        "real = builtins.__import__\n"
        "def importing(name, *rest, **keys):\n"
        "    if name.split('.')[0] in ('torch', 'numpy'):\n"
        "        raise KeyboardInterrupt\n"
        "    return real(name, *rest, **keys)\n"
        "builtins.__import__ = importing\n"
        f"runpy.run_path({script!r}, run_name='__main__')\n"
    )
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert (result.returncode, result.stderr) == (130, "interrupted\n")


def test_parameters_become_this_verbs_options():
    parser = Parser(names={"path": "--output"})
    parser.add_argument("--raw-boxes", action="store_true")
    parser.add_argument("source", metavar="IN")
    told = parser.reword("`raw_boxes` and `path` of `source`, not `size` or `topformer export`")
    assert told == "--raw-boxes and --output of IN, not `size` or `topformer export`"


def test_what_other_tools_call_a_verb_leads_to_a_verb():
    assert set(cli._SYNONYMS.values()) <= set(VERBS) and not set(cli._SYNONYMS) & set(VERBS)


def test_a_status_and_one_line(capsys):
    words = ["export", "--format", "onnx", "--config-file", "configs/seg_topformer_t.yaml"]
    assert main([*words, "--weights", "w.pth", "--output", "model.bin"]) == 1
    assert capsys.readouterr().err == (
        "error: --output model.bin: the name of such a file ends in .onnx\n"
    )


@pytest.mark.parametrize(
    ("script", "verb"),
    [
        ("tools/train_net.py", "train"),
        ("tools/predict.py", "predict"),
        ("tools/export_model.py", "export"),
        ("tools/quantize_model.py", "quantize"),
        ("tools/convert_weights.py", "convert"),
        ("tools/analyze_model.py", "analyze"),
        ("tools/benchmark.py", "benchmark"),
        ("tools/check_dataset.py", "data check"),
        ("tools/view_dataset.py", "data view"),
        ("tools/view_predictions.py", "data view"),
        ("tools/demo.py", "demo"),
        ("tools/doctor.py", "doctor"),
        *(
            (f"datasets/{path.name}", f"data prepare {path.stem.removeprefix('prepare_')}")
            for path in sorted((REPOSITORY / "datasets").glob("prepare_*.py"))
        ),
    ],
)
def test_the_scripts_of_a_checkout_call_a_verb(monkeypatch, script, verb):
    called = []
    monkeypatch.setattr(cli, "main", lambda words: called.append(words) or 3)
    monkeypatch.setattr(sys, "argv", [script, "--x", "y"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(REPOSITORY / script), run_name="__main__")
    assert stop.value.code == 3 and called == [[*verb.split(), "--x", "y"]]
    assert verb in VERBS or verb.startswith("data prepare ")
