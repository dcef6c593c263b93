"""`topformer analyze batch`: the search, by a memory that is made up, and what it tries."""

import pytest
import torch

from tests.helpers import topformer
from topformer_d2.analysis.batch_size import Trial, build_probe, find_batch, format_trials
from topformer_d2.cli import analyze_batch
from topformer_d2.engine import Trainer
from topformer_d2.errors import InputError

CLASS_WEIGHTS = "MODEL.SEM_SEG_LOSS.CLASS_WEIGHTS_FROM"
CONFIG = ["--config-file", "configs/seg_topformer_t_synthetic.yaml"]


@pytest.mark.parametrize("memory", [20, 25, 100, 333, 1000, 5000])
@pytest.mark.parametrize("fails", [False, True], ids=["too much", "out of memory"])
def test_the_largest_batch_is_found_to_an_eighth(memory, fails):
    """A step takes 10 for the weights and 5 for each image."""

    def probe(images):
        peak = 10 + 5 * images
        return None if fails and peak > memory else peak

    best, trials = find_batch(probe, memory, most=512)
    right = min((memory - 10) // 5, 512)
    assert right - max(1, best // 8) <= best <= right
    sizes = [trial.images for trial in trials]
    assert sizes == sorted(set(sizes)) and best in sizes and len(sizes) < 15
    assert max(sizes) <= 512


def test_nothing_fits():
    with pytest.raises(InputError, match=r"INPUT\.CROP\.SIZE"):
        find_batch(lambda images: None, 1e9)


def test_the_table():
    text = format_trials([Trial(2, 2**30), Trial(4, 3 * 2**30), Trial(8, None)], 2 * 2**30)
    rows = [line.split() for line in text.splitlines()[2:]]
    assert [row[-1] for row in rows] == ["yes", "no", "no"]
    assert rows[0][:2] == ["2", "1.00"] and "out of memory" in text


def test_a_probe_trains_as_many_images(tiny_config, monkeypatch):
    build, built, seen = Trainer.build_model, [], []
    monkeypatch.setattr(Trainer, "build_model", lambda cfg: built.append(build(cfg)) or built[0])

    def measure(call):
        call()
        return 7

    probe = build_probe(tiny_config(CLASS_WEIGHTS, "inverse_log"), measure)
    (model,) = built
    assert len(model.sem_seg_head.loss.class_weights) == 6
    weights = {name: value.clone() for name, value in model.named_parameters()}
    model.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    assert probe(3) == probe(5) == 7
    assert seen == [3, 3, 5, 5]
    assert all(torch.equal(weights[name], value) for name, value in model.named_parameters())
    assert all(value.grad is None for value in model.parameters())


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), KeyError("x")])
def test_only_a_lack_of_memory_is_an_answer(tiny_config, error):
    def measure(call):
        raise error

    probe = build_probe(tiny_config(), measure)
    if isinstance(error, KeyError):
        with pytest.raises(KeyError):
            probe(2)
    else:
        assert probe(2) is None


def test_it_takes_a_gpu():
    result = topformer("analyze", "batch", *CONFIG, "MODEL.DEVICE", "cpu")
    assert result.returncode == 1 and "MODEL.DEVICE is cpu" in result.stderr


def test_the_command_prints_the_batch(monkeypatch, capsys, tiny_config):
    """With a GPU that is made up: 1,000 bytes, and 100 for each image."""
    monkeypatch.setattr(analyze_batch, "load_config", lambda *_: tiny_config())
    monkeypatch.setattr(torch, "device", lambda name: type("Device", (), {"type": "cuda"})())
    monkeypatch.setattr(torch.cuda, "device", lambda device: torch.no_grad())
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, 1000))
    monkeypatch.setattr(
        analyze_batch, "build_probe", lambda cfg, measure: lambda images: 100 * images
    )
    parser = analyze_batch.make_parser()
    analyze_batch.run(parser.parse_args(CONFIG), parser)
    assert "Suggested: SOLVER.IMS_PER_BATCH 8\n" in capsys.readouterr().out
