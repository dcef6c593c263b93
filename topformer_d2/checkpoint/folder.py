"""The checkpoints of a training that lie in a folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from ..errors import InputError
from ..files import check_regular_file, read_text

# The file that names the last one.
TAG = "last_checkpoint"


def training_checkpoints(folder: str | os.PathLike) -> list[tuple[Path, int]]:
    """The checkpoints of a training in a folder and their iterations, the newest first.

    What cannot be read comes last, with -1, where its name is one that a training gives. No
    pickled code is run.
    """
    found = []
    for path in sorted(Path(folder).glob("*.pth")):
        name = path.stem.removeprefix("model_")
        try:
            check_regular_file(path)  # reading a pipe would wait for ever
            # Only the entries' structure: the tensors stay on the disk.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            iteration = content["trainer"]["iteration"]
        except Exception:  # torch raises many types for a broken file
            iteration = None
        if isinstance(iteration, int):
            found.append((path, iteration))
        elif path.stem == "model_final" or name.isdecimal():
            found.append((path, -1))
    return sorted(found, key=lambda item: item[1], reverse=True)


def read_tag(folder: Path) -> Path:
    """The checkpoint that last_checkpoint of a folder names.

    Raises:
        InputError: it is damaged, or names a file that is not there.
    """
    tag = folder / TAG
    name = read_text(str(tag), most=4096).strip()
    if not name:
        raise InputError(f"{tag} is empty")
    if not name.isprintable() or os.path.basename(name) != name or name in (".", ".."):
        raise InputError(f"{tag} names {name[:80]!r}, which is not a file in its folder")
    if not os.path.lexists(folder / name):
        raise InputError(f"{tag} names {name[:80]!r}, which does not exist")
    return folder / name


def is_complete(state: Mapping) -> bool:
    """Whether the "trainer" of a checkpoint has what Trainer needs to go on as if never stopped."""
    iterations = [state.get("iteration")]
    inner, hooks = state.get("_trainer"), state.get("hooks", {})
    if not isinstance(inner, Mapping) or not isinstance(hooks, Mapping):
        return False
    iterations.append(inner.get("iteration"))
    optimizer = inner.get("optimizer")
    return (
        all(type(iteration) is int and iteration >= 0 for iteration in iterations)
        and isinstance(optimizer, Mapping)
        and isinstance(optimizer.get("state"), Mapping)
        and isinstance(optimizer.get("param_groups"), list)
        and all(isinstance(hook, Mapping) for hook in hooks.values())
    )
