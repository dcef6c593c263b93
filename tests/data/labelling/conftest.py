"""Datasets that tests of this folder share."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from tests.data.labelling.writers import write_image, write_labelme
from topformer_d2.data import folders


@pytest.fixture
def photos(tmp_path):
    """Four images with LabelMe's files beside them."""
    root = tmp_path / "photos"
    for i in range(4):
        write_image(root / f"{i}.jpg")
        write_labelme(root / f"{i}.json", ("cat", 2, 3, 12, 13), ("dog", 8, 3, 30, 20 + i))
    return root


@pytest.fixture
def register(tmp_path):
    """Registers a dataset of an entry, as `own`."""

    def register(**entry):
        for catalog in (DatasetCatalog, MetadataCatalog):
            if "own" in catalog.list():
                catalog.remove("own")
        folders.register_folder("own", entry, str(tmp_path / "cache"))
        return MetadataCatalog.get("own")

    yield register
    for catalog in (DatasetCatalog, MetadataCatalog):
        if "own" in catalog.list():
            catalog.remove("own")
