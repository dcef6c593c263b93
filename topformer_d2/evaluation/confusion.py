"""Evaluation of semantic segmentation by a confusion matrix, image by image."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from tabulate import tabulate

from ..data.images import read_label
from ..data.label_checks import check_label_range
from ..data.registered import load_records
from ..errors import InputError
from ..files import write_json
from ..logs import get_logger

logger = get_logger(__name__)


def confusion_matrix(
    prediction: np.ndarray, truth: np.ndarray, num_classes: int, ignore_label: int
) -> np.ndarray:
    """Count pixels by truth (row) and prediction (column), ignored ones left out.

    Args:
        prediction, truth: integers of one shape; predictions below num_classes, truth below it or
            equal to ignore_label (not checked here).

    Returns:
        (num_classes, num_classes) int64.
    """
    # One wider than the classes: whatever is ignored falls into the last row.
    side = num_classes + 1
    row = np.minimum(truth, num_classes) if ignore_label >= num_classes else truth
    cell = row.astype(np.intp) * side + prediction  # the type that bincount takes as it is
    if ignore_label < num_classes:
        cell[truth == ignore_label] = num_classes * side
    counts = np.bincount(cell.reshape(-1), minlength=side * side).reshape(side, side)
    return counts[:num_classes, :num_classes]


def metrics_from_confusion(matrix: np.ndarray, class_names: list[str]) -> dict[str, float]:
    """mIoU, fwIoU, mACC, pACC, then IoU and ACC by class, in percent.

    A class that neither the truth nor the prediction has is NaN and left out of the means; one that
    is only predicted has IoU 0 and no accuracy. This is the official protocol, and Detectron2 v0.6
    has the same mIoU; its main branch leaves classes without truth out of it.
    """
    matrix = matrix.astype(np.float64)
    hits, truth, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    union = truth + predicted - hits
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = np.where(union > 0, hits / union, np.nan)
        accuracy = np.where(truth > 0, hits / truth, np.nan)
    has_truth = bool(truth.sum())
    metrics = {
        "mIoU": np.nanmean(iou) if has_truth else np.nan,
        "fwIoU": np.nansum(iou * truth) / truth.sum() if has_truth else np.nan,
        "mACC": np.nanmean(accuracy) if has_truth else np.nan,
        "pACC": hits.sum() / truth.sum() if has_truth else np.nan,
    }
    metrics |= {f"IoU-{name}": value for name, value in zip(class_names, iou, strict=True)}
    metrics |= {f"ACC-{name}": value for name, value in zip(class_names, accuracy, strict=True)}
    return {key: float(100 * value) for key, value in metrics.items()}


def format_table(metrics: dict[str, float], class_names: list[str]) -> str:
    """IoU and accuracy by class, then the means, as text."""
    rows = [[name, metrics[f"IoU-{name}"], metrics[f"ACC-{name}"]] for name in class_names]
    table = tabulate(rows, headers=["class", "IoU", "accuracy"], floatfmt=".1f", missingval="-")
    means = "  ".join(f"{key} {metrics[key]:.2f}" for key in ("mIoU", "fwIoU", "mACC", "pACC"))
    return f"{table}\n{means}"


class ConfusionEvaluator(DatasetEvaluator):
    """Detectron2's evaluator interface over confusion_matrix; nothing is kept but the matrix.

    Results come in the dict of Detectron2's SemSegEvaluator (see metrics_from_confusion for where
    they differ), without writing every prediction as RLE.
    """

    needs = "label_map"

    def __init__(
        self, dataset_name: str, *, output_dir: str | None = None, distributed: bool = True
    ):
        """
        Args:
            dataset_name: a registered dataset with labels.
            output_dir: where evaluate() writes sem_seg_evaluation.json; None = nowhere.
            distributed: add up the matrices of all processes.
        """
        metadata = MetadataCatalog.get(dataset_name)
        self.class_names = list(metadata.stuff_classes)
        self.ignore_label = metadata.get("ignore_label", 255)
        self._dataset_name = dataset_name
        self._output_dir = output_dir
        self._distributed = distributed
        self._label_files = {
            record["file_name"]: record["sem_seg_file_name"]
            for record in load_records(dataset_name)
            if "sem_seg" in record["tasks"]
        }
        self.reset()

    def reset(self) -> None:
        self.matrix = np.zeros((len(self.class_names),) * 2, dtype=np.int64)

    def process(self, inputs: list[dict], outputs: list) -> None:
        """Add images whose labels are read from the dataset's files; those without are left out.

        Args:
            inputs: dicts with the record's "file_name".
            outputs: for each a dict whose "sem_seg" is the logits (K, H, W) or a label map (H, W),
                or such a tensor itself.

        Raises:
            InputError: a label file cannot be read, differs in size from the prediction, or has
                a label out of range; or the model gives no pixel labels.
        """
        for _, _, prediction, truth in self.pairs(inputs, outputs):
            self.update(prediction, truth)

    def pairs(
        self, inputs: list[dict], outputs: list
    ) -> Iterator[tuple[dict, Any, np.ndarray, np.ndarray]]:
        """Each labelled image of process: its input, its output, the label map and its truth.

        Both maps are (H, W) integers in range; InputError as in process.
        """
        for record, output in zip(inputs, outputs, strict=True):
            file = self._label_files.get(record["file_name"])
            if file is None:
                continue
            found = output
            if isinstance(output, dict):
                if "sem_seg" not in output:
                    raise InputError(
                        f"the model gives no pixel labels ('sem_seg') for {self._dataset_name!r}: "
                        "ConfusionEvaluator is for a segmenter or a joint model, BoxEvaluator for "
                        "a detector"
                    )
                found = output["sem_seg"]
            prediction = found.argmax(dim=0) if found.ndim == 3 else found
            truth = read_label(file)
            if truth.shape != tuple(prediction.shape):
                raise InputError(
                    f"{file} is {truth.shape} (height, width) but the prediction for "
                    f"{record['file_name']} is {tuple(prediction.shape)}"
                )
            check_label_range(truth, len(self.class_names), self.ignore_label, file)
            if not isinstance(prediction, np.ndarray):
                prediction = np.asarray(prediction.cpu())
            yield record, output, prediction, truth

    def update(self, prediction: torch.Tensor | np.ndarray, truth: np.ndarray) -> None:
        """Add one image: a label map and its truth, both (H, W) integers in range."""
        if not isinstance(prediction, np.ndarray):
            prediction = np.asarray(prediction.cpu())
        self.matrix += confusion_matrix(prediction, truth, len(self.class_names), self.ignore_label)

    def evaluate(self) -> OrderedDict | None:
        """{"sem_seg": metrics} on the main process, None on others; the table goes to the log."""
        if self._distributed and comm.get_world_size() > 1:
            matrices = comm.gather(self.matrix)
            if not comm.is_main_process():
                return None
            self.matrix = np.sum(matrices, axis=0)
        metrics = metrics_from_confusion(self.matrix, self.class_names)
        self._warn_of_few_classes()
        logger.info("%s:\n%s", self._dataset_name, format_table(metrics, self.class_names))
        if self._output_dir:
            path = os.path.join(self._output_dir, "sem_seg_evaluation.json")
            write_json(path, {"metrics": metrics, "confusion": self.matrix.tolist()})
        return OrderedDict(sem_seg=metrics)

    def _warn_of_few_classes(self) -> None:
        """A warning where a model that learnt nothing could have this mIoU."""
        seen = np.flatnonzero(self.matrix.sum(axis=1))
        if seen.size > 1:
            return
        what = f"pixels of the class {self.class_names[seen[0]]!r} alone" if seen.size else "none"
        logger.warning(
            "%s: mIoU SAYS NOTHING: of %d classes, the labels of the images that were evaluated "
            "have %s. Are they 0/255 masks (%d is ignored)? Write the classes as 0, 1, ...",
            *(self._dataset_name, len(self.class_names), what, self.ignore_label),
        )
