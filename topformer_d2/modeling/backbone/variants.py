"""TopFormer-Tiny, Small and Base as data (paper, Section 4.1 and the official implementation).

Nothing is imported here that has dependencies, so that tools/docs_site.py reads the variants.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import InputError

if TYPE_CHECKING:
    from detectron2.config import CfgNode

STEM_STRIDE = 2
TOKEN_STRIDES = (4, 8, 16, 32)
# Of any number of a variant: wider layers than anybody has memory for.
_MOST = 1 << 16


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MOST


@dataclass(frozen=True)
class Variant:
    """The numbers of one TopFormer.

    The `block_*` tuples have one entry for each inverted-residual block of the token pyramid. The
    last block at each of the strides 4, 8, 16 and 32 gives the tokens of that scale.
    """

    block_kernel_sizes: tuple[int, ...]
    block_expansions: tuple[int, ...]
    block_channels: tuple[int, ...]
    block_strides: tuple[int, ...]
    num_heads: int
    sim_channels: int
    fuse_depthwise: bool = False
    stem_channels: int = 16
    num_blocks: int = 4
    key_dim: int = 16
    value_dim: int = 32
    ffn_ratio: int = 2

    def __post_init__(self) -> None:
        lengths = {}
        for name, value in dataclasses.asdict(self).items():
            key = f"MODEL.TOPFORMER.{name.upper()}"
            if name.startswith("block_"):
                if not isinstance(value, tuple) or not all(map(_is_count, value)):
                    raise InputError(
                        f"{key} is {value!r}; it takes a list of positive integers up to {_MOST}"
                    )
                lengths[key] = len(value)
            elif name != "fuse_depthwise" and not _is_count(value):
                raise InputError(f"{key} is {value!r}; it takes a positive integer up to {_MOST}")
        if len(set(lengths.values())) != 1:
            listed = ", ".join(f"{key} has {n}" for key, n in lengths.items())
            raise InputError(f"each block needs one entry in each list, but {listed}")
        reached = sorted(set(self._strides_after_blocks()) - {STEM_STRIDE})
        if reached != list(TOKEN_STRIDES):
            raise InputError(
                f"MODEL.TOPFORMER.BLOCK_STRIDES {list(self.block_strides)} give maps at strides "
                f"{reached}; TopFormer needs {list(TOKEN_STRIDES)}: 2 four times, 1 elsewhere"
            )

    def _strides_after_blocks(self) -> list[int]:
        strides, stride = [], STEM_STRIDE
        for s in self.block_strides:
            stride *= s
            strides.append(stride)
        return strides

    @property
    def token_blocks(self) -> tuple[int, ...]:
        """Indices of the blocks whose outputs are the tokens at strides 4, 8, 16, 32."""
        strides = self._strides_after_blocks()
        return tuple(len(strides) - 1 - strides[::-1].index(s) for s in TOKEN_STRIDES)

    @property
    def token_channels(self) -> tuple[int, ...]:
        """Channels of the tokens at strides 4, 8, 16, 32."""
        return tuple(self.block_channels[i] for i in self.token_blocks)

    @property
    def embed_dim(self) -> int:
        """Width of the semantics extractor: the sum of the token channels."""
        return sum(self.token_channels)


_TEN_BLOCKS: dict[str, Any] = {
    "block_kernel_sizes": (3, 3, 3, 5, 5, 3, 3, 5, 5, 3),
    "block_expansions": (1, 4, 3, 3, 3, 3, 3, 6, 6, 6),
    "block_strides": (1, 2, 1, 2, 1, 2, 1, 2, 1, 1),
}

VARIANTS = {
    "tiny": Variant(
        **{name: values[:-1] for name, values in _TEN_BLOCKS.items()},
        block_channels=(16, 16, 16, 32, 32, 64, 64, 96, 96),
        num_heads=4,
        sim_channels=128,
        fuse_depthwise=True,
    ),
    "small": Variant(
        **_TEN_BLOCKS,
        block_channels=(16, 24, 24, 48, 48, 96, 96, 128, 128, 128),
        num_heads=6,
        sim_channels=192,
    ),
    "base": Variant(
        **_TEN_BLOCKS,
        block_channels=(16, 32, 32, 64, 64, 128, 128, 160, 160, 160),
        num_heads=8,
        sim_channels=256,
    ),
}


def get_variant(name: str, **overrides: Any) -> Variant:
    """The variant `name` with the fields in `overrides` replaced; None keeps the variant's value.

    Raises:
        InputError: unknown name, lists of unequal length, or strides other than 4, 8, 16, 32.
    """
    if name not in VARIANTS:
        raise InputError(f"MODEL.TOPFORMER.VARIANT is {name!r}; known: {', '.join(VARIANTS)}")
    given: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in overrides.items()
        if value is not None
    }
    return dataclasses.replace(VARIANTS[name], **given)


def variant_from_config(cfg: CfgNode) -> Variant:
    """The variant that MODEL.TOPFORMER describes."""
    keys = cfg.MODEL.TOPFORMER
    names = [f.name for f in dataclasses.fields(Variant) if f.name.upper() in keys]
    return get_variant(keys.VARIANT, **{name: keys[name.upper()] for name in names})
