"""A classifier is trained, evaluated and resumed as the others are."""

import shutil

import pytest
import torch

from tests.engine.test_resume import run
from tests.helpers import topformer
from topformer_d2 import get_config
from topformer_d2.checkpoint import read_weights
from topformer_d2.engine import Trainer

# Everything random is on.
RANDOM = [
    *("INPUT.CLS.MIXUP_ALPHA", "0.4", "INPUT.CLS.CUTMIX_ALPHA", "1.0"),
    *("INPUT.CLS.ERASING_PROB", "0.5", "MODEL.TOPFORMER.DROP_PATH_RATE", "0.3"),
    *("SOLVER.MAX_ITER", "4", "SOLVER.CHECKPOINT_PERIOD", "2"),
]


@pytest.mark.parametrize("decay", ["0.0", "0.9"])
def test_resuming_is_exact(tiny_classifier, tmp_path, decay):
    opts = [*RANDOM, "SOLVER.EMA_DECAY", decay, "DATASETS.TEST", "()", "OUTPUT_DIR"]
    whole, weights = run(tiny_classifier(*opts, str(tmp_path / "whole")))
    assert len(set(whole.values())) == 4
    cut = tmp_path / "cut"
    cut.mkdir()
    shutil.copy(tmp_path / "whole/model_0000001.pth", cut)
    (cut / "last_checkpoint").write_text("model_0000001.pth")
    rest, resumed = run(tiny_classifier(*opts, str(cut)), resume=True)
    assert rest == {i: whole[i] for i in (2, 3)}
    assert all(torch.equal(weights[key], resumed[key]) for key in weights)
    ends = [read_weights(str(folder / "model_final.pth")) for folder in (tmp_path / "whole", cut)]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_the_command_trains_evaluates_and_starts_a_segmenter(tiny_classifier, tmp_path):
    cfg = tiny_classifier(*RANDOM, "TEST.EVAL_PERIOD", "2", "TEST.BEST_METRICS", "['cls/top1']")
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    results = trainer.test(cfg, trainer.model)
    assert set(results["cls"]) == {"top1", "top5"} and results["cls"]["top5"] == 100.0
    assert results["cls"]["top1"] in [pytest.approx(100 * n / 6) for n in range(7)]
    assert (tmp_path / "output/model_best.pth").exists()
    file = tmp_path / "cfg.yaml"
    file.write_text(cfg.dump())
    final = tmp_path / "output/model_final.pth"
    words = ("eval", "--config-file", file, "--weights", final)
    assert topformer(*words, "OUTPUT_DIR", tmp_path / "again").returncode == 0
    given = read_weights(str(final))
    opts = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", str(final), "DATASETS.TEST", "()"]
    opts += ["DATALOADER.NUM_WORKERS", "0", "OUTPUT_DIR", str(tmp_path / "seg")]
    segmenter = Trainer(get_config("seg_topformer_t_synthetic", opts))
    segmenter.resume_or_load(resume=False)
    own = segmenter.model.state_dict()
    shared = [key for key in given if key.startswith("backbone.")]
    assert len(shared) == 314
    assert [key for key in shared if not torch.equal(own[key], given[key])] == []


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "--weights", "x.pth", "--input", "val/cat/0.png", "--output", "y"),
        ("export", "--weights", "x.pth", "--format", "onnx", "--output", "x.onnx"),
        ("benchmark",),
        ("benchmark", "train"),
        ("data", "view", "--output", "x.png"),
    ],
)
def test_what_is_not_for_classifiers_says_so(tiny_classifier, tmp_path, words):
    tiny_classifier()
    words = [*words, "--config-file", tmp_path / "cls.yaml"]
    found = topformer(*words, cwd=tmp_path)
    assert found.returncode == 1, found.stdout
    assert "TopFormerClassifier" in found.stderr and "pretraining" in found.stderr
