"""The whole evaluation, image file in and confusion matrix out, against a direct computation.

First with sizes that are an eighth of the recipes' (ADE20K's divisor of 32 and the network's
strides stay), given in full; then with the recipes' own configs through `topformer train`.
"""

import json

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import inference_on_dataset
from detectron2.modeling import build_model
from torch.nn.functional import interpolate

from tests.helpers import (
    Segmenter,
    formula_image,
    formula_weight,
    official_state_dict,
)
from topformer_d2 import get_config
from topformer_d2.checkpoint import convert_official_state_dict
from topformer_d2.cli.train import evaluate
from topformer_d2.data import build_test_loader
from topformer_d2.data.builtin import register_sem_seg
from topformer_d2.data.categories import Categories
from topformer_d2.evaluation import ConfusionEvaluator

CLASSES = 5
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
# Short and long limit and divisor of the test sizes; then for each image (height, width) the size
# that it is fitted to, and the network's input.
PROTOCOLS = {
    "ADE20K": (
        (64, 256, 32),
        {
            (50, 72): ((64, 92), (64, 96)),
            (100, 80): ((80, 64), (96, 64)),
            (20, 200): ((26, 256), (32, 256)),
            (64, 128): ((64, 128), (64, 128)),
        },
    ),
    "PASCAL Context": (
        (65, 65, 1),
        {
            (50, 72): ((45, 65), (45, 65)),
            (100, 80): ((65, 52), (65, 52)),
            (65, 65): ((65, 65), (65, 65)),
        },
    ),
    "Cityscapes": ((64, 128, 1), {(128, 256): ((64, 128), (64, 128))}),
}


@pytest.fixture(scope="module")
def weights():
    """A segmentation model's state dict: formula weights, all classes about equally likely."""
    network = Segmenter("tiny", CLASSES).eval()
    state = network.state_dict()
    network.load_state_dict({key: formula_weight(key, list(v.shape)) for key, v in state.items()})
    with torch.no_grad():
        logits = network(formula_image(64, 96))
        network.sem_seg_head.classifier.bias -= logits.mean((0, 2, 3))
    return network.state_dict()


