"""Copy-paste by the outlines of objects: from labels of any format to the pasted pixels."""

import itertools
import json
import pickle
import tarfile
from functools import partial

import cv2
import numpy as np
import pytest
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import detection_utils as stock
from pycocotools import mask as coco_mask

from topformer_d2 import get_config
from topformer_d2.data import build_train_loader
from topformer_d2.data.augmentations import Mixing, Picture
from topformer_d2.data.boxes import load_boxes
from topformer_d2.data.folders import register_folder, register_folders
from topformer_d2.data.mapper import TaskMapper
from topformer_d2.data.object_outlines import fill_outline, outline_of
from topformer_d2.data.plain_layout import write_plain
from topformer_d2.data.registered import load_records
from topformer_d2.data.shard_writer import write_shards
from topformer_d2.errors import InputError

CONFIG = "multitask_lite_topformer_t_synthetic"
SIZE = 120, 160
EVERYTHING = slice(0, SIZE[0]), slice(0, SIZE[1])
IMAGES, OBJECTS = 4, 3
# Of each image the ground, and of each object, a disc.
GROUNDS = [(40 * i + 20, 0, 0) for i in range(IMAGES)]
DISC = (0, 200, 0)


def ring(x, y, radius):
    turns = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    points = np.stack([x + radius * np.cos(turns), y + radius * np.sin(turns)], axis=1)
    return points.clip(0, [SIZE[1], SIZE[0]]).round(2).ravel().tolist()


def mask_of(polygon):
    return coco_mask.decode(coco_mask.frPyObjects([polygon], *SIZE))[..., 0]


@pytest.fixture
def discs(tmp_path):
    """Images of discs on grounds of their own, and of each disc (polygon, box XYXY)."""
    root, rng, truth = tmp_path / "images", np.random.default_rng(0), []
    root.mkdir()
    for i in range(IMAGES):
        image, objects = np.full((*SIZE, 3), GROUNDS[i], np.uint8), []
        for k in range(OBJECTS):
            polygon = ring(30 + 48 * k, rng.integers(30, 90), rng.integers(14, 22))
            image[mask_of(polygon) > 0] = DISC
            xs, ys = polygon[::2], polygon[1::2]
            objects.append((polygon, [min(xs), min(ys), max(xs), max(ys)]))
        cv2.imwrite(str(root / f"{i}.png"), image[..., ::-1])
        truth.append(objects)
    return root, truth


def write_coco(path, truth, segmentation=lambda polygon: [polygon]):
    annotations = [
        {
            **{"image_id": i, "category_id": 1, "iscrowd": 0},
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "segmentation": segmentation(polygon),
        }
        for i, objects in enumerate(truth)
        for polygon, (x0, y0, x1, y1) in objects
    ]
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.png", "width": SIZE[1], "height": SIZE[0]}
            for i in range(len(truth))
        ],
        "annotations": [{"id": n, **a} for n, a in enumerate(annotations, 1)],
        "categories": [{"id": 1, "name": "disc"}],
    }
    path.write_text(json.dumps(content))
    return str(path)


def write_labelme(root, truth):
    for i, objects in enumerate(truth):
        shapes = [
            {
                "label": "disc",
                "shape_type": "polygon",
                "points": np.reshape(polygon, (-1, 2)).tolist(),
            }
            for polygon, _ in objects
        ]
        content = {"shapes": shapes, "imagePath": f"{i}.png", "imageData": None}
        (root / f"{i}.json").write_text(json.dumps({**content, "flags": {}, "version": "5.5.0"}))
    return str(root)


def rle(polygon):
    found = coco_mask.encode(np.asfortranarray(mask_of(polygon)))
    return {"size": [*SIZE], "counts": found["counts"].decode()}


def runs(polygon):
    flat = np.r_[0, mask_of(polygon).ravel(order="F"), 0]
    edges = np.flatnonzero(np.diff(flat))
    counts = np.diff([0, *edges, SIZE[0] * SIZE[1]]).tolist()
    return {"size": [*SIZE], "counts": counts}


SOURCES = {
    "plain COCO, polygons": lambda root, truth: write_coco(root.parent / "boxes.json", truth),
    "plain COCO, RLE": lambda root, truth: write_coco(root.parent / "boxes.json", truth, rle),
    "COCO of runs": lambda root, truth: write_coco(root.parent / "boxes.json", truth, runs),
    "labelme": write_labelme,
}


@pytest.fixture
def own(tmp_path):
    """Registers a dataset of an entry, as `own`, with outlines or without."""

    def forget():
        for catalog in (DatasetCatalog, MetadataCatalog):
            if "own" in catalog.list():
                catalog.remove("own")

    def load(with_outlines=True, **entry):
        forget()
        register_folder("own", entry, str(tmp_path / "cache"), with_outlines=with_outlines)
        return load_records("own")

    yield load
    forget()


