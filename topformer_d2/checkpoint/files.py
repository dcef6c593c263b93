"""Weight files: read without running code, written beside and renamed."""

from __future__ import annotations

import logging
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.file_io import PathManager
from torch import Tensor

from ..errors import InputError, summarize
from ..files import writing_beside
from .official import convert_official_state_dict, is_official
from .parts import place_topformer

logger = logging.getLogger(__name__)

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
# With it torch.save began its files before they were zip archives.
_TORCH_PICKLE = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)


def read_state_dict(path: str) -> dict[str, Any]:
    """Read a .safetensors file or a .pth file without executing pickled code.

    Raises:
        InputError: the file does not exist, is not readable, or holds pickled objects other than
            tensors and plain Python values; the message has a line of Python that saves what is
            of use in it.
    """
    path = os.fspath(path)
    local = _local_file(path)
    try:
        if path.endswith(".safetensors"):
            from safetensors.torch import load_file

            return load_file(local)
        loaded = torch.load(local, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        raise InputError(f"{path} {_why_refused(local)}") from e
    except Exception as e:  # torch and safetensors raise many types for a broken file
        raise InputError(f"{path} is not a readable weights file: {type(e).__name__} {e}") from e
    if not isinstance(loaded, Mapping):
        raise InputError(f"{path} holds a {type(loaded).__name__}, not a dict of tensors")
    return loaded


def _why_refused(local: str) -> str:
    """What is wrong with a file of pickled code, or of something else, and the mend."""
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
    return dict(_weights_of(read_state_dict(path), path))


def _weights_of(loaded: Mapping[str, Any], path: str) -> Mapping[str, Tensor]:
    weights = loaded.get("model", loaded)
    if not isinstance(weights, Mapping) or not all(
        isinstance(value, Tensor) for value in weights.values()
    ):
        raise InputError(
            f"{path} is no checkpoint of this toolkit; an official one is converted by "
            "`python tools/convert_weights.py IN OUT`"
        )
    return weights


def _local_file(path: str) -> str:
    local = PathManager.get_local_path(path)
    if os.path.isdir(local):
        raise InputError(f"{path} is a folder; name a weights file in it")
    if not os.path.isfile(local):
        raise InputError(f"weights file {path} does not exist")
    if not os.path.getsize(local):
        raise InputError(f"weights file {path} is empty: download or copy it again")
    return local


def save_state_dict(
    state_dict: dict[str, Tensor], path: str, *, wrapper: str = "model", **state
) -> None:
    """Write `path` (.safetensors, or .pth as Detectron2 reads it) beside it and rename.

    Args:
        wrapper: the tensors stand under it in a .pth; the official files' is "state_dict".
        state: further entries of a .pth, plain Python values.
    """
    path = os.fspath(path)
    if not path.endswith(".safetensors"):
        _save(lambda f: torch.save({wrapper: state_dict, **state}, f), path)
        return
    from safetensors.torch import save

    content = save({key: value.contiguous() for key, value in state_dict.items()})
    _save(lambda f: f.write(content), path)


def _save(write: Callable[[BinaryIO], object], path: str) -> None:
    """Write a file beside and rename it, on the disk at the end; a remote store has no rename."""
    if "://" in path:
        with PathManager.open(path, "wb") as f:
            write(f)
    else:
        with writing_beside(path, durable=True) as f:
            write(f)


class SafeCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer that runs no pickled code, reads safetensors, writes atomically.

    It takes official checkpoints as they are, and logs what it used of them.

    Attributes:
        saved_model: whose weights save() writes; the model itself, or the average of its weights.
    """

    def __init__(self, model, save_dir: str = "", *, require_all: bool = False, **kwargs):
        """
        Args:
            model, save_dir, kwargs: as for DetectionCheckpointer.
            require_all: refuse weights that leave a tensor of the model as it was, as inference
                needs; training may start from a part.
        """
        super().__init__(model, save_dir, **kwargs)
        self.require_all = require_all
        self.saved_model = self.model

    def load(self, path: str, *args, **kwargs) -> dict:
        """As in Detectron2; raises InputError where `path` is missing or does not fit the model."""
        if not path and self.require_all:
            raise InputError(
                "no weights file is named: --weights of a tool, Predictor(config, weights), or "
                "MODEL.WEIGHTS of the config"
            )
        if path:
            _local_file(path)  # fvcore only asserts that it is there
        return super().load(path, *args, **kwargs)

    def _load_file(self, filename: str):
        loaded = read_state_dict(filename)
        if is_official(loaded):
            converted, report = convert_official_state_dict(loaded)
            logger.info("%s is an official checkpoint:\n%s", filename, report)
            return {"model": converted}
        weights = _weights_of(loaded, filename)
        return loaded if "model" in loaded else {"model": weights}

    def _load_model(self, checkpoint: dict):
        checkpoint["model"] = place_topformer(checkpoint["model"], self.model.state_dict())
        incompatible = super()._load_model(checkpoint)
        wrong = [
            f"{key} is {tuple(given)} there and {tuple(own)} here"
            for key, given, own in incompatible.incorrect_shapes
        ]
        # What inference does not use: a counter that old files lack, and the weights of the losses.
        unused = ("num_batches_tracked", "loss_weighting.log_variance")
        misshapen = {key for key, *_ in incompatible.incorrect_shapes}
        wrong += [
            f"{key} is missing"
            for key in incompatible.missing_keys
            if key not in misshapen and not key.endswith(unused)
        ]
        if self.require_all and wrong:
            heads = {
                "sem_seg_head.": "MODEL.SEM_SEG_HEAD (NUM_CLASSES, FUSE_DEPTHWISE)",
                "head.": "MODEL.RETINANET (NUM_CLASSES, NUM_CONVS), MODEL.FPN",
            }
            own = self.model.state_dict()
            keys = [text for start, text in heads.items() if any(k.startswith(start) for k in own)]
            raise InputError(
                f"the weights do not fit the config: {summarize(wrong)}. "
                f"Check {', '.join(['MODEL.TOPFORMER', *keys])} "
                "and, where DATASETS.FOLDERS names the data, its classes"
            )
        return incompatible

    def save(self, name: str, **kwargs) -> None:
        """As in fvcore, but a run killed while writing leaves the checkpoint before it whole."""
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.saved_model.state_dict(), **kwargs}
        data |= {key: obj.state_dict() for key, obj in self.checkpointables.items()}
        basename = f"{name}.pth"
        path = os.path.join(self.save_dir, basename)
        self.logger.info("Saving checkpoint to %s", path)
        _save(lambda f: torch.save(data, f), path)
        self.tag_last_checkpoint(basename)
