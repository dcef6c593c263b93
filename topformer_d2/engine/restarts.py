"""Processes that are started again by a launcher: from which checkpoint they go on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import torch
from detectron2.utils import comm
from torch import distributed, nn

from ..checkpoint import SafeCheckpointer, training_checkpoints
from ..errors import InputError
from ..files import check_regular_file, is_remote, parse_json, read_bytes, write_beside
from ..logs import get_logger
from .failures import LostProcessError
from .groups import ranks_of_machine
from .launched import Launched

logger = get_logger(__name__)
T = TypeVar("T")

# In OUTPUT_DIR: which run writes there. A launcher's count of restarts does not tell: it starts
# processes again when a machine joins, and on that machine, without counting.
MARK = ".launched.json"


class FirstFailedError(LostProcessError):
    """The first process of the run has failed, and tells why."""


def from_first(function: Callable[[], T]) -> T:
    """What a function gives in the first process of the run; all processes call this together.

    Raises:
        FirstFailedError: it has raised there; in the first process, what it raised.
    """
    error, given = None, None
    if comm.is_main_process():
        try:
            given = function()
        except Exception as e:
            error = e
    failed, given = comm.all_gather((error is not None, given))[0]
    if error is not None:
        raise error
    if failed:
        raise _first_failed()
    return given


def _first_failed() -> FirstFailedError:
    return FirstFailedError(f"process {comm.get_rank()}: the first process has failed")


def agree_to_resume(launched: Launched, folder: str, asked: bool) -> bool:
    """Whether the run goes on from a checkpoint; all processes call this together.

    It does where it was asked to, and where this run has left one before its processes were started
    again. Where OUTPUT_DIR is local to each machine, and the first process has moved to another
    one, the newest checkpoint that this run has left on any of its machines is copied to it. Where
    it was asked to, those of the run that the first process has in OUTPUT_DIR count as well; or if
    it has none, those of any. In a remote OUTPUT_DIR there is no mark, and the launcher's count of
    restarts alone tells.

    Args:
        launched: of this process.
        folder: OUTPUT_DIR, which the first process has made and holds.
        asked: --resume; that of the first process counts.

    Raises:
        InputError: the folder has checkpoints of another run, and nobody has asked to resume.
        FirstFailedError: as from_first.
    """
    everyone = comm.all_gather((launched.starter, launched.restarts, asked))
    asked = everyone[0][2]  # the command may differ between machines
    is_again = any(restarts for _, restarts, _ in everyone)
    if not folder or is_remote(folder):
        return asked or is_again
    starters = sorted({starter for starter, *_ in everyone if starter})
    content = {"run": launched.run, "starters": starters}
    is_reader = comm.get_local_rank() == 0
    mark = _read_mark(folder) if is_reader else {}
    is_own = _is_same_run(mark, content)
    is_meant = _is_meant(folder, mark) and is_reader and asked
    every = comm.all_gather(_iteration_left(folder) if is_own or is_meant else -1)
    # Of equal ones that of the first process, which is the same file where the disk is shared.
    source = max(range(len(every)), key=lambda rank: (every[rank], -rank))

    def decide() -> bool:
        resumes = asked or every[source] >= 0
        # The mark is written before the first checkpoint: without one they are another run's, too.
        if not resumes and training_checkpoints(folder):
            if not is_own:  # the mark stays as it is, so that a restart is refused as well
                raise InputError(
                    f"{folder} has checkpoints of another run, to which processes that are started "
                    "again would go back: go on from them with `resume`, or name another OUTPUT_DIR"
                )
            resumes = True  # from none that is whole, which is told when it is read
        write_beside(Path(folder, MARK), json.dumps(content).encode(), durable=True)
        return resumes

    resumes = from_first(decide)
    if source != 0 and every[source] >= 0:
        _copy_to_first(folder, source)
    if resumes and not asked and not is_again:
        named = f" ({launched.run})" if launched.run else ""
        logger.warning("%s has a checkpoint of this run%s, and it goes on", folder, named)
    if is_again and not resumes:
        logger.warning("%s has no checkpoint of this run, which starts anew", folder)
    return resumes


def _read_mark(folder: str) -> dict:
    """What agree_to_resume wrote; {} where there is none, or a damaged one."""
    path = os.path.join(folder, MARK)
    with contextlib.suppress(InputError, OSError):
        mark = parse_json(read_bytes(path, most=1 << 20), path)
        if isinstance(mark, dict) and isinstance(mark.get("run"), str):
            starters = mark.get("starters")
            if isinstance(starters, list) and all(isinstance(each, str) for each in starters):
                return mark
    return {}


def _is_same_run(mark: dict, other: dict) -> bool:
    """Whether two marks name one run: by its name, or by a launcher of both."""
    if not mark or not other:
        return False
    is_named = mark["run"] == other["run"] != ""
    return is_named or not {*mark["starters"]}.isdisjoint(other["starters"])


def _is_meant(folder: str, mark: dict) -> bool:
    """Whether --resume means this machine's checkpoints, too; all processes call this together.

    It means those of the run that the first process has in OUTPUT_DIR, and if it has none, any.

    Args:
        folder: OUTPUT_DIR.
        mark: of this machine.
    """
    has_some = comm.is_main_process() and bool(training_checkpoints(folder))
    has_some, of_first = comm.all_gather((has_some, mark))[0]
    return not has_some or comm.is_main_process() or _is_same_run(mark, of_first)


def _iteration_left(folder: str) -> int:
    """The iteration of the checkpoint that this machine would go on from; -1 = it has none."""
    try:
        path = SafeCheckpointer(nn.Identity(), folder, trainer=nn.Identity()).get_checkpoint_file()
    except InputError:
        return -1
    return dict(training_checkpoints(folder)).get(Path(path), -1) if path else -1


def _copy_to_first(folder: str, source: int) -> None:
    """Copy the checkpoint to go on from, of one process's machine, to the first process's."""
    name, content = "", b""
    if comm.get_rank() == source:
        path = SafeCheckpointer(nn.Identity(), folder).get_checkpoint_file()
        name, content = os.path.basename(path), Path(path).read_bytes()
    name = comm.all_gather(name)[source]
    content = _broadcast(content, source)

    def write() -> None:
        write_beside(Path(folder, name), content, durable=True)
        SafeCheckpointer(nn.Identity(), folder).tag_last_checkpoint(name)
        logger.info("%s is the newest checkpoint of this run, of another machine", name)

    from_first(write)


def _broadcast(content: bytes, source: int) -> bytes:
    """The bytes that one process has, for all of them."""
    size = comm.all_gather(len(content))[source]
    values = torch.empty(size, dtype=torch.uint8)
    if comm.get_rank() == source and size:
        values = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    if size:
        distributed.broadcast(values, source, group=comm._get_global_gloo_group())
    return values.numpy().tobytes()


@contextlib.contextmanager
def taking_firsts_checkpoint(checkpointer: SafeCheckpointer) -> Iterator[None]:
    """Within it all processes go on from the checkpoint that the first one finds, as it reads it.

    Where a machine sees another OUTPUT_DIR, or that of a network disk as it was before, one of its
    processes writes a copy for all of them. What the first process meets within the block is
    raised there alone, as only there the checkpoint has its name.

    Raises:
        InputError: the first process finds some, and none is whole.
        FirstFailedError: as from_first, or the first process has failed within the block.
    """
    if comm.get_world_size() == 1 or is_remote(checkpointer.save_dir):
        yield
        return
    path, digest = from_first(lambda: _found(checkpointer))
    with contextlib.ExitStack() as stack:
        if not path:
            checkpointer.take("")
        else:
            own = os.path.join(checkpointer.save_dir, os.path.basename(path))
            lacks = not comm.is_main_process() and _digest(own) != digest
            copy = _copied(path, lacks, stack)
            if not comm.is_main_process():
                checkpointer.take(copy or own)
        error = None
        try:
            yield
        except Exception as e:
            error = e
        # The copy stays until all have read it.
        has_failed = comm.all_gather(error is not None)[0]
        if has_failed and not comm.is_main_process():
            raise _first_failed() from error
        if error is not None:
            raise error
        if not path or not comm.is_main_process():
            checkpointer.take(None)


def _found(checkpointer: SafeCheckpointer) -> tuple[str, str]:
    """The checkpoint to go on from and the digest of its content; empty where there is none."""
    path = checkpointer.get_checkpoint_file()
    return (path, _digest(path)) if path else ("", "")


def _digest(path: str) -> str:
    """SHA-256 of a file; "" where it cannot be read."""
    found = hashlib.sha256()
    try:
        check_regular_file(path)
        with open(path, "rb") as file:
            while block := file.read(1 << 22):
                found.update(block)
    except (InputError, OSError):
        return ""
    return found.hexdigest()


def _copied(path: str, lacks: bool, stack: contextlib.ExitStack) -> str:
    """The first process's checkpoint as a file of this machine; all processes call this together.

    Args:
        path: of it, there.
        lacks: whether this process cannot read it.
        stack: at whose end the copy is removed.

    Returns:
        "" where this process needs no copy.
    """
    lacking = comm.all_gather(lacks)
    if not any(lacking):
        return ""
    content = _broadcast(Path(path).read_bytes() if comm.is_main_process() else b"", 0)
    own = [rank for rank in ranks_of_machine() if lacking[rank]]
    copy = ""
    if own and comm.get_rank() == own[0]:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="topformer_d2_"))
        copy = os.path.join(scratch, os.path.basename(path))
        Path(copy).write_bytes(content)
    copies = comm.all_gather(copy)
    return copies[own[0]] if lacks else ""
