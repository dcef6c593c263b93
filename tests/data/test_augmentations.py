"""The augmentations beyond the recipes: truth aligned with the image, and samples that repeat."""

import hashlib
import itertools

import cv2
import numpy as np
import pytest
from detectron2.data import transforms as T

from topformer_d2 import get_config
from topformer_d2.config import list_configs
from topformer_d2.data import build_train_augmentation, build_train_loader
from topformer_d2.data.augmentations import Blur, Noise
from topformer_d2.data.augmentations.build import build_mixing
from topformer_d2.data.augmentations.cutout import CutOutTransform
from topformer_d2.data.augmentations.pixels import JPEGTransform, NoiseTransform
from topformer_d2.data.mapper import TaskMapper
from topformer_d2.data.seeded import SeededMap, kinds_of

CONFIG = "multitask_lite_topformer_t_synthetic"
PLAIN = ["INPUT.CROP.ENABLED", "False", "INPUT.RANDOM_FLIP", "none"]
WARP = ["INPUT.WARP.PROB", "1.0", "INPUT.WARP.ROTATION"]
KINDS = {
    "rotation": [*PLAIN, *WARP, "40.0"],
    "affine": [
        *(*PLAIN, *WARP, "10.0", "INPUT.WARP.SHEAR", "15.0", "INPUT.WARP.SCALE", "[0.6, 1.6]"),
        *("INPUT.WARP.TRANSLATION", "0.3"),
    ],
    "warped crop": [*WARP, "30.0", "INPUT.CROP.CLASS_BALANCED_PROB", "0.5"],
    "perspective": [*PLAIN, *WARP, "0.0", "INPUT.WARP.PERSPECTIVE", "0.15"],
    "blur": [*PLAIN, "INPUT.BLUR.PROB", "1.0"],
    "noise": [*PLAIN, "INPUT.NOISE.PROB", "1.0"],
    "jpeg": [*PLAIN, "INPUT.JPEG.PROB", "1.0", "INPUT.JPEG.QUALITY", "[70, 95]"],
    "cutout": [*PLAIN, "INPUT.CUTOUT.PROB", "1.0", "INPUT.CUTOUT.MAX_HOLES", "4"],
    "mosaic": ["INPUT.MOSAIC.PROB", "1.0"],
    "mosaic of whole images": [*PLAIN, "INPUT.MOSAIC.PROB", "1.0"],
    "copy-paste": [*PLAIN, "INPUT.COPY_PASTE.PROB", "1.0"],
    "both": ["INPUT.MOSAIC.PROB", "1.0", "INPUT.COPY_PASTE.PROB", "1.0"],
    "balanced crop": ["INPUT.CROP.CLASS_BALANCED_PROB", "1.0"],
}
EVERYTHING = [
    *WARP,
    "5.0",
    *("INPUT.SCALE_RANGE", "[0.8, 1.5]", "INPUT.COLOR_AUG_SSD", "True"),
    *itertools.chain.from_iterable(
        (f"INPUT.{name}", "0.5")
        for name in (
            *("BLUR.PROB", "NOISE.PROB", "JPEG.PROB", "CUTOUT.PROB", "MOSAIC.PROB"),
            *("COPY_PASTE.PROB", "CROP.CLASS_BALANCED_PROB"),
        )
    ),
]
# 6 records of 3 objects, each of a class of its own; label 0 is the ground.
RECORDS, OBJECTS = 6, 3
CLASSES = RECORDS * OBJECTS
COLORS = np.random.default_rng(5).integers(0, 256, (CLASSES + 1, 3)).astype(np.uint8)
SIZE = 150, 200


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Rectangles, whose pixels have the colour and the label of their class."""
    folder, rng, made = tmp_path_factory.mktemp("rectangles"), np.random.default_rng(0), []
    for r in range(RECORDS):
        label, annotations = np.zeros(SIZE, np.uint8), []
        for k in range(OBJECTS):
            category = r * OBJECTS + k
            w, h = rng.integers(25, 55, 2)
            x, y = 5 + 65 * k, rng.integers(3, SIZE[0] - h)
            label[y : y + h, x : x + w] = category + 1
            annotations.append(
                {"bbox": [x, y, x + w, y + h], "bbox_mode": 0, "category_id": category}
            )
        cv2.imwrite(str(folder / f"{r}.png"), COLORS[label][..., ::-1])
        cv2.imwrite(str(folder / f"{r}_label.png"), label)
        made.append(
            {
                "file_name": str(folder / f"{r}.png"),
                "sem_seg_file_name": str(folder / f"{r}_label.png"),
                "annotations": annotations,
            }
        )
    return made


def mapper_of(*opts, tasks=("sem_seg", "instances")):
    """Of images of 150x200 or crops of 100x120, with the classes' names the same in both tasks."""
    cfg = get_config(CONFIG, ["INPUT.CROP.SIZE", "[100, 120]", *opts])
    things = [f"object {i}" for i in range(CLASSES)]
    cfg.DATASETS.THING_CLASSES = things
    cfg.DATASETS.STUFF_CLASSES = ["ground", *things]
    mapper = TaskMapper(cfg, is_train=True)
    mapper.tasks, mapper.num_labels = tasks, CLASSES + 1
    return mapper


