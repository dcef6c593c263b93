"""Segmentation and detection from one pass of the backbone."""

from __future__ import annotations

from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, RetinaNet, build_sem_seg_head
from detectron2.modeling.postprocessing import detector_postprocess
from torch import Tensor, nn

from ...errors import InputError
from ..losses import UncertaintyWeighting
from .batching import output_size, pad_labels, resize_logits, run_by_size
from .retinanet import FastRetinaNet, LiteRetinaNet

_DETECTORS = {"RetinaNet": RetinaNet, "LiteRetinaNet": LiteRetinaNet}
_INSTANCE_LOSSES = ("loss_cls", "loss_box_reg")


@META_ARCH_REGISTRY.register()
class TopFormerMultiTask(FastRetinaNet):
    """A RetinaNet whose SIM outputs feed a segmentation head beside the pyramid.

    Its parameters are a detector's and a segmenter's under the names that they have there, with
    TopFormer once, as "backbone.bottom_up". With equal weights its outputs are the two models'.

    Each image trains the tasks that it has labels for. Both heads run on the whole batch all the
    same, so that their norms see what they will see in use, and every process of a distributed run
    has a gradient for every parameter.
    """

    tasks = ("sem_seg", "instances")

    @configurable
    def __init__(
        self,
        *,
        sem_seg_head: nn.Module,
        instance_loss_weight: float = 1.0,
        uncertainty_weighting: bool = False,
        **kwargs,
    ):
        """
        Args:
            sem_seg_head: takes the features of backbone.bottom_up, as TopFormerSegmentationHead
                does; its loss_weight is the segmentation's.
            instance_loss_weight: factor of the detector's losses.
            uncertainty_weighting: learn a further factor for each loss (UncertaintyWeighting).
            kwargs: as for RetinaNet; the backbone has bottom_up and forward_all, as TopFormerFPN
                and LitePyramid do.
        """
        super().__init__(**kwargs)
        self.sem_seg_head = sem_seg_head
        self.instance_loss_weight = instance_loss_weight
        self.loss_weighting = (
            UncertaintyWeighting(("loss_sem_seg", *_INSTANCE_LOSSES), regressions=["loss_box_reg"])
            if uncertainty_weighting
            else None
        )

    @classmethod
    def from_config(cls, cfg):
        keys = cfg.MODEL.MULTITASK
        if keys.DETECTOR not in _DETECTORS:
            raise InputError(
                f"MODEL.MULTITASK.DETECTOR is {keys.DETECTOR!r}; known: {[*_DETECTORS]}"
            )
        args = _DETECTORS[keys.DETECTOR].from_config(cfg)
        if not hasattr(args["backbone"], "forward_all"):
            raise InputError(
                f"MODEL.BACKBONE.NAME {cfg.MODEL.BACKBONE.NAME!r} has no pyramid on TopFormer: use "
                "build_retinanet_topformer_fpn_backbone or build_retinanet_topformer_lite_backbone"
            )
        return {
            **args,
            "sem_seg_head": build_sem_seg_head(cfg, args["backbone"].bottom_up.output_shape()),
            "instance_loss_weight": keys.INSTANCE_LOSS_WEIGHT,
            "uncertainty_weighting": keys.UNCERTAINTY_WEIGHTING,
        }

    def forward(self, batched_inputs: list[dict]):
        """
        Args:
            batched_inputs: one dict an image, as Detectron2's DatasetMapper makes them: "image"
                (3, H, W) in 0..255; in training "sem_seg" (H, W) int64, "instances" with gt_boxes
                and gt_classes, or both, whichever the image has labels for; "height" and "width"
                of the output in inference (default: the image's).

        Returns:
            in training {"loss_sem_seg", "loss_cls", "loss_box_reg": scalar}, 0 where no image has
            the labels, and "loss_uncertainty" with uncertainty weighting; in inference one dict an
            image with "sem_seg", the logits (K, height, width), and "instances" with pred_boxes,
            scores and pred_classes.

        Raises:
            InputError: a training image has no labels at all.
        """
        if not self.training:
            return run_by_size(self._predict, batched_inputs)
        for x in batched_inputs:
            if "sem_seg" not in x and "instances" not in x:
                raise InputError(f"{x.get('file_name', 'an image')} has no labels to train on")
        batch = self.preprocess_image(batched_inputs)
        logits, levels, predictions = self.network(batch.tensor)
        losses, present = {}, []
        labelled = [i for i, x in enumerate(batched_inputs) if "sem_seg" in x]
        if labelled:
            labels = [batched_inputs[i]["sem_seg"].to(self.device) for i in labelled]
            targets = pad_labels(labels, batch.tensor.shape[-2:], self.sem_seg_head.ignore_value)
            losses |= self.sem_seg_head.losses(_take(logits, labelled), targets)
            present.append("loss_sem_seg")
        else:
            losses["loss_sem_seg"] = _nothing(logits)
        labelled = [i for i, x in enumerate(batched_inputs) if "instances" in x]
        if labelled:
            truth = [batched_inputs[i]["instances"].to(self.device) for i in labelled]
            taken = [[_take(x, labelled) for x in maps] for maps in predictions]
            found = self.forward_training(batch, levels, taken, truth)
            losses |= {name: loss * self.instance_loss_weight for name, loss in found.items()}
            present += _INSTANCE_LOSSES
        else:
            logits, deltas = predictions
            losses |= {"loss_cls": _nothing(*logits), "loss_box_reg": _nothing(*deltas)}
        return self.loss_weighting(losses, present) if self.loss_weighting else losses

    def network(self, images: Tensor) -> tuple[Tensor, list[Tensor], tuple]:
        """All that both tasks compute before decoding.

        Args:
            images: (N, 3, H, W), normalised.

        Returns:
            the segmentation logits (N, K, h, w) at the head's stride, the pyramid's levels finest
            first, and what the detection head gives for them.
        """
        features, pyramid = self.backbone.forward_all(images)
        levels = [pyramid[name] for name in self.head_in_features]
        return self.sem_seg_head.layers(features), levels, self.head(levels)

    def _predict(self, batched_inputs: list[dict]) -> list[dict]:
        """Of images of one size."""
        batch = self.preprocess_image(batched_inputs)
        size = tuple(batch.tensor.shape[-2:])
        logits, levels, predictions = self.network(batch.tensor)
        found = self.forward_inference(batch, levels, predictions)
        return [
            {
                "sem_seg": sem_seg,
                "instances": detector_postprocess(instances, *output_size(x, size)),
            }
            for x, sem_seg, instances in zip(
                batched_inputs, resize_logits(logits, batched_inputs, size), found, strict=True
            )
        ]


def _take(x: Tensor, rows: list[int]) -> Tensor:
    """x[rows], without a copy where that is all of them."""
    return x if len(rows) == len(x) else x[rows]


def _nothing(*outputs: Tensor) -> Tensor:
    """A loss of 0 that reaches the parameters behind `outputs`."""
    return 0.0 * sum(x.sum() for x in outputs)
