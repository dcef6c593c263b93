"""Building the model of a config."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from detectron2.config import CfgNode
from detectron2.modeling import RetinaNet
from detectron2.modeling import build_model as build_detectron2_model
from torch import nn

from ..config import changed_loss_keys, check_parts, complete_config
from ..errors import InputError
from .meta_arch import adapt


def build_model(cfg: CfgNode) -> nn.Module:
    """Detectron2's build_model, on MODEL.DEVICE; the model keeps meta_arch.contract.

    Raises:
        InputError: a part has a name that is not registered, or refuses the config.
    """
    with checking_parts(cfg):
        return finish_model(build_detectron2_model(cfg), cfg)


def finish_model(model: nn.Module, cfg: CfgNode) -> nn.Module:
    """What this toolkit's builders do with a model that Detectron2 has built from the config.

    It is adapted to meta_arch.contract, and gets MODEL.RETINANET.QUALITY_TARGETS.

    Raises:
        InputError: it cannot be adapted, is no RetinaNet and is to have quality targets, or has a
            segmentation head that knows nothing of a key of MODEL.SEM_SEG_LOSS.
    """
    model = adapt(model)
    cfg = complete_config(cfg)
    _check_loss_keys(model, cfg)
    if cfg.MODEL.RETINANET.QUALITY_TARGETS:
        if not isinstance(model, RetinaNet):
            raise InputError(
                "MODEL.RETINANET.QUALITY_TARGETS is True, but MODEL.META_ARCHITECTURE "
                f"{cfg.MODEL.META_ARCHITECTURE!r} is no RetinaNet: set it to False"
            )
        model.quality_targets = True
    return model


def _check_loss_keys(model: nn.Module, cfg: CfgNode) -> None:
    head = getattr(model, "sem_seg_head", None)
    if head is None:
        return
    unused = []
    if type(head).__module__.startswith("detectron2."):  # with a loss of its own
        unused = changed_loss_keys(cfg)
    elif cfg.MODEL.SEM_SEG_LOSS.AUXILIARY_WEIGHT and not hasattr(head, "auxiliary_weight"):
        unused = ["AUXILIARY_WEIGHT"]
    if unused:
        raise InputError(
            f"MODEL.SEM_SEG_LOSS has {', '.join(unused)}, which MODEL.SEM_SEG_HEAD.NAME "
            f"{cfg.MODEL.SEM_SEG_HEAD.NAME!r} does not train with, as TopFormerSegmentationHead "
            "does: leave out what the config sets there"
        )


@contextmanager
def checking_parts(cfg: CfgNode) -> Iterator[None]:
    """check_parts, then InputError for the KeyError of a RetinaNet whose features are missing."""
    check_parts(cfg)
    try:
        yield
    except KeyError as e:
        if e.args[:1] and e.args[0] in cfg.MODEL.RETINANET.IN_FEATURES:
            raise InputError(
                f"MODEL.RETINANET.IN_FEATURES names {e.args[0]!r}, which MODEL.BACKBONE.NAME "
                f"{cfg.MODEL.BACKBONE.NAME!r} does not give"
            ) from e
        raise