@pytest.mark.parametrize("write", [write_plain, partial(write_shards, most_mib=1)])
@pytest.mark.parametrize("source", SOURCES)
def test_outlines_and_ids_are_kept_in_another_layout(discs, own, tmp_path, source, write):
    root, truth = discs
    boxes = SOURCES[source](root, truth)
    if source != "labelme":
        content = json.loads((tmp_path / "boxes.json").read_text())
        for image in content["images"]:
            image["id"] += 40
        for annotation in content["annotations"]:
            annotation["image_id"] += 40
            annotation["category_id"] = 101
        content["categories"][0]["id"] = 101
        (tmp_path / "boxes.json").write_text(json.dumps(content))
    before = own(IMAGES=str(root), BOXES=boxes)
    own(with_outlines=False, IMAGES=str(root), BOXES=boxes)
    entry = write("own", str(tmp_path / "other"))
    written = json.loads((tmp_path / "other/boxes.json").read_text())
    first, category = (1, 1) if source == "labelme" else (40, 101)
    assert [image["id"] for image in written["images"]] == [first + i for i in range(IMAGES)]
    assert written["categories"] == [{"id": category, "name": "disc"}]
    assert {each["category_id"] for each in written["annotations"]} == {category}
    for one, other in zip(before, own(**entry), strict=True):
        for a, b in zip(one["annotations"], other["annotations"], strict=True):
            found = [fill_outline(outline_of(each, SIZE), EVERYTHING) for each in (a, b)]
            assert found[0].any() and np.array_equal(*found)
    if write is not write_plain:
        with tarfile.open(tmp_path / "other/000000.tar") as tar:
            (of_first, *_) = json.load(tar.extractfile("0.json"))["boxes"]
        assert of_first["segmentation"] == written["annotations"][0]["segmentation"]


@pytest.mark.parametrize("keys", [{}, {"SPLIT_SEED": 1}], ids=["as it lies", "converted"])
@pytest.mark.parametrize("source", SOURCES)
def test_records_have_the_outlines_of_any_source(discs, own, source, keys, monkeypatch):
    """The key that plain entries cannot have makes COCO's JSON go the other formats' way."""
    root, truth = discs
    entry = {"IMAGES": str(root), "BOXES": SOURCES[source](root, truth), **keys}
    bare = own(with_outlines=False, **entry)
    records = own(**entry)
    for _ in range(2):  # the second time from the cache
        assert len(records) == IMAGES
        for record, plain, objects in zip(records, bare, truth, strict=True):
            found = [
                fill_outline(outline_of(a, SIZE), (slice(0, SIZE[0]), slice(0, SIZE[1])))
                for a in record["annotations"]
            ]
            expected = [mask_of(polygon) for polygon, _ in objects]
            order = [int(np.argmax([(f & (e > 0)).sum() for e in expected])) for f in found]
            assert sorted(order) == [*range(OBJECTS)]
            for region, i in zip(found, order, strict=True):
                # Masks are outlined to within a pixel.
                off = (region != (expected[i] > 0)).sum()
                assert off <= (0 if source in ("labelme", "plain COCO, polygons") else 40)
            for annotation in record["annotations"]:
                annotation.pop("segmentation")
            assert record == plain
        monkeypatch.setattr("topformer_d2.data.labelling.dataset.make_records", pytest.fail)
        records = own(**entry)


def test_a_cache_without_outlines_or_with_damaged_ones_is_made_anew(discs, own, tmp_path):
    root, truth = discs
    entry = {"IMAGES": str(root), "BOXES": write_labelme(root, truth)}
    own(with_outlines=False, **entry)
    kept = tmp_path / "cache" / "outlines.jsonl"
    assert not kept.exists()
    first = pickle.dumps(own(**entry))
    lines = kept.read_text().splitlines()
    assert len(lines) == 1 + IMAGES
    for damaged in (lines[:-1], ['"other"', *lines[1:]], [*lines[:-1], "[[]]"], [*lines, "[]"]):
        kept.write_text("\n".join(damaged))
        assert pickle.dumps(own(**entry)) == first
        assert kept.read_text().splitlines() == lines


def test_segmentations_that_are_none_leave_the_box(discs, own, caplog):
    root, truth = discs
    wrong = [[[1, 2, 3]], [["a"] * 6], {"size": [1, 1], "counts": "x"}, 7]
    wrong.append({"size": [3, 2], "counts": [2, 4]})  # of an image of another size
    none = [None, [], [[1, 1]]]
    bad = iter(wrong + none)
    path = write_coco(root.parent / "boxes.json", truth, lambda polygon: next(bad, [polygon]))
    with caplog.at_level("WARNING", "topformer_d2"):
        records = load_boxes("outlines_that_are_none", path, str(root), with_outlines=True)
    MetadataCatalog.remove("outlines_that_are_none")
    have = ["segmentation" in a for record in records for a in record["annotations"]]
    assert have == [False] * 8 + [True] * (IMAGES * OBJECTS - 8)
    assert f"{path}: 5 of 12" in caplog.text


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


def test_detectron2_takes_the_outlines(discs, own):
    """As its mapper for instance masks does; without masks it drops them."""
    root, truth = discs
    records = own(IMAGES=str(root), BOXES=write_labelme(root, truth))
    for record, objects in zip(records, truth, strict=True):
        transforms = stock.T.TransformList([])
        found = [
            stock.transform_instance_annotations(dict(a), transforms, SIZE)
            for a in record["annotations"]
        ]
        instances = stock.annotations_to_instances(found, SIZE)
        areas = sorted(instances.gt_masks.area().tolist())
        assert areas == pytest.approx(sorted(mask_of(p).sum() for p, _ in objects), rel=0.05)


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
