"""SOLVER.ACCUMULATION_STEPS: the batch's gradients from its parts; with mixed precision too."""

import itertools

import pytest
import torch
from detectron2.utils.events import EventStorage

from tests.engine.test_resume import options, run
from topformer_d2.engine import Trainer
from topformer_d2.engine.train_loop import AccumulatingTrainer
from topformer_d2.errors import InputError

# Nothing that sees the rest of the batch, or is random: then parts give the whole's gradients.
NORMS = ["MODEL.TOPFORMER.NORM", "FrozenBN", "MODEL.SEM_SEG_HEAD.NORM", "FrozenBN"]
EXACT = [*NORMS, "MODEL.SEM_SEG_HEAD.DROPOUT", "0.0", "MODEL.TOPFORMER.DROP_PATH_RATE", "0.0"]
# Gradient descent at rate 1: what the weights change by is the gradient.
DESCENT = [
    *("SOLVER.OPTIMIZER", "SGD", "SOLVER.MOMENTUM", "0.0", "SOLVER.BASE_LR", "1.0"),
    *("SOLVER.WEIGHT_DECAY", "0.0", "SOLVER.WEIGHT_DECAY_NORM", "0.0", "SOLVER.WARMUP_ITERS", "0"),
]


def one_step(cfg, **kwargs):
    """The weights' change in one iteration, and the loss that is logged."""
    trainer = Trainer(cfg)
    if kwargs:
        trainer._trainer = AccumulatingTrainer(
            trainer.model, trainer.data_loader, trainer.optimizer, **kwargs
        )
    before = {k: v.detach().clone() for k, v in trainer.model.named_parameters()}
    with EventStorage() as storage:
        trainer.run_step()
    loss = storage.history("total_loss").latest()
    return {k: before[k] - v.detach() for k, v in trainer.model.named_parameters()}, loss


@pytest.fixture
def config(tiny_config):
    def make(*opts):
        return tiny_config(*EXACT, *DESCENT, "SEED", "3", *opts)

    return make


def assert_close(changes, expected, tolerance):
    for key, value in expected.items():
        scale = value.abs().max()
        assert (changes[key] - value).abs().max() <= tolerance * scale + 1e-7, key


@pytest.mark.parametrize("steps", ["2", "4"])
def test_parts_give_the_batch_s_gradients(config, steps):
    expected, loss = one_step(config())
    changes, mean = one_step(config("SOLVER.ACCUMULATION_STEPS", steps))
    assert mean == pytest.approx(loss, rel=1e-5)
    assert_close(changes, expected, 5e-3)
    assert sum(value.abs().sum() for value in expected.values()) > 1


def test_batch_norm_sees_a_part(config):
    norms = ["MODEL.TOPFORMER.NORM", "BN", "MODEL.SEM_SEG_HEAD.NORM", "BN"]
    norms += ["INPUT.CROP.SIZE", "[128, 128]"]
    expected, _ = one_step(config(*norms))
    changes, _ = one_step(config(*norms, "SOLVER.ACCUMULATION_STEPS", "4"))
    key = "backbone.pyramid.stem.weight"
    assert (changes[key] - expected[key]).abs().max() > 0.05 * expected[key].abs().max()


