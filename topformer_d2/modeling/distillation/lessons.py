"""The losses of each task that a student learns from its teachers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..meta_arch.contract import Seen
from .losses import (
    Size,
    Sizes,
    anchor_losses,
    cells_of_images,
    feature_distance,
    softened_divergence,
)
from .teacher import Teacher


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
        """The losses of a training batch of N images.

        Args:
            own: what the student's heads got and gave, with gradients.
            taught: the same of the teacher, without gradients.
            sizes: (height, width) in pixels of each of the N images, without the padding.
            of: (height, width) of the student's padded batch and of the teacher's, which may be
                padded further. By it the teacher's maps are brought to the student's cells.

        Returns:
            float32 scalars by the name of the loss, times their weights. Which there are, each
            subclass says; of a weight of 0 there is none.
        """
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


class PixelLesson(Lesson):
    """Softened logits, and the features that the segmentation head takes.

    `losses` gives "loss_distill_sem_seg", from `raw.logits` (N, K, h, w), and
    "loss_distill_features", from the maps (N, C, h, w) of `features`. The teacher's maps may have
    another size; they are resized.
    """

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
    """Scores and boxes of all anchors, and the levels that the detection head takes.

    `losses` gives "loss_distill_scores" and "loss_distill_boxes", from `raw.class_logits` and
    `raw.box_deltas` (shapes: anchor_losses), and "loss_distill_levels", from the maps (N, C, h, w)
    of `levels`.
    """

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


class ImageLesson(Lesson):
    """Softened logits of whole images.

    `losses` gives "loss_distill_cls", from `raw.logits` (N, K).
    """

    def __init__(self, teacher: Teacher, *, logits_weight: float = 1.0, temperature: float = 2.0):
        """
        Args:
            teacher: a classifier.
            logits_weight: factor of "loss_distill_cls" (softened_divergence).
            temperature: by which the logits are divided.
        """
        super().__init__(teacher, {})
        self.logits_weight, self.temperature = logits_weight, temperature

    def losses(self, own: Seen, taught: Seen, sizes: Sequence[Size], of: Sizes) -> dict:
        ours, theirs = (seen.raw.logits[..., None, None] for seen in (own, taught))
        every = ours.new_ones(len(ours), 1, 1)
        divergence = softened_divergence(ours, theirs, every, self.temperature)
        return {"loss_distill_cls": divergence * self.logits_weight}


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
        """Run the teachers on a training batch, and compare the student with them.

        Args:
            images: (N, 3, H, W) float, the student's batch, normalised, and padded to the right and
                below.
            sizes: (height, width) in pixels of each of the N images, without the padding.
            own: what the student's heads got and gave for that batch.

        Returns:
            The float32 scalars of all lessons, by name: "loss_distill_" and then "sem_seg" and
            "features" of a PixelLesson, "scores", "boxes" and "levels" of a BoxLesson, and "cls" of
            an ImageLesson. {} where no gradient is computed, as under torch.no_grad().
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
