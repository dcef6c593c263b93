#!/usr/bin/env python
"""Train a joint config, and write how the gradients of its two tasks meet at what they share.

  python benchmarks/task_gradients.py --every 50 --output gradients.csv \\
    --config-file configs/multitask_lite_topformer_t_camvid.yaml OUTPUT_DIR output/gradients

Every so many iterations a copy of the model gets one batch, always the same. A line has for each
SIM output, and for all weights of the backbone together ("backbone"), the norm of the
segmentation's gradient, that of the detector's, and the cosine of the angle between both. The
losses have their factors, as the optimizer sees them. The training is what it would be without
this.
"""

import copy
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from topformer_d2.cli.parsing import config_parser
from topformer_d2.config import load_config, model_tasks
from topformer_d2.data import check_config
from topformer_d2.engine import Trainer, setup_run
from topformer_d2.errors import InputError, show_input_errors

# The losses of a detector and of its teacher.
OF_BOXES = {
    *("loss_cls", "loss_box_reg"),
    *("loss_distill_scores", "loss_distill_boxes", "loss_distill_levels"),
}
COLUMNS = ["iteration", "where", "sem_seg_norm", "instances_norm", "cosine"]


def task_gradients(model: nn.Module, batch: list[dict]) -> Iterator[tuple[str, Tensor, Tensor]]:
    """The gradients of (segmentation, detector), each flat, at each SIM output and the backbone."""
    model = copy.deepcopy(model).train()
    sims: dict[str, Tensor] = {}
    body = model.backbone.bottom_up
    body.register_forward_hook(lambda _module, _inputs, outputs: sims.update(outputs))
    with torch.random.fork_rng(), EventStorage():
        losses = model(batch)
    of_boxes = sum(losses[name] for name in OF_BOXES if name in losses)
    of_pixels = sum(loss for name, loss in losses.items() if name not in OF_BOXES)
    weights = [weight for weight in body.parameters() if weight.requires_grad]
    shared = [*sims.values(), *weights]
    pixels, boxes = (
        torch.autograd.grad(loss, shared, retain_graph=True, materialize_grads=True)
        for loss in (of_pixels, of_boxes)
    )
    for i, name in enumerate(sims):
        yield name, pixels[i].flatten(), boxes[i].flatten()
    rest = len(sims)
    yield "backbone", *(torch.cat([g.flatten() for g in each[rest:]]) for each in (pixels, boxes))


class GradientHook(HookBase):
    """Writes the lines of one batch before iteration 0, `every`, twice that, and so on."""

    def __init__(self, every: int, batch: list[dict], writer: Any):
        self.every, self.batch, self.writer = every, batch, writer

    def before_step(self) -> None:
        if self.trainer.iter % self.every:
            return
        for where, pixels, boxes in task_gradients(self.trainer.model, self.batch):
            norms = pixels.norm().item(), boxes.norm().item()
            cosine = torch.dot(pixels, boxes).item() / max(norms[0] * norms[1], 1e-30)
            values = (f"{value:.6g}" for value in (*norms, cosine))
            self.writer.writerow([self.trainer.iter, where, *values])


def main() -> None:
    parser = config_parser(__doc__)
    parser.add_argument("--every", type=int, default=50, metavar="ITERATIONS")
    parser.add_argument("--output", required=True, metavar="FILE", help="CSV")
    args = parser.parse_args()
    with show_input_errors():
        cfg = load_config(args.config_file, args.opts)
        check_config(cfg, train=True)
        if len(model_tasks(cfg)) < 2:
            raise InputError(f"{args.config_file} has one task: name a config with both")
        setup_run(cfg)
        batch = next(iter(Trainer.build_train_loader(cfg)))
        trainer = Trainer(cfg)
        with Path(args.output).open("w", buffering=1, newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            trainer.register_hooks([GradientHook(args.every, batch, writer)])
            trainer.train()


if __name__ == "__main__":
    main()
