"""The engine on Ray Data: images are read in tasks and predicted in a pool of actors."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from ...errors import InputError, import_optional
from ...files import told
from . import attempts as attempts_module
from .partitions import Item
from .ray_start import check_address, hiding_log_level, own_sigterm
from .ray_steps import PredictingActor, read_block, results_of
from .tables import INSTALL, items_table
from .work import BLOCK_BYTES, Results, Work

# Images that are given to an actor at a time, at most: more would leave actors without work at the
# end, and fewer take more calls.
_PIECE = 64
# Pieces that an actor has, of which it works on one.
_PIECES_IN_FLIGHT = 2
# Images in a call of an actor on a GPU; without one, a block as it was read.
_GPU_IMAGES = 32
# Blocks that fit into the object store of a Ray of our own, for each reader and actor.
_BLOCKS = 4
_SMALLEST_STORE = 128 << 20
# Actors that may die one after the other before one of them has begun to work.
_DEATHS = 5
# Of a process that has a Ray, unless they are set: no usage statistics, no log on the terminal (it
# would have an error about each actor of Ray Data, which is none), and workers of the priority of
# any command, where Ray's would wait for other programs.
_VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_worker_niceness": "0",
}
_LOGGERS = ("ray", "ray.data")
# Ray itself sends the token to no address that is named, and does not say that it is missing.
_ON_TOKENS = ". Where the cluster asks for a token (~/.ray/auth_token), set RAY_AUTH_MODE=token"


class RayEngine:
    """Runs the work on Ray: a cluster, or a Ray of its own on this machine that ends with the work.

    Where a Ray has been started in this process already, it is used. Ray Data joins the two steps
    where both take the same CPUs: an actor without a GPU reads its images itself.
    """

    def __init__(
        self,
        *,
        actors: int | None = None,
        address: str | None = None,
        cpus_per_actor: int = 1,
        gpus_per_actor: float = 0,
        store_bytes: int | None = None,
    ):
        """
        Args:
            actors: processes that predict, each with a model; None = as many as fit.
            address: of a cluster, as ray.init takes it; None = a Ray of its own.
            cpus_per_actor: the cores that an actor takes: one for each of its threads.
            gpus_per_actor: such as 0.25, for four on a GPU; 0 = the CPU.
            store_bytes: of the object store of a Ray of its own; None = by the number of actors.

        Raises:
            InputError: a number is out of its range, this machine has not the GPUs, or Ray is not
                installed.
        """
        for name, number in (("actors", actors), ("cpus_per_actor", cpus_per_actor)):
            if number is not None and number < 1:
                raise InputError(f"`{name}` is {number}; it takes 1 or more")
        if not gpus_per_actor >= 0 or (gpus_per_actor > 1 and gpus_per_actor % 1):  # also a NaN
            raise InputError(
                f"`gpus_per_actor` is {gpus_per_actor}; it takes 0 to 1, or whole GPUs"
            )
        self._actors = actors
        self._address = address
        self._cpus = cpus_per_actor
        self._gpus = gpus_per_actor
        self._store_bytes = store_bytes
        if not (_import_ray().is_initialized() or address):
            self._actors_here()

    def __call__(self, partitions: Iterable[Sequence[Item]], work: Work) -> Results:
        """The results, in any order, as they are done.

        Raises:
            InputError: the cluster or this machine is not there or too small, or Ray gave up.
        """
        ray = _import_ray()
        with _settings(), self._started(ray) as actors, _naming_errors(ray):
            yield from self._results(ray, partitions, work, actors)

    def _results(
        self, ray: Any, partitions: Iterable[Sequence[Item]], work: Work, actors: int
    ) -> Results:
        counting = _start_attempts(ray)
        context = ray.data.DataContext.get_current().copy()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.target_max_block_size = BLOCK_BYTES
        context.max_consecutive_actor_init_deaths = _DEATHS
        pieces = [
            items_table(items[i : i + _PIECE])
            for items in partitions
            for i in range(0, len(items), _PIECE)
        ]
        with ray.data.DataContext.current(context):
            dataset = ray.data.from_arrow(pieces)
            _quiet()
            dataset = dataset.map_batches(
                read_block,
                fn_kwargs={
                    "max_pixels": work.max_pixels,
                    "others": list(work.others),
                    "counting": counting,
                },
                batch_size=None,
                batch_format="pyarrow",
                compute=ray.data.TaskPoolStrategy(),
                # The CPUs of an actor, so that Ray Data joins both. With a GPU it does not.
                num_cpus=1 if self._gpus else self._cpus,
            )
            dataset = dataset.map_batches(
                PredictingActor,
                fn_constructor_args=[pickle.dumps(work), counting],
                batch_size=_GPU_IMAGES if self._gpus else None,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(
                    size=min(actors, len(pieces)),  # more would have nothing to do
                    max_tasks_in_flight_per_actor=_PIECES_IN_FLIGHT,
                ),
                num_cpus=self._cpus,
                num_gpus=self._gpus or None,
            )
            tables = dataset.iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=1
            )
            yield from map(results_of, tables)

    @contextlib.contextmanager
    def _started(self, ray: Any) -> Iterator[int]:
        """Within it Ray runs; the number of actors."""
        if ray.is_initialized():
            yield self._actors_of_cluster(ray)
            return
        actors = None if self._address else self._actors_here()
        folder = None
        try:
            with own_sigterm(), hiding_log_level():
                if actors is None:
                    self._connect(ray)
                else:
                    short = "/tmp" if os.path.isdir("/tmp") else None  # sockets' names have a limit
                    folder = tempfile.mkdtemp(prefix="ray", dir=short)
                    self._start(ray, folder, actors)
            yield actors or self._actors_of_cluster(ray)
        finally:
            ray.shutdown()
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def _start(self, ray: Any, folder: str, actors: int) -> None:
        cpus = actors * self._cpus
        readers = max(1, _cores() - cpus) if self._gpus else 0
        store = max(_SMALLEST_STORE, (actors + readers) * _BLOCKS * BLOCK_BYTES)
        try:
            ray.init(
                address="local",
                num_cpus=cpus + readers,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                object_store_memory=self._store_bytes or store,
                _temp_dir=folder,
            )
        except Exception as e:  # of no class in particular, as on a machine that is too busy
            raise InputError(
                f"Ray cannot be started here for {actors} actors: {told(e)}. Name fewer `actors`, "
                "or run the same command again when the machine has less to do"
            ) from e

    def _connect(self, ray: Any) -> None:
        check_address(self._address or "")
        try:
            ray.init(address=self._address, log_to_driver=False, logging_level=logging.CRITICAL)
        except Exception as e:  # of no class in particular
            token = "" if "RAY_AUTH_MODE" in os.environ else _ON_TOKENS
            raise InputError(
                f"`address` {self._address}: no Ray answers there: {told(e)}{token}"
            ) from e

    def _actors_here(self) -> int:
        """How many there are on a Ray of this machine: on a CPU also more than it has cores."""
        if not self._gpus:
            return self._actors or max(1, _cores() // self._cpus)
        gpus = torch.cuda.device_count()
        most = self._fitting_gpus(gpus)
        if (self._actors or 1) > most:
            raise InputError(
                f"`gpus_per_actor` is {self._gpus:g}, and PyTorch finds {gpus} GPUs here, "
                f"for {most} actors: name fewer `actors`, the `address` of a cluster, or no GPUs"
            )
        return self._actors or most

    def _actors_of_cluster(self, ray: Any) -> int:
        """How many fit, so that readers have a CPU where they are others."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cpus, gpus = (sum(int(node.get(name, 0)) for node in nodes) for name in ("CPU", "GPU"))
        most = sum(int(node.get("CPU", 0)) // self._cpus for node in nodes)
        if self._gpus:
            fitting = sum(self._fitting_gpus(int(node.get("GPU", 0))) for node in nodes)
            most = min(fitting, (cpus - 1) // self._cpus)
        if (self._actors or 1) > most:
            reader = ", and reading takes a CPU" if self._gpus else ""
            raise InputError(
                f"`actors` is {self._actors or 'not given'}, and {most} fit: there are {cpus} CPUs "
                f"and {gpus} GPUs, and an actor takes {self._cpus} and {self._gpus:g}{reader}"
            )
        return self._actors or most

    def _fitting_gpus(self, gpus: int) -> int:
        """Actors on so many GPUs of a machine; one has parts of a single GPU, or whole ones."""
        if self._gpus < 1:
            return gpus * int(1 / self._gpus)
        return gpus // int(self._gpus)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _import_ray() -> Any:
    """Ray with ray.data."""
    ray = import_optional("ray", "the engine ray", INSTALL)
    import_optional("ray.data", "the engine ray", INSTALL)
    return ray


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    """What a Ray of this process needs: variables and levels of loggers, set back at the end."""
    missing = [name for name in _VARIABLES if name not in os.environ]
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    os.environ.update({name: _VARIABLES[name] for name in missing})
    _quiet()
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _quiet() -> None:
    """No log on the terminal, as errors are raised; ray.data sets its logger up with a dataset."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _start_attempts(ray: Any) -> Any:
    """An actor of Attempts. Its class is sent whole, as its process needs no PyTorch."""
    ray.cloudpickle.register_pickle_by_value(attempts_module)
    try:
        kind = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
        return kind(attempts_module.Attempts).remote()
    finally:
        ray.cloudpickle.unregister_pickle_by_value(attempts_module)


@contextlib.contextmanager
def _naming_errors(ray: Any) -> Iterator[None]:
    """Say in an InputError why Ray gave up, as where no node is left."""
    try:
        yield
    except ray.exceptions.RayTaskError:
        raise  # a mistake of this package
    except ray.exceptions.RayError as e:
        told = str(e).strip().splitlines() or [type(e).__name__]
        raise InputError(
            f"Ray ended the run: {type(e).__name__}: {told[0][:500]}. Run the same command again; "
            "it does what is missing"
        ) from e
