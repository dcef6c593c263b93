"""Detectron2's tracing, FLOP counting and torch.compile on our models."""

import pytest
import torch
from detectron2.export import TracingAdapter
from detectron2.modeling import build_model
from detectron2.utils.analysis import FlopCountAnalysis
from torch import nn

from topformer_d2 import get_config
from topformer_d2.modeling import adapt
from topformer_d2.modeling.meta_arch.decoding import _divmod, _logit

CONFIGS = {
    "segmenter": ("seg_topformer_t", ()),
    "lite": ("det_retinanet_lite_topformer_t", ()),
    "full": ("det_retinanet_topformer_t", ("MODEL.FPN.OUT_CHANNELS", "16")),
    "joint": ("multitask_lite_topformer_t", ()),
}


# The detector with Detectron2's own head, and both tasks: what they add is tested alone as well.
@pytest.fixture(
    params=[
        "segmenter",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("lite", "full", "joint")),
    ]
)
def model(request):
    torch.manual_seed(0)
    name, opts = CONFIGS[request.param]
    model = build_model(get_config(name, [*opts, "MODEL.DEVICE", "cpu"])).eval()
    if hasattr(model, "head"):  # boxes everywhere, whose scores differ
        scores = model.head.cls_score
        nn.init.normal_(scores.weight)
        with torch.no_grad():
            levels = model.backbone(image(64, 64, 2)[None] / 64 - 2)
            logits = model.head([levels[name] for name in model.head_in_features])[0]
            scores.weight /= logits[0].std()
    return model


def image(height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator).float()


def outputs(model, x):
    with torch.no_grad():
        (found,) = model([{"image": x}])
    tensors = [found["sem_seg"]] if "sem_seg" in found else []
    if "instances" in found:
        instances = found["instances"]
        assert len(instances) > 9
        tensors += [instances.pred_boxes.tensor, instances.scores, instances.pred_classes]
    return tensors


def traced_outputs(adapter, traced, x):
    with torch.no_grad():
        (found,) = adapter.outputs_schema(traced(x))
    tensors = [found["sem_seg"]] if "sem_seg" in found else []
    if "instances" in found:
        fields = found["instances"].get_fields()
        boxes = fields["pred_boxes"]
        tensors += [getattr(boxes, "tensor", boxes), fields["scores"], fields["pred_classes"]]
    return tensors


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_trace_gives_the_same_boxes_and_logits(model):
    adapter = TracingAdapter(model, [{"image": image(96, 128, 0)}])
    with torch.no_grad():
        adapter.eval()
        traced = torch.jit.trace(adapter, adapter.flattened_inputs)
    for seed in (0, 1):  # the traced image, then one with another number of candidates
        x = image(96, 128, seed)
        for ours, theirs in zip(outputs(model, x), traced_outputs(adapter, traced, x), strict=True):
            assert ours.shape == theirs.shape
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_flops_are_counted(model):
    counted = FlopCountAnalysis(model, [{"image": image(64, 96, 0)}])
    assert counted.total() > 10e6


class Network(nn.Module):
    """What is computed before decoding."""

    def __init__(self, model):
        super().__init__()
        self.model = adapt(model)

    def forward(self, x):
        return self.model.network(x).tensors()


@pytest.mark.slow
def test_the_network_is_one_graph(model):
    network, x = Network(model), image(64, 96, 0)[None]
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), network(x), rtol=1e-3, atol=1e-3)


def test_decoding_is_one_graph_of_its_own_arithmetic():
    index = torch.arange(2 * 3 * 35)
    row, position = _divmod(index, 35)
    anchor, category = _divmod(row, 3)
    for ours, theirs in zip(
        (anchor, category, position), torch.unravel_index(index, (2, 3, 35)), strict=True
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("score", [0.05, 0.3, 0.5, 0.999])
def test_the_threshold_is_the_scores(score):
    logits = torch.linspace(-8, 8, 4001)
    expected = torch.logit(torch.tensor(score)).item()
    assert torch.equal(logits > _logit(score), logits > expected)
    assert (_logit(0.0), _logit(1.0)) == (-float("inf"), float("inf"))
