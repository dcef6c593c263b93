"""Weight files: read without running code, checked for damage, written beside and renamed."""

from __future__ import annotations

import hashlib
import itertools
import os
import pickle
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any, BinaryIO, cast

import torch
from detectron2.utils.file_io import PathManager
from torch import Tensor

from ..errors import InputError
from ..files import check_regular_file, writing_beside

# What a user may run on a file that is refused; `old` and `new` are names of files.
_TENSORS_ALONE = (
    "import torch; torch.save({k: v for k, v in torch.load(old, weights_only=False).items() "
    "if k in ('state_dict', 'state_dict_ema', 'model') or torch.is_tensor(v)}, new)"
)
_ARRAYS_ALONE = (
    "import pickle, torch; found = pickle.load(open(old, 'rb'), encoding='latin1'); torch.save({"
    "'model': {k: torch.as_tensor(v) for k, v in found.get('model', found).items() "
    "if hasattr(v, 'shape')}}, new)"
)
# What Lightning puts before all keys.
_PREFIX = "model."
# What DistributedDataParallel, torch.compile, FSDP and activation checkpointing put anywhere.
_WRAPPERS = re.compile(
    r"(?<![^.])(module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
# The start of the official checkpoints' keys, which are converted first.
_OFFICIAL = ("backbone.tpm.", "tpm.")
# Under which a .safetensors file of ours keeps the hash of its tensors.
_HASH = "topformer_d2.sha256"
# With it torch.save began its files before they were zip archives.
_TORCH_PICKLE = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)


def read_state_dict(path: str) -> dict[str, Any]:
    """Read a .safetensors file or a .pth file without executing pickled code.

    Raises:
        InputError: the file does not exist, is not readable, is damaged, or holds pickled objects
            other than tensors and plain Python values; the message has a line of Python that saves
            what is of use in it.
    """
    path = os.fspath(path)
    local = local_file(path)
    try:
        if path.endswith(".safetensors"):
            return _read_safetensors(local)
        _check_archive(local)
        loaded = torch.load(local, map_location="cpu", weights_only=True)
    except _Damaged as e:
        raise InputError(f"{path} is damaged ({e}): download or copy it again") from e
    except pickle.UnpicklingError as e:
        raise InputError(f"{path} {_why_refused(local)}") from e
    except Exception as e:  # torch and safetensors raise many types for a broken file
        raise InputError(f"{path} is not a readable weights file: {type(e).__name__} {e}") from e
    if not isinstance(loaded, Mapping):
        raise InputError(f"{path} holds a {type(loaded).__name__}, not a dict of tensors")
    return cast(dict[str, Any], loaded)


class _Damaged(Exception):
    """A file's content is not what was written."""


def _check_archive(local: str) -> None:
    """Raise _Damaged where a .pth's records differ from their checksums, as PyTorch does not."""
    if not zipfile.is_zipfile(local):
        return
    try:
        with zipfile.ZipFile(local) as archive:
            # torch.save compresses nothing, so that no record is larger than the file.
            if sum(info.file_size for info in archive.infolist()) > os.path.getsize(local):
                raise _Damaged("its records claim to be larger than the file")
            damaged = [info.filename for info in archive.infolist() if _differs(archive, info)]
            count = len(archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as e:
        raise _Damaged(str(e)) from e
    if not count:
        raise _Damaged("its archive is empty")
    # PyTorch can be told to write none, which are those of no record then.
    if 0 < len(damaged) < count:
        raise _Damaged(f"the checksum of {damaged[0]!r} differs")


def _differs(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    """Whether a record's content is not what its checksum says."""
    with archive.open(info) as record:
        try:
            while record.read(1 << 20):
                pass
        except zipfile.BadZipFile:
            return True
    return False


def _read_safetensors(local: str) -> dict[str, Tensor]:
    from safetensors import safe_open
    from safetensors.torch import load_file

    with safe_open(local, framework="pt") as f:
        expected = (f.metadata() or {}).get(_HASH)
    tensors = load_file(local)
    if expected is not None and _hash(tensors) != expected:
        raise _Damaged("its sha256 differs")
    return tensors


def _hash(tensors: Mapping[str, Tensor]) -> str:
    """Of names, types, shapes and values, in the order of the names."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        found.update(flat.view(torch.uint8).numpy().data)
    return found.hexdigest()


def _why_refused(local: str) -> str:
    """What is wrong with a file of pickled code, or of something else, and the fix."""
    with open(local, "rb") as f:
        start = f.read(len(_TORCH_PICKLE))
    if zipfile.is_zipfile(local) or start == _TORCH_PICKLE:
        return (
            "holds pickled Python objects beside its tensors, and loading those would run code "
            f"from the file. Where you trust it, save its tensors alone: {_TENSORS_ALONE}"
        )
    if start.startswith(b"\x80"):
        return (
            "is a plain pickle and no file of torch.save, and loading it would run code from the "
            f"file. Where you trust it, save its arrays alone: {_ARRAYS_ALONE}"
        )
    return "is not a readable weights file"


def read_weights(path: str | os.PathLike) -> dict[str, Tensor]:
    """The tensors of a checkpoint of this toolkit, bare or beside a training's state.

    Raises:
        InputError: as read_state_dict, or the file holds something else.
    """
    path = os.fspath(path)
    return dict(weights_of(read_state_dict(path), path))


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


def local_file(path: str) -> str:
    """The path of a weights file on this machine; a remote one is fetched by iopath.

    Raises:
        InputError: it does not exist, cannot be fetched, is not a file, as a folder or a pipe is,
            or is empty.
    """
    try:
        local = PathManager.get_local_path(path)
    except (OSError, NotImplementedError) as e:  # of a remote one that cannot be fetched
        raise InputError(f"weights file {path} cannot be read: {e}") from e
    if os.path.isdir(local):
        raise InputError(f"{path} is a folder; name a weights file in it")
    if not os.path.lexists(local):
        raise InputError(f"weights file {path} does not exist")
    check_regular_file(local)
    if not os.path.getsize(local):
        raise InputError(f"weights file {path} is empty: download or copy it again")
    return local


def save_state_dict(
    state_dict: dict[str, Tensor], path: str, *, wrapper: str = "model", **state: Any
) -> None:
    """Write `path` (.safetensors, or .pth as Detectron2 reads it) beside it and rename.

    Args:
        wrapper: the tensors stand under it in a .pth; the official files' is "state_dict".
        state: further entries of a .pth, plain Python values.
    """
    path = os.fspath(path)
    if not path.endswith(".safetensors"):
        save_file(lambda f: torch.save({wrapper: state_dict, **state}, f), path)
        return
    from safetensors.torch import save

    tensors = {key: value.contiguous() for key, value in state_dict.items()}
    content = save(tensors, metadata={"format": "pt", _HASH: _hash(tensors)})
    save_file(lambda f: f.write(content), path)


def save_file(write: Callable[[BinaryIO], object], path: str) -> None:
    """Write a file beside and rename it, on the disk at the end; a remote store has no rename."""
    if os.path.exists(path):
        check_regular_file(path)  # writing into a pipe would wait for ever
    with writing_beside(path, durable=True) as f:
        write(f)
