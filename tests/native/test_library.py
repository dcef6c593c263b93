"""Which form is used: the library where it fits, else Python."""

import shutil
import threading

import pytest
import torch

from tests.native.library import compiled_folder
from topformer_d2 import label_map
from topformer_d2.native import library

FOLDER = compiled_folder()
needs_compiler = pytest.mark.skipif(FOLDER is None, reason="there is no C compiler")


@pytest.mark.parametrize("content", [None, b"", b"not a library"])
def test_without_a_library_that_opens_python_does_it(content, tmp_path, monkeypatch):
    if content is not None:
        (tmp_path / "_native.so").write_bytes(content)
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    assert library.native_library() is None
    assert library.native_status().startswith("in Python")
    assert label_map(torch.eye(4).view(4, 2, 2), (16, 16)).unique().tolist() == [0, 1, 2, 3]


@needs_compiler
@pytest.mark.parametrize("change", ["changed", "added"])
def test_a_library_of_other_c_files_is_not_used(change, tmp_path, monkeypatch):
    for path in library.SOURCES.glob("*.[ch]"):
        shutil.copy(path, tmp_path)
    shutil.copy(FOLDER / "_native.so", tmp_path)
    monkeypatch.setattr(library, "SOURCES", tmp_path)
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    assert library.native_status() == "compiled: _native.so"
    with (tmp_path / ("label_map.c" if change == "changed" else "new.c")).open("a") as file:
        file.write("/* another line */\n")
    library._open.cache_clear()
    assert library.native_library() is None
    assert "other C files" in library.native_status()


@needs_compiler
def test_several_threads_have_a_plan_each(monkeypatch):
    monkeypatch.setattr(library, "FOLDER", FOLDER)
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(20 + n, 20, 24, generator=generator) for n in range(4)]
    expected = [label_map(each, (160, 192)) for each in maps]
    found = [[] for _ in maps]

    def work(n):
        found[n] += [label_map(maps[n], (160, 192)) for _ in range(10)]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, others in zip(expected, found, strict=True):
        assert len(others) == 10 and all(torch.equal(one, other) for other in others)
