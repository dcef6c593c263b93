"""Datasets of one task and of both in one training stream."""

import json
import os
from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.utils import comm

from topformer_d2 import get_config
from topformer_d2.data import build_test_loader, build_train_loader, check_config
from topformer_d2.data.boxes import register_boxes
from topformer_d2.data.multitask import register_multitask
from topformer_d2.data.synthetic import SYNTHETIC_CATEGORIES, SYNTHETIC_OBJECTS
from topformer_d2.errors import InputError

PIXELS, BOXES, BOTH = (f"synthetic_{kind}_train" for kind in ("sem_seg", "boxes", "multitask"))
TASKS_OF = {PIXELS: ("sem_seg",), BOXES: ("instances",), BOTH: ("sem_seg", "instances")}
SMALL = ["DATALOADER.NUM_WORKERS", "0", "SOLVER.IMS_PER_BATCH", "4", "SEED", "7"]
PLAIN = ["INPUT.CROP.ENABLED", "False", "INPUT.RANDOM_FLIP", "none"]


def mixed_config(train=tuple(TASKS_OF), weights=(), opts=()):
    cfg = get_config("multitask_lite_topformer_t_synthetic", [*SMALL, *opts])
    cfg.INPUT.CROP.SIZE = [64, 64]
    cfg.DATASETS.TRAIN, cfg.DATASETS.TRAIN_WEIGHTS = tuple(train), list(weights)
    return cfg


def take(cfg, count, start_iter=0):
    loader = build_train_loader(cfg)
    loader.start_iter = start_iter
    stream = iter(loader)
    return [next(stream) for _ in range(count)]


