"""Which tensors of a weight file are the model's, under the model's own names."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from ..errors import InputError

# What Lightning puts before all keys.
_PREFIX = "model."
# What DistributedDataParallel, torch.compile, FSDP and activation checkpointing put anywhere.
_WRAPPERS = re.compile(
    r"(?<![^.])(module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
# The start of the official checkpoints' keys, which are converted first.
_OFFICIAL = ("backbone.tpm.", "tpm.")


def strip_wrappers(weights: Mapping[str, Any]) -> dict[str, Any]:
    """`weights`, in their order, without what other programs' wrappers put into the keys.

    DistributedDataParallel's is "module.", torch.compile's "_orig_mod.", FSDP's
    "_fsdp_wrapped_module."; they stand anywhere, as a part of a model may be wrapped. Lightning's
    "model." stands before all keys. Keys that would become the same are left as they are.
    """
    names = {key: _WRAPPERS.sub("", str(key)) for key in weights}
    while names and all(name.startswith(_PREFIX) for name in names.values()):
        names = {key: name.removeprefix(_PREFIX) for key, name in names.items()}
    if len(set(names.values())) < len(names):
        return {str(key): value for key, value in weights.items()}
    return {names[key]: value for key, value in weights.items()}


def strip_prefix(weights: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """`weights` without the prefix, such as "ema.", behind which most of a model's keys stand.

    Keys without it are left as they are.

    Args:
        own: the model's keys.
    """
    found = Counter(
        key[: len(key) - len(rest)]
        for key in weights
        for rest in itertools.accumulate(key.split(".")[::-1], lambda end, part: f"{part}.{end}")
        if rest in own
    )
    if not found:
        return dict(weights)
    prefix, count = found.most_common(1)[0]
    if count <= found[""] or list(found.values()).count(count) > 1:
        return dict(weights)
    behind = {key.removeprefix(prefix) for key in weights if key.startswith(prefix)}
    rest = {key: value for key, value in weights.items() if key not in behind}
    return {key.removeprefix(prefix): value for key, value in rest.items()}


def weights_of(loaded: Mapping[str, Any], path: str) -> Mapping[str, Tensor]:
    """The weights in a file's content.

    They are bare, under "model", under Lightning's "state_dict", or else in the only dict of
    tensors that there is, such as "ema" or "net".

    Raises:
        InputError: there are none, or several such dicts; or they are an official model's.
    """
    weights = next(
        (loaded[key] for key in ("model", "state_dict") if isinstance(loaded.get(key), Mapping)),
        loaded,
    )
    if weights is loaded:
        weights = only_tensors(loaded) or loaded
    if not weights or not _are_tensors(weights):
        raise InputError(
            f"{path} has no weights that can be told: it has {_describe(loaded)}. Expected are "
            "tensors alone, or a dict of tensors alone under 'model' or 'state_dict', or under any "
            "other key where it is the only one: "
            "`torch.save({'model': torch.load(old)[KEY]}, new)` saves one of them alone"
        )
    weights = strip_wrappers(weights)
    if any(key.startswith(_OFFICIAL) for key in weights):
        raise InputError(
            f"{path} is not a checkpoint of this toolkit; an official one is converted by "
            "`topformer convert IN OUT`"
        )
    return weights


def only_tensors(loaded: Mapping[str, Any]) -> Mapping[str, Tensor] | None:
    """The one dict of tensors among a file's entries.

    Returns:
        None where there is none, or several, or where tensors stand beside it.
    """
    if any(isinstance(value, Tensor) and value.ndim for value in loaded.values()):
        return None
    found = [value for value in loaded.values() if isinstance(value, Mapping) and value]
    found = [value for value in found if _are_tensors(value)]
    return found[0] if len(found) == 1 else None


def _are_tensors(weights: Mapping) -> bool:
    return all(isinstance(key, str) and isinstance(value, Tensor) for key, value in weights.items())


def _describe(loaded: Mapping, most: int = 8) -> str:
    """A file's entries, with what they are: "'epoch' (int), 'ema' (376 tensors)"."""
    entries = []
    for key, value in itertools.islice(loaded.items(), most):
        kind = type(value).__name__
        if isinstance(value, Mapping):
            odd = [k for k, v in value.items() if not isinstance(v, Tensor)]
            kind = f"{len(value) - len(odd)} tensors"
            kind += f" and {len(odd)} others, such as {str(odd[0])[:40]!r}" if odd else ""
        entries.append(f"{str(key)[:60]!r} ({kind})")
    more = f" and {len(loaded) - most} more" if len(loaded) > most else ""
    return ", ".join(entries) + more or "no entry"
