"""TopFormer as a Detectron2 backbone: token pyramid, semantics extractor, semantics injection."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn

from ...config import complete_config, describe_datasets
from ...errors import InputError, look_up
from ..layers import check_batch_norm, get_activation, resolve_norm
from ..recipe import remember_recipe
from .extractors import EXTRACTORS, INPUTS
from .injection import GATES, INJECTIONS
from .semantics import Attention
from .token_pyramid import TokenPyramid
from .variants import TOKEN_STRIDES, Variant, get_variant, variant_from_config

# The pooled tokens' (Table 8); the official weights have 64.
SEMANTICS_STRIDES = (32, 64, 128)
OUTPUT_STRIDES = {f"sim{stride.bit_length() - 1}": stride for stride in TOKEN_STRIDES}


class TopFormer(Backbone):
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
        super().__init__()
        if isinstance(variant, str):
            variant = get_variant(variant)
        unknown = [name for name in out_features if name not in OUTPUT_STRIDES]
        if unknown or not out_features:
            raise InputError(
                f"MODEL.TOPFORMER.OUT_FEATURES is {list(out_features)}; "
                f"use one or more of {list(OUTPUT_STRIDES)}"
            )
        if not 0 <= drop_path_rate < 1:
            raise InputError(
                f"MODEL.TOPFORMER.DROP_PATH_RATE is {drop_path_rate}; it takes 0 or more, below 1"
            )
        if token_stride not in SEMANTICS_STRIDES:
            raise InputError(
                f"MODEL.TOPFORMER.TOKEN_STRIDE is {token_stride!r}; known: {SEMANTICS_STRIDES}"
            )
        make_input = look_up(INPUTS, semantics_input, "MODEL.TOPFORMER.SEMANTICS_INPUT")
        make_extractor = look_up(EXTRACTORS, semantics, "MODEL.TOPFORMER.SEMANTICS")
        make_injection = look_up(INJECTIONS, injection, "MODEL.TOPFORMER.INJECTION")
        gate_function = look_up(GATES, gate, "MODEL.TOPFORMER.GATE")
        self._out_features = sorted(out_features)
        self._out_feature_strides = {name: OUTPUT_STRIDES[name] for name in self._out_features}
        self._out_feature_channels = dict.fromkeys(self._out_features, variant.sim_channels)
        self._token_channels = variant.token_channels
        self._token_stride = token_stride

        self.pyramid = TokenPyramid(
            variant, norm=norm, activation=get_activation(pyramid_activation)
        )
        self.pool = make_input(
            variant.token_channels, factor=token_stride // TOKEN_STRIDES[-1], norm=norm
        )
        self.semantics = make_extractor(variant, drop_path_rate=drop_path_rate, norm=norm)
        self.injection = nn.ModuleDict(
            {
                name: make_injection(channels, variant.sim_channels, gate=gate_function, norm=norm)
                for name, channels in zip(OUTPUT_STRIDES, variant.token_channels, strict=True)
                if name in self._out_features
            }
        )
        self._init_weights()
        self.register_load_state_dict_pre_hook(_require_matching_weights)

    def _init_weights(self) -> None:
        """Official initialisation; a norm's weight 1 and bias 0 are PyTorch's defaults."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                kernel_area = module.kernel_size[0] * module.kernel_size[1]
                fan_out = kernel_area * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=(2.0 / fan_out) ** 0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, Attention):
                norm = module.projection.norm
                # Each attention starts as the identity. A frozen norm has no weight to train.
                if isinstance(getattr(norm, "weight", None), nn.Parameter):
                    nn.init.zeros_(norm.weight)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) normalised RGB to {"simN": (N, M, ceil(H / 2^N), ceil(W / 2^N))}.

        Raises:
            InputError: in training, the batch leaves BatchNorm a single value a channel.
        """
        for part in (self.semantics, self.injection):
            check_batch_norm(part, x, self._token_stride)
        tokens = self.pyramid(x)
        semantics = self.semantics(self.pool(tokens)).split(self._token_channels, dim=1)
        scales = zip(OUTPUT_STRIDES, tokens, semantics, strict=True)
        return {
            name: self.injection[name](local, split)
            for name, local, split in scales
            if name in self.injection
        }


def _require_matching_weights(module: TopFormer, state_dict: dict, prefix: str, *_: object) -> None:
    """Refuse weights that are not a TopFormer's, or another variant's.

    Detectron2 loads what fits and only logs the rest, so a wrong file would pass as a right one.
    The injection modules do not count: ImageNet checkpoints have none.
    """
    own = {
        f"{prefix}{key}": value.shape
        for key, value in module.state_dict().items()
        if not key.startswith("injection.")
    }
    fitting = sum(key in state_dict and state_dict[key].shape == own[key] for key in own)
    if fitting < len(own) / 2:
        keys = [key for key in state_dict if key.startswith(prefix)]
        raise InputError(
            f"the weights given fit only {fitting} of this TopFormer's {len(own)} tensors, having "
            f"{len(keys)} keys under {prefix!r}: are they another MODEL.TOPFORMER.VARIANT's, or an "
            "official checkpoint (`topformer convert IN OUT` converts it)? Weights "
            "with TopFormer under another name are placed by topformer_d2.checkpoint"
            ".SafeCheckpointer alone"
        )


@BACKBONE_REGISTRY.register()
def build_topformer_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TopFormer:
    """TopFormer from MODEL.TOPFORMER (see add_topformer_config)."""
    if input_shape.channels != 3:
        raise InputError(
            f"TopFormer takes 3-channel images, but MODEL.PIXEL_MEAN has {input_shape.channels}"
        )
    given, cfg = cfg, complete_config(cfg)
    describe_datasets(cfg)
    keys = cfg.MODEL.TOPFORMER
    backbone = TopFormer(
        variant_from_config(cfg),
        out_features=keys.OUT_FEATURES,
        norm=resolve_norm(keys.NORM),
        drop_path_rate=keys.DROP_PATH_RATE,
        pyramid_activation=keys.PYRAMID_ACTIVATION,
        gate=keys.GATE,
        token_stride=keys.TOKEN_STRIDE,
        semantics_input=keys.SEMANTICS_INPUT,
        semantics=keys.SEMANTICS,
        injection=keys.INJECTION,
    )
    return remember_recipe(backbone, given)
