"""What torchrun and srun tell a process, and how it joins the others."""

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from detectron2.utils import comm
from torch import distributed

from tests.helpers import REPOSITORY
from topformer_d2.engine import launched as launching
from topformer_d2.engine.failures import LostProcessError
from topformer_d2.engine.launched import Launched, joined, read_environment
from topformer_d2.errors import InputError

TORCHRUN = {
    **{"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"},
    **{"GROUP_RANK": "1", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"},
    **{"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "2"},
}
SRUN = {
    **{"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8", "SLURM_NODEID": "1"},
    **{"SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0"},
    **{"MASTER_ADDR": "node1", "MASTER_PORT": "29500"},
}


def test_torchrun():
    found = read_environment(TORCHRUN)
    assert found == Launched(
        *("torchrun", 5, 8, 1, 1), run="", starter=found.starter, restarts=2, local_size=4
    )
    assert found.starter == read_environment(TORCHRUN).starter != ""
    assert read_environment({**TORCHRUN, "TORCHELASTIC_RUN_ID": "job7"}).run == "job7"


@pytest.mark.parametrize(
    ("store", "restarts", "of_machine", "keeps", "may_miss"),
    [
        ("True", "3", "4", True, True),
        ("True", "3", "8", True, False),
        ("False", "3", "4", False, False),
        ("True", "0", "4", False, False),
    ],
)
def test_torchruns_store_may_have_the_addresses_of_former_processes(
    store, restarts, of_machine, keeps, may_miss
):
    environ = {"TORCHELASTIC_USE_AGENT_STORE": store, "TORCHELASTIC_MAX_RESTARTS": restarts}
    found = read_environment({**TORCHRUN, **environ, "LOCAL_WORLD_SIZE": of_machine})
    assert (found.keeps_addresses, found.may_miss) == (keeps, may_miss)


@pytest.mark.slow
def test_processes_of_one_machine_meet_again_after_a_restart(tmp_path):
    """torchrun gives them the addresses of the former ones (PyTorch's issue 135712)."""
    script = tmp_path / "fails_once.py"
    script.write_text(
        "import sys\n"
        "from topformer_d2.engine.launched import joined, read_environment\n"
        "launched = read_environment()\n"
        "with joined(launched, 'cpu', 60.0):\n"
        "    print('met', launched.restarts, launched.rank)\n"
        "    if not launched.restarts:\n"
        "        sys.exit(1)\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--standalone", "--max-restarts", "1", str(script)]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    environ.pop("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", None)
    result = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert re.findall("met 1 [01]", result.stdout) != []


def test_a_launcher_that_is_like_torchrun():
    own = {name: TORCHRUN[name] for name in [*list(TORCHRUN)[:4], "MASTER_ADDR", "MASTER_PORT"]}
    # By its machine's first rank.
    assert read_environment(own) == Launched("torchrun", 5, 8, 1, 4, local_size=4)


def test_a_launcher_that_does_not_count_a_machines_processes():
    own = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}
    own |= {"MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
    assert read_environment(own) == Launched("torchrun", 1, 2, 1, 0)


def test_srun():
    assert read_environment(SRUN) == Launched("srun", 5, 8, 1, 1, run="77.0")


def test_a_job_that_slurm_has_requeued():
    assert read_environment({**SRUN, "SLURM_RESTART_COUNT": "2"}).restarts == 2
    with pytest.raises(InputError, match="SLURM_RESTART_COUNT is 'x'"):
        read_environment({**SRUN, "SLURM_RESTART_COUNT": "x"})


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WORLD_SIZE": "1"},
        {"WORLD_SIZE": "0", "RANK": ""},
        {"RANK": "0", "WORLD_SIZE": "1"},
        {"LOCAL_RANK": "0"},
        # The shell of an allocation, and a step of one task in a job of eight.
        {**SRUN, "SLURM_STEP_ID": "4294967290"},
        {**SRUN, "SLURM_STEP_NUM_TASKS": "1"},
        {**SRUN, "SLURM_NTASKS": "1"},
        # A batch script, in which `topformer train --num-gpus 8` starts processes itself.
        {name: value for name, value in SRUN.items() if name != "SLURM_STEP_ID"},
    ],
)
def test_a_process_that_was_started_alone(environ):
    assert read_environment(environ) is None


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "WORLD_SIZE"])
@pytest.mark.parametrize("given", [None, " "])
def test_half_of_torchruns_variables(name, given):
    environ = {**TORCHRUN, name: given} if given else {**TORCHRUN}
    if not given:
        del environ[name]
    with pytest.raises(InputError, match=rf"without {name}, of which torchrun sets all"):
        read_environment(environ)


