"""RetinaNet's losses, with another loss of the classes than Detectron2's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from detectron2.modeling import RetinaNet
from detectron2.modeling.box_regression import _dense_box_regression_loss
from detectron2.structures import Boxes
from detectron2.structures.boxes import matched_pairwise_iou
from detectron2.utils.events import get_event_storage
from torch import Tensor

from ..focal_loss import sigmoid_focal_loss, sigmoid_quality_loss

# From what retinanet_losses takes, with the labels stacked (N, R), to a scalar.
ClassLoss = Callable[
    [RetinaNet, list[Boxes], list[Tensor], Tensor, list[Tensor], list[Tensor]], Tensor
]


def retinanet_losses(
    model: RetinaNet,
    anchors: list[Boxes],
    pred_logits: list[Tensor],
    gt_labels: list[Tensor],
    pred_anchor_deltas: list[Tensor],
    gt_boxes: list[Tensor],
    *,
    class_loss: ClassLoss,
) -> dict[str, Tensor]:
    """RetinaNet.losses with another loss of the classes; boxes and the normaliser are its own.

    Args:
        model: whose losses they are.
        anchors: of each level.
        pred_logits: a level's are (N, H W A, K).
        gt_labels: an image's are (R,): the class, K for the background, -1 for no loss.
        pred_anchor_deltas: a level's are (N, H W A, 4).
        gt_boxes: an image's are (R, 4), for the anchors that have a class.
        class_loss: the sum over all anchors, before it is normalised.

    Returns:
        {"loss_cls", "loss_box_reg": scalar}.
    """
    labels = torch.stack(gt_labels)  # (N, R)
    has_object = (labels >= 0) & (labels != model.num_classes)
    count = int(has_object.sum())
    get_event_storage().put_scalar("num_pos_anchors", count / len(gt_labels))
    normalizer = model._ema_update("loss_normalizer", max(count, 1), 100)
    of_classes = class_loss(model, anchors, pred_logits, labels, pred_anchor_deltas, gt_boxes)
    of_boxes = _dense_box_regression_loss(
        *(anchors, model.box2box_transform, pred_anchor_deltas, gt_boxes, has_object),
        box_reg_loss_type=model.box_reg_loss_type,
        smooth_l1_beta=model.smooth_l1_beta,
    )
    return {"loss_cls": of_classes / normalizer, "loss_box_reg": of_boxes / normalizer}


def focal_class_loss(
    model: RetinaNet, anchors: list[Boxes], pred_logits: list[Tensor], labels: Tensor, *_: object
) -> Tensor:
    """RetinaNet's own, without one-hot targets (sigmoid_focal_loss); a ClassLoss."""
    of_levels = labels.split([logits.shape[1] for logits in pred_logits], dim=1)
    alpha, gamma = model.focal_loss_alpha, model.focal_loss_gamma
    losses = [
        sigmoid_focal_loss(logits, level, alpha=alpha, gamma=gamma)
        for logits, level in zip(pred_logits, of_levels, strict=True)
    ]
    return sum(losses[1:], losses[0])


def quality_class_loss(
    model: RetinaNet,
    anchors: list[Boxes],
    pred_logits: list[Tensor],
    labels: Tensor,
    pred_anchor_deltas: list[Tensor],
    gt_boxes: list[Tensor],
) -> Tensor:
    """The quality focal loss (Li et al., NeurIPS 2020), by which scores are IoUs; a ClassLoss.

    Where an anchor has an object, the target of its class is the IoU of the box that it is decoded
    to with the object's; the IoU is a constant. FOCAL_LOSS_GAMMA is the paper's beta.
    FOCAL_LOSS_ALPHA has no effect.
    """
    has_object = (labels >= 0) & (labels != model.num_classes)
    image, anchor = has_object.nonzero(as_tuple=True)
    with torch.no_grad():
        found = model.box2box_transform.apply_deltas(
            torch.cat(pred_anchor_deltas, dim=1)[image, anchor].float(),
            Boxes.cat(anchors).tensor[anchor],
        )
        fits = matched_pairwise_iou(Boxes(found), Boxes(torch.stack(gt_boxes)[image, anchor]))
        qualities = fits.new_zeros(labels.shape)
        qualities[image, anchor] = fits
    counts = [logits.shape[1] for logits in pred_logits]
    of_levels = zip(
        *(pred_logits, labels.split(counts, dim=1), qualities.split(counts, dim=1)), strict=True
    )
    losses = [sigmoid_quality_loss(*level, beta=model.focal_loss_gamma) for level in of_levels]
    return sum(losses[1:], losses[0])
