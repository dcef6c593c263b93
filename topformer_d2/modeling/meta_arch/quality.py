"""Scores that say how well a box fits: the targets of RetinaNet's classes are IoUs."""

from __future__ import annotations

import torch
from detectron2.modeling import RetinaNet
from detectron2.modeling.box_regression import _dense_box_regression_loss
from detectron2.structures import Boxes
from detectron2.structures.boxes import matched_pairwise_iou
from detectron2.utils.events import get_event_storage
from torch import Tensor
from torch.nn import functional as F


def quality_losses(
    model: RetinaNet,
    anchors: list[Boxes],
    pred_logits: list[Tensor],
    gt_labels: list[Tensor],
    pred_anchor_deltas: list[Tensor],
    gt_boxes: list[Tensor],
) -> dict[str, Tensor]:
    """RetinaNet.losses with the quality focal loss (Li et al., NeurIPS 2020) of the classes.

    Where an anchor has an object, the target of its class is the IoU of the box that it is decoded
    to with the object's; the IoU is a constant. FOCAL_LOSS_GAMMA is the paper's beta.
    FOCAL_LOSS_ALPHA has no effect. Boxes and the normaliser are RetinaNet's.

    Args:
        model: whose losses they are; all others are as RetinaNet.losses takes them.

    Returns:
        {"loss_cls", "loss_box_reg": scalar}.
    """
    labels = torch.stack(gt_labels)  # (N, R)
    has_object = (labels >= 0) & (labels != model.num_classes)
    count = int(has_object.sum())
    get_event_storage().put_scalar("num_pos_anchors", count / len(gt_labels))
    normalizer = model._ema_update("loss_normalizer", max(count, 1), 100)

    logits = torch.cat(pred_logits, dim=1)
    targets = torch.zeros_like(logits)
    image, anchor = has_object.nonzero(as_tuple=True)
    with torch.no_grad():
        found = model.box2box_transform.apply_deltas(
            torch.cat(pred_anchor_deltas, dim=1)[image, anchor].float(),
            Boxes.cat(anchors).tensor[anchor],
        )
        fits = matched_pairwise_iou(Boxes(found), Boxes(torch.stack(gt_boxes)[image, anchor]))
        targets[image, anchor, labels[image, anchor]] = fits.to(targets.dtype)
    is_used = labels >= 0
    box_loss = _dense_box_regression_loss(
        *(anchors, model.box2box_transform, pred_anchor_deltas, gt_boxes, has_object),
        box_reg_loss_type=model.box_reg_loss_type,
        smooth_l1_beta=model.smooth_l1_beta,
    )
    class_loss = quality_focal_loss(logits[is_used], targets[is_used], model.focal_loss_gamma)
    return {"loss_cls": class_loss / normalizer, "loss_box_reg": box_loss / normalizer}


def quality_focal_loss(logits: Tensor, targets: Tensor, beta: float) -> Tensor:
    """The sum of |y - sigmoid(x)|^beta times the binary cross entropy of x and y, a scalar.

    Args:
        logits: x, any shape.
        targets: y, from 0 to 1.
        beta: 0 or more.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return ((targets - logits.sigmoid()).abs() ** beta * entropy).sum()
