"""Pyramids p3 .. p7 on top of TopFormer, for RetinaNet: Detectron2's FPN, and a lite one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import InputError
from ..layers import DepthwiseSeparable, check_batch_norm, resolve_norm
from .topformer import build_topformer_backbone


class _PyramidOnTopFormer:
    """What the pyramids share: the bottom-up features are handed on where others need them too."""

    gives_bottom_up = True
    bottom_up: Backbone
    fuse: Callable[[dict[str, Tensor]], dict[str, Tensor]]

    def forward(self, x: Tensor, *, with_bottom_up: bool = False) -> Any:
        """
        Args:
            x: (N, 3, H, W) normalised images.
            with_bottom_up: also give the features below the pyramid.

        Returns:
            {"pN": (N, C, ceil(H / 2^N), ceil(W / 2^N))}; with_bottom_up, those features by name,
            and then this.
        """
        features = self.bottom_up(x)
        pyramid = self.fuse(features)
        return (features, pyramid) if with_bottom_up else pyramid


class TopFormerFPN(_PyramidOnTopFormer, FPN):
    """Detectron2's FPN for images of any size: nothing is padded to a multiple of the stride.

    Its parameters are those of FPN under the same names.
    """

    def __init__(
        self, bottom_up: Backbone, in_features: Sequence[str], out_channels: int, **kwargs: Any
    ):
        """
        Args:
            bottom_up: gives maps at strides 2^n whose sides are rounded up, such as TopFormer.
            in_features: names of those maps that the pyramid is made of.
            out_channels: of each level.
            kwargs: FPN's further arguments.
        """
        super().__init__(bottom_up, in_features, out_channels, **kwargs)
        self._size_divisibility = 0

    def fuse(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """The pyramid from the bottom-up features alone."""
        coarsest_first = [features[name] for name in reversed(self.in_features)]
        results: list[Tensor] = []
        merged = None
        for feature, lateral, output in zip(
            coarsest_first, self.lateral_convs, self.output_convs, strict=True
        ):
            here = lateral(feature)
            if merged is None:
                merged = here
            else:
                # TopFormer's maps are rounded up, so this one need not be twice the coarser.
                merged = here + F.interpolate(merged, size=here.shape[-2:], mode="nearest")
                if self._fuse_type == "avg":
                    merged = merged / 2
            results.insert(0, output(merged))
        if self.top_block is not None:
            name = self.top_block.in_feature
            source = features[name] if name in features else results[self._out_features.index(name)]
            results.extend(self.top_block(source))
        return dict(zip(self._out_features, results, strict=True))


class LitePyramid(_PyramidOnTopFormer, Backbone):
    """p3 .. p7 of TopFormer's own width M, at almost no cost: p3, p4 and p5 are the SIM outputs.

    An FPN brings semantics down to the fine levels; semantics injection has done that already, and
    a top-down sum added nothing on BCCD (docs/results.md). p6 and p7 are depthwise-separable
    convolutions of stride 2.
    """

    size_divisibility = 0
    NUM_EXTRA = 2

    def __init__(self, bottom_up: Backbone, in_features: Sequence[str], *, norm: str = "BN"):
        """
        Args:
            bottom_up: gives maps of one width at consecutive strides 2^n.
            in_features: its outputs, finest first.
            norm: name for Detectron2's get_norm.

        Raises:
            InputError: the features differ in width, or their strides do not double.
        """
        super().__init__()
        shapes = [bottom_up.output_shape()[name] for name in in_features]
        strides = [shape.stride for shape in shapes]
        if strides != [strides[0] * 2**i for i in range(len(strides))]:
            raise InputError(
                f"MODEL.FPN.IN_FEATURES is {list(in_features)}, whose strides are {strides}: "
                "each is to be twice the one before"
            )
        if len({shape.channels for shape in shapes}) != 1:
            raise InputError(f"the lite pyramid takes features of one width, got {shapes}")
        channels = shapes[0].channels
        self.bottom_up = bottom_up
        self.in_features = tuple(in_features)
        strides += [strides[-1] * 2 ** (i + 1) for i in range(self.NUM_EXTRA)]
        self._out_feature_strides = {f"p{s.bit_length() - 1}": s for s in strides}
        self._out_features = list(self._out_feature_strides)
        self._out_feature_channels = dict.fromkeys(self._out_features, channels)
        self.extra = nn.ModuleList(
            DepthwiseSeparable(channels, channels, stride=2, norm=norm)
            for _ in range(self.NUM_EXTRA)
        )

    def forward(self, x: Tensor, *, with_bottom_up: bool = False) -> Any:
        """As above.

        Raises:
            InputError: in training, the batch leaves BatchNorm a single value a channel.
        """
        check_batch_norm(self.extra, x, max(self._out_feature_strides.values()))
        return super().forward(x, with_bottom_up=with_bottom_up)

    def fuse(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """The pyramid from the bottom-up features alone."""
        levels = [features[name] for name in self.in_features]
        for downsample in self.extra:
            levels.append(downsample(levels[-1]))
        return dict(zip(self._out_features, levels, strict=True))


def check_in_features(cfg: CfgNode, bottom_up: Backbone) -> None:
    """InputError where MODEL.FPN.IN_FEATURES names what `bottom_up` does not give, or nothing."""
    names, given = list(cfg.MODEL.FPN.IN_FEATURES), bottom_up.output_shape()
    if not names or not set(names) <= given.keys():
        raise InputError(f"MODEL.FPN.IN_FEATURES is {names}; the backbone gives {list(given)}")


def check_levels(cfg: CfgNode, bottom_up: Backbone) -> None:
    """check_in_features, and InputError where MODEL.RETINANET.IN_FEATURES are other levels."""
    check_in_features(cfg, bottom_up)
    names, given = list(cfg.MODEL.FPN.IN_FEATURES), bottom_up.output_shape()
    first = given[names[0]].stride.bit_length() - 1
    levels = [f"p{first + i}" for i in range(len(names) + LitePyramid.NUM_EXTRA)]
    if list(cfg.MODEL.RETINANET.IN_FEATURES) != levels:
        raise InputError(
            f"MODEL.RETINANET.IN_FEATURES is {list(cfg.MODEL.RETINANET.IN_FEATURES)}; "
            f"MODEL.FPN.IN_FEATURES {names} make {levels}"
        )


def build_fpn(cfg: CfgNode, bottom_up: Backbone, top_block: nn.Module | None) -> TopFormerFPN:
    """The FPN of MODEL.FPN on any backbone."""
    fpn = cfg.MODEL.FPN
    return TopFormerFPN(
        bottom_up,
        fpn.IN_FEATURES,
        fpn.OUT_CHANNELS,
        norm=resolve_norm(fpn.NORM),
        top_block=top_block,
        fuse_type=fpn.FUSE_TYPE,
    )


@BACKBONE_REGISTRY.register()
def build_retinanet_topformer_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TopFormerFPN:
    """TopFormer, FPN (MODEL.FPN) and P6, P7 from the coarsest SIM output, as RetinaNet has them."""
    bottom_up = build_topformer_backbone(cfg, input_shape)
    check_levels(cfg, bottom_up)
    last = cfg.MODEL.FPN.IN_FEATURES[-1]
    channels = bottom_up.output_shape()[last].channels
    top_block = LastLevelP6P7(channels, cfg.MODEL.FPN.OUT_CHANNELS, in_feature=last)
    return build_fpn(cfg, bottom_up, top_block)


@BACKBONE_REGISTRY.register()
def build_retinanet_topformer_lite_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> LitePyramid:
    """TopFormer and the lite pyramid, of its width M, from MODEL.FPN.IN_FEATURES."""
    bottom_up = build_topformer_backbone(cfg, input_shape)
    check_levels(cfg, bottom_up)
    return LitePyramid(bottom_up, cfg.MODEL.FPN.IN_FEATURES, norm=resolve_norm(cfg.MODEL.FPN.NORM))
