"""Every segmentation dataset from what its site hands out to what is registered, pixel by pixel."""

import multiprocessing
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from tqdm.auto import tqdm

from tests.data import archives
from tests.data.archives import MAKERS, content, records
from tests.helpers import REPOSITORY
from topformer_d2.data.prepare.pixel_datasets import DATASETS, prepare_sem_seg
from topformer_d2.data.prepare.voc import prepare_voc
from topformer_d2.errors import InputError
from topformer_d2.files import writing

CAMVID = REPOSITORY.parent / "shared" / "data" / "CamVid"


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
@pytest.mark.parametrize("dataset", MAKERS)
def test_every_pixel_and_every_image(dataset, kind, tmp_path):
    official = MAKERS[dataset](tmp_path / "made")
    root = tmp_path / "root"
    reports = prepare_sem_seg(dataset, official.packed(kind, tmp_path), str(root))
    names = sorted({name for name, _ in official.labels})
    found = set()
    for name in names:
        for record in records(name, root):
            key = name, Path(record["file_name"]).stem
            found.add(key)
            label = Image.open(record["sem_seg_file_name"])
            assert label.mode == "L" and label.format == "PNG"
            assert np.array_equal(np.asarray(label), official.labels[key]), key
            assert Path(record["file_name"]).read_bytes() == official.images[key], key
    assert found == official.labels.keys()
    for split, report in reports.items():
        name = next(n for n in names if n.endswith(f"_{split}"))
        assert report.problems == [] and report.unknown_ids == {}
        assert report.written == sum(n == name for n, _ in official.labels), split
        assert f"the recipe has {DATASETS[dataset].expected[split]} pairs" in report.summary()
    before = content(root)
    again = prepare_sem_seg(dataset, official.packed(kind, tmp_path), str(root))
    assert [(r.written, r.kept) for r in again.values()] == [
        (0, r.written) for r in reports.values()
    ]
    assert content(root) == before


def _stop_after(count: int, prepare, sources: list[str], root: str) -> None:
    """Prepare, but stand still before a file is renamed when `count` new ones have been."""
    lock, replace, made = threading.Lock(), os.replace, []

    def replace_some(partial, path):
        with lock:
            if len(made) == count:
                time.sleep(60)
            if not os.path.exists(path):  # of a pair that is half done, files are made again
                made.append(path)
            replace(partial, path)

    writing.os.replace = replace_some
    tqdm.set_lock(threading.RLock())  # by default one lock for the tests as well
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    prepare(sources, root)


def _make_voc(folder: Path) -> list[str]:
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    for i in range(12):
        cv2.imwrite(str(folder / f"JPEGImages/{i}.jpg"), np.full((20, 30, 3), i, np.uint8))
        corners = "<xmin>2</xmin><ymin>3</ymin><xmax>9</xmax><ymax>8</ymax>"
        box = f"<object><name>dog</name><bndbox>{corners}</bndbox></object>"
        (folder / f"Annotations/{i}.xml").write_text(f"<annotation>{box}</annotation>")
    (folder / "ImageSets/Main/train.txt").write_text("\n".join(map(str, range(8))))
    (folder / "ImageSets/Main/val.txt").write_text("\n".join(map(str, range(8, 12))))
    return [str(folder)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the killed process is forked")
@pytest.mark.parametrize("dataset", [*MAKERS, "voc"])
def test_a_run_killed_at_any_moment_and_repeated_ends_the_same(dataset, tmp_path):
    if dataset == "voc":
        sources, prepare = _make_voc(tmp_path / "made"), prepare_voc
    else:
        sources = MAKERS[dataset](tmp_path / "made").packed("zip", tmp_path)

        def prepare(sources, root):
            return prepare_sem_seg(dataset, sources, root)

    prepare(sources, str(tmp_path / "whole"))
    whole, killed = content(tmp_path / "whole"), tmp_path / "killed"
    assert len(whole) >= 14

    def finished() -> int:
        return sum(p.is_file() for p in killed.rglob("[!.]*"))

    for count in (1, 2, 3):
        expected = count + finished()
        run = multiprocessing.get_context("fork").Process(
            target=_stop_after, args=(count, prepare, sources, str(killed))
        )
        run.start()
        while run.is_alive() and finished() < expected:
            time.sleep(0.001)
        run.kill()
        run.join()
        assert run.exitcode == -signal.SIGKILL
        left = {n: c for n, c in content(killed).items() if not n.endswith((".partial", ".lock"))}
        assert len(left) == expected
        assert all(whole[name] == there for name, there in left.items())  # none is cut off
    prepare(sources, str(killed))
    assert content(killed) == whole


@pytest.mark.parametrize(
    ("dataset", "names", "message"),
    [
        ("ade20k", ["x/ADE_train_1_seg.png"], r"full ADE20K.*ADEChallengeData2016\.zip"),
        ("camvid", ["701_StillsRaw_full/0001TP_006690.png"], "Cambridge's original"),
        ("cityscapes", ["gtCoarse/train/ulm/ulm_0_0_gtCoarse_labelIds.png"], "coarse labels"),
        ("cityscapes", ["leftImg8bit/train_extra/ulm/ulm_0_0_leftImg8bit.png"], "extra images"),
        (
            "coco_stuff164k",
            ["train2017/000000000009.jpg", "stuff_train2017_pixelmaps.zip"],
            r"without things; the recipe uses stuffthingmaps_trainval2017\.zip",
        ),
        ("coco_stuff164k", ["annotations/panoptic_train2017.json"], "panoptic labels of 133"),
        ("coco_stuff10k", ["train2017/000000000009.png"], r"found none of images/\*\.jpg with"),
        ("pascal_context", ["JPEGImages/2008_000002.jpg", "a/2008_000002.mat"], "459 classes"),
        ("pascal_context", ["train.pth"], "pickles"),
        ("pascal_context", ["JPEGImages/2008_000002.jpg"], r"with trainval_merged\.json"),
    ],
)
def test_look_alikes_are_refused(dataset, names, message, tmp_path):
    for name in names:
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with pytest.raises(InputError, match=message):
        prepare_sem_seg(dataset, [str(tmp_path / "source")], str(tmp_path / "root"))
    assert not (tmp_path / "root").exists()


def test_two_files_of_one_stem_are_refused(tmp_path):
    official = archives.camvid(tmp_path / "made")
    shutil.copytree(tmp_path / "made/CamVid", tmp_path / "made/copy/CamVid")
    with pytest.raises(InputError, match=r"share a stem: name the folder"):
        prepare_sem_seg("camvid", [str(official.sources[0].parent)], str(tmp_path / "root"))


@pytest.mark.skipif(not CAMVID.is_dir(), reason=f"{CAMVID} is not here")
def test_camvid_itself(tmp_path):
    reports = prepare_sem_seg("camvid", [str(CAMVID)], str(tmp_path))
    assert [(r.split, r.total, r.problems) for r in reports.values()] == [
        ("train", 367, []),
        ("val", 101, []),
        ("test", 0, []),
    ]
    assert reports["train"].unknown_ids == {}
    for split in ("train", "val"):
        for record in records(f"camvid_sem_seg_{split}", tmp_path)[::40]:
            stem = Path(record["file_name"]).stem
            source = np.asarray(Image.open(CAMVID / f"{split}annot" / f"{stem}.png"))
            written = np.asarray(Image.open(record["sem_seg_file_name"]))
            assert np.array_equal(written, np.where(source == 11, 255, source))
