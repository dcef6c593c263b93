"""Conversion between the keys of official checkpoints and ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, summarize
from ..modeling.backbone import VARIANTS, TopFormer
from ..modeling.heads import TopFormerSegmentationHead
from .contents import only_tensors, strip_wrappers
from .official_keys import names_for_official, names_for_ours
from .parts import split_parts, topformer_prefix

# Of TopFormer's keys in an official ImageNet file.
_BACKBONE = ("tpm.", "trans.", "SIM.")
# Official training code wraps the weights, with an average of them (EMA) beside them at times.
_WRAPPERS = ("state_dict_ema", "state_dict", "model")


@dataclass
class ConversionReport:
    """What a conversion used of an official checkpoint, and what it left.

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
            ImageNet checkpoint (the backbone's keys without "backbone.", and its classifier's,
            "head.*", where they are there), bare or wrapped under
            "state_dict", "state_dict_ema", "model" or, where it is the only dict of tensors, any
            other key; "module." prefixes allowed. A segmentation
            checkpoint's "state_dict" comes before its EMA; an ImageNet checkpoint's EMA first.

    Returns:
        our state dict, with keys `backbone.*` and `sem_seg_head.*` or `cls_head.*`; and the report.

    Raises:
        InputError: it holds no TopFormer, or one whose blocks fit no variant.
    """
    weights, source, left = _unwrap(state_dict)
    variant = _detect_variant(weights)
    report = ConversionReport(variant=variant, source=source, left=left)
    names = names_for_official(weights)
    converted = {}
    for key, value in weights.items():
        if key in names and isinstance(value, Tensor):
            converted[names[key]] = value
            report.used.append(key)
        else:
            report.left.append(key)
    report.missing = sorted(_expected_keys(variant) - converted.keys())
    return converted, report


def is_official(state_dict: Mapping[str, Any]) -> bool:
    """Whether it is an official checkpoint, as convert_official_state_dict takes them."""
    return any(
        _has_prefix(weights, prefix)
        for weights in _candidates(state_dict).values()
        for prefix in ("backbone.tpm.", "tpm.")
    )


def convert_to_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A segmenter's weights, a classifier's, or TopFormer's alone, under the official keys.

    convert_official_state_dict gives back what is put in here. MODEL.TOPFORMER's
    PYRAMID_ACTIVATION and GATE are not in the weights: the official code computes with the
    default ones.

    Args:
        state_dict: a segmenter's of this toolkit, a TopFormerClassifier's, or TopFormer's alone
            under any prefix.

    Returns:
        with a head, an official segmentation model's state dict ("backbone.*", "decode_head.*");
        else the backbone's, whose keys have no "backbone.", as in ImageNet's files, and the
        classifier's where there is one.

    Raises:
        InputError: it is another model's (a joint model and a detector have no official layout),
            or is not built of the default modules.
    """
    parts = split_parts(state_dict)
    if "head" in parts or "pyramid" in parts:
        kind = "a joint model" if "sem_seg_head" in parts else "a detector"
        tasks = "`extract_task` or " if "sem_seg_head" in parts else ""
        raise InputError(
            f"the checkpoint is {kind}'s, which the official layout does not have: first take a "
            f"part out of it, by {tasks}`extract_backbone`"
        )
    weights = {f"backbone.{key}": value for key, value in parts["TopFormer"].items()}
    head, classifier = parts.get("sem_seg_head", {}), parts.get("cls_head", {})
    weights |= head | classifier
    names = names_for_ours(weights)
    # Detectron2's old files have a normalisation.
    rest = [
        key
        for name in parts.keys() - {"TopFormer", "sem_seg_head", "cls_head"}
        for key in parts[name]
    ]
    unknown = [key for key in (*weights, *rest) if key not in names and key[:6] != "pixel_"]
    absent = [key for key in names if key not in weights and _is_needed(key, weights)]
    if head and classifier:
        unknown += classifier
    if unknown or absent:
        raise InputError(
            f"the model is not built as the official one: that has no place for "
            f"{summarize(unknown)}, and needs {summarize(absent)}. It has the default modules of "
            "MODEL.TOPFORMER and MODEL.SEM_SEG_HEAD alone"
        )
    prefix = "" if head else "backbone."
    return {names[key].removeprefix(prefix): value for key, value in weights.items()}


def _is_needed(key: str, weights: Mapping[str, Tensor]) -> bool:
    """Whether the official model needs it: all but counters, and whole modules that are absent."""
    if key.endswith("num_batches_tracked"):
        return False
    if key.startswith("backbone.injection."):
        return _has_prefix(weights, ".".join(key.split(".")[:3]) + ".")
    head = next((name for name in ("sem_seg_head.", "cls_head.") if key.startswith(name)), "")
    return _has_prefix(weights, head)


def _unwrap(state_dict: Mapping[str, Any]) -> tuple[dict[str, Any], str, list[str]]:
    """The weights with a segmentation model's keys, where they stood, and what lay beside them."""
    candidates = _candidates(state_dict)
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
            f"backbone.{key}" if key.startswith(_BACKBONE) else key: value
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


def _candidates(state_dict: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Each wrapper's weights, in the order of _WRAPPERS; bare weights under ""."""
    found = {name: state_dict.get(name) for name in _WRAPPERS}
    if not any(isinstance(weights, Mapping) for weights in found.values()):
        only = only_tensors(state_dict)
        found = {name: w for name, w in state_dict.items() if only is not None and w is only}
    return {
        name: strip_wrappers(weights)
        for name, weights in found.items()
        if isinstance(weights, Mapping)
    } or {"": strip_wrappers(state_dict)}


def _hint_for_own(weights: Mapping[str, Any]) -> str:
    if topformer_prefix(weights) is None:
        return ""
    return (
        ". It is this toolkit's own: `extract_task` takes one task out of a joint model, "
        "`merge_tasks` joins a segmenter and a detector, `convert_to_official` gives it the "
        "official keys"
    )


def _has_prefix(keys: Mapping[str, Any], prefix: str) -> bool:
    return any(key.startswith(prefix) for key in keys)


def _detect_variant(weights: Mapping[str, Any]) -> str:
    channels: list[int | None] = []
    while _has_prefix(weights, f"backbone.tpm.layer{len(channels) + 1}."):
        block = f"backbone.tpm.layer{len(channels) + 1}.conv"
        # The block's last convolution: the third, or without an expanding one the second.
        last = 4 if f"{block}.4.c.weight" in weights else 2
        bias = weights.get(f"{block}.{last}.bn.bias")
        channels.append(len(bias) if bias is not None else None)
    for name, variant in VARIANTS.items():
        if tuple(channels) == variant.block_channels:
            return name
    raise InputError(f"its token pyramid has channels {channels}, which fit none of {[*VARIANTS]}")


def _expected_keys(variant: str) -> set[str]:
    with torch.device("meta"):
        backbone = TopFormer(variant)
        head = TopFormerSegmentationHead(backbone.output_shape(), num_classes=1)
    keys = {f"backbone.{key}" for key in backbone.state_dict()}
    return keys | {f"sem_seg_head.{key}" for key in head.state_dict()}
