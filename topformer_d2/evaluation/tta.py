"""Test-time augmentation of segmentation: several sizes of an image, each also flipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from torch import Tensor, nn

from ..config import complete_config, model_tasks
from ..data import build_test_loader
from ..data.augmentation import FitForTest
from ..data.labelled import registered_tasks
from ..errors import InputError
from ..modeling.meta_arch.batching import output_size
from .confusion import ConfusionEvaluator
from .folders import tta_folder

# Of the size that is tested without augmentation.
RATIOS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
# Rows of a view whose softmax is computed at a time.
_LINES = 32


class SegmentationTTA(nn.Module):
    """A segmentation model whose answer is the mean of its probabilities over several views.

    A view is the image at one size, as it is or flipped. Each view's logits are resized as without
    augmentation, to the view's size and then to the output's, before the softmax.

    The views run one after the other. Beside the sum of probabilities, one map (K, height, width)
    of one view is held at a time, so the memory does not grow with the number of views.
    """

    @configurable
    def __init__(self, model: nn.Module, *, resizes: Sequence[T.Augmentation], flip: bool):
        """
        Args:
            model: takes and returns Detectron2's dicts, with logits as "sem_seg".
            resizes: from an image (H, W, 3) to each of its sizes.
            flip: take each size flipped horizontally as well.
        """
        super().__init__()
        self.model = model
        self.resizes = list(resizes)
        self.flip = flip
        self.training = model.training

    @classmethod
    def from_config(cls, cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
        return {"model": model, "resizes": build_resizes(cfg), "flip": cfg.TEST.AUG.FLIP}

    @torch.no_grad()
    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """
        Args:
            batched_inputs: one dict an image, with "image" (3, H, W) in 0..255 at the size of its
                file, and "height" and "width" of the output (default: the image's).

        Returns:
            one dict an image with "sem_seg", probabilities (K, height, width) float32.
        """
        return [{"sem_seg": self._mean(x)} for x in batched_inputs]

    def _mean(self, x: dict) -> Tensor:
        height, width = output_size(x, x["image"].shape[-2:])
        pixels = np.ascontiguousarray(x["image"].permute(1, 2, 0).cpu().numpy())
        total = None
        for resize in self.resizes:
            resized = resize.get_transform(pixels).apply_image(pixels)
            view = torch.from_numpy(resized).permute(2, 0, 1).contiguous()
            for is_flipped in (False, True) if self.flip else (False,):
                given = {"image": view.flip(-1) if is_flipped else view}
                logits = self.model([{**given, "height": height, "width": width}])[0]["sem_seg"]
                if total is None:
                    total = torch.zeros_like(logits, dtype=torch.float32)
                for line in range(0, height, _LINES):
                    rows = slice(line, line + _LINES)
                    found = logits[:, rows].float().softmax(0)
                    total[:, rows] += found.flip(-1) if is_flipped else found
                del logits  # as large as the sum; the next view has its own
        assert total is not None  # there is a size
        return total.div_(len(self.resizes) * (2 if self.flip else 1))


def build_resizes(cfg: CfgNode) -> list[T.Augmentation]:
    """The sizes of TEST.AUG, each made as the protocol makes the one of INPUT.MIN_SIZE_TEST.

    Raises:
        InputError: the model does no segmentation, or the sizes are not positive integers.
    """
    cfg = complete_config(cfg)
    if "sem_seg" not in model_tasks(cfg):
        raise InputError(
            "TEST.AUG.ENABLED is for segmentation, but MODEL.META_ARCHITECTURE is "
            f"{cfg.MODEL.META_ARCHITECTURE!r}: set it to False"
        )
    keys, short, long = cfg.TEST.AUG, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    sizes = list(keys.MIN_SIZES) or [int(short * ratio) for ratio in RATIOS]
    if min(sizes) < 1:
        raise InputError(
            f"TEST.AUG.MIN_SIZES is {tuple(keys.MIN_SIZES)} and INPUT.MIN_SIZE_TEST {short}: name "
            "short sides of 1 pixel or more by either"
        )
    # Where the protocol keeps an image's size, the limit on the long side is TEST.AUG's alone.
    limits = [
        min(keys.MAX_SIZE, int(long * size / short) if short else keys.MAX_SIZE) for size in sizes
    ]
    divisor = cfg.INPUT.TEST_SIZE_DIVISOR
    return [FitForTest(size, limit, divisor) for size, limit in zip(sizes, limits, strict=True)]


def evaluate_with_tta(cfg: CfgNode, model: nn.Module) -> dict[str, dict[str, float]]:
    """Evaluate segmentation on DATASETS.TEST with TEST.AUG's views.

    Files go to each dataset's tta_folder.

    Returns:
        on the main process {"sem_seg_TTA": metrics}, for each of several datasets under
        "<dataset>/sem_seg_TTA"; on others {}.

    Raises:
        InputError: as build_resizes.
    """
    cfg = complete_config(cfg)
    tta = SegmentationTTA(cfg, model)
    own_size = cfg.clone()
    own_size.defrost()
    own_size.INPUT.MIN_SIZE_TEST = 0
    own_size.INPUT.TEST_SIZE_DIVISOR = 1
    results = {}
    for name in cfg.DATASETS.TEST:
        if "sem_seg" not in registered_tasks(name):
            continue
        evaluator = ConfusionEvaluator(name, output_dir=tta_folder(cfg, name))
        found = inference_on_dataset(tta, build_test_loader(own_size, name), evaluator)
        if comm.is_main_process():
            key = "sem_seg_TTA" if len(cfg.DATASETS.TEST) == 1 else f"{name}/sem_seg_TTA"
            results[key] = found["sem_seg"]
            print_csv_format({key: found["sem_seg"]})
    return results
