"""Evaluation of classes of whole images: top-1 and top-5 accuracy."""

from __future__ import annotations

import os
from collections import OrderedDict

import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from torch import Tensor

from ..data.registered import load_records
from ..errors import InputError
from ..files import write_json
from ..logs import get_logger
from ..tasks import IMAGES

logger = get_logger(__name__)

_TOPS = (1, 5)


def ranks(logits: Tensor, truth: Tensor) -> Tensor:
    """How many wrong classes score at least as high as the right one; 0 = the top one is right.

    A wrong class that has the same score as the right one counts as better. So the rank does not
    depend on the order of the classes or on how a device sorts equal values. A model that gives all
    classes the same score is right in none of the images. Sorting could make it right in all images
    of the first class.

    Args:
        logits: (N, K) float, finite.
        truth: (N,) int64 in [0, K).

    Returns:
        (N,) int64, from 0 to K - 1.
    """
    right = logits.gather(1, truth[:, None])
    return (logits >= right).sum(1) - 1


class TopAccuracy(DatasetEvaluator):
    """Share of the images, in percent, whose class is the best or among the best 5.

    Classes that tie with the right one count as better (`ranks`).
    """

    needs = "image_logits"

    def __init__(
        self, dataset_name: str, *, output_dir: str | None = None, distributed: bool = True
    ):
        """
        Args:
            dataset_name: a registered dataset of images with classes.
            output_dir: where evaluate() writes cls_evaluation.json; None = nowhere.
            distributed: add up the counts of all processes.
        """
        self._dataset_name = dataset_name
        self._output_dir = output_dir
        self._distributed = distributed
        self._classes = {r["file_name"]: r[IMAGES.record_key] for r in load_records(dataset_name)}
        self.reset()

    def reset(self) -> None:
        self._counts = [0] * len(_TOPS)
        self._images = 0

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Count images.

        Args:
            inputs: dicts with the record's "file_name".
            outputs: for each a dict with "cls", the logits (K,).

        Raises:
            InputError: logits are not finite, have too few classes, or are not there.
        """
        if not all(isinstance(output, dict) and IMAGES.name in output for output in outputs):
            raise InputError(
                f"the model gives no class of an image ({IMAGES.name!r}) for "
                f"{self._dataset_name!r}: TopAccuracy is for a classifier"
            )
        logits = torch.stack([output[IMAGES.name] for output in outputs]).float()
        truth = torch.tensor([self._classes[x["file_name"]] for x in inputs], device=logits.device)
        if int(truth.max()) >= logits.shape[1]:
            raise InputError(
                f"dataset {self._dataset_name!r} has a class {int(truth.max())}, and the model "
                f"{logits.shape[1]} classes: set MODEL.CLS_HEAD.NUM_CLASSES"
            )
        if not logits.isfinite().all():
            raise InputError(
                "the classifier's logits have NaN or infinite values: the weights or the image do "
                "not fit the model"
            )
        rank = ranks(logits, truth)
        self._images += len(rank)
        self._counts = [c + int((rank < k).sum()) for c, k in zip(self._counts, _TOPS, strict=True)]

    def evaluate(self) -> OrderedDict | None:
        """{"cls": {"top1", "top5"}} in percent on the main process, None on others."""
        counts = [self._images, *self._counts]
        if self._distributed and comm.get_world_size() > 1:
            gathered = comm.gather(counts)
            if not comm.is_main_process():
                return None
            counts = [sum(column) for column in zip(*gathered, strict=True)]
        images, *right = counts
        metrics = {
            f"top{k}": 100 * n / images if images else float("nan")
            for k, n in zip(_TOPS, right, strict=True)
        }
        text = "  ".join(f"{name} {value:.2f}" for name, value in metrics.items())
        logger.info("%s: %d images  %s", self._dataset_name, images, text)
        if self._output_dir:
            path = os.path.join(self._output_dir, "cls_evaluation.json")
            write_json(path, {"metrics": metrics, "images": images})
        return OrderedDict({IMAGES.metrics: metrics})
