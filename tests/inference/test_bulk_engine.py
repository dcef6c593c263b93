"""What the engine on Ray asks for, without a Ray that runs."""

import contextlib
import io
import logging
import os
import pickle
import signal
import socket
import sys
import threading
from types import SimpleNamespace

import pytest
import torch

from tests.faults.stand_in import StandIn
from tests.helpers import HAS_RAY
from topformer_d2.errors import InputError, show_input_errors

if not HAS_RAY:
    pytest.skip("the extra ray has it", allow_module_level=True)

from topformer_d2.inference.bulk import RayEngine, ray_engine
from topformer_d2.inference.bulk.partitions import Item
from topformer_d2.inference.bulk.ray_start import check_address
from topformer_d2.inference.bulk.work import Work


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


@pytest.mark.parametrize(
    ("address", "variable", "named"),
    [
        ("127.0.0.1:{closed}", None, r"`address` 127\.0\.0\.1:\d+: no Ray answers"),
        ("ray://127.0.0.1:{closed}", None, r"`address` ray://127\.0\.0\.1:\d+: no Ray answers"),
        ("auto", "127.0.0.1:{closed}", r"`address` auto, by RAY_ADDRESS, 127\.0\.0\.1:\d+: no Ray"),
        ("127.0.0.1", None, r"`address` 127\.0\.0\.1: it takes host:port"),
        ("local", None, r"`address` local: it takes host:port"),
        ("127.0.0.1:99999", None, r"`address` 127\.0\.0\.1:99999: no Ray answers"),
    ],
)
def test_an_address_where_nothing_listens_is_told_before_ray_tries(
    monkeypatch, address, variable, named
):
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    if variable:
        monkeypatch.setenv("RAY_ADDRESS", variable.format(closed=closed))
    engine = RayEngine(address=address.format(closed=closed))
    with pytest.raises(InputError, match=named):
        engine._connect(None)  # no Ray is asked


SETTINGS = b"\0\0\x06\x04\0\0\0\0\0" + b"\0\x03\0\0\0\1"  # as a gRPC server begins


@contextlib.contextmanager
def server_that_says(answer):
    """A server on this machine that gives one answer to all; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:  # closed
                    return
                with connection:
                    connection.recv(100)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


def test_a_port_of_something_else_is_told_at_once():
    with server_that_says(SETTINGS) as port:
        check_address(f"127.0.0.1:{port}")
        check_address(f"ray://127.0.0.1:{port}")
    for answer in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", SETTINGS[:5]):
        with (
            server_that_says(answer) as port,
            pytest.raises(InputError, match=rf"{port}: something else than Ray"),
        ):
            check_address(f"127.0.0.1:{port}")


def no_ray(init):
    return SimpleNamespace(is_initialized=lambda: False, init=init, shutdown=lambda: None)


@pytest.mark.parametrize("status", [int(signal.SIGTERM), 1])
def test_sigterm_while_ray_starts_is_the_commands_own(status):
    def init(**_):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(status))  # as Ray does
        signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    started = RayEngine(actors=1)._started(no_ray(init))
    with pytest.raises(SystemExit) as stop, show_input_errors(), started:
        pass
    assert stop.value.code == 143 and signal.getsignal(signal.SIGTERM) == before


def test_of_what_ray_writes_at_its_start_one_line_is_hidden(capfd):
    def init(**_):
        os.write(2, b"[I 1 1] logging.cc:303: Set ray log level from environment variable X\n")
        os.write(2, b"a reason\n")
        raise OSError("no Ray")

    with pytest.raises(InputError, match="no Ray"), RayEngine(actors=1)._started(no_ray(init)):
        pass
    os.write(2, b"after it\n")
    assert capfd.readouterr().err == "a reason\nafter it\n"


@pytest.mark.parametrize("address", [None, "127.0.0.1:{open}"])
def test_what_ray_raises_at_its_start_is_told_and_nothing_is_left(monkeypatch, tmp_path, address):
    def init(**_):
        raise Exception("The current node timed out during startup")

    made = []
    monkeypatch.setattr(ray_engine.tempfile, "mkdtemp", lambda **_: made.append(1) or str(tmp_path))
    with server_that_says(SETTINGS) as port:
        place = address and address.format(open=port)
        engine = RayEngine(actors=7, address=place)
        named = "for 7 actors: .*timed out.*`actors`"
        if address:
            named = "`address` .*timed out.*RAY_AUTH_MODE=token"
            monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
        with pytest.raises(InputError, match=named), engine._started(no_ray(init)):
            pass
    assert len(made) == (address is None) and tmp_path.exists() == (address is not None)


@pytest.mark.parametrize("gpus", [-1, 1.5, float("nan")])
def test_parts_of_gpus_that_are_none(gpus):
    with pytest.raises(InputError, match="`gpus_per_actor` is"):
        RayEngine(gpus_per_actor=gpus)


@pytest.mark.parametrize(("images", "used"), [(70, 2), (64, 1)])
def test_there_are_no_more_actors_than_pieces(monkeypatch, images, used):
    sizes, reads = [], []
    data = ray_engine._import_ray().data

    class Dataset:
        def map_batches(self, *_, compute, fn_kwargs=None, **__):
            reads.append(fn_kwargs)
            sizes.append(getattr(compute, "min_size", None))
            return self

        def iter_batches(self, **_):
            return []

    monkeypatch.setattr(data, "from_arrow", lambda _: Dataset())
    monkeypatch.setattr(ray_engine, "_start_attempts", lambda _: None)
    items = [Item(0, i, f"{i}.png", str(i), i) for i in range(images)]
    work = Work(StandIn(), "png", 100, ["a.png"])
    list(RayEngine(actors=4)._results(ray_engine._import_ray(), [items], work, 4))
    assert sizes == [None, used]
    assert (reads[0]["max_pixels"], reads[0]["others"]) == (100, ["a.png"])


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
