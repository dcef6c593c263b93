"""What a training's scalars are written to: files, TensorBoard, MLflow, Weights & Biases."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Mapping
from typing import Any

import yaml
from detectron2.config import CfgNode
from detectron2.engine import hooks as detectron2_hooks
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
    get_event_storage,
)
from detectron2.utils.file_io import PathManager

from ..config import flat_keys
from ..errors import InputError, cut, import_optional
from ..files import read_json, write_json
from ..logs import get_logger
from .early_stopping import EndedEarly
from .stopping import StopRequested

logger = get_logger(__name__)

# The project or experiment where the library's environment variable names none.
PROJECT = "topformer_d2"
# Where the libraries' ids of the runs are kept for a resume, in OUTPUT_DIR.
RUN_IDS = "logger_runs.json"
# Iterations whose losses one value stands for, as in Detectron2's writers.
_WINDOW = 20
# MLflow's limits: parameters of a request, and characters of a value and of a key.
_MOST_PARAMS, _MOST_CHARACTERS, _MOST_IN_KEY = 100, 500, 250
_NOT_IN_KEY = re.compile(r"[^\w.\- /]")


class RunWriter(EventWriter):
    """Writes the config and all scalars to a library that keeps runs.

    A failure while training runs, as of the network, is logged and ends this writer alone.
    """

    name: str  # in LOGGERS, and the module's
    _fix: str  # what to do where a run cannot begin

    def __init__(self, folder: str, config: Mapping[str, Any]):
        """
        Args:
            folder: OUTPUT_DIR. The run is named after it, and its id is kept there.
            config: plain values, nested.

        Raises:
            InputError: the library is missing.
        """
        self._library = import_library(self.name)
        self._folder = folder
        self._config = config
        self._run: Any = None
        self._last_write = -1

    def start(self, resumed: bool) -> None:
        """Begin a run; where training is resumed, go on with its own one if that is known.

        Raises:
            InputError: the library cannot begin one.
        """
        path = os.path.join(self._folder, RUN_IDS)
        ids = _read_ids(path)
        run_name = os.path.basename(os.path.normpath(self._folder))
        try:
            self._run, run_id = self._start(run_name, ids.get(self.name) if resumed else None)
        except Exception as e:  # each library has its own
            raise InputError(
                f"LOGGERS names {self.name!r}, which cannot begin a run: "
                f"{cut(str(e).strip(' .'))}. {self._fix}"
            ) from e
        write_json(path, {**ids, self.name: run_id})

    def write(self) -> None:
        scalars = get_event_storage().latest_with_smoothing_hint(_WINDOW)
        new: dict[int, dict[str, float]] = {}
        for key, (value, iteration) in scalars.items():
            if iteration > self._last_write:
                new.setdefault(iteration, {})[key] = value
        for iteration in sorted(new):
            self._guarded(self._write, new[iteration], iteration)
            self._last_write = iteration

    def close(self) -> None:
        # It is called while the loop's error, if any, goes on its way.
        error = sys.exc_info()[1]
        self._guarded(self._finish, None if isinstance(error, EndedEarly) else error)
        self._run = None

    def _guarded(self, call: Any, *args: Any) -> None:
        if self._run is None:
            return
        try:
            call(*args)
        except Exception as e:
            self._run = None
            logger.warning(
                "LOGGERS: %s gets nothing more of this run: %s: %s",
                *(self.name, type(e).__name__, cut(str(e))),
            )

    def _start(self, run_name: str, known: str | None) -> tuple[Any, str]:
        """A run and its id, which is `known` where that run is gone on with."""
        raise NotImplementedError

    def _write(self, scalars: dict[str, float], iteration: int) -> None:
        raise NotImplementedError

    def _finish(self, error: BaseException | None) -> None:
        """`error`: what has ended training before its end."""
        raise NotImplementedError


class WandbWriter(RunWriter):
    """Weights & Biases, with its own environment variables, as WANDB_MODE=offline."""

    name = "wandb"
    _fix = (
        "`wandb login` gives it a key, and the environment variable WANDB_MODE=offline needs none"
    )

    def _start(self, run_name: str, known: str | None) -> tuple[Any, str]:
        run = self._library.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            dir=self._folder,
            name=run_name,
            config=dict(self._config),
            id=known,
            resume="allow" if known else None,
        )
        # Its own step never goes back, as a resumed run does.
        run.define_metric("iteration")
        run.define_metric("*", step_metric="iteration")
        return run, run.id

    def _write(self, scalars: dict[str, float], iteration: int) -> None:
        self._run.log({"iteration": iteration, **scalars})

    def _finish(self, error: BaseException | None) -> None:
        self._run.finish(exit_code=0 if error is None else 1)


class MlflowWriter(RunWriter):
    """MLflow, with its own environment variables, as MLFLOW_TRACKING_URI."""

    name = "mlflow"
    _fix = "The environment variable MLFLOW_TRACKING_URI says where it keeps runs"

    def _start(self, run_name: str, known: str | None) -> tuple[Any, str]:
        client = self._client = self._library.MlflowClient()
        if known:
            try:
                client.update_run(known, status="RUNNING")
                return known, known
            except self._library.exceptions.MlflowException as e:
                logger.warning("MLflow has no run %s, and gets a new one: %s", known, cut(str(e)))
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        experiment = client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else client.create_experiment(name)
        run_id = client.create_run(number, run_name=run_name).info.run_id
        params = [
            self._library.entities.Param(_as_key(key), str(value)[:_MOST_CHARACTERS])
            for key, value in flat_keys(self._config)
        ]
        for i in range(0, len(params), _MOST_PARAMS):
            client.log_batch(run_id, params=params[i : i + _MOST_PARAMS])
        return run_id, run_id

    def _write(self, scalars: dict[str, float], iteration: int) -> None:
        now = int(1000 * time.time())
        metrics = [
            self._library.entities.Metric(_as_key(key), float(value), now, iteration)
            for key, value in scalars.items()
        ]
        for i in range(0, len(metrics), _MOST_PARAMS):
            self._client.log_batch(self._run, metrics=metrics[i : i + _MOST_PARAMS])

    def _finish(self, error: BaseException | None) -> None:
        status = "KILLED" if isinstance(error, StopRequested) else "FAILED"
        self._client.set_terminated(self._run, "FINISHED" if error is None else status)


_RUN_WRITERS = {writer.name: writer for writer in (MlflowWriter, WandbWriter)}


class WriteEvents(detectron2_hooks.PeriodicWriter):
    """Detectron2's PeriodicWriter, which also begins the runs of RunWriters."""

    def before_train(self) -> None:
        for writer in self._writers:
            if isinstance(writer, RunWriter):
                writer.start(resumed=self.trainer.start_iter > 0)

    def after_step(self) -> None:
        super().after_step()
        if not any(isinstance(writer, TensorboardXWriter) for writer in self._writers):
            # Images of VIS_PERIOD, which only that one writes, and then drops.
            self.trainer.storage.clear_images()


