"""The official checkpoints' keys in ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..modeling.backbone import VARIANTS, TopFormer
from ..modeling.heads import TopFormerSegmentationHead
from .files import summarize
from .parts import topformer_prefix

# Official training code wraps the weights, with an average of them (EMA) beside them at times.
_WRAPPERS = ("state_dict_ema", "state_dict", "model")

_CONV_OR_NORM = r"(?:c|conv|(?P<norm>bn))\."
# (official key, ours); {norm} is "norm." for a BatchNorm's and "" for a convolution's tensors.
_RULES = [
    (rf"backbone\.tpm\.stem\.0\.{_CONV_OR_NORM}", "backbone.pyramid.stem.{norm}"),
    (
        rf"backbone\.tpm\.layer(?P<layer>\d+)\.conv\.(?P<conv>\d)\.{_CONV_OR_NORM}",
        "backbone.pyramid.blocks.{block}.{part}.{norm}",
    ),
    (
        rf"backbone\.trans\.transformer_blocks\.(?P<i>\d+)\.attn\.to_(?P<qkv>[qkv])\.{_CONV_OR_NORM}",
        "backbone.semantics.blocks.{i}.attention.{qkv}.{norm}",
    ),
    (
        rf"backbone\.trans\.transformer_blocks\.(?P<i>\d+)\.attn\.proj\.1\.{_CONV_OR_NORM}",
        "backbone.semantics.blocks.{i}.attention.projection.{norm}",
    ),
    (
        rf"backbone\.trans\.transformer_blocks\.(?P<i>\d+)\.mlp\.fc(?P<fc>[12])\.{_CONV_OR_NORM}",
        "backbone.semantics.blocks.{i}.ffn.{fc}.{norm}",
    ),
    (
        r"backbone\.trans\.transformer_blocks\.(?P<i>\d+)\.mlp\.dwconv\.",
        "backbone.semantics.blocks.{i}.ffn.depthwise.",
    ),
    (
        rf"backbone\.SIM\.(?P<sim>\d)\.(?P<role>local_embedding|global_embedding|global_act)\.{_CONV_OR_NORM}",
        "backbone.injection.{sim}.{role}.{norm}",
    ),
    (rf"decode_head\.linear_fuse\.{_CONV_OR_NORM}", "sem_seg_head.fuse.{norm}"),
    (r"decode_head\.conv_seg\.", "sem_seg_head.classifier."),
]
_NAMES = {
    "qkv": {"q": "query", "k": "key", "v": "value"},
    "fc": {"1": "expand", "2": "project"},
    "sim": {"0": "sim2", "1": "sim3", "2": "sim4", "3": "sim5"},
    "role": {"local_embedding": "local", "global_embedding": "info", "global_act": "gate"},
}


@dataclass
class ConversionReport:
    """What became of an official checkpoint.

    Attributes:
        variant: "tiny", "small" or "base".
        source: where the weights stood, e.g. "segmentation, under 'state_dict'".
        used: official keys that were converted.
        missing: our keys, of a segmentation model with "sim3" to "sim5", that nothing gave.
        left: keys of the file that have no place in our model.
    """

    variant: str
    source: str
    used: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"TopFormer-{self.variant} ({self.source})",
            f"  used    {len(self.used)} tensors",
            f"  missing {summarize(self.missing)}",
            f"  left    {summarize(self.left)}",
        ]
        return "\n".join(lines)


def convert_official_state_dict(
    state_dict: Mapping[str, Any],
) -> tuple[dict[str, Tensor], ConversionReport]:
    """The official TopFormer's weights under our keys.

    Args:
        state_dict: an official segmentation checkpoint (keys "backbone.*", "decode_head.*") or
            ImageNet checkpoint (the backbone's keys without "backbone."), bare or wrapped under
            "state_dict", "state_dict_ema" or "model", "module." prefixes allowed. A segmentation
            checkpoint's "state_dict" comes before its EMA; an ImageNet checkpoint's EMA first.

    Returns:
        our state dict, with keys `backbone.*` and `sem_seg_head.*`; and the report.

    Raises:
        InputError: it holds no TopFormer, or one whose blocks fit no variant.
    """
    weights, source, left = _unwrap(state_dict)
    blocks = {int(m[1]) for key in weights if (m := re.match(r"backbone\.tpm\.layer(\d+)\.", key))}
    expanded = {
        int(m[1])
        for key in weights
        if (m := re.match(r"backbone\.tpm\.layer(\d+)\.conv\.4\.", key))
    }
    variant = _detect_variant(weights, len(blocks))
    report = ConversionReport(variant=variant, source=source, left=left)
    converted = {}
    for key, value in weights.items():
        new_key = _convert_key(key, expanded)
        if new_key is None or not isinstance(value, Tensor):
            report.left.append(key)
        else:
            converted[new_key] = value
            report.used.append(key)
    report.missing = sorted(_expected_keys(variant) - converted.keys())
    return converted, report


def _unwrap(state_dict: Mapping[str, Any]) -> tuple[dict[str, Any], str, list[str]]:
    """The weights with a segmentation model's keys, where they stood, and what lay beside them."""
    candidates = {
        name: _strip_module(state_dict[name])
        for name in _WRAPPERS
        if isinstance(state_dict.get(name), Mapping)
    } or {"": _strip_module(state_dict)}
    is_segmentation = {
        name: _has_prefix(keys, "backbone.tpm.") for name, keys in candidates.items()
    }
    is_backbone = {name: _has_prefix(keys, "tpm.") for name, keys in candidates.items()}
    segmentation = [name for name, is_one in is_segmentation.items() if is_one]
    backbone = [name for name, is_one in is_backbone.items() if is_one]
    if segmentation:
        # The published figures are those of the plain weights.
        chosen = "state_dict" if "state_dict" in segmentation else segmentation[0]
        weights, kind = candidates[chosen], "segmentation"
    elif backbone:
        chosen, kind = backbone[0], "ImageNet classification"
        weights = {
            key if key.startswith("classifier.") else f"backbone.{key}": value
            for key, value in candidates[chosen].items()
        }
    else:
        weights = next(iter(candidates.values()))
        raise InputError(
            f"not an official TopFormer checkpoint: its keys are like {list(weights)[:3]}"
            + _hint_for_own(weights)
        )
    left = [key for key in state_dict if key != chosen] if chosen else []
    return weights, f"{kind}, under {chosen!r}" if chosen else f"{kind}, bare", left


def _hint_for_own(weights: Mapping[str, Any]) -> str:
    if topformer_prefix(weights) is None:
        return ""
    return (
        ". It is this toolkit's own: `--extract sem_seg` or `--extract instances` takes one task "
        "out of a joint model, `--merge OTHER` joins a segmenter and a detector"
    )


def _strip_module(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    return {str(key).removeprefix("module."): value for key, value in state_dict.items()}


def _has_prefix(keys: Mapping[str, Any], prefix: str) -> bool:
    return any(key.startswith(prefix) for key in keys)


def _detect_variant(weights: Mapping[str, Any], num_blocks: int) -> str:
    channels = []
    for layer in range(1, num_blocks + 1):
        prefix = f"backbone.tpm.layer{layer}.conv."
        projection = max((key for key in weights if key.startswith(prefix)), default=None)
        bias = weights.get(f"{projection[: len(prefix) + 1]}.bn.bias") if projection else None
        channels.append(len(bias) if bias is not None else None)
    for name, variant in VARIANTS.items():
        if tuple(channels) == variant.block_channels:
            return name
    raise InputError(f"its token pyramid has channels {channels}, which fit none of {[*VARIANTS]}")


def _convert_key(key: str, expanded_layers: set[int]) -> str | None:
    for pattern, template in _RULES:
        match = re.match(pattern, key)
        if match is None:
            continue
        groups = {
            name: _NAMES[name][value] if name in _NAMES else value
            for name, value in match.groupdict().items()
        }
        groups["norm"] = "norm." if groups.get("norm") else ""
        if "layer" in groups:
            groups["block"] = int(groups["layer"]) - 1
            # The official block is a list: convolutions at even places, activations between.
            parts = ("expand", "depthwise", "project")
            first = 0 if int(groups["layer"]) in expanded_layers else 1
            groups["part"] = parts[int(groups["conv"]) // 2 + first]
        return template.format(**groups) + key[match.end() :]
    return None


def _expected_keys(variant: str) -> set[str]:
    with torch.device("meta"):
        backbone = TopFormer(variant)
        head = TopFormerSegmentationHead(backbone.output_shape(), num_classes=1)
    keys = {f"backbone.{key}" for key in backbone.state_dict()}
    return keys | {f"sem_seg_head.{key}" for key in head.state_dict()}
