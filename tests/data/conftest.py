"""A dataset of pixel labels and boxes with nothing to find."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from tests.data.damage import HEIGHT, WIDTH, box, write_pairs


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
