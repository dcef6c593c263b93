"""What a wheel holds, and that the package works from it."""

import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
import yaml

from tests.helpers import REPOSITORY
from topformer_d2.cli import VERBS
from topformer_d2.config import list_configs, list_models


@pytest.mark.slow
def test_wheel_ships_configs_categories_and_the_command(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    # From a copy: building writes into the source folder.
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    for name in filter(None, files):
        target = tmp_path / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((REPOSITORY / name).read_bytes())
    subprocess.run([*build, "--wheel-dir", tmp_path, tmp_path / "source"], check=True)
    shutil.rmtree(tmp_path / "source/build")
    env = {**os.environ, "CC": "none"}
    pure = [*build, "--wheel-dir", tmp_path / "pure", tmp_path / "source"]
    subprocess.run(pure, check=True, env=env)
    wheel = next(tmp_path.glob("topformer_d2-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "installed")
    assert {f"topformer_d2/configs/{name}.yaml" for name in list_configs()} <= set(names)
    assert "topformer_d2/data/categories/ade20k.json" in names
    kinds = ("safetensors", "yaml", "json")
    assert {f"topformer_d2/zoo/{name}.{kind}" for name in list_models() for kind in kinds} <= set(
        names
    )
    assert "topformer_d2/analysis/paper_tables.json" in names
    assert "topformer_d2/install_detectron2.py" in names
    assert "topformer_d2/native/label_map.c" in names and "topformer_d2/native/boxes.h" in names
    assert ("topformer_d2/native/_native.so" in names) == (shutil.which("cc") is not None)
    page = REPOSITORY / "topformer_d2/web"
    shipped = [path for path in page.rglob("*") if path.suffix in (".js", ".wasm", ".html", ".txt")]
    assert len(shipped) > 10
    assert {path.relative_to(REPOSITORY).as_posix() for path in shipped} <= set(names)
    (without_compiler,) = (tmp_path / "pure").glob("*.whl")
    assert without_compiler.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(without_compiler) as archive:
        assert not [name for name in archive.namelist() if "_native" in name]
    modules = {module for module, _ in VERBS.values()}
    assert {f"topformer_d2/cli/{module}.py" for module in modules} <= set(names)
    (entries,) = (name for name in names if name.endswith("entry_points.txt"))
    assert "topformer = topformer_d2.cli:main" in (tmp_path / "installed" / entries).read_text()
    outside = ("tests/", "tools/", "benchmarks/")
    assert not [name for name in names if name.startswith(outside)]
    script = (
        "import topformer_d2, topformer_d2.native.library; print(topformer_d2.__file__);"
        "print(topformer_d2.get_config('seg_topformer_s').MODEL.TOPFORMER.VARIANT);"
        "print(topformer_d2.native.library.native_status().split(':')[0])"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
    )
    assert result.stdout.split() == [
        str(tmp_path / "installed/topformer_d2/__init__.py"),
        "small",
        *("compiled" if shutil.which("cc") else "in Python").split(),
    ], result.stderr


@pytest.mark.skipif(not shutil.which("make"), reason="this system has no make")
@pytest.mark.parametrize(
    ("mark", "words", "installs", "uninstalls"),
    [
        (None, [], "tools/install_detectron2.py", False),
        (None, ["DETECTRON2=main"], "git+https", False),
        (".ready-v0.6", [], None, False),
        (".ready-v0.6", ["DETECTRON2=main"], "git+https", True),
        (".ready-main", [], None, False),
        (".ready-main", ["DETECTRON2=v0.6"], "tools/install_detectron2.py", True),
        (".ready", ["DETECTRON2=main"], "git+https", True),  # of an earlier Makefile
    ],
)
def test_an_environment_has_the_detectron2_that_is_asked_for(
    tmp_path, mark, words, installs, uninstalls
):
    if mark:
        (tmp_path / mark).touch()
    command = ["make", "-n", "env", f"VENV={tmp_path}", *words]
    # Not what another make, which may run this test, was told.
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "DETECTRON2")}
    keys = {"capture_output": True, "text": True, "cwd": REPOSITORY, "env": env}
    told = subprocess.run(command, check=True, **keys)
    assert (installs or "Nothing to be done") in told.stdout
    assert ("uninstall" in told.stdout) == uninstalls
    if installs is None:
        assert "pip" not in told.stdout


def test_the_workflow_calls_targets_and_files_that_exist():
    workflow = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    commands = [step["run"].split() for step in steps if "run" in step]
    makefile = (REPOSITORY / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.M)[1].split()
    assert {words[1] for words in commands} == {"env", "test", "docs", "test-slow", "test-faults"}
    for make, target, *words in commands:
        assert make == "make" and target in phony
        for variable in (word for word in words if "=" in word):
            assert re.search(rf"^{variable.partition('=')[0]} \?=", makefile, re.M)
    for step in steps:
        lock = step.get("with", {}).get("cache-dependency-path", "Makefile")
        assert (REPOSITORY / lock).is_file()
