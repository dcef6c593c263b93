"""What a student learns from trained models: frozen teachers, and the losses of their outputs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import resize
from .meta_arch.batching import to_device
from .meta_arch.contract import RawOutput, Seen, adapt
from .meta_arch.head_contract import pad_to_multiple
from .meta_arch.quality import quality_focal_loss

Size = Sequence[int]
# From this score on, an anchor of the teacher's is one that has found something.
_FOUND = 0.3
# Least norm of a feature that is scaled to the norm 1; its inverse bounds the gradient.
_LEAST_NORM = 1e-2


class Teacher:
    """A trained model that stays as it is: in eval mode, without gradients.

    It is no module. So the student's parameters, state, averaged copies, checkpoints and exports
    have nothing of it, and copies of a student share it.
    """

    def __init__(
        self, model: nn.Module, *, of_mean: Tensor, of_std: Tensor, flips_channels: bool = False
    ):
        """
        Args:
            model: adapted to meta_arch.contract where it is one of Detectron2's.
            of_mean, of_std: (3, 1, 1), by which the student's batches are normalised.
            flips_channels: the student's batches have the channels in the other order.
        """
        self.model: Any = adapt(model).eval().requires_grad_(False)
        self._of_mean, self._of_std = of_mean.detach().clone(), of_std.detach().clone()
        self._flips = flips_channels
        self._is_normalised = (
            not flips_channels
            and torch.equal(of_mean, self.model.pixel_mean)
            and torch.equal(of_std, self.model.pixel_std)
        )
        self._features: dict[str, Any] = {}
        for name in ("sem_seg_head", "head"):
            if hasattr(self.model, name):
                getattr(self.model, name).register_forward_pre_hook(self._keep(name))

    def __deepcopy__(self, memo: dict) -> Teacher:
        return self

    def _keep(self, name: str) -> Any:
        def keep(_: nn.Module, args: tuple) -> None:
            self._features[name] = args[0]

        return keep

    @torch.no_grad()
    def __call__(self, images: Tensor, sizes: Sequence[Size]) -> tuple[Seen, Size]:
        """Run it on a student's batch.

        Args:
            images: (N, 3, H, W), normalised and padded to the right and below as the student's.
            sizes: (height, width) of each image without the padding.

        Returns:
            what its heads get and give, and the (height, width) to which it padded the batch.
        """
        if not self._is_normalised:
            images = self._normalise(images, sizes)
        padded = pad_to_multiple(images, self.model.size_divisor)
        raw = self.model.network(padded)
        features, self._features = self._features, {}
        seen = Seen(raw, features.get("sem_seg_head"), features.get("head"))
        return seen, padded.shape[-2:]

    def _normalise(self, images: Tensor, sizes: Sequence[Size]) -> Tensor:
        images = images * self._of_std + self._of_mean
        if self._flips:
            images = images.flip(1)
        images = (images - self.model.pixel_mean) / self.model.pixel_std
        for image, (height, width) in zip(images, sizes, strict=True):
            image[:, height:] = 0
            image[:, :, width:] = 0
        return images

    def digest(self) -> str:
        """SHA-256 of its weights."""
        found = hashlib.sha256()
        for name, value in sorted(self.model.state_dict().items()):
            found.update(name.encode())
            found.update(value.detach().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()


class Lesson(nn.Module):
    """The terms of one task; a subclass has `losses`.

    The 1x1 convolutions that bring the student's features to the teacher's width are trained with
    the student.
    """

    def __init__(self, teacher: Teacher, widths: Mapping[str, tuple[int, int]]):
        """
        Args:
            teacher: who has the task.
            widths: of each feature that is compared, the student's and the teacher's channels;
                empty = features are not compared.
        """
        super().__init__()
        self.teacher = teacher
        self.compared = list(widths)
        self.adapters = nn.ModuleDict(
            {
                name: nn.Conv2d(own, other, 1)
                for name, (own, other) in widths.items()
                if own != other
            }
        )

    def losses(self, own: Seen, taught: Seen, sizes: Sequence[Size], of: Sizes) -> dict:
        """From what the student and the teacher saw to scalars by name."""
        raise NotImplementedError

    def _feature_loss(
        self,
        own: Mapping[str, Tensor],
        taught: Mapping[str, Tensor],
        sizes: Sequence[Size],
        of: Sizes,
    ) -> Tensor:
        """The mean of feature_distance over the compared features."""
        found = []
        for name in self.compared:
            feature = self.adapters[name](own[name]) if name in self.adapters else own[name]
            cells = feature.shape[-2:]
            mask = cells_of_images(sizes, of.batch, cells, feature.device)
            found.append(feature_distance(feature, of.at_cells(taught[name], cells), mask))
        return torch.stack(found).mean()


class Sizes:
    """The (height, width) of a student's batch, and that to which the teacher padded it."""

    def __init__(self, batch: Size, padded: Size):
        self.batch, self.padded = tuple(batch), tuple(padded)

    def at_cells(self, taught: Tensor, cells: Size) -> Tensor:
        """A teacher's maps (N, C, h', w') at the student's cells (h, w), bilinearly."""
        if self.padded == self.batch:
            return resize(taught, cells)
        # The student's stride, a power of two. The padding is cut off where both grids agree.
        most = max(side / n for side, n in zip(self.batch, cells, strict=True))
        stride = 2 ** math.ceil(math.log2(most))
        whole = [max(n, -(-side // stride)) for n, side in zip(cells, self.padded, strict=True)]
        return resize(taught, whole)[..., : cells[0], : cells[1]]


class PixelLesson(Lesson):
    """Softened logits, and the features that the segmentation head takes."""

    def __init__(
        self,
        teacher: Teacher,
        *,
        logits_weight: float = 1.0,
        temperature: float = 2.0,
        features_weight: float = 0.0,
        widths: Mapping[str, tuple[int, int]] | None = None,
        names: Mapping[str, str] | None = None,
    ):
        """
        Args:
            logits_weight: factor of "loss_distill_sem_seg" (softened_divergence); 0 = none.
            temperature: by which the logits are divided.
            features_weight: factor of "loss_distill_features" (feature_distance); 0 = none.
            teacher, widths: as for Lesson.
            names: the teacher's feature for each of the student's in `widths`.
        """
        super().__init__(teacher, (widths or {}) if features_weight else {})
        self.logits_weight, self.temperature = logits_weight, temperature
        self.features_weight, self.names = features_weight, dict(names or {})

    def losses(self, own: Seen, taught: Seen, sizes: Sequence[Size], of: Sizes) -> dict:
        found = {}
        if self.logits_weight:
            logits = own.raw.logits
            assert logits is not None and taught.raw.logits is not None
            cells = logits.shape[-2:]
            mask = cells_of_images(sizes, of.batch, cells, logits.device)
            other = of.at_cells(taught.raw.logits.float(), cells)
            divergence = softened_divergence(logits, other, mask, self.temperature)
            found["loss_distill_sem_seg"] = divergence * self.logits_weight
        if self.features_weight:
            other = {name: taught.features[theirs] for name, theirs in self.names.items()}
            distance = self._feature_loss(own.features, other, sizes, of)
            found["loss_distill_features"] = distance * self.features_weight
        return found


class BoxLesson(Lesson):
    """Scores and boxes of all anchors, and the levels that the detection head takes."""

    def __init__(
        self,
        teacher: Teacher,
        *,
        scores_weight: float = 1.0,
        boxes_weight: float = 1.0,
        features_weight: float = 0.0,
        widths: Mapping[str, tuple[int, int]] | None = None,
    ):
        """
        Args:
            teacher: its anchors, classes and weights of box deltas are the student's.
            scores_weight, boxes_weight: factors of "loss_distill_scores" and "loss_distill_boxes"
                (anchor_losses); 0 = none.
            features_weight: factor of "loss_distill_levels" (feature_distance); 0 = none.
            widths: as for Lesson, of the levels "0", "1" and so on, the finest first.
        """
        super().__init__(teacher, (widths or {}) if features_weight else {})
        self.scores_weight, self.boxes_weight = scores_weight, boxes_weight
        self.features_weight = features_weight

    def losses(self, own: Seen, taught: Seen, sizes: Sequence[Size], of: Sizes) -> dict:
        found = {}
        if self.scores_weight or self.boxes_weight:
            scores, boxes = anchor_losses(own.raw, taught.raw)
            if self.scores_weight:
                found["loss_distill_scores"] = scores * self.scores_weight
            if self.boxes_weight:
                found["loss_distill_boxes"] = boxes * self.boxes_weight
        if self.features_weight:
            ours, theirs = ({str(i): x for i, x in enumerate(s.levels)} for s in (own, taught))
            distance = self._feature_loss(ours, theirs, sizes, of)
            found["loss_distill_levels"] = distance * self.features_weight
        return found


class Distillation(nn.Module):
    """All that a student learns from teachers; a student has it as `distillation`."""

    def __init__(self, lessons: Mapping[str, Lesson]):
        """
        Args:
            lessons: by task. Those of one teacher share its pass over a batch.
        """
        super().__init__()
        self.lessons = nn.ModuleDict(lessons)

    def forward(self, images: Tensor, sizes: Sequence[Size], own: Seen) -> dict[str, Tensor]:
        """The losses of a training batch by name, scalars; none where no gradient is computed.

        Args:
            images: (N, 3, H, W), the student's normalised batch.
            sizes: (height, width) of each image without the padding.
            own: what the student's heads got and gave.
        """
        if not torch.is_grad_enabled():  # BatchNorm's statistics are taken, and nothing is learnt
            return {}
        found: dict[str, Tensor] = {}
        seen: dict[int, tuple[Seen, Size]] = {}
        for lesson in self.lessons.values():
            key = id(lesson.teacher)
            if key not in seen:
                seen[key] = lesson.teacher(images, sizes)
            taught, padded = seen[key]
            found |= lesson.losses(own, taught, sizes, Sizes(images.shape[-2:], padded))
        return found


def softened_divergence(own: Tensor, taught: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(taught / T) || softmax(own / T)), mean over cells (Hinton et al., 2015).

    Args:
        own, taught: logits (N, K, h, w).
        mask: (N, h, w), 1 for the cells that count and 0 for the others.
        temperature: T.
    """
    log_own = F.log_softmax(own.float() / temperature, dim=1)
    log_taught = F.log_softmax(taught.float() / temperature, dim=1)
    each = F.kl_div(log_own, log_taught, reduction="none", log_target=True).sum(dim=1)
    return temperature**2 * _mean(each, mask)


def feature_distance(own: Tensor, taught: Tensor, mask: Tensor) -> Tensor:
    """The squared distance of features of norm 1, from 0 to 4, mean over cells.

    Args:
        own, taught: (N, C, h, w).
        mask: as for softened_divergence.
    """
    units = [F.normalize(x.float(), dim=1, eps=_LEAST_NORM) for x in (own, taught)]
    return _mean((units[0] - units[1]).square().sum(dim=1), mask)


def anchor_losses(own: RawOutput, taught: RawOutput) -> tuple[Tensor, Tensor]:
    """How far a detector's scores and boxes are from those of a teacher with the same anchors.

    An anchor of the teacher's whose best score is 0.3 or more has that score as its weight; others
    have the weight 0. Both losses are sums over all anchors, those over the padding too, as
    RetinaNet's, divided by the sum of the weights, at least 1.

    - Scores: the quality focal loss (Li et al., 2020, with beta 2) of the teacher's scores.
    - Boxes: the L1 distance of the four deltas, times the weight.

    Args:
        own, taught: class_logits and box_deltas; a level of the teacher's may be padded further.
    """
    scores, boxes, total = [], [], []
    assert own.class_logits and own.box_deltas and taught.class_logits and taught.box_deltas
    for logits, deltas, other_logits, other_deltas in zip(
        *(own.class_logits, own.box_deltas, taught.class_logits, taught.box_deltas), strict=True
    ):
        n, channels, h, w = deltas.shape
        targets = other_logits[..., :h, :w].float().sigmoid()
        scores.append(quality_focal_loss(logits.float(), targets, 2.0))
        best = targets.reshape(n, channels // 4, -1, h, w).amax(dim=2)
        weights = best * (best >= _FOUND)
        distance = (deltas.float() - other_deltas[..., :h, :w].float()).abs()
        boxes.append((distance.reshape(n, -1, 4, h, w).sum(dim=2) * weights).sum())
        total.append(weights.sum())
    normalizer = torch.stack(total).sum().clamp(min=1)
    return torch.stack(scores).sum() / normalizer, torch.stack(boxes).sum() / normalizer


def cells_of_images(
    sizes: Sequence[Size], batch: Size, cells: Size, device: torch.device
) -> Tensor:
    """(N, h, w) float32: 1 where a cell begins inside its image, 0 in the padding.

    Args:
        sizes: (height, width) of each image.
        batch: that of the padded batch.
        cells: (h, w) of a map of the whole batch.
    """
    mask = torch.zeros(len(sizes), *cells)
    for image, size in zip(mask, sizes, strict=True):
        height, width = (
            math.ceil(int(side) * n / whole)
            for side, n, whole in zip(size, cells, batch, strict=True)
        )
        image[:height, :width] = 1
    return to_device(mask, device)


def _mean(each: Tensor, mask: Tensor) -> Tensor:
    return (each * mask).sum() / mask.sum()
