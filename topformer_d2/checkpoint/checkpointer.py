"""Detectron2's checkpointer, made safe against untrusted files, kills and full disks."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from ..config import is_model, model_files
from ..errors import InputError, is_out_of_memory, summarize
from ..files import Stamp, file_stamp, is_remote, write_beside
from ..logs import get_logger
from .contents import strip_prefix, strip_wrappers, weights_of
from .files import local_file, read_state_dict, save_file
from .folder import TAG, is_complete, read_tag, training_checkpoints
from .official import convert_official_state_dict, is_official
from .parts import TRAINING_ALONE, place_topformer
from .values import check_kinds, check_values

logger = get_logger(__name__)


class SafeCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer that runs no pickled code, reads safetensors, writes atomically.

    It takes official checkpoints as they are, and logs what it used of them.

    Attributes:
        saved_model: whose weights save() writes; the model itself, or the average of its weights.
    """

    def __init__(
        self, model: nn.Module, save_dir: str = "", *, require_all: bool = False, **kwargs: Any
    ):
        """
        Args:
            model: whose weights are loaded and saved.
            save_dir: folder of the checkpoints; "" = nothing is saved.
            kwargs: what is saved beside the model, such as `optimizer`.
            require_all: refuse weights that leave a tensor of the model as it was, as inference
                needs; training may start from a part.
        """
        super().__init__(model, save_dir, **kwargs)
        self.require_all = require_all
        self.saved_model = self.model
        self._found: str | None = None  # get_checkpoint_file's answer, until the next save
        self._read: tuple[Stamp, Mapping] | None = None  # that file's content, until it is loaded

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict:
        """As in Detectron2, and `path` may be the name of a model of list_models().

        Raises:
            InputError: the file is missing, or does not fit the model.
        """
        if not path and self.require_all:
            raise InputError(
                "no weights file is named: give `weights`, as in Predictor(config, weights), or "
                "MODEL.WEIGHTS of the config"
            )
        if path:
            path = model_files(path)[1] if is_model(path) else path
            local_file(path)  # fvcore only asserts that it is there
        # Detectron2's main branch keeps this of a file that failed, and refuses the next one.
        self._parsed_url_during_load = None
        return super().load(path, *args, **kwargs)

    def _load_file(self, filename: str) -> dict[str, Any]:
        checked, self._read = self._read, None
        if checked and checked[0] == file_stamp(filename):
            loaded = checked[1]
        else:
            loaded = read_state_dict(filename)
        if is_official(loaded):
            converted, report = convert_official_state_dict(loaded)
            check_values(converted, filename)
            logger.info("%s is an official checkpoint:\n%s", filename, report)
            return {"model": converted}
        weights = weights_of(loaded, filename)
        check_values(weights, filename)
        return {**loaded, "model": weights} if "model" in loaded else {"model": weights}

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        own = self.model.state_dict()
        # The model, or a part of it, may be wrapped here as well.
        names = dict(zip(strip_wrappers(own), own, strict=True))
        weights = place_topformer(strip_prefix(checkpoint["model"], names), names)
        unknown = tuple(
            part for part in TRAINING_ALONE if not any(k.startswith(part) for k in names)
        )
        weights = {k: v for k, v in weights.items() if not k.startswith(unknown)}
        checkpoint["model"] = {names.get(key, key): value for key, value in weights.items()}
        check_kinds(checkpoint["model"], own)
        incompatible = super()._load_model(checkpoint)
        # A training may add its auxiliary loss or a teacher to weights that were trained without.
        missing = incompatible.missing_keys
        missing[:] = [key for key in missing if not any(part in key for part in TRAINING_ALONE)]
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
        if wrong and not self.require_all:
            parts = sorted({text.split(".")[0] for text in wrong})
            logger.warning(
                "%d of the model's %d tensors are not in the weights file and keep their initial "
                "values, in %s: %s",
                *(len(wrong), len(self.model.state_dict()), ", ".join(parts), summarize(wrong)),
            )
        if self.require_all and wrong:
            heads = {
                "sem_seg_head.": "MODEL.SEM_SEG_HEAD (NUM_CLASSES, FUSE_DEPTHWISE)",
                "cls_head.": "MODEL.CLS_HEAD (NUM_CLASSES)",
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

    def save(self, name: str, **kwargs: Any) -> None:
        """As in fvcore, but a run killed while writing leaves the checkpoint before it whole."""
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.saved_model.state_dict(), **kwargs}
        data |= {key: obj.state_dict() for key, obj in self.checkpointables.items()}
        basename = f"{name}.pth"
        path = os.path.join(self.save_dir, basename)
        self.logger.info("Saving checkpoint to %s", path)
        save_file(lambda f: torch.save(data, f), path)
        self.tag_last_checkpoint(basename)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Write last_checkpoint beside and rename it: a killed run leaves the one before it."""
        self._found = self._read = None
        if is_remote(self.save_dir):
            super().tag_last_checkpoint(last_filename_basename)
        else:
            tag = Path(self.save_dir, TAG)
            if tag.exists() and not tag.is_file():  # a folder, which nothing can be renamed to
                aside = tag.with_name(f"{TAG}.{os.getpid()}-{secrets.token_hex(4)}")
                os.rename(tag, aside)
                logger.warning("%s is not a file, and is now %s", tag, aside)
            write_beside(tag, last_filename_basename.encode(), durable=True)

    def has_checkpoint(self) -> bool:
        """Whether get_checkpoint_file has one; raises as that does."""
        return bool(self.get_checkpoint_file())

    def get_checkpoint_file(self) -> str:
        """The checkpoint to go on from: last_checkpoint's, or where that is damaged the newest.

        Returns:
            its path; "" where save_dir has none of a training.

        Raises:
            InputError: there are some, and none is whole.
        """
        if is_remote(self.save_dir):
            return super().get_checkpoint_file() if super().has_checkpoint() else ""
        if self._found is None:
            self._found = self._find()
        return self._found

    def take(self, path: str | None) -> None:
        """Answer as get_checkpoint_file a file from elsewhere, until the next save.

        Args:
            path: of a whole checkpoint; "" = there is none; None = look in save_dir again.
        """
        self._found, self._read = path, None

    def _find(self) -> str:
        folder = Path(self.save_dir)
        problems: list[str] = []
        if os.path.lexists(folder / TAG):
            try:
                named = read_tag(folder)
                self._read = file_stamp(named), self._check_whole(named)
                return str(named)
            except InputError as e:
                problems.append(str(e))
        candidates = training_checkpoints(folder)
        if not candidates and not problems:
            return ""
        if not problems:
            problems.append(f"{folder / TAG} is missing")
        for path, _ in candidates:
            try:
                self._read = file_stamp(path), self._check_whole(path, "trainer")
            except InputError as e:
                if str(e) not in problems:
                    problems.append(str(e))
            else:
                logger.warning("%s. Going on from %s instead", "; ".join(problems), path)
                return str(path)
        raise InputError(
            f"{folder} has no whole checkpoint to go on from: {'; '.join(problems)}. Start anew "
            "without `resume` in another OUTPUT_DIR, with MODEL.WEIGHTS naming weights that can be "
            "read"
        )

    def another_whole(self, refused: str, check: Callable[[Mapping], object]) -> str:
        """The newest whole checkpoint of a training in save_dir beside a refused one.

        Args:
            refused: path of the one that is not wanted.
            check: raises where a checkpoint's "trainer" is not wanted either.

        Returns:
            its path; "" where there is none.
        """
        folder = "" if is_remote(self.save_dir) else self.save_dir
        for path, _ in training_checkpoints(folder) if folder else ():
            try:
                if not os.path.samefile(path, refused):
                    check(self._check_whole(path, "trainer")["trainer"])
                    return str(path)
            except Exception as e:  # a damaged state may raise anything
                if is_out_of_memory(e):
                    raise
        return ""

    def _check_whole(self, path: Path, *needed: str) -> Mapping:
        """The content of a checkpoint.

        Args:
            needed: entries beside those that this checkpointer loads.

        Raises:
            InputError: it cannot be read, or lacks what a training goes on with.
        """
        loaded = read_state_dict(str(path))
        weights_of(loaded, str(path))
        for key in {*self.checkpointables, *needed}:
            state = loaded.get(key)
            if not isinstance(state, Mapping) or (key == "trainer" and not is_complete(state)):
                raise InputError(
                    f"{path} has weights without the training's state ({key!r}): a new training "
                    f"starts from it by MODEL.WEIGHTS {path}, without `resume`"
                )
        return loaded
