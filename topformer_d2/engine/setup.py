"""Setup of a run: check the config, start the loggers, make the output folder."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import logging
import os
import shlex
import sys
from collections.abc import Iterator
from functools import partial
from typing import IO

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils import logger as logger_module
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import setup_logger

from ..config import check_values, complete_config, is_model, keys_without_effect, model_files
from ..data import check_config
from ..data.inspection import check_samples
from ..errors import InputError, printable
from ..files import is_remote, write_beside
from ..logs import ESCAPE_CONTROLS, get_logger
from .class_weights import fill_class_weights, log_class_weights
from .processes import check_single_run
from .teachers import check_teachers, check_teachers_are_kept

logger = get_logger(__name__)

_LOGGERS = ("fvcore", "detectron2", "topformer_d2")
# (logger's name, handler) of this process's last run.
_handlers: list[tuple[str, logging.Handler]] = []


def setup_run(cfg: CfgNode, args: argparse.Namespace | None = None) -> None:
    """Check `cfg` and samples of its datasets, then set up the loggers and OUTPUT_DIR.

    This is Detectron2's default_setup with checks, but for OUTPUT_DIR/config.yaml, which
    Trainer.train writes: it stays that of the checkpoints until they are another training's. For a
    training, weights of classes that are to be computed are written into `cfg`
    (fill_class_weights).

    Args:
        cfg: a Detectron2 config with the toolkit's keys.
        args: of Detectron2's default_argument_parser; None = train with no arguments.

    Raises:
        InputError: the datasets are absent, do not fit the model, or some files of theirs are
            wrong; or this process is one of several that have not joined (check_single_run).
    """
    check_single_run()
    args = args or argparse.Namespace(config_file="", eval_only=False)
    end_logs()
    with _holding_lines() as held:  # OUTPUT_DIR is left as it is where a check raises
        check_values(cfg)
        check_config(cfg, train=not args.eval_only)
        if not args.eval_only:
            check_teachers_are_kept(complete_config(cfg))
            check_teachers(complete_config(cfg))
        if comm.is_main_process():  # where it raises, the launcher ends the other processes
            arguments = shlex.join([args.config_file or "...", *getattr(args, "opts", [])])
            check_samples(cfg, train=not args.eval_only, arguments=arguments)
        _check_scheme(cfg.OUTPUT_DIR)
        is_weighted = not args.eval_only and "SEM_SEG_LOSS" in cfg.MODEL
        if is_weighted:
            computed = fill_class_weights(cfg, resume=getattr(args, "resume", False))
    before = {name: list(logging.getLogger(name).handlers) for name in _LOGGERS}
    shows_errors, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        _set_up_loggers(cfg.OUTPUT_DIR)
    except OSError as e:  # a full disk's does not say of which file
        raise OSError(e.errno, e.strerror, e.filename or cfg.OUTPUT_DIR) from e
    finally:
        logging.raiseExceptions = shows_errors
        for name, earlier in before.items():
            for handler in logging.getLogger(name).handlers:
                if handler not in earlier:
                    _keep_quiet(handler)
                    handler.addFilter(ESCAPE_CONTROLS)  # Detectron2's lines as well
                    _handlers.append((name, handler))
    if comm.is_main_process():
        _describe(cfg, args)
    for record in held:
        logging.getLogger(record.name).handle(record)
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + comm.get_rank())
    if not args.eval_only:
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    if not args.eval_only and (unused := keys_without_effect(complete_config(cfg))):
        logger.warning("WITHOUT EFFECT in this training: %s", "; ".join(unused))
    if is_weighted:
        log_class_weights(cfg, computed)
    if not str(cfg.MODEL.DEVICE).startswith("cuda"):
        logger.info("No GPU in use: running on the %s", cfg.MODEL.DEVICE.upper())


def _set_up_loggers(folder: str) -> None:
    """The first process writes OUTPUT_DIR/log.txt; the others end by their errors alone."""
    if comm.is_main_process():
        PathManager.mkdirs(folder)
    for name in _LOGGERS:
        if comm.is_main_process():
            setup_logger(folder, name=name)
        else:
            setup_logger(distributed_rank=comm.get_rank(), name=name)
            # Or Python would print its warnings, which the first process logs as well.
            logging.getLogger(name).addHandler(logging.NullHandler())


def _describe(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Log what is needed to run the same again, in Detectron2's words."""
    logger.info("Rank of current process: 0. World size: %d", comm.get_world_size())
    logger.info("Environment info:\n%s", collect_env_info())
    logger.info("Command line arguments: %s", args)
    if path := args.config_file:
        path = model_files(path)[0] if is_model(path) else path
        with PathManager.open(path) as f:
            logger.info("Contents of args.config_file=%s:\n%s", path, f.read())
    logger.info("Running with full config:\n%s", cfg.dump())


