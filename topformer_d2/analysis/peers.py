"""Untrained networks of other libraries, for a comparison of latency."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..errors import import_optional
from ..inference.formats.tracing import OPSET
from ..inference.optimization import use_onednn
from ..modeling.layers import resize

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


class LabelMap(nn.Module):
    """A network that ends in a label map: resize all logits to the image's size, then argmax.

    An image (N, 3, H, W) to labels (N, H, W) int64. This is the usual export of other libraries'
    models: the runtime does everything.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return resize(self.network(x), x.shape[-2:]).argmax(dim=1)


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


def prepare_peer(peer: nn.Module) -> nn.Module:
    """A peer as the Predictor prepares our models, and with the same numbers.

    BatchNorm is folded into convolutions, and oneDNN computes those of 1x1. Convolutional networks
    lie channels last on a CPU, where they take 0.7 to 0.9 times as long; SegFormer, which takes 1.2
    times as long so, stays. It may change `peer`.
    """
    if hasattr(peer.model, "segformer"):
        head = peer.model.decode_head
        head.linear_fuse = fuse_conv_bn_eval(head.linear_fuse, head.batch_norm)
        head.batch_norm = nn.Identity()
    else:
        peer = fuse(peer).to(memory_format=torch.channels_last)
    for module in peer.modules():
        if isinstance(module, nn.Conv2d):
            use_onednn(module)
    return peer


def peer_onnx(model: nn.Module, size: tuple[int, int], path: str) -> None:
    """Write a peer, or its LabelMap, for images of one size as an ONNX file.

    The input is "images" (1, 3, H, W) float32, the output "output".
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what becomes a constant is one here
        torch.onnx.export(
            model,
            (torch.zeros(1, 3, *size),),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["output"],
        )