def drawn_records(cfg, count):
    """The first records of the stream, without reading an image."""
    loader = build_train_loader(cfg)
    loader.mapper = dict
    batches = zip(range(count // cfg.SOLVER.IMS_PER_BATCH), loader, strict=False)
    return [record for _, batch in batches for record in batch]


def assert_same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        for a, b in zip(batch, other, strict=True):
            assert a.keys() == b.keys() and a["file_name"] == b["file_name"]
            assert a["tasks"] == b["tasks"] and torch.equal(a["image"], b["image"])
            if "sem_seg" in a["tasks"]:
                assert torch.equal(a["sem_seg"], b["sem_seg"])
            if "instances" in a["tasks"]:
                x, y = a["instances"], b["instances"]
                assert torch.equal(x.gt_boxes.tensor, y.gt_boxes.tensor)
                assert torch.equal(x.gt_classes, y.gt_classes)


@pytest.mark.parametrize(
    ("train", "weights"),
    [
        ((PIXELS, BOXES, BOTH), (0.5, 1, 2.5)),
        ((BOTH, PIXELS, BOXES), (30, 10, 10)),
        ((PIXELS, BOXES, "synthetic_multitask_val"), (1, 1, 2)),  # which has 4 images, not 12
    ],
)
def test_each_dataset_has_its_share_and_every_image_its_turn(train, weights):
    records = drawn_records(mixed_config(train, weights), 6000)
    tasks_of = {**TASKS_OF, "synthetic_multitask_val": TASKS_OF[BOTH]}
    for name, weight in zip(train, weights, strict=True):
        files = [r["file_name"] for r in records if r["tasks"] == tasks_of[name]]
        assert abs(len(files) / len(records) - weight / sum(weights)) < 0.02
        own = {r["file_name"] for r in DatasetCatalog.get(name)}
        rounds = [files[i : i + len(own)] for i in range(0, len(files), len(own))]
        assert all(set(one) == own for one in rounds[:-1]) and set(rounds[-1]) <= own
        assert rounds[0] != rounds[1]  # shuffled anew
    other = drawn_records(mixed_config(train, weights, ["SEED", "8"]), 100)
    assert [r["file_name"] for r in other] != [r["file_name"] for r in records[:100]]


def test_without_weights_every_image_comes_equally_often():
    train = (PIXELS, BOXES, "synthetic_multitask_val")
    records = drawn_records(mixed_config(train), 3 * 28)
    counts = Counter((r["file_name"], r["tasks"]) for r in records)
    assert len(counts) == 28 and set(counts.values()) == {3}


STREAM = [*("INPUT.SCALE_RANGE", "[0.5, 2.0]", "INPUT.COLOR_AUG_SSD", "True")]
CATEGORY_CROP = ["INPUT.CROP.SINGLE_CATEGORY_MAX_AREA", "0.75"]


@pytest.mark.parametrize(("workers", "weights"), [(0, (2, 1, 1)), (1, ()), (3, (2, 1, 1))])
def test_the_stream_is_the_same_for_any_workers_and_start(workers, weights):
    cfg = mixed_config(weights=weights, opts=[*STREAM, *CATEGORY_CROP])
    reference = take(cfg, 20)
    kinds = {tuple(sorted({s["tasks"] for s in batch})) for batch in reference}
    assert len(kinds) > 2  # batches of one kind, of two or of three
    cfg.DATALOADER.NUM_WORKERS = workers
    assert_same(take(cfg, 20), reference)
    assert_same(take(cfg, 7, start_iter=13), reference[13:])


@pytest.mark.parametrize("weights", [(), (2, 1, 1)])
def test_processes_share_the_stream(monkeypatch, weights):
    """Two ranks draw what one process would, every other sample each."""
    cfg = mixed_config(weights=weights, opts=STREAM)
    alone = take(cfg, 6)
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    ranks = []
    for rank in (0, 1):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        ranks.append(take(cfg, 6))
    together = [
        [sample for pair in zip(*batches, strict=True) for sample in pair]
        for batches in zip(*ranks, strict=True)
    ]
    assert_same(together, alone)


def test_samples_carry_the_truth_of_their_dataset():
    files = {
        r["file_name"]: (r["sem_seg_file_name"], r["annotations"]) for r in DatasetCatalog.get(BOTH)
    }
    seen = Counter()
    for batch in take(mixed_config(weights=(1, 1, 1), opts=PLAIN), 20):
        for sample in batch:
            seen[sample["tasks"]] += 1
            label_file, annotations = files[sample["file_name"]]
            assert ("sem_seg" in sample) == ("sem_seg" in sample["tasks"])
            assert ("instances" in sample) == ("instances" in sample["tasks"])
            if "sem_seg" in sample:
                label = cv2.imread(label_file, cv2.IMREAD_UNCHANGED)
                assert np.array_equal(sample["sem_seg"].numpy(), label)
            if "instances" in sample:
                x, y, w, h = np.array([a["bbox"] for a in annotations]).T
                boxes = sample["instances"].gt_boxes.tensor.numpy()
                assert np.array_equal(boxes, np.stack([x, y, x + w, y + h], axis=1))
                classes = [a["category_id"] for a in annotations]
                assert sample["instances"].gt_classes.tolist() == classes
    assert seen.keys() == set(TASKS_OF.values()) and min(seen.values()) > 9


@pytest.fixture
def sparse(tmp_path, forget):
    """Datasets of the validation images: two have no object, and two of sparse_both no label."""
    root = os.path.join(os.environ["DETECTRON2_DATASETS"], "synthetic")
    with open(os.path.join(root, "annotations/instances_val.json")) as f:
        content = json.load(f)
    without = [image["id"] for image in content["images"][1:3]]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] not in without]
    (tmp_path / "sparse.json").write_text(json.dumps(content))
    images, labels = os.path.join(root, "images/val"), tmp_path / "labels"
    labels.mkdir()
    for name in ("00012.png", "00013.png"):
        (labels / name).symlink_to(os.path.join(root, "annotations_detectron2/val", name))
    file, classes = str(tmp_path / "sparse.json"), SYNTHETIC_OBJECTS
    register_boxes("sparse_boxes", file, images, classes)
    register_multitask(
        *("sparse_both", file, images, str(labels)), things=classes, stuff=SYNTHETIC_CATEGORIES
    )
    return labels


