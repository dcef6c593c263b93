"""The benchmark of bulk prediction counts what it has timed."""

import io
import math
import threading
import time

import pytest

from tests.faults.bulk import descendants

pytest.importorskip("ray.data", reason="the extra ray has it")

from benchmarks import benchmark_bulk


def test_this_process_is_measured():
    with benchmark_bulk.CpuMeter() as meter:
        end = time.process_time() + 0.3
        while time.process_time() < end:
            math.sqrt(2)
    assert 0.25 < meter.seconds() < 3
    own, shared = benchmark_bulk.memory_of(threading.get_native_id())
    assert own > 50 and shared >= 0
    assert isinstance(descendants(1), list)


@pytest.mark.slow
def test_pool_and_ray_do_the_same_work(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark_bulk, "CHUNK", 4)
    found = benchmark_bulk.compare(12, 1, 1, tmp_path).splitlines()
    assert found[0].split()[:3] == ["images", "a", "second"]
    assert [line.split()[0] for line in found[2:]] == ["pool", "ray", "ray"]
    assert all(float(number) > 0 for number in found[-1].split()[3:])


@pytest.mark.slow
def test_memory_is_written_over_time(tmp_path):
    file = io.StringIO()
    told = benchmark_bulk.simulate(600, 1, file, 0.5, tmp_path)
    lines = [line.split(",") for line in file.getvalue().splitlines()]
    assert "inputs=600, done=600, rejected=0" in told and lines[0][1] == "images"
    assert len(lines) > 3 and all(len(line) == 7 for line in lines)
    assert max(int(line[3]) for line in lines[1:]) > 50
