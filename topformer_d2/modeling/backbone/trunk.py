"""TopFormer without its injection: the token pyramid and the semantics extractor."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn

from ...config import complete_config, describe_datasets
from ...errors import InputError, look_up
from ..layers import check_batch_norm, get_activation, resolve_norm
from ..recipe import remember_recipe
from .extractors import EXTRACTORS, INPUTS
from .semantics import Attention
from .token_pyramid import TokenPyramid
from .variants import TOKEN_STRIDES, Variant, get_variant, variant_from_config

# The pooled tokens' (Table 8); the official weights have 64.
SEMANTICS_STRIDES = (32, 64, 128)


class TopFormerBase(Backbone):
    """The token pyramid and the semantics extractor, under TopFormer's keys.

    A subclass adds its outputs and then calls _init_weights.
    """

    def __init__(
        self,
        variant: Variant | str,
        *,
        norm: str = "BN",
        drop_path_rate: float = 0.1,
        pyramid_activation: str = "relu",
        token_stride: int = 64,
        semantics_input: str = "pyramid",
        semantics: str = "sase",
    ):
        """Arguments and errors as for TopFormer."""
        super().__init__()
        if isinstance(variant, str):
            variant = get_variant(variant)
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
        self._token_channels = variant.token_channels
        self._token_stride = token_stride

        self.pyramid = TokenPyramid(
            variant, norm=norm, activation=get_activation(pyramid_activation)
        )
        self.pool = make_input(
            variant.token_channels, factor=token_stride // TOKEN_STRIDES[-1], norm=norm
        )
        self.semantics = make_extractor(variant, drop_path_rate=drop_path_rate, norm=norm)
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

    def extract(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """(N, 3, H, W) normalised RGB to the tokens of each scale and the extractor's output.

        Raises:
            InputError: in training, the batch leaves BatchNorm a single value a channel.
        """
        check_batch_norm(self.semantics, x, self._token_stride)
        tokens = self.pyramid(x)
        return tokens, self.semantics(self.pool(tokens))


class TopFormerTrunk(TopFormerBase):
    """What TopFormer computes before its injection: what its ImageNet weights are of.

    Its output is "semantics", the extractor's tokens of all scales side by side.
    """

    def __init__(self, variant: Variant | str, **kwargs: Any):
        """Arguments and errors as for TopFormer, less `out_features`, `gate` and `injection`."""
        super().__init__(variant, **kwargs)
        self._out_features = ["semantics"]
        self._out_feature_strides = {"semantics": self._token_stride}
        self._out_feature_channels = {"semantics": sum(self._token_channels)}
        self._init_weights()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) normalised RGB to {"semantics": (N, C, ceil(H / s), ceil(W / s))}.

        C is the sum of all scales' channels, s the token stride.
        """
        return {"semantics": self.extract(x)[1]}


def _require_matching_weights(module: nn.Module, state_dict: dict, prefix: str, *_: object) -> None:
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


def trunk_arguments(cfg: CfgNode) -> dict[str, Any]:
    """TopFormerTrunk's arguments by MODEL.TOPFORMER of a config with the toolkit's keys."""
    keys = cfg.MODEL.TOPFORMER
    return {
        "variant": variant_from_config(cfg),
        "norm": resolve_norm(keys.NORM),
        "drop_path_rate": keys.DROP_PATH_RATE,
        "pyramid_activation": keys.PYRAMID_ACTIVATION,
        "token_stride": keys.TOKEN_STRIDE,
        "semantics_input": keys.SEMANTICS_INPUT,
        "semantics": keys.SEMANTICS,
    }


def check_input_channels(input_shape: ShapeSpec) -> None:
    """Raise InputError where MODEL.PIXEL_MEAN is not of 3-channel images."""
    if input_shape.channels != 3:
        raise InputError(
            f"TopFormer takes 3-channel images, but MODEL.PIXEL_MEAN has {input_shape.channels}"
        )


@BACKBONE_REGISTRY.register()
def build_topformer_trunk(cfg: CfgNode, input_shape: ShapeSpec) -> nn.Module:
    """TopFormerTrunk from MODEL.TOPFORMER; keys of the injection have no effect."""
    check_input_channels(input_shape)
    complete = complete_config(cfg)
    describe_datasets(complete)
    return remember_recipe(TopFormerTrunk(**trunk_arguments(complete)), cfg)
