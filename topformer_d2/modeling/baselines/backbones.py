"""Other families' backbones: timm's, torchvision's MobileNetV3 and ShuffleNetV2, SegFormer's MiT.

timm and transformers are imported when a model of theirs is built, and not before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torchvision
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from torch import Tensor, nn

from ...config import complete_config, describe_datasets
from ...errors import InputError, did_you_mean, import_optional, look_up
from ..layers import resolve_norm
from ..recipe import remember_recipe
from .levels import LevelsBackbone, Stages, level_names, padding_multiple, select_levels

UNDILATED = 32  # the output stride of every network here, unless it is dilated
# SegFormer's hidden widths and blocks of the four stages (SegFormer, Table 6).
MIX_TRANSFORMERS = {"mit_b0": ((32, 64, 160, 256), (2, 2, 2, 2))}
# torchvision's by name: is the tail reduced?
MOBILENETS = {"mobilenet_v3_large": False, "mobilenet_v3_large_reduced": True}
SHUFFLENETS = {f"shufflenet_v2_{width}": False for width in ("x0_5", "x1_0", "x1_5", "x2_0")}
# The first block of MobileNetV3-Large's five strides, then its last convolution.
MOBILENET_STAGES = (0, 2, 4, 7, 13, 16)


def timm_backbone(
    name: str,
    out_features: Sequence[str],
    *,
    output_stride: int = UNDILATED,
    pretrained: bool = False,
    norm: str = "BN",
) -> LevelsBackbone:
    """Any of timm's models that gives feature maps of images of any size.

    Models of one image size are made for any where timm can (dynamic_img_size: ViT, Swin, ...).
    Those that round sizes down or take multiples of their stride alone get padded images.

    Args:
        name: as for timm.create_model.
        out_features: levels wanted: the model's last is "res5", the one before "res4", and so on;
            undilated convolutional networks have "resN" at stride 2^N.
        output_stride: stride of the last level: 32 leaves the model as it is; 16 or 8 dilates it,
            which timm has for most convolutional networks.
        pretrained: download timm's weights.
        norm: SyncBN replaces the model's BatchNorm; BN leaves the model's norms alone.

    Raises:
        InputError: timm is missing, does not know the name, or does not have the model so.
    """
    timm = _import_extra("timm")
    known = timm.list_models()
    if name.split(".")[0] not in known:
        raise InputError(
            f"MODEL.BASELINE.NAME is {name!r}, which timm {timm.__version__} does not know"
            f"{did_you_mean(name, known)}"
        )
    # HRNet's plain branches, not the wider maps that its classifier has on them.
    options: dict[str, Any] = {"feature_location": ""} if name.startswith("hrnet") else {}
    if output_stride != UNDILATED:
        options["output_stride"] = output_stride
    try:
        network = timm.create_model(name, features_only=True, **options)
    except (RuntimeError, TypeError, AssertionError, AttributeError) as e:
        raise InputError(
            f"timm has no feature maps of {name!r} at MODEL.BASELINE.OUTPUT_STRIDE {output_stride}:"
            f" {type(e).__name__} {e}"
        ) from e
    info = network.feature_info
    channels, strides, indices = info.channels(), info.reduction(), info.out_indices
    if output_stride != UNDILATED:
        _check_stride(name, output_stride, strides[-1])
    levels = select_levels(name, level_names(len(strides)), channels, strides, out_features)
    channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"
    size_options, multiple = _any_size(timm, name, network, options, channels_last)
    network = timm.create_model(
        name,
        features_only=True,
        pretrained=pretrained,
        out_indices=tuple(indices[i] for i in levels),  # a transformer's levels are its last blocks
        **options,
        **size_options,
    )
    if _is_sync_bn(norm):
        # Unlike PyTorch's, it also converts norms that have an activation inside.
        network = timm.layers.convert_sync_batchnorm(network)
    return LevelsBackbone(
        network, dict(levels.values()), multiple=multiple, channels_last=channels_last
    )


def _any_size(
    timm: ModuleType, name: str, network: nn.Module, options: dict, channels_last: bool
) -> tuple[dict, int]:
    """create_model's further options with which images of any size do, and the padding_multiple.

    Args:
        network: the model with `options` alone.
    """
    info = network.feature_info
    shapes = {"channels": info.channels(), "strides": info.reduction()}
    try:
        return {}, padding_multiple(network, **shapes, channels_last=channels_last)
    except Exception as e:  # timm's models raise many types for a size that they do not take
        reason = e
    dynamic = {"dynamic_img_size": True}
    try:
        network = timm.create_model(name, features_only=True, **options, **dynamic)
        return dynamic, padding_multiple(network, **shapes, channels_last=channels_last)
    except Exception:  # most others do not know the option, of which the user has not heard
        raise InputError(
            f"MODEL.BASELINE.NAME is {name!r}, which does not take images of any size "
            f"({type(reason).__name__}: {reason}): use another model"
        ) from reason


def torchvision_backbone(
    name: str,
    out_features: Sequence[str],
    *,
    output_stride: int = UNDILATED,
    pretrained: bool = False,
    norm: str = "BN",
) -> LevelsBackbone:
    """torchvision's MobileNetV3-Large or ShuffleNetV2: "res1" .. "res5" at strides 2 .. 32.

    "last" is the 1x1 convolution after "res5" (960 channels in MobileNetV3-Large, where timm has it
    in its last level); a network that is not asked for it ends without it.

    Args:
        name: one of MOBILENETS and SHUFFLENETS; "..._reduced" halves the channels of MobileNetV3's
            last blocks, for LR-ASPP.
        out_features: levels wanted.
        output_stride: of res5 and last: 32, or 16 for MobileNetV3.
        pretrained: download torchvision's weights.
        norm: SyncBN replaces the model's BN.

    Raises:
        InputError: another name or stride, or there are no weights for it.
    """
    reduced_tail = look_up(MOBILENETS | SHUFFLENETS, name, "MODEL.BASELINE.NAME")
    is_dilated = name in MOBILENETS and output_stride == 16
    _check_stride(name, output_stride, 16 if is_dilated else UNDILATED)
    if pretrained and reduced_tail:
        raise InputError(f"torchvision has no weights of {name}: set MODEL.BASELINE.PRETRAINED off")
    weights = "DEFAULT" if pretrained else None
    if name in MOBILENETS:
        stages, channels = _mobilenet(weights, reduced_tail, is_dilated)
    else:
        stages, channels = _shufflenet(name, weights)
    strides = (2, 4, 8, 16, output_stride, output_stride)
    levels = select_levels(name, [*level_names(5), "last"], channels, strides, out_features)
    network = Stages(stages, tuple(levels))
    if _is_sync_bn(norm):
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return LevelsBackbone(network, dict(levels.values()))


def _mobilenet(weights: str | None, reduced_tail: bool, dilated: bool) -> nn.Module:
    """Stages and their widths."""
    features = torchvision.models.mobilenet_v3_large(
        weights=weights, reduced_tail=reduced_tail, dilated=dilated
    ).features
    ends = [*MOBILENET_STAGES[1:], len(features)]
    stages = [features[a:b] for a, b in zip(MOBILENET_STAGES, ends, strict=True)]
    return stages, [stage[-1].out_channels for stage in stages]


def _shufflenet(name: str, weights: str | None) -> nn.Module:
    """Stages and their widths."""
    model = torchvision.models.get_model(name, weights=weights)
    stages = [model.conv1, model.maxpool, model.stage2, model.stage3, model.stage4, model.conv5]
    first, *others = model._stage_out_channels
    return stages, [first, first, *others]


class _HiddenStates(nn.Module):
    """The maps of the given indices of a transformers encoder."""

    def __init__(self, encoder: nn.Module, out_indices: Sequence[int]):
        super().__init__()
        self.encoder = encoder
        self.out_indices = tuple(out_indices)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = self.encoder(x, output_hidden_states=True).hidden_states
        return [maps[i] for i in self.out_indices]


def mit_backbone(
    name: str, out_features: Sequence[str], *, pretrained: bool = False
) -> LevelsBackbone:
    """SegFormer's Mix Transformer from transformers: "res2" .. "res5" at strides 4 .. 32.

    Args:
        name: one of MIX_TRANSFORMERS.
        out_features: levels wanted.
        pretrained: download NVIDIA's weights.

    Raises:
        InputError: transformers is missing, or another name.
    """
    transformers = _import_extra("transformers")
    widths, blocks = look_up(MIX_TRANSFORMERS, name, "MODEL.BASELINE.NAME")
    if pretrained:
        encoder = transformers.SegformerModel.from_pretrained(f"nvidia/{name.replace('_', '-')}")
    else:
        config = transformers.SegformerConfig(hidden_sizes=list(widths), depths=list(blocks))
        encoder = transformers.SegformerModel(config)
    levels = select_levels(name, level_names(4), widths, (4, 8, 16, 32), out_features)
    return LevelsBackbone(_HiddenStates(encoder, tuple(levels)), dict(levels.values()))


def _import_extra(module: str) -> ModuleType:
    return import_optional(module, "this MODEL.BACKBONE.NAME", "timm transformers")


def _check_stride(name: str, output_stride: int, stride: int) -> None:
    if stride != output_stride:
        raise InputError(
            f"MODEL.BASELINE.OUTPUT_STRIDE is {output_stride}, but {name} ends at stride {stride}"
        )


def _is_sync_bn(norm: str) -> bool:
    if norm not in ("BN", "SyncBN", "naiveSyncBN"):
        raise InputError(f"MODEL.BASELINE.NORM is {norm!r}; use BN or SyncBN")
    return norm != "BN"


def _build(make: Callable[..., LevelsBackbone], cfg: CfgNode, **args: Any) -> LevelsBackbone:
    completed = complete_config(cfg)
    describe_datasets(completed)
    keys = completed.MODEL.BASELINE
    args |= {"name": keys.NAME, "out_features": keys.OUT_FEATURES, "pretrained": keys.PRETRAINED}
    return remember_recipe(make(**args), cfg)


def _convolutional_args(cfg: CfgNode) -> dict:
    keys = complete_config(cfg).MODEL.BASELINE
    return {"output_stride": keys.OUTPUT_STRIDE, "norm": resolve_norm(keys.NORM)}


@BACKBONE_REGISTRY.register()
def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> LevelsBackbone:
    """timm's MODEL.BASELINE.NAME."""
    return _build(timm_backbone, cfg, **_convolutional_args(cfg))


@BACKBONE_REGISTRY.register()
def build_torchvision_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> LevelsBackbone:
    """torchvision's MODEL.BASELINE.NAME."""
    return _build(torchvision_backbone, cfg, **_convolutional_args(cfg))


@BACKBONE_REGISTRY.register()
def build_mit_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> LevelsBackbone:
    """SegFormer's MODEL.BASELINE.NAME."""
    keys = complete_config(cfg).MODEL.BASELINE
    _check_stride(keys.NAME, keys.OUTPUT_STRIDE, UNDILATED)
    return _build(mit_backbone, cfg)
