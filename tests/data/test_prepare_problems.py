"""What can be wrong with what the sites hand out, dataset by dataset, is listed or refused."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data import archives
from tests.data.archives import content, encode, records, write_mat
from topformer_d2.data.multitask import load_multitask
from topformer_d2.data.prepare.pixel_datasets import prepare_sem_seg
from topformer_d2.errors import InputError

# --- COCO-Stuff-10k


def test_coco_stuff10k_v1_0_is_refused(tmp_path):
    official = archives.coco_stuff10k(tmp_path)
    for path in tmp_path.rglob("*.mat"):
        write_mat(path, np.ones((11, 17), np.uint8), num_names=172)
    with pytest.raises(InputError, match=r"v1\.0, whose ids differ.*v1\.1\.zip"):
        prepare_sem_seg("coco_stuff10k", [str(official.sources[0])], str(tmp_path / "root"))
    assert not (tmp_path / "root").exists()


def test_coco_stuff10k_lists_what_is_broken(tmp_path):
    official = archives.coco_stuff10k(tmp_path)
    top = official.sources[0]
    mats = [top / f"annotations/COCO_train2014_{i:012d}.mat" for i in range(8)]
    mats[0].write_bytes(mats[0].read_bytes()[:200])
    write_mat(mats[1], np.full((12, 19), 183, np.uint8))
    write_mat(mats[3], np.full((14, 23), 0.5))
    write_mat(mats[4], np.full((15, 25), 3, np.uint8), num_names=5)
    write_mat(mats[6], np.full((17, 29), 12, np.uint8))  # street sign, a removed class
    mats[7].write_bytes(b"")
    mats[2].unlink()
    (top / "images/COCO_train2014_000000000005.jpg").unlink()
    with (top / "imageLists/train.txt").open("a") as f:
        f.write("COCO_train2014_000000000099\n")
    reports = prepare_sem_seg("coco_stuff10k", [str(top)], str(tmp_path / "root"))
    problems = "\n".join(reports["train"].problems)
    for part in (
        "COCO_train2014_000000000099 of imageLists/train.txt has neither image nor label",
        "label of cocostuff-10k-v1.1/images/COCO_train2014_000000000000.jpg: "
        "cocostuff-10k-v1.1/annotations/COCO_train2014_000000000000.mat: ",
        "000000000001.mat: S holds something other than the ids 0 to 182",
        "000000000003.mat: S holds something other",
        "000000000004.mat has 5 names instead of 182",
        "label of cocostuff-10k-v1.1/images/COCO_train2014_000000000007.jpg",
    ):
        assert part in problems
    assert len(reports["train"].problems) == 6
    assert reports["test"].problems == [
        "cocostuff-10k-v1.1/images/COCO_train2014_000000000002.jpg has no label",
        "the label of COCO_train2014_000000000005 has no image",
    ]
    assert reports["train"].unknown_ids == {12: 17 * 29}
    summary = reports["train"].summary()
    assert "ids that are not classes, now ignored (id: pixels): {12: 493}" in summary
    assert "labels without any class: 1, COCO_train2014_000000000006.png among them" in summary


@pytest.mark.parametrize("ids", ["text", np.array(["a", "b"], object)])
def test_coco_stuff10k_label_that_is_no_number(ids, tmp_path):
    top = archives.coco_stuff10k(tmp_path).sources[0]
    write_mat(top / "annotations/COCO_train2014_000000000000.mat", ids)
    report = prepare_sem_seg("coco_stuff10k", [str(top)], str(tmp_path / "root"))["train"]
    assert report.written == 5
    assert "000000000000.mat: S is not an array of numbers" in report.problems[0]


def test_coco_stuff10k_needs_its_lists(tmp_path):
    official = archives.coco_stuff10k(tmp_path)
    (official.sources[0] / "imageLists/test.txt").unlink()
    with pytest.raises(InputError, match=r"has no imageLists/test\.txt"):
        prepare_sem_seg("coco_stuff10k", [str(official.sources[0])], str(tmp_path))


# --- COCO-Stuff-164k


def test_coco_images_that_stand_already_need_no_source(tmp_path):
    official = archives.coco_stuff164k(tmp_path / "made")
    coco = tmp_path / "root" / "coco"
    for split in ("train2017", "val2017"):
        shutil.copytree(tmp_path / f"made/{split}.zip/{split}", coco / split)
    sources = [s for s in official.packed("zip", tmp_path) if "2017.zip" not in Path(s).stem]
    assert len(sources) == 2
    before = {n: (coco / n).stat().st_mtime_ns for n in content(coco)}
    reports = prepare_sem_seg("coco_stuff164k", sources, str(tmp_path / "root"))
    assert [(r.written, r.problems) for r in reports.values()] == [(4, []), (4, [])]
    assert all((coco / n).stat().st_mtime_ns == then for n, then in before.items())
    for split in ("train", "val"):
        joined = load_multitask(
            f"coco_2017_multitask_{split}",
            *(str(coco / f"annotations/instances_{split}2017.json"), str(coco / f"{split}2017")),
            str(coco / f"stuffthingmaps_detectron2/{split}2017"),
        )
        assert [Path(r["sem_seg_file_name"]).stem for r in joined] == [
            stem for name, stem in official.labels if name.endswith(split)
        ]
    # The root itself, with the labels unpacked in it, is a source; what was prepared there is not.
    shutil.copytree(tmp_path / "made/stuffthingmaps_trainval2017", coco / "stuffthingmaps")
    shutil.rmtree(coco / "stuffthingmaps_detectron2/val2017")
    reports = prepare_sem_seg("coco_stuff164k", [str(coco)], str(tmp_path / "root"))
    assert [(r.written, r.kept) for r in reports.values()] == [(0, 4), (4, 0)]


def test_boxes_can_be_added_afterwards(tmp_path):
    boxes, *others = map(str, archives.coco_stuff164k(tmp_path / "made").sources)
    annotations = tmp_path / "root/coco/annotations"
    prepare_sem_seg("coco_stuff164k", others, str(tmp_path / "root"))
    assert not annotations.exists()
    reports = prepare_sem_seg("coco_stuff164k", [boxes], str(tmp_path / "root"))
    assert [(r.written, r.kept, r.problems) for r in reports.values()] == [(0, 4, [])] * 2
    assert sorted(p.name for p in annotations.iterdir()) == [
        "instances_train2017.json",
        "instances_val2017.json",
    ]
    reports = prepare_sem_seg("coco_stuff164k", [boxes], str(tmp_path / "empty"))
    missing = "boxes and no image with a label: are archives missing?"
    assert [(r.total, r.problems) for r in reports.values()] == [(0, [missing])] * 2


def test_a_json_that_is_half_copied_is_not_kept(tmp_path):
    sources = [str(s) for s in archives.coco_stuff164k(tmp_path / "made").sources]
    json_file = tmp_path / "made/annotations_trainval2017/annotations/instances_train2017.json"
    whole = json_file.read_bytes()
    json_file.write_bytes(whole[:-20])
    report = prepare_sem_seg("coco_stuff164k", sources, str(tmp_path / "root"))["train"]
    assert len(report.problems) == 1 and report.total == 4
    assert "annotations/instances_train2017.json is not JSON: Unterminated" in report.problems[0]
    copy = tmp_path / "root/coco/annotations/instances_train2017.json"
    assert not copy.exists()
    json_file.write_bytes(whole)
    report = prepare_sem_seg("coco_stuff164k", sources, str(tmp_path / "root"))["train"]
    assert report.problems == [] and copy.read_bytes() == whole


def test_an_archive_that_is_missing_is_one_problem(tmp_path):
    official = archives.coco_stuff164k(tmp_path / "made")
    labels = next(s for s in official.sources if s.name.startswith("stuff"))
    for source, message in (
        (labels, "4 labels and no image: is an archive missing?"),
        (tmp_path / "made/train2017.zip", "4 images and no label: is an archive missing?"),
    ):
        reports = prepare_sem_seg("coco_stuff164k", [str(source)], str(tmp_path / "root"))
        assert reports["train"].problems == [message]
    assert not reports["val"].is_here and "val: not in this source" in reports["val"].summary()


# --- Cityscapes


def test_cityscapes_lists_what_detectron2_would_miss(tmp_path):
    official = archives.cityscapes(tmp_path / "made")
    fine = official.sources[1] / "gtFine"
    (fine / "train/aachen/aachen_000000_000019_gtFine_instanceIds.png").unlink()
    (fine / "train/ulm/ulm_000001_000019_gtFine_labelIds.png").unlink()
    polygons = fine / "val/munster/munster_000003_000019_gtFine_polygons.json"
    polygons.write_text('{"imgHeight": 3, "imgWidth": 4}')
    (fine / "val/munster/munster_000001_000019_gtFine_polygons.json").write_text('{"imgHei')
    label = fine / "test/bonn/bonn_000000_000019_gtFine_labelIds.png"
    Image.fromarray(np.ones((11, 17), np.uint8)).save(label)  # ego vehicle alone
    root = tmp_path / "root"
    reports = prepare_sem_seg("cityscapes", list(map(str, official.sources)), str(root))
    assert reports["train"].problems == [
        "leftImg8bit_trainvaltest/leftImg8bit/train/ulm/ulm_000001_000019_leftImg8bit.png has no "
        "label",
        "gtFine_trainvaltest/gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png has no "
        "aachen_000000_000019_gtFine_instanceIds.png beside it",
    ]
    assert len(reports["val"].problems) == 2
    assert "polygons.json is for (3, 4) (height, width)" in reports["val"].problems[1]
    assert reports["test"].without_class == ["bonn_000000_000019_gtFine_labelTrainIds.png"]
    # What is there is whole: Detectron2 lists images and asserts what stands beside them.
    for split, count in (("train", 2), ("val", 2), ("test", 4)):
        assert len(records(f"cityscapes_fine_sem_seg_{split}", root)) == count


def test_cityscapes_companion_that_is_cut_off_is_not_kept(tmp_path):
    official = archives.cityscapes(tmp_path / "made")
    frame = "gtFine/train/ulm/ulm_000001_000019_gtFine_instanceIds.png"
    instances = official.sources[1] / frame
    whole = instances.read_bytes()
    instances.write_bytes(whole[:60])
    sources, root = list(map(str, official.sources)), str(tmp_path / "root")
    report = prepare_sem_seg("cityscapes", sources, root)["train"]
    assert report.written == 3 and len(report.problems) == 1
    assert f"{frame}: " in report.problems[0]
    instances.write_bytes(whole)
    report = prepare_sem_seg("cityscapes", sources, root)["train"]
    assert (report.written, report.kept, report.problems) == (1, 3, [])
    assert (tmp_path / "root/cityscapes" / frame).read_bytes() == whole


def test_cityscapes_images_that_stand_already_need_no_source(tmp_path):
    official = archives.cityscapes(tmp_path / "made")
    images = tmp_path / "root/cityscapes/leftImg8bit"
    shutil.copytree(official.sources[0] / "leftImg8bit", images)
    reports = prepare_sem_seg("cityscapes", [str(official.sources[1])], str(tmp_path / "root"))
    assert [(r.written, r.problems) for r in reports.values()] == [(4, [])] * 3


# --- PASCAL Context


def _changed(official, change) -> list[str]:
    merged = json.loads(official.sources[1].read_text())
    change(merged)
    official.sources[1].write_text(json.dumps(merged))
    return list(map(str, official.sources))


def test_pascal_context_says_what_it_finds(tmp_path):
    official = archives.pascal_context(tmp_path / "made")
    reports = prepare_sem_seg("pascal_context", list(map(str, official.sources)), str(tmp_path))
    assert reports["train"].notes == [
        "images of ImageSets/Main/train.txt that trainval_merged.json lacks: 1 (2009_000001)",
        "images without an annotation: 1 (2008_000003)",
    ]
    assert [note.split(": ")[1] for note in reports["val"].notes] == ["none", "none"]


def test_pascal_context_lists_what_is_broken(tmp_path):
    def change(merged):
        objects = {i["image_id"]: [] for i in merged["images"]}
        for entry in merged["annos_segmentation"]:
            objects[entry["image_id"]].append(entry)
        objects[2008000000][2]["segmentation"] = encode(np.ones((3, 3)))
        objects[2008000001][0]["segmentation"] = [[1, 2, 3, 4, 5, 6]]
        objects[2008000004][1]["segmentation"]["counts"] = "!!"
        merged["images"][6]["height"] += 1
        for entry in objects[2008000006]:
            entry["segmentation"] = encode(np.ones((18, 29)))

    official = archives.pascal_context(tmp_path / "made")
    reports = prepare_sem_seg("pascal_context", _changed(official, change), str(tmp_path / "r"))
    problems = "\n".join(itertools.chain(*(r.problems for r in reports.values())))
    assert [len(r.problems) for r in reports.values()] == [2, 2]
    for part in (
        r"JPEGImages/2008_000000.jpg: a mask of category",
        "is (3, 3), not (11, 17)",
        "JPEGImages/2008_000001.jpg: a mask of category",
        "JPEGImages/2008_000004.jpg: ",
        "2008_000006.jpg is (29, 17), its label (29, 18)",
    ):
        assert part in problems


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("annos_segmentation"), "is not PASCAL in Detail's: KeyError"),
        (lambda m: m["categories"].append({"category_id": 1}), "has 60 categories, and not the 59"),
        (lambda m: m["categories"].pop(), "has 58 categories"),
    ],
)
def test_another_json_is_refused(change, message, tmp_path):
    sources = _changed(archives.pascal_context(tmp_path / "made"), change)
    with pytest.raises(InputError, match=message):
        prepare_sem_seg("pascal_context", sources, str(tmp_path / "root"))


def test_a_json_that_is_cut_off_is_refused(tmp_path):
    official = archives.pascal_context(tmp_path / "made")
    official.sources[1].write_bytes(official.sources[1].read_bytes()[:-9])
    with pytest.raises(InputError, match=r"trainval_merged\.json is cut off"):
        prepare_sem_seg("pascal_context", list(map(str, official.sources)), str(tmp_path / "root"))
