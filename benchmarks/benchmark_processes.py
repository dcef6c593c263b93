#!/usr/bin/env python
"""Time training by several processes on the CPU, and what they exchange; --clusters: arithmetic.

1, 2 and 4 processes, as far as there are cores, train the same batch by `topformer train --num-gpus
N MODEL.DEVICE cpu`, by turns for some rounds; the best of each is shown. The bytes are those of the
gradients of all trained weights, which the processes sum up in each iteration. With --clusters a
table of 8 to 512 GPUs is calculated from them, without any measurement.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from detectron2.modeling import build_model
from tabulate import tabulate

from topformer_d2 import get_config
from topformer_d2.checkpoint import SafeCheckpointer
from topformer_d2.data.synthetic import write_synthetic
from topformer_d2.engine import build_optimizer

_CONFIG = Path(__file__).resolve().parent.parent / "configs/seg_topformer_t_synthetic.yaml"
# GB/s between two neighbours of the ring: Ethernet of 10 and 100 Gbit/s, InfiniBand of 400.
_BANDWIDTHS = {"10 Gbit/s": 1.25, "100 Gbit/s": 12.5, "400 Gbit/s": 50.0}
_GPUS = (8, 16, 32, 64, 128, 256, 512)


def train(processes: int, folder: Path, args: argparse.Namespace) -> tuple[float, float]:
    """Seconds of an iteration of a training, and of what comes before and after all of them."""
    output = Path(tempfile.mkdtemp(prefix=f"{processes} ", dir=folder))
    keys = ["MODEL.DEVICE", "cpu", "SOLVER.IMS_PER_BATCH", args.batch, "TEST.EVAL_PERIOD", "0"]
    keys += ["SOLVER.MAX_ITER", args.iterations, "DATALOADER.NUM_WORKERS", "0", "LOGGERS", "[]"]
    keys += ["INPUT.CROP.SIZE", f"[{args.size}, {args.size}]", "DATASETS.TEST", "()"]
    command = [sys.executable, "-m", "topformer_d2", "train", "--config-file", _CONFIG]
    command += ["--num-gpus", processes, *keys, *args.opts, "OUTPUT_DIR", output]
    start = time.perf_counter()
    subprocess.run(
        list(map(str, command)),
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "DETECTRON2_DATASETS": str(folder / "data"), "OMP_NUM_THREADS": "1"},
    )
    whole = time.perf_counter() - start
    lines = (output / "metrics.json").read_text().splitlines()
    seconds = json.loads(lines[-1])["time"]
    return seconds, whole - args.iterations * seconds


def exchanged_bytes(config: str) -> int:
    """Bytes of the gradients of a model's weights in float32."""
    model = build_model(get_config(config, ["MODEL.DEVICE", "cpu"]))
    return 4 * sum(p.numel() for p in model.parameters() if p.requires_grad)


def checkpoint_seconds(config: str, folder: Path) -> tuple[float, int]:
    """Seconds to write a checkpoint with the optimizer's state, the best of 5, and its bytes."""
    cfg = get_config(config, ["MODEL.DEVICE", "cpu"])
    model = build_model(cfg)
    optimizer = build_optimizer(cfg, model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    checkpointer = SafeCheckpointer(model, str(folder), optimizer=optimizer)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        checkpointer.save("model_0000001")
        times.append(time.perf_counter() - start)
    return min(times), (folder / "model_0000001.pth").stat().st_size


def clusters(size: int, images: int, rate: float) -> list[list]:
    """Rows of _GPUS, all calculated: batch, learning rate, bytes of a GPU and times in ms.

    A ring sends 2 (n - 1) / n of the gradients' bytes from each GPU.

    Args:
        size: bytes of the gradients.
        images: of each GPU in a batch.
        rate: learning rate for a batch of 16, which grows with the batch.
    """
    rows = []
    for gpus in _GPUS:
        sent = 2 * (gpus - 1) / gpus * size
        times = [1e3 * sent / (1e9 * bandwidth) for bandwidth in _BANDWIDTHS.values()]
        batch = gpus * images
        rows.append([gpus, batch, rate * batch / 16, sent / 2**20, *times])
    return rows


def measure(args: argparse.Namespace) -> None:
    """Print the tables of checkpoints and of trainings."""
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for config in ("seg_topformer_t", "seg_topformer_s", "seg_topformer_b"):
            size = exchanged_bytes(config)
            seconds, length = checkpoint_seconds(config, Path(folder))
            rows.append([config, size / 2**20, length / 2**20, seconds])
        headers = ["config", "MiB of gradients", "MiB of a checkpoint", "seconds to write it"]
        print(tabulate(rows, headers=headers, floatfmt=".2f", tablefmt="github"))
        write_synthetic(str(Path(folder, "data")), num_train=32, num_val=2)
        numbers = [n for n in (1, 2, 4) if n <= args.most]
        rounds = [{n: train(n, Path(folder), args) for n in numbers} for _ in range(args.rounds)]
    best = {n: min(each[n] for each in rounds) for n in numbers}
    size = exchanged_bytes(str(_CONFIG)) / 2**20
    table = [
        [n, args.batch / seconds, best[1][0] / seconds, size if n > 1 else 0.0, rest]
        for n, (seconds, rest) in best.items()
    ]
    print(f"\nbatch {args.batch}, crops of {args.size}x{args.size}, a thread each")
    headers = ["processes", "images a second", "times one", "MiB summed an iteration"]
    headers += ["seconds before and after"]
    print(tabulate(table, headers=headers, floatfmt=".2f", tablefmt="github"))
    if args.most < 4:
        print(f"4 processes are not timed: at most {args.most} were asked for, or are cores here")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--iterations", type=int, default=40, help="of a training; default: 40")
    parser.add_argument("--batch", type=int, default=8, help="of all processes; default: 8")
    parser.add_argument("--size", type=int, default=128, help="side of a crop; default: 128")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument(
        "--most", type=int, default=cores, help="processes at most; default: one for each core"
    )
    parser.add_argument("--clusters", action="store_true", help="only the calculated table")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="for the trainings")
    args = parser.parse_args()
    if not args.clusters:
        measure(args)
    cfg = get_config("seg_topformer_b")
    size, rate = exchanged_bytes("seg_topformer_b"), cfg.SOLVER.BASE_LR
    rate *= 16 / cfg.SOLVER.IMS_PER_BATCH
    print("\ncalculated for seg_topformer_b with 2 images a GPU:")
    times = [f"ms, {bandwidth}" for bandwidth in _BANDWIDTHS]
    headers = ["GPUs", "batch", "learning rate", "MiB sent by each", *times]
    print(tabulate(clusters(size, 2, rate), headers=headers, floatfmt=".4g", tablefmt="github"))


if __name__ == "__main__":
    main()
