"""Parts of a model that are not trained (MODEL.FREEZE)."""

from __future__ import annotations

from collections.abc import Sequence
from types import MethodType

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import InputError, did_you_mean
from ..logs import get_logger
from .backbone.trunk import TopFormerBase

logger = get_logger(__name__)


def freeze_parts(model: nn.Module, parts: Sequence[str]) -> nn.Module:
    """Keep some parts of a model from being trained.

    Their parameters need no gradient, and they stay in evaluation mode, also after `model.train()`:
    BatchNorm uses its running statistics and leaves them as they are, and nothing is dropped.

    Args:
        model: it is changed and returned. It is not wrapped in DistributedDataParallel yet.
        parts: "backbone" (without a pyramid that stands on it), "bn" (every BatchNorm of the
            model), and of a TopFormer "stem", "pyramid" (with its stem) and "extractor".

    Raises:
        InputError: the model has no such part, or nothing is left to train.
    """
    known = _parts_of(model) if parts else {}
    for name in parts:
        if name not in known:
            raise InputError(
                f"MODEL.FREEZE names {name!r}{did_you_mean(name, list(known))}; this model has "
                f"{', '.join(known) or 'no part that can be frozen'}"
            )
        for module in known[name]:
            _freeze(module)
    if parts:
        sizes = {True: 0, False: 0}
        for parameter in model.parameters():
            sizes[parameter.requires_grad] += parameter.numel()
        if not sizes[True]:
            raise InputError(f"MODEL.FREEZE is {list(parts)}, which leaves nothing to train")
        logger.info(
            "MODEL.FREEZE is %s: %d of the model's %d parameters are not trained",
            *(list(parts), sizes[False], sum(sizes.values())),
        )
    return model


def _parts_of(model: nn.Module) -> dict[str, list[nn.Module]]:
    """The modules of each part that has parameters."""
    parts: dict[str, list[nn.Module]] = {}
    for topformer in (m for m in model.modules() if isinstance(m, TopFormerBase)):
        parts["stem"] = [topformer.pyramid.stem]
        parts["pyramid"] = [topformer.pyramid]
        parts["extractor"] = [topformer.pool, topformer.semantics]
    backbone = getattr(model, "backbone", None)
    # A pyramid for detection has no pretrained weights.
    parts["backbone"] = [getattr(backbone, "bottom_up", backbone)] if backbone is not None else []
    parts["bn"] = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    return {
        name: modules
        for name, modules in parts.items()
        if any(True for module in modules for _ in module.parameters())
    }


def _freeze(module: nn.Module) -> None:
    module.requires_grad_(False)
    module.eval()
    # Detectron2's loop expects a part that is not trained to overwrite train(). A bound method
    # follows the module into a copy of the model, such as that of averaged weights.
    module.train = MethodType(_stay_in_eval, module)


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:
    return module