def import_library(name: str) -> Any:
    """mlflow or wandb; InputError with the extra that has it where it is missing."""
    install = f"{name}, or in a checkout -e '.[loggers]'"
    return import_optional(name, f"LOGGERS {name!r}", install)


def check_loggers(cfg: CfgNode) -> None:
    """Raise InputError where LOGGERS names a library that is missing."""
    for name in cfg.LOGGERS:
        if name in _RUN_WRITERS:
            import_library(name)


def build_writers(cfg: CfgNode, max_iter: int) -> list[EventWriter]:
    """The lines of the log, metrics.json, and what LOGGERS names."""
    folder = cfg.OUTPUT_DIR
    PathManager.mkdirs(folder)
    writers = [CommonMetricPrinter(max_iter), JSONWriter(os.path.join(folder, "metrics.json"))]
    config = yaml.safe_load(cfg.dump()) if cfg.LOGGERS else {}
    for name in dict.fromkeys(cfg.LOGGERS):
        if name in _RUN_WRITERS:
            writers.append(_RUN_WRITERS[name](folder, config))
        else:
            writers.append(TensorboardXWriter(folder))
    return writers


def _read_ids(path: str) -> dict[str, str]:
    """A file that is missing or damaged only costs new runs in place of those gone on with."""
    with contextlib.suppress(InputError, OSError):
        ids = read_json(path) if PathManager.isfile(path) else {}
        if isinstance(ids, dict) and all(isinstance(value, str) for value in ids.values()):
            return ids
    return {}


def _as_key(name: str) -> str:
    return _NOT_IN_KEY.sub("_", name)[:_MOST_IN_KEY]
