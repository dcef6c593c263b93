"""Label maps without the logits, held against resizing all logits and taking the argmax."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from topformer_d2.errors import InputError
from topformer_d2.inference import label_map
from topformer_d2.inference.labels import _resize_by_classes
from topformer_d2.inference.resampling import compose_axis
from topformer_d2.native import library

DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()
pytestmark = pytest.mark.usefixtures("native_form")


def resized(logits, size, input_size=None, valid_size=None):
    """The plain way: all logits (K, H, W)."""
    x = logits[None]
    if input_size is not None:
        x = F.interpolate(x, size=input_size, mode="bilinear", align_corners=False)
        height, width = valid_size or input_size
        x = x[..., :height, :width]
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)[0]


def make_logits(num_classes, height, width, smoothness, generator):
    """Noise, or with smoothness > 1 regions of that many nodes with some noise on them."""
    coarse = (1, num_classes, -(-height // smoothness) + 1, -(-width // smoothness) + 1)
    regions = 5 * torch.randn(coarse, generator=generator)
    regions = F.interpolate(regions, size=(height, width), mode="bilinear")[0]
    return regions + 0.2 * torch.randn(regions.shape, generator=generator)


def draw_case(seed):
    """Random sizes up and down, with or without a chain, and 1 to 200 classes."""
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in rng.integers(1, 24, 2))
    size = tuple(int(max(1, n * rng.choice([0.3, 1, 3.7, 8, 11.3]))) for n in (height, width))
    chain = {}
    if rng.random() < 0.6:
        chain["input_size"] = tuple(int(n * rng.choice([2, 8, 7.6])) for n in (height, width))
        if rng.random() < 0.6:
            chain["valid_size"] = tuple(int(rng.integers(1, n + 1)) for n in chain["input_size"])
    num_classes = int(rng.choice([1, 2, 3, 19, 150, 200]))
    generator = torch.Generator().manual_seed(seed)
    smoothness = int(rng.choice([1, 6]))
    return make_logits(num_classes, height, width, smoothness, generator), size, chain


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("seed", range(40))
def test_equals_the_argmax_of_resized_logits(seed, device):
    logits, size, chain = draw_case(seed)
    logits = logits.to(device)
    expected = resized(logits, size, **chain)
    labels = label_map(logits, size, **chain)
    assert labels.shape == size and labels.dtype == torch.uint8
    chosen = expected.gather(0, labels[None].long())[0]
    assert (expected.amax(0) - chosen).max() < 1e-4


HARD = {
    "integers": lambda x: x.round(),  # ties at nodes
    "two values": lambda x: (x > 3).float(),
    "planes": lambda x: x[:, :1, :1] * torch.linspace(-1, 1, x.shape[1])[:, None] + x[:, :1],
    "equal pairs": lambda x: x[torch.arange(len(x)) // 2],
    "tiny": lambda x: x * 1e-30,
    "huge": lambda x: x * 1e30,
    "saddles": lambda x: x * (-1.0) ** torch.arange(x[0].numel()).view(x.shape[1:]),
}


@pytest.mark.parametrize("kind", HARD)
@pytest.mark.parametrize("seed", range(12))
def test_maps_that_are_hard_to_decide(kind, seed, monkeypatch):
    monkeypatch.setattr("topformer_d2.inference.labels._DENSE", 0)
    logits, size, chain = draw_case(seed)
    logits = HARD[kind](logits)
    labels = label_map(logits, size, **chain)
    expected = resized(logits.double(), size, **chain)
    chosen = expected.gather(0, labels[None].long())[0]
    assert (expected.amax(0) - chosen).max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("seed", range(40))
def test_confidence_is_the_winners_softmax(seed, device):
    logits, size, chain = draw_case(seed)
    labels, scores = label_map(logits.to(device), size, **chain, confidence=True)
    expected = resized(logits, size, **chain).softmax(0)
    torch.testing.assert_close(scores.cpu(), expected.amax(0), atol=1e-4, rtol=0)
    chosen = expected.gather(0, labels[None].cpu().long())[0]
    assert (expected.amax(0) - chosen).max() < 1e-4


@pytest.mark.parametrize("most", [1, 5000, 10**9])
@pytest.mark.parametrize("seed", range(8))
def test_resizing_by_classes_is_the_same_in_any_number_at_a_time(seed, most):
    logits, size, _ = draw_case(seed)
    steps = [((side, side),) for side in size]
    labels, scores = _resize_by_classes(logits, steps, True, most)
    expected = resized(logits, size).softmax(0)
    torch.testing.assert_close(scores, expected.amax(0), atol=1e-5, rtol=0)
    chosen = expected.gather(0, labels[None].long())[0]
    assert (expected.amax(0) - chosen).max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bands_of_rows_join(dtype, monkeypatch):
    logits = make_logits(19, 40, 30, 6, torch.Generator().manual_seed(0)).to(dtype)
    whole = label_map(logits, (320, 240))
    monkeypatch.setattr("topformer_d2.inference.labels._BAND", 19 * 30 * 3)
    monkeypatch.setattr("topformer_d2.native.labels._BAND", 19 * 30 * 3)
    assert torch.equal(label_map(logits, (320, 240)), whole)


@pytest.mark.parametrize("num_classes", [3, 150, 256, 300])
@pytest.mark.parametrize(
    ("size", "chain"),
    [((96, 72), {}), ((48, 36), {"input_size": (96, 72)}), ((12, 9), {}), ((6, 9), {})],
)
def test_ties_get_the_lowest_class(num_classes, size, chain):
    # Small integers and shares of a 16th: no way of computing them rounds.
    generator = torch.Generator().manual_seed(num_classes)
    logits = torch.randint(0, 3, (num_classes, 12, 9), generator=generator).float()
    labels = label_map(logits, size, **chain)
    assert torch.equal(labels.long(), resized(logits, size, **chain).argmax(0))


def test_ties_have_the_confidence_of_one():
    logits = torch.zeros(5, 4, 4)
    logits[3:] = 1
    labels, scores = label_map(logits, (32, 32), confidence=True)
    assert labels.unique().tolist() == [3]
    torch.testing.assert_close(scores, torch.full((32, 32), 1 / (2 + 3 * np.exp(-1))).float())


def test_more_than_256_classes_and_half_precision():
    logits = make_logits(300, 6, 7, 1, torch.Generator().manual_seed(0)).half()
    labels = label_map(logits, (48, 56))
    assert labels.dtype == torch.int32
    assert torch.equal(labels, resized(logits.float(), (48, 56)).argmax(0).int())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_not_finite_are_refused(bad):
    logits = torch.zeros(3, 4, 4)
    logits[1, 2, 3] = bad
    with pytest.raises(InputError, match="NaN or infinite"):
        label_map(logits, (32, 32))


@pytest.mark.parametrize(
    "shape, kwargs, message",
    [
        ((4, 4), {"size": (8, 8)}, r"\(K, h, w\)"),
        ((3, 0, 4), {"size": (8, 8)}, r"\(K, h, w\)"),
        ((3, 4, 4), {"size": (8,)}, "size must be"),
        ((3, 4, 4), {"size": (0, 8)}, "size must be"),
        ((3, 4, 4), {"size": (8.5, 8)}, "size must be"),
        ((3, 4, 4), {"size": (8, 8), "input_size": (32, -1)}, "input_size must be"),
        ((3, 4, 4), {"size": (8, 8), "valid_size": (4, 4)}, "valid_size"),
        ((3, 4, 4), {"size": (8, 8), "input_size": (8, 8), "valid_size": (9, 4)}, "valid_size"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(shape, kwargs, message):
    with pytest.raises(InputError, match=message):
        label_map(torch.zeros(shape), **kwargs)


def test_logits_of_another_type_are_refused():
    with pytest.raises(InputError, match=r"must be a torch\.Tensor .*got ndarray"):
        label_map(np.zeros((3, 4, 4)), (8, 8))


def test_axis_of_one_resize_is_pytorchs():
    axis = compose_axis(5, ((40, 40),))
    values = torch.tensor([3.0, -1.0, 4.0, 1.0, 5.0])
    expected = F.interpolate(values[None, None], size=40, mode="linear", align_corners=False)
    found = torch.empty(40)
    found[axis.positions] = (axis.weights * values[axis.nodes][:, None]).sum(2)
    torch.testing.assert_close(found, expected[0, 0])
    # Between two nodes lie eight positions, and at either end four with one node.
    assert axis.nodes.shape == (5, 2)


def test_few_pixels_by_way_of_a_large_map_are_not_found_by_resizing_all_logits(monkeypatch):
    logits = make_logits(19, 16, 20, 6, torch.Generator().manual_seed(0))
    expected = resized(logits, (30, 40), (128, 160)).argmax(0).byte()
    monkeypatch.delattr("topformer_d2.inference.labels._resize_by_classes")
    assert torch.equal(label_map(logits, (30, 40), input_size=(128, 160)), expected)


MEMORY = """
import pathlib, sys
import torch
from topformer_d2.native import library
library.FOLDER = pathlib.Path(sys.argv[1])
from topformer_d2.analysis.memory import added_memory
from topformer_d2.inference import label_map
torch.set_num_threads(1)
for height, width, confidence in ((270, 480, False), (8, 8, True), (2, 2, True)):
    coarse = torch.randn(1, 150, 9, 16)
    logits = torch.nn.functional.interpolate(coarse, size=(height, width))[0] * 4
    label_map(logits, (64, 64), confidence=True)
    print(added_memory(lambda: label_map(logits, (1080, 1920), confidence=confidence)))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_a_large_map_is_bounded():
    """All logits of 150 classes at 1080x1920 would be 1,187 MiB."""
    command = [sys.executable, "-c", MEMORY, str(library.FOLDER)]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    without_confidence, *with_confidence = map(float, run.stdout.split())
    # The label map itself takes 2, the confidence 8, of which a part may lie in freed pages.
    assert 1.5 < without_confidence < 80
    assert len(with_confidence) == 2 and all(6 < added < 80 for added in with_confidence)