def test_the_whole_gradient_is_clipped(config):
    clip = ["SOLVER.CLIP_GRADIENTS.ENABLED", "True", "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "norm"]
    clip += ["SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "0.01"]
    free, _ = one_step(config())
    changes, _ = one_step(config(*clip, "SOLVER.ACCUMULATION_STEPS", "4"))
    clipped = {k: v * min(1.0, 0.01 / max(v.norm().item(), 1e-9)) for k, v in free.items()}
    assert max(value.norm() for value in free.values()) > 0.1
    assert_close(changes, clipped, 5e-3)


def test_mixed_precision_accumulates_clips_and_unscales(config):
    """By PyTorch's bfloat16 on the CPU; the scale is a GPU's."""
    free, loss = one_step(config())
    clip = ["SOLVER.CLIP_GRADIENTS.ENABLED", "True", "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "0.01"]
    reference = torch.cat([x.flatten() for x in free.values()])
    for opts, limit in (([], 1e9), (clip, 0.01)):
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        changes, mean = one_step(config(*opts), num_parts=2, grad_scaler=scaler)
        assert mean == pytest.approx(loss, rel=0.01)
        total = torch.cat([x.flatten() for x in changes.values()])
        expected = reference.clamp(-limit, limit)
        assert total.dtype == torch.float32
        assert torch.cosine_similarity(total, expected, dim=0) > 0.95
        assert total.norm() == pytest.approx(expected.norm().item(), rel=0.1)
        # What is clipped is compared with bfloat16's own: of small values it may turn the sign.
        reference = total


def test_an_overflow_skips_the_update_and_lowers_the_scale(config):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    changes, _ = one_step(config(), num_parts=2, grad_scaler=scaler)
    assert not any(value.any() for value in changes.values())
    assert scaler.get_scale() == 2.0**126


def test_resuming_is_exact(tiny_config, tmp_path):
    def config(name):
        opts = ["SOLVER.ACCUMULATION_STEPS", "2", "SOLVER.EMA_DECAY", "0.9"]
        return tiny_config(*options(tmp_path, "5", name), *opts)

    whole, weights = run(config("whole"))
    assert list(whole) == [0, 1, 2, 3, 4, 5]  # an iteration is an update
    first, _ = run(config("cut"), stop_after=1)
    rest, resumed = run(config("cut"), resume=True)
    assert first | rest == whole
    assert all(torch.equal(value, resumed[key]) for key, value in weights.items())


def test_the_scaler_is_in_the_checkpoint(tiny_config):
    trainer = Trainer(tiny_config())
    parts = (trainer.model, trainer.data_loader, trainer.optimizer)
    loops = [
        AccumulatingTrainer(
            *parts, num_parts=2, grad_scaler=torch.amp.GradScaler("cpu", init_scale=scale)
        )
        for scale in (8.0, 2.0)
    ]
    loops[1].load_state_dict(loops[0].state_dict())
    assert loops[1].grad_scaler.get_scale() == 8.0


def test_the_images_are_the_whole_batch_s(tiny_config):
    cfg = tiny_config("SOLVER.ACCUMULATION_STEPS", "2", "SEED", "3")
    seen = []
    trainer = Trainer(cfg)
    trainer.model.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with EventStorage():
        trainer.run_step()
    assert [len(part) for part in seen] == [2, 2]
    batch = next(iter(Trainer(tiny_config("SEED", "3")).data_loader))
    images = [x["image"] for x in itertools.chain.from_iterable(seen)]
    assert all(torch.equal(a, x["image"]) for a, x in zip(images, batch, strict=True))


def test_detectors_have_their_losses_from_every_part(tiny_detector):
    cfg = tiny_detector(
        *("SOLVER.ACCUMULATION_STEPS", "2", "SOLVER.MAX_ITER", "2", "DATASETS.TEST", "()"),
        *("SOLVER.CLIP_GRADIENTS.ENABLED", "True", "TEST.PRECISE_BN.ENABLED", "True"),
        *("TEST.PRECISE_BN.NUM_ITER", "2"),
    )
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    for name in ("loss_cls", "loss_box_reg", "total_loss"):
        assert all(0 < value < 10 for value, _ in trainer.storage.history(name).values()), name


@pytest.mark.parametrize(("steps", "takes"), [("0", "from 1"), ("3", "IMS_PER_BATCH 4 ")])
def test_parts_that_are_not_equal(tiny_config, steps, takes):
    with pytest.raises(InputError, match=rf"ACCUMULATION_STEPS is {steps}\b.*{takes}"):
        Trainer(tiny_config("SOLVER.ACCUMULATION_STEPS", steps))
