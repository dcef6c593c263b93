"""FPN on any registered backbone, for Semantic FPN and for RetinaNet."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import LastLevelP6P7

from ...config import complete_config
from ...errors import InputError, did_you_mean
from ..backbone.fpn import TopFormerFPN, build_fpn, check_in_features, check_levels


@BACKBONE_REGISTRY.register()
def build_baseline_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TopFormerFPN:
    """FPN (MODEL.FPN) on the backbone that MODEL.FPN.BOTTOM_UP names."""
    bottom_up = _bottom_up(cfg, input_shape)
    check_in_features(cfg, bottom_up)
    return build_fpn(cfg, bottom_up, top_block=None)


@BACKBONE_REGISTRY.register()
def build_retinanet_baseline_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TopFormerFPN:
    """The same, with P6 and P7 that follow on P5, as the sizes of Table 11's baselines have it."""
    bottom_up = _bottom_up(cfg, input_shape)
    check_levels(cfg, bottom_up)
    channels = cfg.MODEL.FPN.OUT_CHANNELS
    return build_fpn(cfg, bottom_up, LastLevelP6P7(channels, channels, in_feature="p5"))


def _bottom_up(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    name = complete_config(cfg).MODEL.FPN.BOTTOM_UP
    if name not in BACKBONE_REGISTRY:
        known = [registered for registered, _ in BACKBONE_REGISTRY]
        raise InputError(
            f"MODEL.FPN.BOTTOM_UP is {name!r}, which is not registered{did_you_mean(name, known)}"
        )
    return BACKBONE_REGISTRY.get(name)(cfg, input_shape)
