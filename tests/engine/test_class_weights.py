"""Weights of classes from the training data: numbers, what is kept, and exact resuming."""

import math
import os
from argparse import Namespace

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog

from tests.engine.test_resume import run
from topformer_d2.config import load_config
from topformer_d2.data import class_pixels
from topformer_d2.data.class_pixels import (
    ClassPixels,
    class_weights,
    count_class_pixels,
    count_training_pixels,
)
from topformer_d2.engine import setup_run
from topformer_d2.engine.class_weights import fill_class_weights
from topformer_d2.errors import InputError

KEY = "MODEL.SEM_SEG_LOSS.CLASS_WEIGHTS_FROM"
EVALUATION = Namespace(config_file="", eval_only=True)


def write(folder, *maps):
    files = []
    for i, each in enumerate(maps):
        files.append(str(folder / f"{i}.png"))
        cv2.imwrite(files[-1], np.array(each, np.uint8))
    return files


def test_pixels_are_counted(tmp_path):
    files = write(tmp_path, [[0, 0, 0, 1], [255, 0, 0, 0]], [[1, 1, 2, 255]])
    counted = count_class_pixels(files, 4, 255)
    assert counted.pixels.tolist() == [6, 3, 1, 0]
    assert counted.where_present.tolist() == [7, 10, 3, 0]
    with pytest.raises(InputError, match=r"1\.png has the value 2.*0 to 1"):
        count_class_pixels(files, 2, 255)


@pytest.mark.parametrize(
    ("kind", "formula"),
    [
        ("inverse_log", lambda p, f: 1 / math.log(1.02 + p)),
        ("effective_number", lambda p, f: 1 / (1 - math.exp(-4 * p))),
        ("median_frequency", lambda p, f: 1 / f),
    ],
)
def test_weights_follow_the_papers_and_their_mean_over_pixels_is_one(kind, formula):
    pixels, where = np.array([600, 300, 100, 0]), np.array([1000, 1000, 400, 0])
    found = class_weights(kind, ClassPixels(pixels, where))
    raw = [formula(n / 1000, n / w) for n, w in zip(pixels[:3], where[:3], strict=True)]
    mean = sum(r * n / 1000 for r, n in zip(raw, pixels, strict=False))
    assert found[:3] == pytest.approx([r / mean for r in raw], rel=1e-8)
    assert found[3] == max(found[:3])
    assert class_weights(kind, ClassPixels(pixels * 7, where * 7)) == found


def test_nothing_labelled_is_an_error():
    with pytest.raises(InputError, match="all ignored"):
        class_weights("inverse_log", ClassPixels(np.zeros(3), np.zeros(3)))


def test_all_training_sets_count_by_their_weights(tiny_config, tmp_path):
    names = "('synthetic_sem_seg_train', 'synthetic_sem_seg_val')"
    both = tiny_config("DATASETS.TRAIN", names)
    alone = [
        count_training_pixels(tiny_config("DATASETS.TRAIN", f"('synthetic_sem_seg_{each}',)"))
        for each in ("train", "val")
    ]
    assert (count_training_pixels(both).pixels == alone[0].pixels + alone[1].pixels).all()
    weighted = tiny_config("DATASETS.TRAIN", names, "DATASETS.TRAIN_WEIGHTS", "[1.0, 3.0]")
    sizes = [len(DatasetCatalog.get(f"synthetic_sem_seg_{each}")) for each in ("train", "val")]
    expected = alone[0].pixels / sizes[0] + 3 * alone[1].pixels / sizes[1]
    assert count_training_pixels(weighted).pixels == pytest.approx(expected)


def test_counts_are_kept_until_a_label_changes(tmp_path, monkeypatch):
    files = write(tmp_path, [[0, 1]], [[1, 1]])
    counted = class_pixels._counted("mine", files, 2, 255, str(tmp_path / "out"))
    monkeypatch.setattr(class_pixels, "count_class_pixels", None)
    kept = class_pixels._counted("mine", files, 2, 255, str(tmp_path / "out"))
    assert kept.pixels.tolist() == counted.pixels.tolist() == [1, 3]
    assert kept.where_present.tolist() == [2, 4]
    write(tmp_path, [[0, 0]])
    with pytest.raises(TypeError):  # it counts anew
        class_pixels._counted("mine", files, 2, 255, str(tmp_path / "out"))


