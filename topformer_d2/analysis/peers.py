"""Networks of other libraries that a user may choose instead, untrained, for their latency."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import import_optional

PEERS = ("LR-ASPP MobileNetV3-Large", "DeepLabV3 MobileNetV3-Large", "SegFormer-B0")


class _Logits(nn.Module):
    """A library's segmentation model without its enlarging: (N, 3, H, W) to (N, K, h, w)."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self.model, "segformer"):
            return self.model(x).logits
        features = self.model.backbone(x)
        is_single = isinstance(self.model.classifier, nn.Sequential)  # DeepLabV3's
        return self.model.classifier(features["out"] if is_single else features)


def build_peer(name: str, num_classes: int) -> nn.Module:
    """One of PEERS in inference, from a normalised image (N, 3, H, W) to logits (N, K, h, w).

    Raises:
        InputError: the library of it is not installed.
    """
    if name == PEERS[2]:
        transformers = import_optional("transformers", name, "transformers")
        config = transformers.SegformerConfig(num_labels=num_classes)
        model = transformers.SegformerForSemanticSegmentation(config)
    else:
        from torchvision.models import segmentation

        build = {
            PEERS[0]: segmentation.lraspp_mobilenet_v3_large,
            PEERS[1]: segmentation.deeplabv3_mobilenet_v3_large,
        }[name]
        model = build(weights=None, weights_backbone=None, num_classes=num_classes)
    return _Logits(model).eval().requires_grad_(False)


def peer_onnx(model: nn.Module, size: tuple[int, int], path: str) -> None:
    """Write a peer for images of one size as an ONNX file: input "images", output "logits"."""
    torch.onnx.export(
        model,
        (torch.zeros(1, 3, *size),),
        path,
        dynamo=False,
        opset_version=17,
        input_names=["images"],
        output_names=["logits"],
    )
