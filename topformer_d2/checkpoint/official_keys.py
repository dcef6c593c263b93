"""The names of TopFormer's and its heads' tensors in the official code, and here.

The classification code is not published. Its head's names, "head.bn" and "head.l", are those of
PaddleViT's conversion of the published ImageNet files (image_classification/TopFormer, Apache-2.0).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from ..modeling.backbone.topformer import OUTPUT_STRIDES

_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_INJECTION = {"local": "local_embedding", "info": "global_embedding", "gate": "global_act"}


def names_for_official(keys: Iterable[str]) -> dict[str, str]:
    """{official key: our key} of a model with the blocks that the official `keys` have.

    Both are a segmentation model's or a classifier's; keys of TopFormer need "backbone." before
    them.
    """
    keys = list(keys)
    num_blocks = _count(keys, r"backbone\.tpm\.layer(\d+)\.")
    expanded = [
        f"backbone.tpm.layer{layer}.conv.4.c.weight" in keys for layer in range(1, num_blocks + 1)
    ]
    return _names(expanded, _count(keys, r"backbone\.trans\.transformer_blocks\.(\d+)\."))


def names_for_ours(keys: Iterable[str]) -> dict[str, str]:
    """{our key: official key} of a model with the blocks that our `keys` have."""
    keys = list(keys)
    num_blocks = _count(keys, r"backbone\.pyramid\.blocks\.(\d+)\.")
    expanded = [f"backbone.pyramid.blocks.{i}.expand.weight" in keys for i in range(num_blocks)]
    names = _names(expanded, _count(keys, r"backbone\.semantics\.blocks\.(\d+)\."))
    return {ours: official for official, ours in names.items()}


def _count(keys: list[str], pattern: str) -> int:
    """How many numbers stand at the pattern's group."""
    return len({match[1] for key in keys if (match := re.match(pattern, key))})


def _names(expanded: Sequence[bool], num_transformers: int) -> dict[str, str]:
    """{official key: our key}.

    Args:
        expanded: of each block of the token pyramid, whether it has an expanding convolution.
        num_transformers: transformer blocks.
    """
    names = {}
    for official, ours in _modules(expanded, num_transformers):
        with_norm = not official.endswith(("dwconv", "conv_seg"))
        if with_norm:
            # Of the two classes of the official code, one calls its convolution "c".
            conv = "c" if official.startswith(("backbone.tpm.", "backbone.trans.")) else "conv"
            names[f"{official}.{conv}.weight"] = f"{ours}.weight"
            names |= {f"{official}.bn.{name}": f"{ours}.norm.{name}" for name in _NORM}
        else:
            names |= {f"{official}.{name}": f"{ours}.{name}" for name in ("weight", "bias")}
    names |= {f"head.bn.{name}": f"cls_head.norm.{name}" for name in _NORM}
    return names | {f"head.l.{name}": f"cls_head.linear.{name}" for name in ("weight", "bias")}


def _modules(expanded: Sequence[bool], num_transformers: int) -> Iterator[tuple[str, str]]:
    """The official name and ours of each convolution, the norm after it included."""
    yield "backbone.tpm.stem.0", "backbone.pyramid.stem"
    for i, has_expand in enumerate(expanded):
        # The official block is a list: convolutions at even places, activations between.
        for place, part in enumerate(("expand", "depthwise", "project")[not has_expand :]):
            official = f"backbone.tpm.layer{i + 1}.conv.{2 * place}"
            yield official, f"backbone.pyramid.blocks.{i}.{part}"
    for i in range(num_transformers):
        official, ours = f"backbone.trans.transformer_blocks.{i}", f"backbone.semantics.blocks.{i}"
        for name in ("query", "key", "value"):
            yield f"{official}.attn.to_{name[0]}", f"{ours}.attention.{name}"
        yield f"{official}.attn.proj.1", f"{ours}.attention.projection"
        yield f"{official}.mlp.fc1", f"{ours}.ffn.expand"
        yield f"{official}.mlp.dwconv", f"{ours}.ffn.depthwise"
        yield f"{official}.mlp.fc2", f"{ours}.ffn.project"
    for i, sim in enumerate(OUTPUT_STRIDES):
        for ours, official in _INJECTION.items():
            yield f"backbone.SIM.{i}.{official}", f"backbone.injection.{sim}.{ours}"
    yield "decode_head.linear_fuse", "sem_seg_head.fuse"
    yield "decode_head.conv_seg", "sem_seg_head.classifier"
