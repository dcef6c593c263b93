"""The time of a training step by part and its peak memory, beside straight implementations."""

from __future__ import annotations

import copy
import ctypes
import gc
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import RetinaNet
from detectron2.structures import BoxMode
from detectron2.utils.events import EventStorage
from tabulate import tabulate
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import changed_loss_keys, complete_config
from ..data.images import write_image
from ..data.mapper import TaskMapper
from ..data.seeded import SeededMap, kinds_of
from ..data.synthetic import make_sample
from ..engine.solver import build_optimizer
from ..engine.teachers import attach_teachers
from ..inference.threads import threads
from ..modeling import build_model, freeze_parts
from ..modeling.layers import IN_PLACE, resize
from ..modeling.losses import SegmentationLoss
from ..modeling.meta_arch.batching import pad_labels
from .memory import added_memory
from .peers import PEERS, build_peer

PARTS = ("data", "forward", "teacher", "loss", "backward", "optimizer")
TRAINED_PEERS = (PEERS[0], PEERS[2])
# Ours and what it is compared with.
OURS, STRAIGHT = "ours", "straight"


@dataclass
class TrainingStep:
    """A model that is trained, and its optimizer.

    Attributes:
        name: for the table.
        model: from Detectron2's dicts to losses by name.
        optimizer: of its parameters.
        loss_seconds: what its losses took in the last step.
        teacher_seconds: what its teachers and their losses took in the last step.
    """

    name: str
    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss_seconds: float = field(default=0.0, init=False)
    teacher_seconds: float = field(default=0.0, init=False)

    def timed(self, function: Callable, counter: str = "loss_seconds") -> Callable:
        """`function`, whose time is added to `counter` and not to the forward pass's."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds = time.perf_counter() - start
                setattr(self, counter, getattr(self, counter) + seconds)

        return timed

    def run(self, batch: list[dict]) -> tuple[float, ...]:
        """One update; the milliseconds of PARTS but for the first."""
        self.loss_seconds = self.teacher_seconds = 0.0
        times = [time.perf_counter()]
        total = sum(self.model(batch).values())
        times.append(time.perf_counter())
        self.optimizer.zero_grad()
        total.backward()
        times.append(time.perf_counter())
        self.optimizer.step()
        times.append(time.perf_counter())
        forward, backward, optimizer = np.diff(times).tolist()
        beside = self.teacher_seconds, self.loss_seconds
        parts = (forward - sum(beside), *beside, backward, optimizer)
        return tuple(1e3 * seconds for seconds in parts)


@dataclass
class TrainingResult:
    """Medians over the repetitions.

    Attributes:
        name: of the step.
        ms: by part, of PARTS.
        total_ms: of all parts together.
        ratio: of the total to the straight implementation's in the same repetition.
        peak_mib: MiB that a step adds to the process's memory at its peak; None = not Linux.
        memory_ratio: to the straight implementation's.
    """

    name: str
    ms: dict[str, float]
    total_ms: float
    ratio: float
    peak_mib: float | None
    memory_ratio: float | None


class PlainCrossEntropy(SegmentationLoss):
    """The loss of a straight implementation, which resizes all logits."""

    def pixel_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        resized = resize(logits.float(), targets.shape[-2:])
        losses = F.cross_entropy(resized, targets, ignore_index=self.ignore_value, reduction="sum")
        return losses / targets.numel()


class _TrainedPeer(nn.Module):
    """A peer with the plain loss, called as Detectron2's models are."""

    def __init__(self, peer: nn.Module, prepare: Callable[[list[Tensor]], Tensor]):
        super().__init__()
        self.peer, self.loss, self.prepare = peer, PlainCrossEntropy(), prepare

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor]:
        images = self.prepare([x["image"] for x in batched_inputs]).contiguous()
        labels = [x["sem_seg"] for x in batched_inputs]
        targets = pad_labels(labels, images.shape[-2:], self.loss.ignore_value, images.device)
        return self.loss(self.peer(images), targets)


def make_steps(cfg: CfgNode, *, with_peers: bool) -> list[TrainingStep]:
    """The model of a config, its straight implementation, and other libraries' networks.

    The straight implementation has the same weights. Its batch has PyTorch's usual layout, its
    activations make new maps, its loss resizes all logits or makes one-hot targets, and its
    optimizer is not fused. Where MODEL.SEM_SEG_LOSS adds to the cross entropy, or
    MODEL.RETINANET.QUALITY_TARGETS changes what a detector learns, both have our loss.

    Args:
        cfg: MODEL.DEVICE is "cpu".
        with_peers: add TRAINED_PEERS, for a config of segmentation alone.
    """
    cfg = _with_any_weights(complete_config(cfg))
    model = freeze_parts(build_model(cfg), cfg.MODEL.FREEZE)
    model = attach_teachers(model, cfg).train()
    straight = copy.deepcopy(model)
    # Which come before the model makes its maps.
    straight.backbone.register_forward_pre_hook(lambda _, args: (args[0].contiguous(), *args[1:]))
    back = {in_place: plain for plain, in_place in IN_PLACE.items()}
    for module in straight.modules():
        if getattr(module, "activation", None) in back:
            module.activation = back[module.activation]
    head = getattr(straight, "sem_seg_head", None)
    if head is not None and not changed_loss_keys(cfg):
        head.loss = PlainCrossEntropy(weight=head.loss.weight, ignore_value=head.ignore_value)
    if isinstance(straight, RetinaNet) and not cfg.MODEL.RETINANET.QUALITY_TARGETS:
        straight.losses = RetinaNet.losses.__get__(straight)
    steps = [
        TrainingStep(OURS, model, build_optimizer(cfg, model)),
        TrainingStep(STRAIGHT, straight, _not_fused(build_optimizer(cfg, straight))),
    ]
    if with_peers:
        for name in TRAINED_PEERS:
            peer = build_peer(name, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)
            # A bound method: the peer does not own the model.
            trained = _TrainedPeer(peer, model._pad_for_training).train().requires_grad_(True)
            steps.append(TrainingStep(name, trained, torch.optim.AdamW(trained.parameters())))
    for step in steps:
        for owner in (step.model, getattr(step.model, "sem_seg_head", None)):
            if isinstance(getattr(owner, "loss", None), SegmentationLoss):
                owner.loss.forward = step.timed(owner.loss.forward)
        for method in ("losses", "label_anchors"):  # a detector's
            if hasattr(step.model, method):
                setattr(step.model, method, step.timed(getattr(step.model, method)))
        if hasattr(step.model, "distillation"):
            own = step.model.distillation
            own.forward = step.timed(own.forward, "teacher_seconds")
    return steps


