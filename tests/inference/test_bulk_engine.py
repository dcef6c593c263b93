"""What the engine on Ray asks for, without a Ray that runs."""

import io
import logging
import os
import pickle
from types import SimpleNamespace

import pytest
import torch

from tests.helpers import HAS_RAY
from topformer_d2.errors import InputError

if not HAS_RAY:
    pytest.skip("the extra ray has it", allow_module_level=True)

from topformer_d2.inference.bulk import RayEngine, ray_engine


@pytest.mark.parametrize(
    ("gpus", "keys", "actors"),
    [
        (1, {"gpus_per_actor": 0.25}, 4),
        (3, {"gpus_per_actor": 0.75}, 3),
        (3, {"gpus_per_actor": 2}, 1),
        (2, {"gpus_per_actor": 0.5, "actors": 3}, 3),
        (0, {"cpus_per_actor": 2}, 4),
        (0, {"cpus_per_actor": 99}, 1),
        (0, {"actors": 20}, 20),
    ],
)
def test_actors_of_this_machine(monkeypatch, gpus, keys, actors):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(ray_engine, "_cores", lambda: 8)
    assert RayEngine(**keys)._actors_here() == actors


@pytest.mark.parametrize(
    ("gpus", "keys"),
    [
        (0, {"gpus_per_actor": 0.25}),
        (1, {"gpus_per_actor": 2}),
        (1, {"gpus_per_actor": 0.5, "actors": 3}),
    ],
)
def test_gpus_that_are_not_here_are_told_before_the_work(monkeypatch, gpus, keys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(InputError, match=rf"`gpus_per_actor` is .*{gpus} GPUs"):
        RayEngine(**keys)
    RayEngine(**keys, address="elsewhere:6379")


def cluster(*nodes):
    """Ray of nodes with (CPUs, GPUs) each, and of one that is lost."""
    found = [
        {"Alive": True, "Resources": {"CPU": c, "GPU": g} if g else {"CPU": c}} for c, g in nodes
    ]
    lost = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}
    return SimpleNamespace(nodes=lambda: [*found, lost])


@pytest.mark.parametrize(
    ("nodes", "keys", "actors"),
    [
        ([(4.0, 0), (3.0, 0)], {}, 7),
        ([(4.0, 0), (3.0, 0)], {"cpus_per_actor": 2}, 3),
        ([(4.0, 1.0), (8.0, 0)], {"gpus_per_actor": 0.25}, 4),
        ([(4.0, 1.0)], {"gpus_per_actor": 0.25}, 3),
        ([(8.0, 1.0), (8.0, 1.0)], {"gpus_per_actor": 0.75}, 2),
    ],
)
def test_actors_that_fit_a_cluster(nodes, keys, actors):
    engine = RayEngine(address="elsewhere:6379", **keys)
    assert engine._actors_of_cluster(cluster(*nodes)) == actors
    more = RayEngine(address="elsewhere:6379", actors=actors + 1, **keys)
    with pytest.raises(InputError, match=rf"`actors` is {actors + 1}, and {actors} fit"):
        more._actors_of_cluster(cluster(*nodes))


def test_settings_of_the_process_are_set_back(monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    for name in ("RAY_worker_niceness", "RAY_BACKEND_LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(logging.getLogger("ray"), "level", logging.INFO)
    before = dict(os.environ)
    RayEngine(actors=1)
    assert dict(os.environ) == before
    with ray_engine._settings():
        added = {"RAY_worker_niceness": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
        assert dict(os.environ) == before | added
        assert logging.getLogger("ray").level == logging.CRITICAL
    assert dict(os.environ) == before and logging.getLogger("ray").level == logging.INFO


class Finder(pickle.Unpickler):
    """Notes the modules from which a pickle takes what it names."""

    modules = ()

    def find_class(self, module, name):
        self.modules += (module,)
        return super().find_class(module, name)


def test_the_counting_process_needs_no_part_of_the_package():
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    sent = []

    def remote(**_):
        return lambda kind: SimpleNamespace(remote=lambda: sent.append(cloudpickle.dumps(kind)))

    ray_engine._start_attempts(SimpleNamespace(remote=remote, cloudpickle=cloudpickle))
    finder = Finder(io.BytesIO(sent[0]))
    attempts = finder.load()()
    assert [attempts.begin(("a",)), attempts.begin(("a",)), attempts.begin(("b",))] == [1, 2, 1]
    assert finder.modules and not any(name.startswith("topformer") for name in finder.modules)
    assert not cloudpickle.list_registry_pickle_by_value()
