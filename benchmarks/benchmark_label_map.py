#!/usr/bin/env python
"""Time label_map beside resizing all logits and taking the argmax, on one thread.

TopFormer-T is trained briefly on images of 150 textures that the project makes itself, for logits
as a trained model gives them; beside them stands pure noise. label_map is timed as it is installed
and, where that is the compiled library, in Python, too. Also the peak memory of a 4K label map.

  python benchmarks/benchmark_label_map.py --save-weights textures.pth
"""

import argparse
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from detectron2.modeling import build_model
from torch import Tensor, nn
from torch.nn import functional as F

from topformer_d2 import get_config
from topformer_d2.analysis.latency import time_alternately
from topformer_d2.checkpoint import save_state_dict
from topformer_d2.data.synthetic import NUM_TEXTURES, make_textures
from topformer_d2.errors import show_input_errors
from topformer_d2.files import check_output
from topformer_d2.inference import label_map
from topformer_d2.inference.allocator import keep_freed_memory
from topformer_d2.native import library

STRIDE = 8
RATE = 1e-2
SIZE = (512, 680)
LARGE = (2160, 3840)
# In a process of its own, of which nothing is left to take again.
MEMORY = f"""
import torch
from topformer_d2.analysis.memory import added_memory
from topformer_d2.inference import label_map
torch.set_num_threads(1)
logits = torch.load({{path!r}}, weights_only=True)
label_map(logits[:, :8, :8], (64, 64))
print(added_memory(lambda: label_map(logits, {LARGE})))
"""


def train(iterations: int, batch: int = 8, crop: int = 192) -> nn.Module:
    """TopFormer-T on textures, from random weights, with the loss at the logits' stride."""
    torch.manual_seed(0)
    opts = ["MODEL.SEM_SEG_HEAD.DROPOUT", "0.0", "MODEL.DEVICE", "cpu"]
    model = build_model(get_config("seg_topformer_t", opts)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=iterations)
    for iteration in range(iterations):
        made = [to_tensors(iteration * batch + n, (crop, crop), regions=4) for n in range(batch)]
        images, labels = (torch.stack(tensors) for tensors in zip(*made, strict=True))
        features = model.backbone((images - model.pixel_mean) / model.pixel_std)
        logits = model.sem_seg_head.layers(features)
        loss = F.cross_entropy(logits, labels[:, STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if iteration % 50 == 49:
            print(f"iteration {iteration + 1}: loss {loss.item():.2f}", flush=True)
    return model.eval()


def to_tensors(seed: int, size: tuple[int, int], regions: int) -> tuple[Tensor, Tensor]:
    """An image of textures (3, H, W) uint8 and its labels (H, W) int64."""
    image, label = make_textures(seed, *size, regions)
    return torch.from_numpy(image.transpose(2, 0, 1).copy()), torch.from_numpy(label)


def plain(batch: Tensor, size: tuple[int, int]) -> Tensor:
    """Of logits (1, K, h, w)."""
    return F.interpolate(batch, size=size, mode="bilinear", align_corners=False)[0].argmax(0)


def in_python(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """label_map without the compiled library."""
    folder, library.FOLDER = library.FOLDER, Path("without")
    try:
        return label_map(logits, size)
    finally:
        library.FOLDER = folder


def compare(name: str, logits: Tensor, repetitions: int) -> None:
    """Print the times of both ways and where they differ."""
    batch = logits[None]
    channels_last = batch.contiguous(memory_format=torch.channels_last)
    calls = [partial(plain, batch), partial(plain, channels_last), partial(label_map, logits)]
    calls.append(partial(in_python, logits))
    times = time_alternately([partial(call, SIZE) for call in calls], repetitions)
    slow, slow_channels_last, fast, python = np.median(times, axis=0)
    ratio = np.median(times[:, 0] / times[:, 2])
    gain = np.median(times[:, 3] / times[:, 2])
    differing = int((plain(batch, SIZE) != label_map(logits, SIZE)).sum())
    winners = logits.argmax(0)
    same = torch.ones(winners.shape[0] - 1, winners.shape[1] - 1, dtype=torch.bool)
    for shifted in (winners[1:, :-1], winners[:-1, 1:], winners[1:, 1:]):
        same &= shifted == winners[:-1, :-1]
    print(
        f"{name}: plain {slow:.1f} ms, of channels-last logits {slow_channels_last:.1f} ms, "
        f"label_map {fast:.2f} ms ({ratio:.1f}x the first; {library.native_status()}), "
        f"in Python {python:.2f} ms ({gain:.1f}x); "
        f"{differing} of {SIZE[0] * SIZE[1]} pixels differ; "
        f"{100 * same.float().mean():.0f}% of cells decided at once"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--iterations", type=int, default=800, help="of training; default: 800")
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--save-weights", metavar="FILE", help="of the trained model")
    args = parser.parse_args()
    if min(args.iterations, args.repetitions) < 1:
        parser.error("--iterations and --repetitions take 1 or more")
    if args.save_weights:
        with show_input_errors():
            check_output(args.save_weights, "--save-weights")
    torch.set_num_threads(1)
    keep_freed_memory()
    model = train(args.iterations)
    if args.save_weights:
        save_state_dict(model.state_dict(), args.save_weights)
    image, label = to_tensors(10**6, SIZE, regions=12)
    with torch.no_grad():
        logits = model.predict([{"image": image}], finish=lambda found, *_: found)[0]["sem_seg"]
    accuracy = (label_map(logits, SIZE) == label).float().mean()
    print(f"{NUM_TEXTURES} classes, {SIZE[0]}x{SIZE[1]} from {tuple(logits.shape[1:])}, one thread")
    print(
        f"trained for {args.iterations} iterations: {100 * accuracy:.0f}% of a test image's pixels"
    )
    compare("trained", logits, args.repetitions)
    compare("noise", torch.randn_like(logits), args.repetitions)
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        torch.save(F.interpolate(logits[None], size=(270, 480))[0], file.name)
        run = [sys.executable, "-c", MEMORY.format(path=file.name)]
        peak = float(subprocess.run(run, stdout=subprocess.PIPE, check=True).stdout)
    print(f"to {LARGE[0]}x{LARGE[1]} from 270x480: {peak:.0f} MiB above the logits")


if __name__ == "__main__":
    main()
