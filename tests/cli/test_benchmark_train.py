"""The benchmark of a training step: its parts, its ratios, and that the steps are the same."""

import json
import sys

import numpy as np
import pytest
import torch
from detectron2.utils.events import EventStorage

from tests.helpers import save_untrained, topformer
from topformer_d2 import get_config
from topformer_d2.analysis import training
from topformer_d2.analysis.training import (
    OURS,
    PARTS,
    STRAIGHT,
    TRAINED_PEERS,
    format_training,
    make_steps,
    time_training,
    write_training_images,
)
from topformer_d2.data.mapper import TaskMapper

SMALL = ["INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.CROP.SIZE", "[64, 64]", "MODEL.DEVICE", "cpu"]
SMALL += ["MODEL.SEM_SEG_HEAD.DROPOUT", "0.0", "MODEL.TOPFORMER.DROP_PATH_RATE", "0.0"]


def batch_of(cfg, folder):
    np.random.seed(0)
    mapper = TaskMapper(cfg, is_train=True)
    return [mapper(record) for record in write_training_images(cfg, str(folder), 2)]


LOSSES = ["MODEL.SEM_SEG_LOSS.CLASS_WEIGHTS_FROM", "inverse_log"]
LOSSES += ["MODEL.SEM_SEG_LOSS.LOVASZ_WEIGHT", "1.0"]


@pytest.mark.parametrize(
    ("name", "opts"),
    [("seg_topformer_t", []), ("seg_topformer_t", LOSSES), ("multitask_lite_topformer_t", [])],
)
def test_the_straight_implementation_computes_the_same(tmp_path, name, opts):
    """The loss and the gradients, in another layout and without writing in place."""
    # BatchNorm over the few values of so small images would magnify the rounding.
    norms = [f"MODEL.{part}.NORM" for part in ("TOPFORMER", "SEM_SEG_HEAD", "RETINANET", "FPN")]
    frozen = [word for key in norms for word in (key, "FrozenBN")]
    cfg = get_config(name, [*SMALL, *frozen, *opts])
    batch, found = batch_of(cfg, tmp_path), []
    layouts = []
    for step in make_steps(cfg, with_peers=False):
        backbone = getattr(step.model.backbone, "bottom_up", step.model.backbone)
        backbone.register_forward_pre_hook(lambda _, args: layouts.append(args[0].is_contiguous()))
        with EventStorage():
            losses = step.model(batch)
        assert step.loss_seconds > 0
        sum(losses.values()).backward()
        gradients = torch.cat([p.grad.flatten() for p in step.model.parameters()])
        found.append(({k: v.item() for k, v in losses.items()}, gradients))
    (losses, gradients), (plain_losses, plain_gradients) = found
    assert layouts == [False, True]
    assert losses == pytest.approx(plain_losses, rel=1e-4)
    assert torch.cosine_similarity(gradients, plain_gradients, dim=0) > 0.99999


def test_parts_add_up_and_ratios_are_of_the_same_repetition(tmp_path, monkeypatch):
    cfg = get_config("seg_topformer_t", SMALL)
    steps = make_steps(cfg, with_peers=False)
    times = {OURS: iter([1.0, 2, 3, 4]), STRAIGHT: iter([1.0, 8, 4, 4])}
    monkeypatch.setattr(
        training.TrainingStep, "run", lambda step, _: (0.0, 0.0, next(times[step.name]), 0.0, 0.0)
    )
    monkeypatch.setattr(training, "_peak", lambda step, _: 5.0 if step.name == OURS else 20.0)
    ours, straight = time_training(
        *(cfg, steps, write_training_images(cfg, str(tmp_path), 2)), repetitions=3, num_threads=1
    )
    assert (ours.ms["loss"], straight.ms["loss"], ours.ms["forward"]) == (3, 4, 0)
    assert ours.ms["data"] > 0 and ours.total_ms > 3
    assert 0 < ours.ratio <= 1 and straight.ratio == 1
    assert (ours.memory_ratio, straight.peak_mib) == (0.25, 20)
    assert format_training([ours, straight]).count("\n") == 3


def test_a_teacher_has_a_column_of_its_own(tmp_path):
    cfg = get_config("seg_topformer_t", SMALL)
    weights = save_untrained(cfg, tmp_path / "t.pth")
    keys = ["MODEL.TEACHER.PIXELS.CONFIG", "seg_topformer_t"]
    cfg = get_config("seg_topformer_t", [*SMALL, *keys, "MODEL.TEACHER.PIXELS.WEIGHTS", weights])
    records = write_training_images(cfg, str(tmp_path), 2)
    steps = make_steps(cfg, with_peers=False)
    results = time_training(cfg, steps, records, repetitions=1, num_threads=1)
    for result in results:
        assert 0 < result.ms["teacher"] < result.total_ms and result.ms["forward"] > 0
    assert "teacher, ms" in format_training(results)
    without = {part: 0.0 if part == "teacher" else ms for part, ms in results[0].ms.items()}
    results[0].ms = without
    assert "teacher, ms" not in format_training(results[:1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_the_command_prints_a_table_with_peers_and_writes_json(tmp_path):
    pytest.importorskip("transformers", reason="the baselines extra is not installed")
    result = topformer(
        *("benchmark", "train", "--config-file", "configs/seg_topformer_t.yaml", "--batch", "2"),
        *("--repetitions", "1", "--compare", "--json", tmp_path / "t.json", *SMALL),
    )
    assert result.returncode == 0, result.stderr
    record = json.loads((tmp_path / "t.json").read_text())
    assert [row["name"] for row in record["results"]] == [OURS, STRAIGHT, *TRAINED_PEERS]
    assert (record["batch"], record["threads"], record["repetitions"]) == (2, 1, 1)
    for row in record["results"]:
        assert list(row["ms"]) == list(PARTS) and row["ms"]["teacher"] == 0
        assert all(row["ms"][part] > 0 for part in PARTS if part != "teacher")
        assert row["total_ms"] == pytest.approx(sum(row["ms"].values()))
        assert row["peak_mib"] >= 0
        assert f"| {row['name']} " in result.stdout


@pytest.mark.parametrize(
    ("words", "status", "named"),
    [
        (["configs/multitask_lite_topformer_t.yaml", "--compare"], 1, "--compare is for segment"),
        (["configs/seg_topformer_t.yaml", "--batch", "1"], 2, "--batch"),
        (["configs/seg_topformer_t.yaml", "--json", "configs"], 1, "--json configs is a folder"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(words, status, named):
    result = topformer("benchmark", "train", "--config-file", *words)
    assert result.returncode == status and named in result.stderr