@pytest.mark.parametrize("weights", [(), (1, 1)])
def test_no_object_and_no_label_are_told_apart(sparse, weights):
    cfg = mixed_config(("sparse_boxes", "sparse_both"), weights, PLAIN)
    check_config(cfg, train=True)
    objects, labelled = {}, Counter()
    for sample in (s for batch in take(cfg, 16) for s in batch):
        name = os.path.basename(sample["file_name"])
        objects.setdefault(name, set()).add(len(sample["instances"]))
        labelled[name, "sem_seg" in sample] += 1
    assert {name for name, counts in objects.items() if counts == {0}} == {"00013.png", "00014.png"}
    assert len(objects) == 4 and all(len(counts) == 1 for counts in objects.values())
    # Both in sparse_boxes and in sparse_both, but for the two without a label.
    assert {name for name, has in labelled if has} == {"00012.png", "00013.png"}
    assert {name for name, has in labelled if not has} == set(objects)


def test_single_task_models_take_their_part(sparse):
    opts = ["MODEL.META_ARCHITECTURE", "TopFormerSegmentor", "TEST.BEST_METRICS", "[]"]
    cfg = mixed_config((PIXELS, BOTH, "sparse_both"), (1, 1, 2), opts)
    check_config(cfg, train=True)
    records = drawn_records(cfg, 400)
    ends = Counter(os.path.basename(r["file_name"]) for r in records)
    assert abs(ends["00012.png"] + ends["00013.png"] - 200) < 30 and ends["00014.png"] == 0
    assert all(s.keys() >= {"sem_seg"} and "instances" not in s for s in take(cfg, 1)[0])
    with pytest.raises(InputError, match="'synthetic_boxes_train' has no segmentation classes"):
        check_config(mixed_config((PIXELS, BOXES), (), opts), train=True)


def test_test_images_carry_no_truth():
    for name in ("synthetic_sem_seg_val", "synthetic_boxes_val", "synthetic_multitask_val"):
        for (sample,) in build_test_loader(mixed_config(), name):
            assert "sem_seg" not in sample and "instances" not in sample


@pytest.mark.parametrize(
    "weights", [[1, 2], [1, 2, 3, 4], [1, 0, 1], [1, -1, 1], [1, float("nan"), 1], [1, "2", 1]]
)
def test_weights_that_do_not_fit_are_refused(weights):
    cfg = mixed_config(weights=weights)
    for check in (build_train_loader, lambda cfg: check_config(cfg, train=True)):
        with pytest.raises(InputError, match=r"TRAIN_WEIGHTS is \[1, .* positive number for each"):
            check(cfg)
    check_config(cfg, train=False)  # evaluation does not read them


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ((PIXELS,), r"none of DATASETS\.TRAIN \('synthetic_sem_seg_train',\) has boxes"),
        ((BOXES, "synthetic_boxes_val"), r"none of DATASETS\.TRAIN .* has pixel labels"),
        ((PIXELS, "bccd_train"), r"dataset 'bccd_train' is not here"),
        ((BOXES, "camvid_sem_seg_train"), r"'camvid_sem_seg_train' is not here: .*camvid"),
        ((BOXES, "synthetic_sem_seg_trian"), r"'synthetic_sem_seg_trian', which is not regis"),
    ],
)
def test_what_a_joint_model_cannot_be_trained_on(train, message):
    with pytest.raises(InputError, match=message):
        check_config(mixed_config(train), train=True)


def test_missing_labels_are_said_before_training(sparse):
    cfg = mixed_config((BOXES, "sparse_both"))
    check_config(cfg, train=True)
    for file in sparse.iterdir():
        file.rename(sparse / f"of another image {file.name}")
    with pytest.raises(InputError, match="4 of 4 images have no label"):
        build_train_loader(cfg)
    for file in sparse.iterdir():
        file.unlink()
    with pytest.raises(
        InputError, match=r"'sparse_both' is not here: .*labels is missing or empty"
    ):
        check_config(cfg, train=True)