def draw(mapper, records, seed):
    """A sample as arrays: image (H, W, 3), label, boxes, classes. Its records differ."""
    np.random.seed(seed)
    order = itertools.chain(np.random.permutation(RECORDS))
    sample = mapper(records[next(order)], lambda: records[next(order)])
    found = sample.get("instances")
    return (
        sample["image"].numpy().transpose(1, 2, 0),
        sample["sem_seg"].numpy() if "sem_seg" in sample else None,
        None if found is None else found.gt_boxes.tensor.numpy(),
        None if found is None else found.gt_classes.numpy(),
    )


def extent(mask):
    ys, xs = np.nonzero(mask)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])


@pytest.mark.parametrize("kind", KINDS)
def test_labels_and_boxes_stay_aligned_with_their_image(records, kind):
    mapper = mapper_of(*KINDS[kind])
    seen = 0
    boxes_of = [np.array(a["bbox"]) for r in records for a in r["annotations"]]
    full_areas = np.array([(b[2] - b[0]) * (b[3] - b[1]) for b in boxes_of])
    for seed in range(15):
        image, label, boxes, classes = draw(mapper, records, seed)
        assert image.shape[:2] == label.shape and set(np.unique(label)) <= {*range(19), 255}
        # Away from borders each pixel has the colour of its label.
        near = np.ones((7, 7), np.uint8)
        inside = (cv2.dilate(label, near) == cv2.erode(label, near)) & (label != 255)
        off = np.abs(image[inside].astype(int) - COLORS[label[inside]]).mean()
        assert off < {"noise": 12, "jpeg": 4}.get(kind, 1.5)
        # Each box is around the region of its class.
        for box, category in zip(boxes, classes, strict=True):
            if kind == "warped crop" and (box[2:] - box[:2]).min() < 10:
                continue  # of the tip of a slanted shape pixels show little
            seen += 1
            assert np.abs(extent(label == category + 1) - box).max() <= 2, (kind, seed)
        # And what there is a third of has one; a warp makes it up to 1.6 times as long.
        areas = np.bincount(label[label < 255], minlength=CLASSES + 1)[1:]
        grown = 1.6**2 if kind in ("affine", "perspective") else 1
        large = np.flatnonzero(areas > full_areas * grown / 3)
        assert set(large) <= set(classes), (kind, seed)
    assert seen > 20


