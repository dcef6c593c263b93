"""Bulk prediction on a real Ray: equal files, and faults that lose and double nothing."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.helpers import HAS_RAY, REPOSITORY, photo, start_topformer

if not HAS_RAY:
    pytest.skip("the extra ray has it", allow_module_level=True)
# In one process: two Rays at once would take each other's time.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]
SECONDS = 900  # of a run, on a machine that does much else


@pytest.fixture(scope="module")
def cluster():
    """Two nodes on this machine."""
    from tests.faults.bulk import Cluster

    found = Cluster()
    yield found
    found.shutdown()


@pytest.fixture(scope="module")
def fault_names():
    from tests.faults.bulk import FAULTS

    return list(FAULTS)


@pytest.mark.parametrize("number", range(8))
def test_a_fault_loses_and_doubles_nothing(cluster, fault_names, tmp_path, number):
    from tests.faults.bulk import Row, try_fault

    row = Row()
    try_fault(fault_names[number], cluster, tmp_path, number, row)
    assert row.injected > 0 and (row.tries, row.whole, row.lost, row.doubled) == (1, 1, 0, 0)
    assert len(fault_names) == 8


def test_the_command_is_killed_and_run_again_and_its_files_are_equal(tmp_path):
    for i in range(48):
        photo(tmp_path / f"in{i:03d}.png", 64, 96, i)
    (tmp_path / "in005.png").write_bytes(b"no image")
    words = ["predict", "--model", "camvid_t", "--input", str(tmp_path / "in*.png")]
    single = start_topformer(
        *(*words, "--output", tmp_path / "single", "--no-overlays", "--threads", 1),
        timeout=SECONDS,
    )
    assert single.returncode == 1 and "47 of 48 images done" in single.stdout, single.stderr
    out = tmp_path / "out"
    on_ray = [*words, "--output", out, "--engine", "ray", "--actors", 1, "--partition-size", 6]
    process = subprocess.Popen(
        [sys.executable, "-m", "topformer_d2", *map(str, on_ray)],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    end = time.monotonic() + SECONDS
    while not any(out.glob("part-*")) and time.monotonic() < end and process.poll() is None:
        time.sleep(0.01)
    assert process.poll() is None, process.stderr.read()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()
    before = len(list(out.glob("part-*/record.json")))
    assert before > 0
    is_rejected = (out / "part-000000").exists()  # the broken image is there
    again = start_topformer(*on_ray, timeout=SECONDS)
    assert again.returncode == 1 and "47 of 48 images done" in again.stdout, again.stderr
    assert not re.search(r"Traceback|\.cc:|UserWarning", again.stderr), again.stderr
    assert f"{6 * before - is_rejected} of them" in again.stdout
    expected = {path.name: path.read_bytes() for path in (tmp_path / "single").iterdir()}
    found = {path.name: path.read_bytes() for path in out.glob("part-*/labels/*")}
    assert found == expected and len(found) == 47
    assert (out / "rejects.jsonl").read_text().count("in005.png") == 2  # its path, and the reason
    assert sorted(path.name for path in out.iterdir() if path.is_file()) == [
        *("manifest.json", "rejects.jsonl"),
    ]


def test_files_by_uri(tmp_path):
    from tests.faults.stand_in import StandIn, contents, write_inputs
    from topformer_d2.inference.bulk import RayEngine, list_inputs, predict_in_bulk

    write_inputs(tmp_path / "in", 9, corrupt=1)
    keys = {"identity": {}, "partition_size": 4}
    predict_in_bulk(StandIn(), list_inputs(tmp_path / "in"), tmp_path / "one", **keys)
    uris = list_inputs((tmp_path / "in").as_uri())
    assert len(uris) == 9 and uris[0].startswith("file://")
    engine = RayEngine(actors=1, store_bytes=100 << 20)
    result = predict_in_bulk(StandIn(), uris, tmp_path / "out", engine=engine, **keys)
    assert (result.done, result.rejected) == (8, 1)
    one, two = (
        {
            name: content
            for name, content in contents(tmp_path / folder).items()
            if not name.endswith(("record.json", "rejects.jsonl"))  # which name the paths
        }
        for folder in ("one", "out")
    )
    assert one == two and len(one) == 8 + 3  # and the boxes of three partitions
