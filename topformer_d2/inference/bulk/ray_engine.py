"""The engine on Ray Data: images are read in tasks and predicted in a pool of actors."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from ...errors import InputError, import_optional
from ..batches import FilePrediction
from .attempts import Attempts, predict_counted, read_counted
from .partitions import Item
from .tables import INSTALL, images_table, items_of, items_table, read_of, results_table, rows_of
from .work import BLOCK_BYTES, Result, Results, Work, read_items

# Readers for an actor: reading an image takes about a third of the time of the smallest network.
_READERS = 1 / 3
# Images in a call of an actor on a GPU; without one, a block as it was read.
_GPU_IMAGES = 32
# Blocks that fit into the object store of a Ray of our own, for each reader and actor.
_BLOCKS = 4
_SMALLEST_STORE = 128 << 20
# The partition of a row that is an error, which ends the run; Ray adds words to one that is raised.
_NO_PARTITION = -1
# Actors that may die one after the other before one of them has begun to work.
_DEATHS = 5


class RayEngine:
    """Runs the work on Ray: a cluster, or a Ray of its own on this machine that ends with the work.

    Where a Ray has been started in this process already, it is used.
    """

    def __init__(
        self,
        *,
        actors: int | None = None,
        address: str | None = None,
        gpus_per_actor: float = 0,
        store_bytes: int | None = None,
    ):
        """
        Args:
            actors: processes that predict, each with a model; None = one for each core here, and in
                a cluster as many as leave a quarter of its CPUs to the readers.
            address: of a cluster, as ray.init takes it; None = a Ray of its own.
            gpus_per_actor: such as 0.25, for four on a GPU; 0 = the CPU, a core each.
            store_bytes: of the object store of a Ray of its own; None = by the number of actors.

        Raises:
            InputError: a number is out of its range, or Ray is not installed.
        """
        if actors is not None and actors < 1:
            raise InputError(f"`actors` is {actors}; it takes 1 or more")
        if gpus_per_actor < 0 or (gpus_per_actor > 1 and gpus_per_actor % 1):
            raise InputError(
                f"`gpus_per_actor` is {gpus_per_actor}; it takes 0 to 1, or whole GPUs"
            )
        self._actors = actors
        self._address = address
        self._gpus = gpus_per_actor
        self._store_bytes = store_bytes
        _import_ray()

    def __call__(self, partitions: Iterable[Sequence[Item]], work: Work) -> Results:
        """The results, in any order, as they are done.

        Raises:
            InputError: the cluster is not there or too small, or Ray gave up.
        """
        ray = _import_ray()
        with self._started(ray) as actors, _naming_errors(ray):
            yield from self._results(ray, partitions, work, actors)

    def _results(
        self, ray: Any, partitions: Iterable[Sequence[Item]], work: Work, actors: int
    ) -> Results:
        counting = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Attempts).remote()
        context = ray.data.DataContext.get_current().copy()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.target_max_block_size = BLOCK_BYTES
        context.max_consecutive_actor_init_deaths = _DEATHS
        with ray.data.DataContext.current(context):
            dataset = ray.data.from_arrow([items_table(items) for items in partitions])
            _quiet()
            dataset = dataset.map_batches(
                _read_block,
                fn_kwargs={"max_pixels": work.max_pixels, "counting": counting},
                batch_size=None,
                batch_format="pyarrow",
                # With as many as there are actors, Ray would read in the actors.
                compute=ray.data.TaskPoolStrategy(size=actors + 1),
                num_cpus=1,
            )
            dataset = dataset.map_batches(
                _Actor,
                fn_constructor_args=[pickle.dumps(work), counting],
                batch_size=_GPU_IMAGES if self._gpus else None,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=actors),
                num_cpus=1,
                num_gpus=self._gpus or None,
            )
            tables = dataset.iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=1
            )
            for table in tables:
                results = [Result(**row) for row in table.to_pylist()]
                for result in results:
                    if result.partition == _NO_PARTITION:
                        raise pickle.loads(result.label)
                yield results

    @contextlib.contextmanager
    def _started(self, ray: Any) -> Iterator[int]:
        """Within it Ray runs; the number of actors."""
        if ray.is_initialized():
            yield self._actors_of_cluster(ray)
            return
        before = signal.getsignal(signal.SIGTERM)
        folder = None
        try:
            if self._address is not None:
                self._connect(ray)
            else:
                short = "/tmp" if os.path.isdir("/tmp") else None  # names of sockets have a limit
                folder = tempfile.mkdtemp(prefix="ray", dir=short)
                self._start(ray, folder)
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)  # Ray has put its own in its place
            yield self._actors_of_cluster(ray) if self._address else self._local_actors()
        finally:
            ray.shutdown()
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def _local_actors(self) -> int:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return self._actors or cores or 1

    def _start(self, ray: Any, folder: str) -> None:
        actors = self._local_actors()
        readers = max(1, round(actors * _READERS))
        store = max(_SMALLEST_STORE, (actors + readers) * _BLOCKS * BLOCK_BYTES)
        ray.init(
            address="local",
            num_cpus=actors + readers,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            object_store_memory=self._store_bytes or store,
            _temp_dir=folder,
        )

    def _connect(self, ray: Any) -> None:
        try:
            ray.init(address=self._address, log_to_driver=False, logging_level=logging.CRITICAL)
        except (OSError, RuntimeError, ValueError) as e:
            raise InputError(f"`address` {self._address}: no Ray answers there: {e}") from e

    def _actors_of_cluster(self, ray: Any) -> int:
        """How many fit, so that readers have a CPU."""
        there = ray.cluster_resources()
        cpus, gpus = int(there.get("CPU", 0)), there.get("GPU", 0)
        most = cpus - 1
        if self._gpus:
            most = min(most, int(gpus / self._gpus))
        has = f"the cluster has {cpus} CPUs and {gpus:g} GPUs"
        if most < 1:
            needs = f"an actor takes a CPU and {self._gpus:g} GPUs, and a reader a CPU"
            raise InputError(f"{has}: {needs}")
        if self._actors is not None and self._actors > most:
            raise InputError(
                f"`actors` is {self._actors}, and {has}: at most {most} leave a reader"
            )
        fitting = most if self._gpus else min(most, max(1, cpus * 3 // 4))
        return self._actors or fitting


def _import_ray() -> Any:
    """Ray with ray.data, which say nothing of themselves and send nothing."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # Of a Ray of our own: as for any command, where Ray would have workers wait for other programs.
    os.environ.setdefault("RAY_worker_niceness", "0")
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    ray = import_optional("ray", "the engine ray", INSTALL)
    import_optional("ray.data", "the engine ray", INSTALL)
    return ray


