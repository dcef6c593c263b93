"""Copy-paste by the outlines of objects: the pixels that are pasted."""

import itertools

import numpy as np
import pytest
from detectron2.config import CfgNode

from tests.data.outlined import (
    DISC,
    GROUNDS,
    IMAGES,
    OBJECTS,
    SIZE,
    mask_of,
    ring,
    write_labelme,
)
from topformer_d2 import get_config
from topformer_d2.data import build_train_loader
from topformer_d2.data.augmentations import Mixing, Picture
from topformer_d2.data.folders import register_folders
from topformer_d2.data.mapper import TaskMapper
from topformer_d2.data.registered import load_records
from topformer_d2.errors import InputError

CONFIG = "multitask_lite_topformer_t_synthetic"


def boxes_mapper(*opts):
    cfg = get_config(CONFIG, ["INPUT.COPY_PASTE.PROB", "1.0", *opts])
    mapper = TaskMapper(cfg, is_train=True)
    mapper.tasks = ("instances",)
    return mapper


GEOMETRY = {
    "nothing": ["INPUT.CROP.ENABLED", "False", "INPUT.RANDOM_FLIP", "none"],
    "crop and flip": ["INPUT.CROP.SIZE", "[90, 110]"],
    "resize": [
        *("INPUT.SCALE_RANGE", "[0.6, 1.5]", "INPUT.CROP.SIZE", "[90, 110]"),
        *("INPUT.MIN_SIZE_TRAIN", "[120]", "INPUT.MAX_SIZE_TRAIN", "160"),
    ],
    "warp": [
        *("INPUT.WARP.PROB", "1.0", "INPUT.WARP.ROTATION", "40.0", "INPUT.WARP.SHEAR", "10.0"),
        *("INPUT.WARP.PERSPECTIVE", "0.1", "INPUT.CROP.SIZE", "[90, 110]"),
    ],
    "mosaic": ["INPUT.MOSAIC.PROB", "1.0", "INPUT.CROP.SIZE", "[90, 110]"],
}


@pytest.mark.parametrize("kind", GEOMETRY)
def test_of_boxes_alone_the_pixels_of_the_objects_are_pasted(discs, own, kind):
    """Of another image's ground nothing comes along, as it does with the whole box."""
    root, truth = discs
    records = own(IMAGES=str(root), BOXES=write_labelme(root, truth))
    mapper = boxes_mapper(*GEOMETRY[kind])
    found = grounds = whole = 0
    for seed in range(12):
        order = iter([0, 3, 3, 3, 1])
        np.random.seed(seed)
        sample = mapper(records[next(order)], lambda o=order: records[next(o)])
        image = sample["image"].numpy().transpose(1, 2, 0).astype(int)
        donor = 1 if kind == "mosaic" else 3
        # Exact pixels: what is interpolated lies on the rims.
        grounds += (np.abs(image - GROUNDS[donor]).max(-1) <= 2).sum()
        whole += image[..., 0].size
        disc = np.abs(image - DISC).max(-1) <= 2
        for x0, y0, x1, y1 in sample["instances"].gt_boxes.tensor.numpy().round().astype(int):
            if x0 == 0 or y0 == 0 or x1 == image.shape[1] or y1 == image.shape[0]:
                continue  # of a disc that is cut, only a tip may be seen
            found += 1
            assert disc[y0:y1, x0:x1].mean() > 0.2
    assert found > 15
    assert grounds <= 0.0005 * whole


@pytest.mark.parametrize("kind", GEOMETRY)
def test_without_outlines_samples_are_as_before(discs, own, kind):
    """Whole boxes are pasted, and records with outlines change nothing where copy-paste is off."""
    root, truth = discs
    entry = {"IMAGES": str(root), "BOXES": write_labelme(root, truth)}
    bare, records = own(with_outlines=False, **entry), own(**entry)
    mapper = boxes_mapper(*GEOMETRY[kind])
    ground = 0
    for of, opts in ((bare, []), (records, ["INPUT.COPY_PASTE.PROB", "0.0"])):
        mapper = boxes_mapper(*GEOMETRY[kind], *opts)
        for seed in range(6):
            order = iter([3, 3, 3, 1, 1])
            np.random.seed(seed)
            sample = mapper(of[0], lambda o=order, of=of: of[next(o)])
            image = sample["image"].numpy().transpose(1, 2, 0).astype(int)
            if not opts:
                donor = 1 if kind == "mosaic" else 3
                ground += (np.abs(image - GROUNDS[donor]).max(-1) <= 2).sum()
            else:
                order = iter([3, 3, 3, 1, 1])
                np.random.seed(seed)
                other = mapper(bare[0], lambda o=order: bare[next(o)])
                assert (other["image"] == sample["image"]).all()
    assert ground > 500


