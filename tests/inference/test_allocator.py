"""What is asked of glibc's malloc, and where it is left alone."""

import ctypes
import sys
from types import SimpleNamespace

import pytest

from tests.helpers import save_untrained
from topformer_d2 import get_config
from topformer_d2.engine import Trainer
from topformer_d2.inference import Predictor, allocator

TRIM, MMAP = -1, -3


@pytest.fixture
def calls(monkeypatch):
    """What a stand-in for mallopt is called with; it accepts every value."""
    found = []
    library = SimpleNamespace(mallopt=lambda *arguments: found.append(arguments) or 1)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(allocator, "_trains", False)
    for name in (*allocator._VARIABLES, "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    return found


def test_pytorch_on_a_cpu_keeps_freed_memory(calls, tmp_path):
    cfg = get_config("seg_topformer_t_synthetic", ["MODEL.DEVICE", "cpu"])
    Predictor(cfg, save_untrained(cfg, tmp_path / "m.pth"))
    assert calls == [(MMAP, 32 << 20), (TRIM, 128 << 20)]


@pytest.mark.parametrize("largest", [1 << 30, 32 << 20], ids=["new", "old glibc"])
def test_a_trainer_on_a_cpu_keeps_what_a_step_frees(calls, tmp_path, monkeypatch, largest):
    def mallopt(which, value):
        calls.append((which, value))
        return which != MMAP or value <= largest

    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    opts = ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path), "DATALOADER.NUM_WORKERS", "0"]
    Trainer(get_config("seg_topformer_t_synthetic", opts))
    sizes = [size for size in (1 << 30, 32 << 20) if size >= largest]
    assert calls == [*((MMAP, size) for size in sizes), (TRIM, (1 << 31) - 1)]
    allocator.keep_freed_memory()  # of a Predictor beside the training
    assert len(calls) == len(sizes) + 1


@pytest.mark.parametrize(
    ("name", "value", "num_calls"),
    [
        ("MALLOC_TRIM_THRESHOLD_", "1000", 0),
        ("GLIBC_TUNABLES", "glibc.rtld.nns=2:glibc.malloc.trim_threshold=1000", 0),
        ("GLIBC_TUNABLES", "glibc.rtld.nns=2", 2),
    ],
)
def test_what_a_user_has_set_stays(calls, monkeypatch, name, value, num_calls):
    monkeypatch.setenv(name, value)
    allocator.keep_freed_memory()
    assert len(calls) == num_calls


def test_malloc_is_left_alone_where_it_is_not_glibcs(calls, monkeypatch):
    refused = []
    library = SimpleNamespace(mallopt=lambda *arguments: refused.append(arguments) or 0)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    allocator.keep_freed_memory()
    assert refused == [(MMAP, 32 << 20)]  # one threshold alone would be worse than none
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    allocator.keep_freed_memory()
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: 1 / 0)
    allocator.keep_freed_memory()
