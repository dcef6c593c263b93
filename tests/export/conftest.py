"""Models to export, with weights under which every part of them matters."""

from importlib.util import find_spec

import pytest
import torch
from torch import nn

# Without what exporting needs nothing here can be imported. (A conftest.py cannot skip.)
if not all(map(find_spec, ("onnx", "onnxruntime"))):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
def trained(tmp_path):
    """A function from a config's name and KEY VALUE pairs to (cfg, model, weights file).

    With `shift` a detector finds something.
    """
    from detectron2.modeling import build_model

    from topformer_d2 import get_config
    from topformer_d2.analysis.latency import shift_scores
    from topformer_d2.checkpoint import save_state_dict
    from topformer_d2.modeling import adapt
    from topformer_d2.modeling.backbone.semantics import Attention

    def make(name, *opts, shift=True):
        cfg = get_config(name, ["MODEL.DEVICE", "cpu", *opts])
        torch.manual_seed(0)
        model = build_model(cfg).train()
        for module in model.modules():
            # Starts as the identity. At 1 the random softmax is so sharp that PyTorch's own float32
            # is 1e-3 from double precision.
            if isinstance(module, Attention):
                nn.init.constant_(module.projection.norm.weight, 0.1)
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # the first batch's statistics are taken as they are
        with torch.no_grad():
            adapt(model).network(torch.randn(4, 3, 128, 160))
        model.eval()
        if shift and hasattr(model, "head"):
            shift_scores(model, torch.rand(3, 96, 128) * 255, candidates=60)
            # The same candidates, with scores that are not 0 and 1 alone.
            classifier, scale = model.head.cls_score, 0.1
            classifier.weight.data *= scale
            threshold = torch.logit(torch.tensor(model.test_score_thresh))
            classifier.bias.data = classifier.bias * scale + threshold * (1 - scale)
        path = str(tmp_path / "weights.pth")
        save_state_dict(model.state_dict(), path)
        return cfg, model, path

    return make


@pytest.fixture
def untrained(tmp_path):
    """The same of a model as it is built, once `change` was done to it."""
    from detectron2.modeling import build_model

    from topformer_d2 import get_config
    from topformer_d2.checkpoint import save_state_dict

    def make(name, *opts, change=None):
        cfg = get_config(name, ["MODEL.DEVICE", "cpu", *opts])
        torch.manual_seed(0)
        model = build_model(cfg).eval()
        if change is not None:
            with torch.no_grad():
                change(model)
        path = str(tmp_path / "weights.pth")
        save_state_dict(model.state_dict(), path)
        return cfg, model, path

    return make