def _quiet() -> None:
    """Nothing on the terminal, as errors are raised; ray.data sets its logger up with a dataset."""
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


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


class _Remote:
    """The Attempts of another process."""

    def __init__(self, handle: Any):
        self._handle = handle
        self._ray = import_optional("ray", "the engine ray", INSTALL)

    def begin(self, key: tuple) -> int:
        return self._ray.get(self._handle.begin.remote(key))

    def end(self, key: tuple) -> None:
        self._handle.end.remote(key)


def _read_block(table: Any, *, max_pixels: int, counting: Any) -> Iterator[Any]:
    """What Ray Data calls in a task: a table of items to tables of images."""
    items = items_of(table)
    if items:
        read = partial(read_items, max_pixels=max_pixels)
        try:
            for block in read_counted(items, read, _Remote(counting)):
                yield images_table(block)
        except (InputError, OSError) as e:
            ended = Item(_NO_PARTITION, 0, "", "", 0)
            yield images_table([(ended, FilePrediction("", problem=_packed(e).hex()))])


class _Actor:
    """What Ray Data calls in an actor: a table of images to one of results."""

    def __init__(self, work: bytes, counting: Any):
        self._work: Work | None = None
        self._pickled = work
        self._counting = _Remote(counting)

    def __call__(self, table: Any) -> Any:
        batch = list(map(read_of, rows_of(table)))
        for item, found in batch:
            if item.partition == _NO_PARTITION:
                error = bytes.fromhex(found.problem)
                return results_table([Result(_NO_PARTITION, 0, error)])
        try:
            if self._work is None:
                self._work = pickle.loads(self._pickled)  # opens the model
            results = predict_counted(batch, self._work.predict, self._counting)
        except (InputError, OSError) as e:
            results = [Result(_NO_PARTITION, 0, _packed(e))]
        return results_table(results)


def _packed(error: Exception) -> bytes:
    """An error of a reader or actor, without what only its process has."""
    if isinstance(error, OSError):
        return pickle.dumps(OSError(error.errno, error.strerror or str(error), error.filename))
    return pickle.dumps(InputError(str(error)))
