"""Weight files: read without running code, checked for damage, written beside and renamed."""

from __future__ import annotations

import hashlib
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, cast

import torch
from detectron2.utils.file_io import PathManager
from torch import Tensor

from ..config import is_model, list_models, model_files
from ..errors import InputError, did_you_mean
from ..files import check_regular_file, writing_beside
from .compact import from_int8
from .contents import weights_of

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
# Under which a .safetensors file of ours keeps the hash of its tensors.
_HASH = "topformer_d2.sha256"
# Extensions of what `topformer export` writes (inference.formats).
EXPORTED = (".onnx", ".xml", ".param", ".mnn", ".tflite", ".pte", ".mlpackage")
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
    if path.lower().endswith(EXPORTED):
        raise InputError(
            f"{path} is an exported file, with its network inside, and not weights: name it as "
            "`model`, or name the weights from which it was exported"
        )
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
    return from_int8(tensors)


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
        hint = did_you_mean(path, list_models())
        if is_model(path):
            hint = f"; those of the model of that name are in {model_files(path)[1]}"
        raise InputError(f"weights file {path} does not exist{hint}")
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
