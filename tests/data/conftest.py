"""Datasets that several tests of the data take."""

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from tests.data.damage import HEIGHT, WIDTH, box, write_pairs
from tests.data.outlined import DISC, GROUNDS, IMAGES, OBJECTS, SIZE, mask_of, ring
from topformer_d2.data.folders import register_folder
from topformer_d2.data.registered import load_records
from topformer_d2.data.shard_writer import write_shards


@pytest.fixture
def forget():
    """Remove what a test has registered."""
    before = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def both(tmp_path, forget):
    """The records of a dataset "both" with pixel labels and boxes; it has nothing to find."""
    write_pairs(tmp_path, 3)
    records = [
        {
            "file_name": str(tmp_path / f"images/{i}.png"),
            "sem_seg_file_name": str(tmp_path / f"labels/{i}.png"),
            "height": HEIGHT,
            "width": WIDTH,
            "annotations": [
                box([1, 2, 9, 9]),
                box([-0.5, 30, 50.9, 10.4], 1),
                box([0, 0, 9, 9], 1, 1),
            ],
        }
        for i in range(3)
    ]
    DatasetCatalog.register("both", lambda: records)
    MetadataCatalog.get("both").set(
        image_root=str(tmp_path / "images"),
        sem_seg_root=str(tmp_path / "labels"),
        stuff_classes=["road", "sky"],
        thing_classes=["cat", "dog"],
    )
    return records


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


@pytest.fixture
def shards(tmp_path):
    """The entry of the synthetic training images and the paths of their shards."""
    entry = write_shards("synthetic_multitask_train", str(tmp_path / "mine"), 1)
    return entry, sorted((tmp_path / "mine").glob("*.tar"))
