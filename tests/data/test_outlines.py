"""The outlines of objects: from labels of any format to records, to other layouts, and cached."""

import json
import pickle
import tarfile
from functools import partial

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from detectron2.data import detection_utils as stock

from tests.data.outlined import (
    IMAGES,
    OBJECTS,
    SIZE,
    SOURCES,
    mask_of,
    write_coco,
    write_labelme,
)
from topformer_d2.data.boxes import load_boxes
from topformer_d2.data.object_outlines import fill_outline, outline_of
from topformer_d2.data.plain_layout import write_plain
from topformer_d2.data.shard_writer import write_shards

EVERYTHING = slice(0, SIZE[0]), slice(0, SIZE[1])


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
