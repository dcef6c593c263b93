"""The benchmark of bulk prediction counts what it has timed."""

import io
import math
import os
import subprocess
import sys
import time

import pytest

from tests.faults.processes import descendants
from tests.helpers import HAS_RAY

if not HAS_RAY:
    pytest.skip("the extra ray has it", allow_module_level=True)

from benchmarks import benchmark_bulk, process_meters


def test_this_process_is_measured(tmp_path):
    with process_meters.CpuMeter() as meter:
        end = time.process_time() + 0.3
        while time.process_time() < end:
            math.sqrt(2)
    assert 0.25 < meter.seconds()["driver"] < 3
    assert process_meters.memory_of(os.getpid()) > 50
    with open(tmp_path / "plasma", "wb") as file:
        file.write(bytes(3 << 20))
        file.flush()
        (tmp_path / "plasma").unlink()
        assert 2 <= process_meters.store_of(os.getpid()) <= 4


def test_processes_of_processes_are_found():
    command = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    child = subprocess.Popen([sys.executable, "-c", command], stdin=subprocess.PIPE)
    end = time.monotonic() + 120
    while len(descendants(child.pid)) < 1 and time.monotonic() < end:
        time.sleep(0.05)
    found = descendants(child.pid)
    child.communicate(b"\n")
    assert len(found) == 1 and "input()" in found[0][1] and descendants(child.pid) == []


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_pool_and_ray_do_the_same_work(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark_bulk, "CHUNK", 4)
    found = benchmark_bulk.compare(12, 1, 1, tmp_path).splitlines()
    assert found[0].split()[:3] == ["images", "a", "second"]
    assert [line.split()[0] for line in found[2:5]] == ["pool", "ray", "ray"]
    assert all(float(number) > 0 for number in found[4].split()[3:])
    head, pool, ray = (line.split()[-6:] for line in (found[6], found[8], found[9]))
    assert head == ["driver", "actors", "readers", "pool", "ray", "all"]
    assert float(pool[3]) > 1 and float(ray[1]) > 1 and pool[1] == ray[3] == "0.00"


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_memory_is_written_over_time(tmp_path):
    file = io.StringIO()
    told = benchmark_bulk.simulate(600, 1, file, 0.5, tmp_path)
    lines = [line.split(",") for line in file.getvalue().splitlines()]
    assert "inputs=600, done=600, rejected=0" in told and lines[0][1] == "images"
    assert len(lines) > 3 and all(len(line) == 6 for line in lines)
    assert max(int(line[3]) for line in lines[1:]) > 50
