"""COCO 2017's boxes: copied as they are, and each image held against its entry."""

import json
import shutil

import pytest
from detectron2.data.datasets import load_coco_json
from PIL import Image

from tests.data import archives
from tests.data.archives import content
from tests.helpers import topformer
from topformer_d2.data.prepare.pixel_datasets import prepare_sem_seg


@pytest.fixture
def official(tmp_path):
    """The images and boxes of four images a split, and no labels of pixels."""
    made = archives.coco_stuff164k(tmp_path / "made")
    made.sources = [s for s in made.sources if not s.name.startswith("stuff")]
    return made


def counts(reports):
    return [(r.written, r.kept, r.problems) for r in reports.values()]


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_images_and_boxes_as_detectron2_reads_them(official, kind, tmp_path):
    sources, root = official.packed(kind, tmp_path), tmp_path / "root"
    reports = prepare_sem_seg("coco2017", sources, str(root))
    assert counts(reports) == [(4, 0, [])] * 2
    assert "the recipe has 118287 pairs, 4 are here" in reports["train"].summary()
    assert reports["train"].without_class == [] and reports["train"].unknown_ids == {}
    for split in ("train", "val"):
        images = root / f"coco/{split}2017"
        json_file = root / f"coco/annotations/instances_{split}2017.json"
        assert len(load_coco_json(str(json_file), str(images))) == 4
        for (name, stem), image in official.images.items():
            if name.endswith(split):
                assert (images / f"{stem}.jpg").read_bytes() == image
    before = content(root)
    assert counts(prepare_sem_seg("coco2017", sources, str(root))) == [(0, 4, [])] * 2
    assert content(root) == before


def test_archives_one_after_the_other(official, tmp_path):
    boxes, train, val = map(str, official.sources)
    root = str(tmp_path / "root")
    missing = "4 labels and no image: is an archive missing?"
    assert counts(prepare_sem_seg("coco2017", [boxes], root)) == [(0, 0, [missing])] * 2
    reports = prepare_sem_seg("coco2017", [train], root)
    assert counts(reports) == [(4, 0, []), (0, 0, [])] and not reports["val"].is_here
    shutil.copytree(f"{val}/val2017", tmp_path / "root/coco/val2017")
    assert counts(prepare_sem_seg("coco2017", [boxes], root)) == [(0, 4, [])] * 2


def test_what_is_broken_is_listed(official, tmp_path):
    boxes, train, _ = official.sources
    images = sorted((train / "train2017").iterdir())
    images[0].write_bytes(images[0].read_bytes()[:-40])
    images[1].unlink()
    Image.new("RGB", (3, 5)).save(images[2])
    shutil.copy(images[3], images[3].with_name("000000999999.jpg"))
    val = boxes / "annotations/instances_val2017.json"
    val.write_text(json.dumps(json.loads(val.read_text()))[:-30])
    result = topformer(
        "data",
        "prepare",
        "coco2017",
        *(a for source in official.sources for a in ("--source", source)),
        *("--root", tmp_path / "root"),
    )
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "train: 1 pairs ready" in result.stdout
    for part in (
        "train2017.zip/train2017/000000999999.jpg has no label",
        f"the label of {images[1].stem} has no image",
        f"train2017.zip/train2017/{images[0].name}: ",
        f"train2017.zip/train2017/{images[2].name} is (3, 5), its label (21, 13)",
        "annotations_trainval2017/annotations/instances_val2017.json is cut off or is not COCO's",
    ):
        assert f"PROBLEM: {part}" in result.stdout
    assert result.stdout.count("PROBLEM") == 5
    written = content(tmp_path / "root/coco")
    assert sorted(written) == [
        "annotations/instances_train2017.json",
        f"train2017/{images[3].name}",
    ]