@pytest.fixture
def dataset(tmp_path):
    """Registers images of the sizes given, with random labels, some ignored; returns its name."""

    def make(sizes, num_classes=CLASSES):
        rng = np.random.default_rng(0)
        (tmp_path / "images").mkdir(), (tmp_path / "labels").mkdir()
        for i, (h, w) in enumerate(sizes):
            coarse = rng.integers(0, 256, (h // 5 + 1, w // 5 + 1, 3), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / f"images/{i}.png"), cv2.resize(coarse, (w, h)))
            label = rng.choice([*range(num_classes), 255], (h, w)).astype(np.uint8)
            cv2.imwrite(str(tmp_path / f"labels/{i}.png"), label)
        names = tuple(f"c{i}" for i in range(num_classes))
        classes = Categories(names, ((0, 0, 0),) * num_classes, tuple(range(num_classes)))
        folders = str(tmp_path / "images"), str(tmp_path / "labels")
        register_sem_seg("protocol_val", *folders, classes)
        return "protocol_val"

    yield make
    DatasetCatalog.remove("protocol_val")
    MetadataCatalog.remove("protocol_val")


@torch.no_grad()
def direct_predictions(network, folder, sizes: dict, two_steps: bool = True):
    """Truth and prediction of all labelled pixels, each (N,).

    Images are resized by OpenCV, logits by PyTorch: to the input's size, then to the image's.
    """
    truth, predicted = [], []
    for i, (size, (fitted, network_size)) in enumerate(sizes.items()):
        image = cv2.imread(str(folder / f"images/{i}.png"))[:, :, ::-1].copy()
        label = cv2.imread(str(folder / f"labels/{i}.png"), cv2.IMREAD_UNCHANGED)
        assert label.shape == image.shape[:2] == size
        for height, width in (fitted, network_size):
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        x = (image.astype(np.float32) - np.float32(MEAN)) / np.float32(STD)
        logits = network(torch.from_numpy(x.transpose(2, 0, 1))[None])
        for target in (network_size, size) if two_steps else (size,):
            logits = interpolate(logits, target, mode="bilinear", align_corners=False)
        known = label != 255
        truth.append(label[known])
        predicted.append(logits[0].argmax(0).numpy()[known])
    return np.concatenate(truth), np.concatenate(predicted)


def direct_confusion(*arguments, num_classes: int = CLASSES) -> np.ndarray:
    matrix = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(matrix, direct_predictions(*arguments), 1)
    return matrix


@pytest.mark.parametrize("name", PROTOCOLS)
def test_from_image_file_to_confusion_matrix(dataset, weights, tmp_path, name):
    (short, long, divisor), sizes = PROTOCOLS[name]
    dataset_name = dataset(sizes)
    opts = ["INPUT.MIN_SIZE_TEST", short, "INPUT.MAX_SIZE_TEST", long]
    opts += ["INPUT.TEST_SIZE_DIVISOR", divisor, "DATALOADER.NUM_WORKERS", 0]
    opts += ["MODEL.DEVICE", "cpu", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", CLASSES]
    cfg = get_config("seg_topformer_t", opts)

    model = build_model(cfg)
    missing = model.load_state_dict(weights, strict=False).missing_keys
    assert not [key for key in missing if not key.startswith("pixel_")]
    loader = build_test_loader(cfg, dataset_name)
    inputs = [batch[0]["image"].shape[1:] for batch in loader]
    assert inputs == [network_size for _, network_size in sizes.values()]
    evaluator = ConfusionEvaluator(dataset_name)
    metrics = inference_on_dataset(model, loader, evaluator)["sem_seg"]

    network = Segmenter("tiny", CLASSES).eval()
    network.load_state_dict(weights)
    expected = direct_confusion(network, tmp_path, sizes)
    assert np.array_equal(evaluator.matrix, expected)
    assert (expected.sum(0) > 0).sum() >= 3  # several classes are predicted
    assert metrics["pACC"] == pytest.approx(100 * np.trace(expected) / expected.sum())
    # Straight to the last size, logits and images give another matrix.
    assert not np.array_equal(expected, direct_confusion(network, tmp_path, sizes, False))
    if divisor > 1:
        straight = {size: (last, last) for size, (_, last) in sizes.items()}
        assert not np.array_equal(expected, direct_confusion(network, tmp_path, straight))


# Of each recipe the classes, the limits of the short and the long side, and the divisor, as its
# documentation has them; and images' (height, width) that no step leaves as they are.
RECIPES = {
    "seg_topformer_t": (150, 512, 2048, 32, [(51, 333), (333, 251)]),
    "seg_topformer_t_pascal_context60": (60, 520, 520, 1, [(101, 75), (77, 133), (375, 501)]),
    "seg_topformer_t_pascal_context59": (59, 520, 520, 1, [(101, 75), (533, 127)]),
    "seg_topformer_t_cityscapes": (19, 512, 1024, 1, [(129, 257), (63, 191), (255, 131)]),
    "seg_topformer_t_coco_stuff10k": (171, 512, 2048, 1, [(97, 131)]),
}


def documented_sizes(height, width, short, long, divisor):
    """The size that an image is fitted to, and the one that it is then stretched to."""
    scale = min(long / max(height, width), short / min(height, width))
    fitted = tuple(int(side * scale + 0.5) for side in (height, width))
    return fitted, tuple(-(-side // divisor) * divisor for side in fitted)


def official_file(path, num_classes, fuse_depthwise):
    """A Tiny official checkpoint of formula weights, and the same network.

    The classifier's bias makes all classes about equally likely.
    """
    shapes = {"decode_head.conv_seg.weight": [num_classes, 128, 1, 1]}
    shapes |= {"decode_head.conv_seg.bias": [num_classes]}
    if not fuse_depthwise:
        shapes["decode_head.linear_fuse.conv.weight"] = [128, 128, 1, 1]
    state = official_state_dict("t")
    state |= {key: formula_weight(key, shape) for key, shape in shapes.items()}
    network = Segmenter("tiny", num_classes, fuse_depthwise).eval()
    network.load_state_dict(convert_official_state_dict(state)[0])
    with torch.no_grad():
        logits = network(formula_image(256, 320))
        network.sem_seg_head.classifier.bias -= logits.mean((0, 2, 3))
    state["decode_head.conv_seg.bias"] = network.sem_seg_head.classifier.bias.detach()
    torch.save({"state_dict": state}, path)
    return network


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if i else ()) for i, n in enumerate(RECIPES)],
)
def test_train_net_evaluates_as_the_recipe_says(dataset, tmp_path, name):
    num_classes, short, long, divisor, images = RECIPES[name]
    weights, output = tmp_path / "official.pth", tmp_path / "output"
    opts = ["DATASETS.TEST", (dataset(images, num_classes),), "DATALOADER.NUM_WORKERS", 0]
    opts += ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", str(weights), "OUTPUT_DIR", str(output)]
    network = official_file(weights, num_classes, fuse_depthwise=num_classes == 150)
    mean = evaluate(get_config(name, opts), resume=False)["sem_seg"]["mIoU"]
    written = output / "inference/protocol_val/sem_seg_evaluation.json"
    matrix = np.array(json.loads(written.read_text())["confusion"])

    sizes = {size: documented_sizes(*size, short, long, divisor) for size in images}
    truth, predicted = direct_predictions(network, tmp_path, sizes)
    expected = np.zeros_like(matrix)
    np.add.at(expected, (truth, predicted), 1)
    assert np.abs(matrix - expected).max() <= 1e-6
    unions = [((truth == k) | (predicted == k)).sum() for k in range(num_classes)]
    hits = [((truth == k) & (predicted == k)).sum() for k in range(num_classes)]
    ious = [100 * hit / union for hit, union in zip(hits, unions, strict=True) if union]
    assert mean == pytest.approx(np.mean(ious), abs=1e-6)
    assert (expected.sum(0) > 0).sum() >= 10  # classes that are predicted
