"""timm's classifiers of whole images, as teachers of TopFormer's or to be compared with it."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor

from ...config import complete_config
from ...errors import InputError, did_you_mean, import_optional
from ..meta_arch.classifier import ImageClassifier, ImageOutput, classifier_args


@META_ARCH_REGISTRY.register()
class TimmClassifier(ImageClassifier):
    """Any of timm's image classifiers, with timm's mean and standard deviation of the pixels."""

    @configurable
    def __init__(self, *, name: str, num_classes: int, pretrained: bool = False, **kwargs: Any):
        """
        Args:
            name: as for timm.create_model.
            num_classes: K; the last layer is new where the model has another number.
            pretrained: download timm's weights.
            kwargs: as for ImageClassifier, less pixel_mean and pixel_std.

        Raises:
            InputError: timm is missing, does not know the name, or has no such model or weights.
        """
        timm = import_optional("timm", "MODEL.META_ARCHITECTURE 'TimmClassifier'", "timm")
        known = timm.list_models()
        if name.split(".")[0] not in known:
            raise InputError(
                f"MODEL.BASELINE.NAME is {name!r}, which timm {timm.__version__} does not know"
                f"{did_you_mean(name, known)}"
            )
        try:
            model = timm.create_model(name, pretrained=pretrained, num_classes=num_classes)
        except (RuntimeError, TypeError, ValueError, OSError) as e:
            raise InputError(
                f"timm cannot make MODEL.BASELINE.NAME {name!r} with MODEL.BASELINE.PRETRAINED "
                f"{pretrained}: {type(e).__name__}: {e}"
            ) from e
        made_of = model.pretrained_cfg
        mean, std = ([255.0 * value for value in made_of[key]] for key in ("mean", "std"))
        super().__init__(num_classes=num_classes, pixel_mean=mean, pixel_std=std, **kwargs)
        self.model = model
        # Whether the last layer has been trained for these classes.
        self.is_trained = pretrained and made_of["num_classes"] == num_classes

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        cfg = complete_config(cfg)
        keys = cfg.MODEL.BASELINE
        args = classifier_args(cfg)
        del args["pixel_mean"], args["pixel_std"]
        return {**args, "name": keys.NAME, "pretrained": keys.PRETRAINED}

    def network(self, images: Tensor) -> ImageOutput:
        return ImageOutput(self.model(images))