def test_a_covered_object_is_judged_by_its_outline():
    """A disc of which the pasted square hides a corner of the box alone is whole."""
    image = np.zeros((*SIZE, 3), np.uint8)
    disc = ring(40, 40, 20)
    onto = Picture(
        image,
        None,
        np.array([[20, 20, 60, 60]], np.float32),
        np.array([0]),
        [[np.reshape(disc, (-1, 2))]],
    )
    square = np.array([[20, 20, 24, 24]], np.float32)
    donor = Picture(image + 9, None, square, np.array([1]))
    made = Mixing().copy_paste(onto, donor)
    assert made.boxes.tolist() == [[20, 20, 60, 60], [20, 20, 24, 24]]
    onto.outlines = None
    made = Mixing(min_visible=0.995).copy_paste(onto, donor)
    assert made.boxes.tolist() == [[20, 20, 24, 24]]


def test_of_two_neighbours_of_a_class_one_is_pasted():
    """Its outline says which of the pixels of that class in its box are its own."""
    label = np.zeros(SIZE, np.uint8)
    label[10:50, 10:70] = 5
    left = np.array([[10, 10], [50, 10], [30, 50], [10, 50]], float)
    donor = Picture(
        np.full((*SIZE, 3), 9, np.uint8),
        label,
        np.array([[10, 10, 50, 50]], np.float32),
        np.array([0]),
        [[left]],
    )
    onto = Picture(
        np.zeros((*SIZE, 3), np.uint8), label * 0, np.zeros((0, 4), np.float32), np.zeros(0, int)
    )
    made = Mixing(object_labels=[5]).copy_paste(onto, donor)
    assert np.array_equal(made.sem_seg > 0, mask_of(left.ravel().tolist()) > 0)


@pytest.mark.parametrize(
    "segmentation",
    [{"size": [3, 3], "counts": [9]}, {"counts": "x"}, [[1, 2, 3, 4, 5, 6, 7]], [["a"] * 6]],
)
def test_a_segmentation_of_another_reader_that_is_none_is_named(discs, segmentation):
    root, _ = discs
    bad = {"bbox": [1, 2, 30, 40], "bbox_mode": 0, "category_id": 0, "segmentation": segmentation}
    record = {"file_name": str(root / "0.png"), "annotations": [bad]}
    mapper = boxes_mapper()
    with pytest.raises(InputError, match=r"0\.png.*segmentation"):
        mapper(record, lambda: record)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_config_brings_outlines_to_the_stream(discs, own, tmp_path, workers, caplog):
    root, truth = discs
    opts = ["OUTPUT_DIR", str(tmp_path), "SOLVER.IMS_PER_BATCH", "2", "SEED", "3"]
    cfg = get_config(CONFIG, [*opts, "DATALOADER.NUM_WORKERS", str(workers)])
    entry = {"IMAGES": str(root), "BOXES": write_labelme(root, truth)}
    cfg.DATASETS.FOLDERS = CfgNode({"own": entry})
    cfg.DATASETS.TRAIN = ("own",)
    register_folders(cfg)
    assert "segmentation" not in load_records("own")[0]["annotations"][0]
    cfg.INPUT.COPY_PASTE.PROB = 1.0
    with caplog.at_level("INFO", "topformer_d2"):
        loader = build_train_loader(cfg)
    assert f"12 of {IMAGES * OBJECTS} objects" in caplog.text

    def take(count):
        batches = itertools.islice(loader, count)
        return [sample["image"].numpy().tobytes() for batch in batches for sample in batch]

    first = take(4)
    loader.start_iter = 2
    assert take(2) == first[4:]
    assert len(loader.records[0]["annotations"][0]["segmentation"][0]) == 80
