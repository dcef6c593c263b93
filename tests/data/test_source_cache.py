"""Sources are parsed once, and what is kept can neither grow old nor be changed by a caller."""

import gc
import os
import pickle

import pytest

from topformer_d2.data.source_cache import SourceCache, without_collection

calls = []


@pytest.fixture(autouse=True)
def forget_calls():
    calls.clear()


def parse(*paths):
    """Names and contents of files and folders."""
    calls.append(paths)
    files = []
    for path in paths:
        files += (
            [f"{path}/{n}" for n in sorted(os.listdir(path))] if os.path.isdir(path) else [path]
        )
    return {file: [open(file).read()] for file in files}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "labels").mkdir()
    for name in ("a.txt", "labels/1.txt"):
        (tmp_path / name).write_text(name)
    return tmp_path


def test_a_source_is_parsed_once_and_each_caller_has_its_own(folder):
    cache, file = SourceCache(), str(folder / "a.txt")
    first = cache.parse(parse, file)
    first[file].append("mine")
    first["new"] = 1
    second = cache.parse(parse, file)
    assert second == {file: ["a.txt"]} and calls == [(file,)]
    second[file].clear()
    assert cache.parse(parse, file) == {file: ["a.txt"]} and len(calls) == 1


@pytest.mark.parametrize("change", ["content", "time", "added", "removed"])
def test_a_change_is_seen(folder, change):
    cache, sources = SourceCache(), (str(folder / "a.txt"), str(folder / "labels"))
    cache.parse(parse, *sources)
    if change == "content":
        (folder / "a.txt").write_text("another")
    elif change == "time":
        os.utime(folder / "labels/1.txt", ns=(1, 1))
    elif change == "added":
        (folder / "labels/2.txt").write_text("2")
    else:
        (folder / "labels/1.txt").unlink()
    assert cache.parse(parse, *sources) == parse(*sources)
    assert len(calls) == 3
    cache.parse(parse, *sources)
    assert len(calls) == 3


def test_a_path_means_another_file_in_another_folder(folder, monkeypatch):
    cache = SourceCache()
    for place, name in (("", "a.txt"), ("labels", "1.txt")):
        monkeypatch.chdir(folder / place)
        os.rename(name, "same.txt")
        os.utime("same.txt", ns=(1, 1))
        assert cache.parse(parse, "same.txt") == {"same.txt": [f"{place}/{name}".lstrip("/")]}


def test_what_fails_is_tried_again(tmp_path):
    cache, path = SourceCache(), tmp_path / "late.txt"
    with pytest.raises(FileNotFoundError):
        cache.parse(parse, str(path))
    path.write_text("x")
    assert cache.parse(parse, str(path)) == {str(path): ["x"]}


def test_remote_sources_are_parsed_each_time():
    cache = SourceCache()
    for _ in range(2):
        assert cache.parse(lambda path: calls.append(path), "s3://a/b.json") is None
    assert len(calls) == 2 and cache.bytes == 0


def test_what_was_not_used_for_longest_is_given_up(folder):
    paths = [folder / f"{n}.txt" for n in range(4)]
    for path in paths:
        path.write_text("x" * 1000)
    a, b, c, large = map(str, paths)
    cache = SourceCache(most_bytes=2500)
    cache.parse(parse, a)
    cache.parse(parse, b)
    cache.parse(parse, a)
    cache.parse(parse, c)
    assert 2000 < cache.bytes <= 2500 and len(calls) == 3
    cache.parse(parse, a)
    assert len(calls) == 3
    cache.parse(parse, b)
    assert len(calls) == 4
    paths[3].write_text("x" * 3000)  # more than all that may be kept: the others stay
    cache.parse(parse, large)
    cache.parse(parse, b)
    assert len(calls) == 5 and cache.bytes > 2000


def test_what_is_nested_too_deep_is_not_kept(folder):
    def nest(path):
        value = []
        for _ in range(200_000):
            value = [value]
        return value

    cache = SourceCache()
    with pytest.raises(RecursionError):
        pickle.dumps(nest(""))
    assert len(cache.parse(nest, str(folder / "a.txt"))) == 1 and cache.bytes == 0


def test_garbage_is_collected_again_afterwards():
    with without_collection():
        with without_collection():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError), without_collection():
        raise ValueError
    assert gc.isenabled()
