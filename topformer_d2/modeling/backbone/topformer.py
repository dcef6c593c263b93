"""TopFormer as a Detectron2 backbone: token pyramid, semantics extractor, semantics injection."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from torch import Tensor, nn

from ...config import complete_config, describe_datasets
from ...errors import InputError, look_up
from ..layers import check_batch_norm
from ..recipe import remember_recipe
from .injection import GATES, INJECTIONS
from .trunk import TopFormerBase, check_input_channels, trunk_arguments
from .variants import TOKEN_STRIDES, Variant, get_variant

OUTPUT_STRIDES = {f"sim{stride.bit_length() - 1}": stride for stride in TOKEN_STRIDES}


class TopFormer(TopFormerBase):
    """The backbone of "TopFormer: Token Pyramid Transformer for Mobile Semantic Segmentation".

    Its outputs are those of the Semantics Injection Modules: "sim2" to "sim5" at strides 4 to 32.
    Maps are rounded up, so the output at stride s of an (H, W) image is (ceil(H/s), ceil(W/s)).
    Tokens attend to each other over the whole image, so padding an image changes its result
    everywhere: size_divisibility is 0.
    """

    def __init__(
        self,
        variant: Variant | str,
        *,
        out_features: Sequence[str] = ("sim3", "sim4", "sim5"),
        norm: str = "BN",
        drop_path_rate: float = 0.1,
        pyramid_activation: str = "relu",
        gate: str = "hardsigmoid",
        token_stride: int = 64,
        semantics_input: str = "pyramid",
        semantics: str = "sase",
        injection: str = "both",
    ):
        """
        Args:
            variant: "tiny", "small", "base" or a Variant.
            out_features: outputs wanted, out of "sim2" .. "sim5".
            norm: name for Detectron2's get_norm.
            drop_path_rate: stochastic depth of the last transformer block.
            pyramid_activation: "relu" (official weights) or "relu6" (paper).
            gate: "hardsigmoid" (official weights) or "sigmoid" (paper).
            token_stride: of the pooled tokens that the extractor sees: 32, 64 or 128.
            semantics_input: "pyramid" (tokens of all scales) or "last" (of stride 32 alone).
            semantics: the extractor: "sase", "ffn", "ppm", "aspp" or "none".
            injection: "both", or the "gate" or the "info" branch alone.

        Raises:
            InputError: an unknown name or number in any of these.
        """
        unknown = [name for name in out_features if name not in OUTPUT_STRIDES]
        if unknown or not out_features:
            raise InputError(
                f"MODEL.TOPFORMER.OUT_FEATURES is {list(out_features)}; "
                f"use one or more of {list(OUTPUT_STRIDES)}"
            )
        make_injection = look_up(INJECTIONS, injection, "MODEL.TOPFORMER.INJECTION")
        gate_function = look_up(GATES, gate, "MODEL.TOPFORMER.GATE")
        if isinstance(variant, str):
            variant = get_variant(variant)
        super().__init__(
            variant,
            norm=norm,
            drop_path_rate=drop_path_rate,
            pyramid_activation=pyramid_activation,
            token_stride=token_stride,
            semantics_input=semantics_input,
            semantics=semantics,
        )
        self._out_features = sorted(out_features)
        self._out_feature_strides = {name: OUTPUT_STRIDES[name] for name in self._out_features}
        self._out_feature_channels = dict.fromkeys(self._out_features, variant.sim_channels)
        self.injection = nn.ModuleDict(
            {
                name: make_injection(channels, variant.sim_channels, gate=gate_function, norm=norm)
                for name, channels in zip(OUTPUT_STRIDES, variant.token_channels, strict=True)
                if name in self._out_features
            }
        )
        self._init_weights()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) normalised RGB to {"simN": (N, M, ceil(H / 2^N), ceil(W / 2^N))}.

        Raises:
            InputError: in training, the batch leaves BatchNorm a single value a channel.
        """
        check_batch_norm(self.injection, x, self._token_stride)
        tokens, semantics = self.extract(x)
        scales = zip(OUTPUT_STRIDES, tokens, semantics.split(self._token_channels, 1), strict=True)
        return {
            name: self.injection[name](local, split)
            for name, local, split in scales
            if name in self.injection
        }


@BACKBONE_REGISTRY.register()
def build_topformer_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TopFormer:
    """TopFormer from MODEL.TOPFORMER (see add_topformer_config)."""
    check_input_channels(input_shape)
    given, cfg = cfg, complete_config(cfg)
    describe_datasets(cfg)
    keys = cfg.MODEL.TOPFORMER
    backbone = TopFormer(
        **trunk_arguments(cfg),
        out_features=keys.OUT_FEATURES,
        gate=keys.GATE,
        injection=keys.INJECTION,
    )
    return remember_recipe(backbone, given)