@pytest.mark.parametrize("kind", ["copy-paste", "mosaic", "both"])
@pytest.mark.parametrize("tasks", [("sem_seg",), ("instances",)])
def test_one_task_alone_is_mixed_too(records, kind, tasks):
    mapper = mapper_of(*KINDS[kind], tasks=tasks)
    foreign = 0
    for seed in range(15):
        image, label, boxes, classes = draw(mapper, records, seed)
        if label is not None:
            assert boxes is None
            near = np.ones((3, 3), np.uint8)
            inside = (cv2.dilate(label, near) == cv2.erode(label, near)) & (label != 255)
            assert np.array_equal(image[inside], COLORS[label[inside]])
            found = np.unique(label[(label > 0) & (label < 255)]) - 1
        else:
            for box, category in zip(boxes, classes, strict=True):
                region = (image == COLORS[category + 1]).all(-1)
                assert np.abs(extent(region) - box).max() <= 1
            found = classes
        foreign += len({c // OBJECTS for c in found}) > 1
    assert foreign >= 8


# Of the stream before these augmentations were there.
RECIPE_HASH = "f944b69a3662875e"


def test_what_is_off_changes_no_sample(records):
    """Crop and flip alone, which round nothing, so that the samples are equal on each machine."""
    digest = hashlib.sha256()
    mapper = mapper_of()
    assert mapper.mixing is None
    for seed in range(10):
        for part in draw(mapper, records, seed):
            digest.update(np.ascontiguousarray(part).tobytes())
    assert digest.hexdigest()[:16] == RECIPE_HASH


def test_shipped_configs_have_none_of_them():
    recipe = {"ResizeByRatio", "CategoryCrop", "RandomCrop", "RandomFlip", "PhotometricDistortion"}
    # Of this project, made to carry over to other streets.
    own = {"seg_topformer_t_camvid_48k", "multitask_lite_topformer_t_camvid_16k"}
    for name in set(list_configs()) - own:
        cfg = get_config(name)
        assert build_mixing(cfg) is None
        assert {type(a).__name__ for a in build_train_augmentation(cfg)} <= recipe


def take(cfg, count, start_iter=0):
    loader = build_train_loader(cfg)
    loader.start_iter = start_iter
    return [
        (
            s["file_name"],
            *(s[key].numpy().tobytes() for key in ("image", "sem_seg") if key in s),
            *(s["instances"].gt_boxes.tensor.flatten().tolist() if "instances" in s else ()),
        )
        for batch in itertools.islice(loader, count)
        for s in batch
    ]


def test_a_sample_is_a_function_of_seed_and_position():
    opts = [*EVERYTHING, "DATALOADER.NUM_WORKERS", "0", "SOLVER.IMS_PER_BATCH", "4", "SEED", "7"]
    cfg = get_config(CONFIG, [*opts, "INPUT.CROP.SIZE", "[64, 64]"])
    cfg.DATASETS.TRAIN = tuple(f"synthetic_{k}_train" for k in ("sem_seg", "boxes", "multitask"))
    cfg.DATASETS.TRAIN_WEIGHTS = [2, 1, 1]
    reference = take(cfg, 5)
    assert len({sample[1] for sample in reference}) == len(reference)
    cfg.DATALOADER.NUM_WORKERS = 2
    assert take(cfg, 5) == reference
    assert take(cfg, 2, start_iter=3) == reference[12:]


@pytest.mark.parametrize("flip", ["horizontal", "vertical"])
def test_images_of_a_few_pixels_pass(tmp_path, flip):
    """At the largest values, with boxes that reach out and labels that are all ignored."""
    large = [*("ROTATION", "180.0", "SHEAR", "40.0", "PERSPECTIVE", "0.2", "TRANSLATION", "1.0")]
    keys = [f"INPUT.WARP.{word}" if i % 2 == 0 else word for i, word in enumerate(large)]
    opts = [*EVERYTHING, *keys, "INPUT.CUTOUT.SIZE", "[0.0, 1.0]", "INPUT.RANDOM_FLIP", flip]
    mapper, tiny = mapper_of(*opts, "INPUT.WARP.SCALE", "[0.05, 10.0]"), []
    for i, size in enumerate([(1, 1), (1, 7), (5, 2), (9, 9)]):
        for end, values in (("", np.full((*size, 3), 99)), ("l", np.full(size, (0, 3, 255, 1)[i]))):
            cv2.imwrite(str(tmp_path / f"{i}{end}.png"), values.astype(np.uint8))
        boxes = [[-3, -3, 4, 0.5], [0, 0, 1, 1], [0.2, 0.1, 50, 60]]
        tiny.append(
            {
                "file_name": str(tmp_path / f"{i}.png"),
                "sem_seg_file_name": str(tmp_path / f"{i}l.png"),
                "annotations": [{"bbox": b, "bbox_mode": 0, "category_id": 2} for b in boxes],
            }
        )
    mapper.augmentations.augs.pop(0)  # the resizing
    for seed in range(60):
        np.random.seed(seed)
        sample = mapper(tiny[seed % 4], lambda: tiny[np.random.randint(4)])
        h, w = sample["image"].shape[1:]
        assert sample["sem_seg"].shape == (h, w)
        found = sample["instances"].gt_boxes.tensor.numpy()
        assert (found[:, :2] >= 0).all() and (found[:, 2:] <= [w, h]).all()
        assert (found[:, :2] < found[:, 2:]).all()


def test_others_are_of_the_same_dataset_and_tasks():
    pixels, both = ("sem_seg",), ("sem_seg", "instances")
    records = [{"i": i, "tasks": t} for i, t in enumerate([pixels, both, both, pixels, both[::-1]])]
    assert kinds_of(records).tolist() == [0, 1, 1, 0, 1]
    assert kinds_of(records, [2, 3]).tolist() == [0, 1, 2, 3, 2]

    def pair(record, draw_other):
        return {draw_other()["i"] for _ in range(40)}

    pair.mixing = True
    samples = SeededMap(records, pair, 3, kinds_of(records, [2, 3]))
    found = [samples[position, i] for position, i in enumerate([0, 1, 2, 3, 4])]
    assert found == [{0}, {1}, {2, 4}, {3}, {2, 4}]
    assert samples[2, 2] == found[2]


def test_holes_hide_labels_and_cut_boxes():
    holes = np.array([[10, 0, 20, 30], [40, 40, 50, 50]])
    cut = CutOutTransform(60, 80, holes, (7, 8, 9), 255, min_visible=0.3)
    label = np.ones((60, 80), np.uint8)
    label.setflags(write=False)  # as np.asarray of Pillow's is
    hidden = cut.apply_segmentation(label) == 255
    assert (
        hidden.sum() == 400
        and (cut.apply_image(np.stack([label] * 3, -1))[hidden] == (7, 8, 9)).all()
    )
    boxes = [[5, 5, 15, 20], [12, 5, 25, 20.5], [5, 5, 30, 20], [41, 41, 49, 49], [12, 0, 22, 9]]
    assert cut.apply_box(np.array(boxes)).tolist() == [
        [5, 5, 10, 20],  # half of it
        [20, 5, 25, 20.5],  # 5 of 13 columns
        [5, 5, 30, 20],  # covered in the middle alone
        [0, 0, 0, 0],
        [0, 0, 0, 0],  # 2 of 10 columns
    ]


def test_pixels_alone_change():
    image = np.full((200, 200, 3), 128, np.uint8)
    noise = NoiseTransform(9.0, 4)
    first, second = noise.apply_image(image), noise.apply_image(image)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, NoiseTransform(9.0, 5).apply_image(image))
    assert (first.mean(), first.std()) == pytest.approx((128, 9), abs=0.1)
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 250
    red[16:] = 60, 200, 90
    for quality, least, most in ((95, 0.1, 4), (3, 4, 30)):
        rgb = JPEGTransform(quality, "RGB").apply_image(red)
        assert least < np.abs(rgb.astype(int) - red).mean() < most
        bgr = JPEGTransform(quality, "BGR").apply_image(np.ascontiguousarray(red[..., ::-1]))
        assert np.array_equal(bgr[..., ::-1], rgb)
    sample = T.AugInput(image, sem_seg=image[..., 0], boxes=np.array([[1, 2, 3, 4.0]]))
    np.random.seed(0)
    T.AugmentationList([Blur((0.5, 2)), Noise((5, 9))])(sample)
    assert (sample.sem_seg == 128).all() and sample.boxes.tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize("shape", [(1, 70_000, 3), (1, 1, 3)])
def test_jpeg_leaves_what_is_larger_than_it_can_be(shape):
    image = np.full(shape, 128, np.uint8)
    assert np.abs(JPEGTransform(90, "RGB").apply_image(image).astype(int) - image).max() < 4
