"""Building the model of a config."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.modeling import build_model as build_detectron2_model
from torch import nn

from ..config import check_parts
from .meta_arch import adapt


def build_model(cfg: CfgNode) -> nn.Module:
    """Detectron2's build_model, on MODEL.DEVICE; the model keeps meta_arch.contract.

    Raises:
        InputError: a part has a name that is not registered, or refuses the config.
    """
    check_parts(cfg)
    return adapt(build_detectron2_model(cfg))
