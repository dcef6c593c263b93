"""The changes to Detectron2's sources: all apply as expected, or nothing is written."""

from pathlib import Path

import pytest

from tests.helpers import run_script, topformer
from topformer_d2 import install_detectron2 as install


def tree(folder: Path, **files: str) -> Path:
    (folder / "detectron2").mkdir()
    for name, text in files.items():
        (folder / "detectron2" / f"{name}.py").write_text(text)
    return folder


def test_changes_apply_to_whole_names_only(tmp_path):
    root = tree(tmp_path, a="np.float(1) + np.float32(2) + np.float_")
    install.apply_changes(root, [install.Change("detectron2/a.py", "np.float", "float", 1)])
    assert (root / "detectron2/a.py").read_text() == "float(1) + np.float32(2) + np.float_"


def test_changes_to_one_file_add_up(tmp_path):
    root = tree(tmp_path, a="one two two")
    changes = [
        install.Change("detectron2/a.py", "one", "1"),
        install.Change("detectron2/a.py", "two", r"\2", 2),
    ]
    install.apply_changes(root, changes)
    assert (root / "detectron2/a.py").read_text() == r"1 \2 \2"


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (("detectron2/b.py", "np.int", "int", 2), r"b\.py: expected 2 times, found 1 times"),
        (("detectron2/c.py", "x", "y", 1), r"c\.py is missing"),
    ],
)
def test_a_change_that_does_not_apply_fails_before_anything_is_written(tmp_path, second, message):
    root = tree(tmp_path, a="np.bool", b="np.int")
    changes = [install.Change("detectron2/a.py", "np.bool", "bool"), install.Change(*second)]
    with pytest.raises(RuntimeError, match=message):
        install.apply_changes(root, changes)
    assert (root / "detectron2/a.py").read_text() == "np.bool"


def test_leftovers_are_found(tmp_path):
    with pytest.raises(RuntimeError, match=r"a\.py still uses np\.bool"):
        install.check_no_leftover(tree(tmp_path, a="x.astype(np.bool)"))


def test_a_wrong_download_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(install, "SDIST_SHA256", "0" * 64)

    class Client:
        def __init__(self, endpoint):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def get_project_page(self, name):
            package = type("Package", (), {"filename": install.SDIST_FILE})
            return type("Page", (), {"packages": [package]})

        def download_package(self, package, target):
            target.write_bytes(b"something else")

    import pypi_simple

    monkeypatch.setattr(pypi_simple, "PyPISimple", Client)
    with pytest.raises(RuntimeError, match="has SHA-256"):
        install.download(tmp_path)


def test_an_importable_detectron2_is_left_alone():
    for result in (topformer("install-detectron2"), run_script("tools/install_detectron2.py")):
        assert result.returncode == 0
        assert "already installed" in result.stdout


def test_what_is_wrong_is_said_in_one_line(monkeypatch, tmp_path):
    def refuse(folder):
        raise RuntimeError("the package index lists no such file")

    monkeypatch.setattr(install, "download", refuse)
    result = topformer("install-detectron2", "--wheel-dir", tmp_path)
    assert result.returncode == 1
    assert result.stderr == "error: the package index lists no such file\n"