@pytest.mark.parametrize("name", ["SLURM_PROCID", "SLURM_LOCALID"])
def test_half_of_sruns_variables(name):
    environ = {key: value for key, value in SRUN.items() if key != name}
    with pytest.raises(InputError, match=rf"without {name}, of which srun sets all"):
        read_environment(environ)


@pytest.mark.parametrize("source", [TORCHRUN, SRUN], ids=["torchrun", "srun"])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"MASTER_ADDR": ""}, "lacks MASTER_ADDR:"),
        ({"MASTER_ADDR": "", "MASTER_PORT": ""}, "lacks MASTER_ADDR and MASTER_PORT:"),
        ({"MASTER_PORT": "0"}, "MASTER_PORT is 0; it takes 1 to 65535"),
        ({"MASTER_PORT": "65536"}, "MASTER_PORT is 65536"),
        ({"MASTER_PORT": "one"}, "MASTER_PORT is 'one'"),
    ],
)
def test_where_processes_meet(source, change, named):
    with pytest.raises(InputError, match=named):
        read_environment({**source, **change})


@pytest.mark.parametrize(
    ("source", "change", "named"),
    [
        (TORCHRUN, {"RANK": "8"}, "RANK=8, which does not fit its WORLD_SIZE"),
        (TORCHRUN, {"RANK": "-1"}, "RANK is '-1'"),
        (TORCHRUN, {"LOCAL_RANK": "4"}, "LOCAL_RANK=4, .* its LOCAL_WORLD_SIZE"),
        (TORCHRUN, {"LOCAL_WORLD_SIZE": "9"}, "LOCAL_WORLD_SIZE=9, .* its WORLD_SIZE"),
        (TORCHRUN, {"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        (TORCHRUN, {"GROUP_RANK": "x"}, "GROUP_RANK is 'x'"),
        (SRUN, {"SLURM_PROCID": "8"}, "SLURM_PROCID=8, .* its SLURM_NTASKS"),
        (SRUN, {"SLURM_LOCALID": "9"}, "SLURM_LOCALID=9"),
    ],
)
def test_values_that_cannot_be(source, change, named):
    with pytest.raises(InputError, match=named):
        read_environment({**source, **change})


def test_a_single_process_has_nobody_to_join(monkeypatch):
    monkeypatch.setattr(distributed, "init_process_group", None)
    with joined(Launched("torchrun", 0, 1, 0, 0), "cpu", 5):
        assert comm.get_world_size() == 1


@pytest.fixture
def meeting(monkeypatch):
    """Processes of machines 7, 3, 7 and 3; what this one has asked torch.distributed for."""
    asked = []

    def new_group(ranks=None, timeout=None, **_):
        asked.append((ranks, timeout.total_seconds()))
        return tuple(ranks or ())

    def gather(found, _own, group):
        found[:] = [7, 3, 7, 3]

    monkeypatch.setattr(distributed, "init_process_group", lambda *a, **k: asked.append((*a, k)))
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: asked.append("left"))
    monkeypatch.setattr(distributed, "get_backend", lambda: asked[0][0])
    monkeypatch.setattr(distributed, "new_group", new_group)
    monkeypatch.setattr(distributed, "all_gather_object", gather)
    monkeypatch.setattr(comm, "_LOCAL_PROCESS_GROUP", None)
    monkeypatch.setattr(comm, "synchronize", lambda: asked.append("waited"))
    return asked


def test_processes_of_a_machine_are_a_group(meeting):
    with joined(Launched("torchrun", 2, 4, 1, 7), "cpu", 90):
        assert comm._LOCAL_PROCESS_GROUP == (0, 2)
    backend, how = meeting[0]
    assert (backend, how["rank"], how["world_size"]) == ("gloo", 2, 4)
    assert how["timeout"].total_seconds() == 90
    # All processes make all groups, in one order.
    assert meeting[1:] == [([1, 3], 90.0), ([0, 2], 90.0), "waited", "waited", "left"]
    assert comm._LOCAL_PROCESS_GROUP is None


def test_each_start_of_one_machine_has_addresses_of_its_own(meeting, monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "node1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    stores = []
    monkeypatch.setattr(distributed, "TCPStore", lambda *a, **k: stores.append((*a, k)) or "all")
    monkeypatch.setattr(distributed, "PrefixStore", lambda *a: a)
    again = Launched("torchrun", 1, 2, 1, 0, restarts=3, local_size=2, keeps_addresses=True)
    with joined(again, "cpu", 90):
        assert meeting[0][1]["store"] == ("start 3", "all")
    host, port, how = stores[0]
    assert (host, port, how["is_master"], how["timeout"].total_seconds()) == ("node1", 29500, 0, 90)


def test_on_gpus_objects_have_the_time_out_too(meeting, monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    before = comm._get_global_gloo_group
    with joined(Launched("torchrun", 1, 4, 5, 3), "cuda", 90):
        assert comm._get_global_gloo_group() == ()
    assert (chosen, meeting[0][0], meeting[1]) == ([5], "nccl", (None, 90.0))
    assert comm._get_global_gloo_group is before


@pytest.mark.parametrize(("gpus", "local_rank"), [(0, 0), (1, 1), (4, 4)])
def test_a_process_without_a_gpu(monkeypatch, gpus, local_rank):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.delenv("SLURM_GPUS_PER_TASK", raising=False)
    monkeypatch.delenv("SLURM_STEP_GPUS", raising=False)
    with pytest.raises(InputError, match=rf"finds {gpus} here: .* MODEL\.DEVICE cpu"):
        launching._gpu(Launched("srun", 9, 16, local_rank, 0))


def test_slurm_may_show_a_process_one_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("SLURM_GPUS_PER_TASK", "1")
    assert launching._gpu(Launched("srun", 3, 8, 3, 0)) == 0
    # torchrun in a step of Slurm: its processes see the same GPU.
    with pytest.raises(InputError, match=r"process 1 of this machine .* finds 1 here"):
        launching._gpu(Launched("torchrun", 1, 2, 1, 0))


def test_others_that_cannot_be_met(monkeypatch):
    def fail(*_, **__):
        raise distributed.DistNetworkError("the client has timed out\nC++ stack")

    monkeypatch.setattr(distributed, "init_process_group", fail)
    monkeypatch.setenv("MASTER_ADDR", "node1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    with (
        pytest.raises(LostProcessError, match=r"^process 1 of 2 .* at node1:29500: .* timed out$"),
        joined(Launched("torchrun", 1, 2, 1, 0), "cpu", 5),
    ):
        pass


@pytest.mark.parametrize("parents", [[7, 7, 1], [7, 1]])
def test_a_process_ends_after_its_launcher(monkeypatch, parents):
    ended, asked = [], iter([7, *parents])
    monkeypatch.setattr(launching.os, "getppid", lambda: next(asked))
    monkeypatch.setattr(launching.os, "_exit", ended.append)
    monkeypatch.setattr(launching.time, "sleep", lambda _: None)
    monkeypatch.setattr(
        launching.threading,
        "Thread",
        lambda target, daemon: SimpleNamespace(start=target),
    )
    launching.end_with_launcher()
    assert ended == [1] and next(asked, None) is None
