"""Sources are parsed once, and what is kept can neither grow old nor be changed by a caller."""

import gc
import os
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

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
    assert len(calls) == 2 and cache.num_bytes == 0


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
    assert 2000 < cache.num_bytes <= 2500 and len(calls) == 3
    cache.parse(parse, a)
    assert len(calls) == 3
    cache.parse(parse, b)
    assert len(calls) == 4
    paths[3].write_text("x" * 3000)  # more than all that may be kept: the others stay
    cache.parse(parse, large)
    cache.parse(parse, b)
    assert len(calls) == 5 and cache.num_bytes > 2000


def test_what_is_nested_too_deep_is_not_kept(folder):
    def nest(path):
        value = []
        for _ in range(200_000):
            value = [value]
        return value

    cache = SourceCache()
    with pytest.raises(RecursionError):
        pickle.dumps(nest(""))
    assert len(cache.parse(nest, str(folder / "a.txt"))) == 1 and cache.num_bytes == 0


def test_what_cannot_be_pickled_is_given_out_and_not_kept(folder):
    cache, path = SourceCache(), str(folder / "a.txt")
    for make in (lambda: lambda: 1, threading.Lock):
        for _ in range(2):
            assert cache.parse(lambda _, make=make: make(), path) is not None
    assert cache.num_bytes == 0


def test_what_is_too_large_is_pickled_once(folder, monkeypatch):
    cache, path, pickled = SourceCache(most_bytes=10), str(folder / "a.txt"), []
    dumps = pickle.dumps
    monkeypatch.setattr(pickle, "dumps", lambda *a, **k: pickled.append(1) or dumps(*a, **k))
    for _ in range(3):
        assert cache.parse(parse, path) == {path: ["a.txt"]}
    assert len(calls) == 3 and len(pickled) == 1 and cache.num_bytes == 0
    os.utime(path, ns=(1, 1))  # it may have become smaller
    cache.parse(parse, path)
    assert len(pickled) == 2


def test_threads_share_it(folder):
    paths = [str(folder / f"{n}.txt") for n in range(8)]
    for path in paths:
        with open(path, "w") as f:
            f.write(path)
    cache = SourceCache(most_bytes=400)  # some are given up all the time
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            asked = paths * 100
            found = list(pool.map(lambda path: cache.parse(parse, path), asked))
    finally:
        sys.setswitchinterval(before)
    assert found == [{path: [path]} for path in asked]
    kept = sum(len(content) for _, content in cache._kept.values())
    assert 0 < cache.num_bytes == kept <= 400


def test_a_fork_renews_the_lock_that_a_thread_may_hold(folder):
    cache, path = SourceCache(), str(folder / "a.txt")
    cache.parse(parse, path)
    with cache._lock:
        cache.renew_lock()
        assert cache.parse(parse, path) == {path: ["a.txt"]} and len(calls) == 1


def test_garbage_is_collected_again_afterwards():
    with without_collection():
        with without_collection():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError), without_collection():
        raise ValueError
    assert gc.isenabled()