def write_config(folder: str, text: str) -> None:
    """Write config.yaml in a run's folder, whole or not at all."""
    path = os.path.join(folder, "config.yaml")
    if is_remote(path):
        with PathManager.open(path, "w") as f:
            f.write(text)
    else:
        write_beside(path, text.encode())


class _HeldLines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextlib.contextmanager
def _holding_lines() -> Iterator[list[logging.LogRecord]]:
    """What is logged within, for the log that is set up later; it is shown where that fails."""
    holder = _HeldLines()
    for name in _LOGGERS:
        logging.getLogger(name).addHandler(holder)
    failed = True
    try:
        yield holder.records
        failed = False
    finally:
        for name in _LOGGERS:
            logging.getLogger(name).removeHandler(holder)
        for record in holder.records if failed else ():
            if not logging.getLogger(record.name).hasHandlers():  # which have shown it
                logging.getLogger(record.name).handle(record)


def _check_scheme(folder: str) -> None:
    """Raise InputError where OUTPUT_DIR is remote, and nothing here can write there."""
    if not is_remote(folder):
        return
    try:
        PathManager.mkdirs(folder)
    except (NotImplementedError, ValueError) as e:
        raise InputError(f"OUTPUT_DIR is {folder}, where nothing can be written: {e!r}") from e
    if os.path.isdir(folder):  # taken for a path of this machine
        with contextlib.suppress(OSError):
            os.removedirs(folder)
        raise InputError(
            f"OUTPUT_DIR is {folder}, whose scheme iopath's PathManager does not know: register a "
            "handler for it, or name a folder of this machine"
        )


def end_logs() -> None:
    """Stop writing to the log.txt of this process's last run."""
    for name, handler in _handlers:
        logging.getLogger(name).removeHandler(handler)
    _handlers.clear()
    # It remembers which files it has made handlers for, and keeps them open by their names, which
    # in another working directory, or once an output folder was removed, mean other files.
    setup_logger.cache_clear()
    if opened := getattr(logger_module, "_cached_log_stream", None):
        opened.cache_clear()


def _keep_quiet(handler: logging.Handler) -> None:
    """Let a line that cannot be logged, as on a full disk, end in one warning."""
    handler.handleError = partial(_tell_once, handler)  # type: ignore[method-assign]
    stream = getattr(handler, "stream", None)
    if stream not in (None, sys.stdout, sys.stderr):
        # Detectron2 has it closed at exit, which writes what is left in its buffer.
        atexit.unregister(stream.close)
        atexit.register(_close, stream)


def _close(stream: IO) -> None:
    with contextlib.suppress(OSError):
        stream.close()


def _tell_once(handler: logging.Handler, _record: logging.LogRecord) -> None:
    """In place of a traceback for each line that cannot be logged, as on a full disk."""
    error = sys.exc_info()[1]
    handler.handleError = lambda record: None  # type: ignore[method-assign]
    try:
        where = getattr(getattr(handler, "stream", None), "name", "the log")
        print(printable(f"warning: {where} cannot be written: {error}"), file=sys.stderr)
    except OSError:  # standard error is closed as well
        pass