def _with_any_weights(cfg: CfgNode) -> CfgNode:
    """With a weight for each class where the data says which, on which no time depends."""
    keys = cfg.MODEL.SEM_SEG_LOSS
    if keys.CLASS_WEIGHTS_FROM and not keys.CLASS_WEIGHTS:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.SEM_SEG_LOSS.CLASS_WEIGHTS = [1.0] * cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    return cfg


def _not_fused(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    for group in optimizer.param_groups:
        group["fused"] = None
    return optimizer


def write_training_images(cfg: CfgNode, folder: str, count: int) -> list[dict]:
    """Write synthetic images and labels at the config's training size; returns their records."""
    height = cfg.INPUT.MIN_SIZE_TRAIN[0]
    records = []
    for seed in range(count):
        image, label, boxes = make_sample(seed, height, height * 4 // 3)
        stem = os.path.join(folder, str(seed))
        write_image(f"{stem}.jpg", image[:, :, ::-1])
        classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        write_image(f"{stem}.png", np.minimum(label, classes - 1).astype(np.uint8))
        objects = [
            {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0} for _, *box in boxes
        ]
        records.append(
            {
                "file_name": f"{stem}.jpg",
                "sem_seg_file_name": f"{stem}.png",
                "annotations": objects,
            }
        )
    return records


def time_training(
    cfg: CfgNode,
    steps: Sequence[TrainingStep],
    records: Sequence[dict],
    *,
    repetitions: int,
    num_threads: int,
) -> list[TrainingResult]:
    """Run all steps alternately on the same batches.

    Args:
        cfg: its augmentation makes the batches.
        steps: OURS and STRAIGHT among them.
        records: of one batch.
        repetitions: that are timed; one more comes before them.
        num_threads: of PyTorch and OpenCV.
    """
    samples = SeededMap(records, TaskMapper(cfg, is_train=True), seed=0, kinds=kinds_of(records))
    times: dict[str, list[tuple[float, ...]]] = {step.name: [] for step in steps}
    with threads(num_threads), EventStorage():
        for repetition in range(repetitions + 1):
            first = repetition * len(records)
            start = time.perf_counter()
            batch = [samples[first + i, i] for i in range(len(records))]
            data = 1e3 * (time.perf_counter() - start)
            for step in steps:
                parts = data, *step.run(batch)
                if repetition:
                    times[step.name].append(parts)
        peaks = {step.name: _peak(step, batch) for step in steps}
    return list(_results(times, peaks))


def _peak(step: TrainingStep, batch: list[dict]) -> float | None:
    """MiB that a step adds, once what earlier steps have freed has gone back to the system."""
    if sys.platform != "linux":
        return None
    step.optimizer.zero_grad()
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return added_memory(lambda: step.run(batch))


def _results(times: dict, peaks: dict[str, float | None]) -> Iterator[TrainingResult]:
    totals = {name: np.array(rows).sum(axis=1) for name, rows in times.items()}
    straight = peaks[STRAIGHT]
    for name, rows in times.items():
        medians = np.median(np.array(rows), axis=0).tolist()
        peak = peaks[name]
        yield TrainingResult(
            name,
            dict(zip(PARTS, medians, strict=True)),
            float(np.median(totals[name])),
            float(np.median(totals[name] / totals[STRAIGHT])),
            peak,
            peak / straight if peak is not None and straight else None,
        )


def format_training(results: Sequence[TrainingResult]) -> str:
    """A table of time_training's results; without a teacher, it has no column of that."""
    parts = [part for part in PARTS if any(result.ms[part] for result in results)]
    rows = [
        {
            "": result.name,
            **{f"{part}, ms": f"{result.ms[part]:.0f}" for part in parts},
            "step, ms": f"{result.total_ms:.0f}",
            "of straight": f"{result.ratio:.2f}",
            "peak, MiB": "" if result.peak_mib is None else f"{result.peak_mib:.0f}",
            "of straight's": "" if result.memory_ratio is None else f"{result.memory_ratio:.2f}",
        }
        for result in results
    ]
    aligned = ("left", *("right",) * (len(rows[0]) - 1))
    return tabulate(
        rows, headers="keys", colalign=aligned, disable_numparse=True, tablefmt="github"
    )


def training_records(results: Sequence[TrainingResult]) -> list[dict]:
    """The results as dicts, for JSON."""
    return [asdict(result) for result in results]