def test_resuming_uses_the_same_weights(tiny_config, tmp_path, monkeypatch):
    opts = (KEY, "inverse_log", "SOLVER.MAX_ITER", "4", "DATASETS.TEST", "()", "SEED", "0")
    whole = tiny_config(*opts, "OUTPUT_DIR", str(tmp_path / "whole"))
    whole.freeze()
    setup_run(whole)
    log = (tmp_path / "whole/log.txt").read_text()
    assert "Weights of the classes by inverse_log: " in log and whole.is_frozen()
    weights = whole.MODEL.SEM_SEG_LOSS.CLASS_WEIGHTS
    assert len(weights) == whole.MODEL.SEM_SEG_HEAD.NUM_CLASSES and len({*weights}) > 1
    losses, _ = run(whole)
    dumped = load_config(os.path.join(whole.OUTPUT_DIR, "config.yaml"))
    assert weights == dumped.MODEL.SEM_SEG_LOSS.CLASS_WEIGHTS
    cut = tiny_config(*opts, "OUTPUT_DIR", str(tmp_path / "cut"))
    setup_run(cut)
    fresh = tiny_config(*opts, "OUTPUT_DIR", str(tmp_path / "cut"))
    with monkeypatch.context() as m, pytest.raises(TypeError):  # counts, without a checkpoint
        m.setattr("topformer_d2.engine.class_weights.count_training_pixels", None)
        fill_class_weights(fresh, resume=True)
    first, _ = run(cut, stop_after=1)
    # An evaluation between them computes no weights.
    tested = ["DATASETS.TEST", "('synthetic_sem_seg_val',)"]
    setup_run(tiny_config(*opts, *tested, "OUTPUT_DIR", str(tmp_path / "cut")), EVALUATION)
    again = tiny_config(*opts, "OUTPUT_DIR", str(tmp_path / "cut"))
    monkeypatch.setattr("topformer_d2.engine.class_weights.count_training_pixels", None)
    fill_class_weights(again, resume=True)
    assert weights == again.MODEL.SEM_SEG_LOSS.CLASS_WEIGHTS
    rest, _ = run(again, resume=True)
    assert first | rest == losses


def test_given_weights_are_not_said_to_be_computed(tiny_config, tmp_path):
    given = ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "6", KEY.removesuffix("_FROM"), str([2.0] * 6)]
    setup_run(tiny_config(KEY, "inverse_log", *given))
    log = (tmp_path / "output/log.txt").read_text()
    assert "weights of the classes by inverse_log" not in log.lower()
    assert "CLASS_WEIGHTS has them" in log


def test_a_trainer_alone_counts_as_well(tiny_config):
    from topformer_d2.engine import Trainer

    cfg = tiny_config(KEY, "median_frequency", "DATASETS.TEST", "()")
    trainer = Trainer(cfg)
    weights = trainer.model.sem_seg_head.loss.class_weights
    assert len(weights) == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES and len(weights.unique()) > 1
    assert cfg.MODEL.SEM_SEG_LOSS.CLASS_WEIGHTS == []


LOSS = "MODEL.SEM_SEG_LOSS."


def test_all_losses_together_train_and_resume_exactly(tiny_config, tmp_path):
    opts = [
        *(LOSS + "CLASS_WEIGHTS_FROM", "effective_number", LOSS + "SMOOTHING", "0.1"),
        *(LOSS + "FOCAL_GAMMA", "1.0", LOSS + "HARD_SHARE", "0.5", LOSS + "EDGE_WEIGHT", "2.0"),
        *(LOSS + "DICE_WEIGHT", "1.0", LOSS + "LOVASZ_WEIGHT", "1.0"),
        *(LOSS + "AUXILIARY_WEIGHT", "0.4", "SOLVER.MAX_ITER", "3", "DATASETS.TEST", "()"),
        *("SEED", "0", "OUTPUT_DIR"),
    ]
    losses, weights = run(tiny_config(*opts, str(tmp_path / "whole")))
    cut = tiny_config(*opts, str(tmp_path / "cut"))
    first, _ = run(cut, stop_after=1)
    rest, resumed = run(cut, resume=True)
    assert first | rest == losses and all(math.isfinite(loss) for loss in losses.values())
    assert all((weights[key] == resumed[key]).all() for key in weights)
    assert any("auxiliary" in key for key in weights)
