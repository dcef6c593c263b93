"""The largest batch whose training step fits into a GPU's memory, found by trying."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage
from tabulate import tabulate

from ..data import build_train_loader
from ..engine import Trainer, build_optimizer
from ..engine.class_weights import with_class_weights
from ..engine.train_loop import AccumulatingTrainer
from ..errors import InputError, is_out_of_memory

# The least that BatchNorm can be trained on at a stride where one image is one value.
LEAST = 2
MOST = 1024
# Of a GPU's memory, what a step may take: batches of other images, and what else uses the GPU,
# need the rest.
SHARE = 0.85
# Samples of which the largest stands for all.
_LOOKED_AT = 16
_GIB = 2**30

Probe = Callable[[int], "int | None"]


@dataclass
class Trial:
    """A batch that was tried.

    Attributes:
        images: in the batch.
        peak: bytes of the GPU that a training step took at most; None = it ran out of memory.
    """

    images: int
    peak: int | None


def find_batch(probe: Probe, limit: float, most: int = MOST) -> tuple[int, list[Trial]]:
    """Double a batch until it does not fit, then halve the gap down to an eighth of the batch.

    Args:
        probe: from the number of images to the peak bytes of a step, or None where it does not fit.
        limit: bytes that a step may take.
        most: images that are tried at most.

    Returns:
        the largest batch that fits, and what was tried, by its size.

    Raises:
        InputError: even LEAST images do not fit.
    """
    trials: list[Trial] = []

    def fits(images: int) -> bool:
        trials.append(Trial(images, probe(images)))
        peak = trials[-1].peak
        return peak is not None and peak <= limit

    good, bad = 0, LEAST
    while bad <= most and fits(bad):
        good, bad = bad, 2 * bad
    if not good:
        raise InputError(
            f"a training step of {LEAST} images takes more than {limit / _GIB:.1f} GiB: set a "
            "smaller INPUT.CROP.SIZE, or INPUT.MIN_SIZE_TRAIN and MAX_SIZE_TRAIN"
        )
    bad = min(bad, most + 1)
    while bad - good > max(1, good // 8):
        middle = (good + bad) // 2
        if fits(middle):
            good = middle
        else:
            bad = middle
    return good, sorted(trials, key=lambda trial: trial.images)


def build_probe(cfg: CfgNode, measure: Callable[[Callable[[], None]], int]) -> Probe:
    """A probe for find_batch that trains the model of a config; its weights do not change.

    The largest of some training samples stands for each image of a batch.

    Args:
        cfg: complete.
        measure: calls its argument, and returns the peak bytes of that (gpu_peak).

    Raises:
        InputError: as Trainer's.
    """
    cfg = with_class_weights(cfg)
    seed_all_rng(max(0, cfg.SEED))
    model = Trainer.build_model(cfg)
    loader = build_train_loader(cfg)
    loader.num_workers = 0
    samples = itertools.islice(itertools.chain.from_iterable(loader), _LOOKED_AT)
    largest = max(samples, key=lambda sample: sample["image"].numel())
    batches = _Repeated(largest)
    step = AccumulatingTrainer(
        *(model, batches, build_optimizer(cfg, model)),
        num_parts=1,
        grad_scaler=torch.amp.GradScaler("cuda") if cfg.SOLVER.AMP.ENABLED else None,
    )
    for group in step.optimizer.param_groups:
        group["lr"] = 0.0

    def train() -> None:
        with EventStorage():
            for _ in range(2):  # an optimizer's state is there from the first update on
                step.run_step()

    def probe(images: int) -> int | None:
        batches.images = images
        try:
            return measure(train)
        except Exception as e:
            if not is_out_of_memory(e):
                raise
        finally:
            step.optimizer.zero_grad(set_to_none=True)
        # After the error is gone, which holds the tensors of the step.
        gc.collect()
        torch.cuda.empty_cache()
        return None

    return probe


class _Repeated:
    """Endless batches of `images` times the same sample."""

    def __init__(self, sample: dict):
        self.sample = sample
        self.images = LEAST

    def __iter__(self) -> Iterator[list[dict]]:
        while True:
            yield [dict(self.sample) for _ in range(self.images)]


def gpu_peak(call: Callable[[], None]) -> int:
    """Bytes that PyTorch has reserved of the current GPU at most while `call` runs."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_reserved()


def format_trials(trials: Sequence[Trial], limit: float) -> str:
    """A table of what was tried."""
    rows = [
        (
            trial.images,
            "out of memory" if trial.peak is None else f"{trial.peak / _GIB:.2f} GiB",
            "yes" if trial.peak is not None and trial.peak <= limit else "no",
        )
        for trial in trials
    ]
    return tabulate(rows, headers=["images", "peak", f"within {limit / _GIB:.2f} GiB"])
