#!/usr/bin/env python
"""Count the instructions of a label map on 64-bit ARM, beside the plain way, in an emulator.

The C label map and a plain one, which resizes all logits and takes the best class, are compiled
for ARM and run by QEMU, which counts instructions. Counts are no times: they say nothing of memory
and of how many instructions a processor does at once. It needs aarch64-linux-gnu-gcc and
qemu-aarch64 (version 7 or 8, with plugins), as Debian's gcc-aarch64-linux-gnu and qemu-user.
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

import cv2
import numpy as np
from tabulate import tabulate

from topformer_d2 import Predictor
from topformer_d2.data.images import read_image
from topformer_d2.data.synthetic import make_textures
from topformer_d2.errors import InputError, show_input_errors
from topformer_d2.inference.backends import resize_for
from topformer_d2.native.library import SOURCES

HERE = Path(__file__).parent / "arm"
COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
FLAGS = ["-std=c99", "-O3", "-Wall", "-Wextra", "-Werror", "-static", f"-I{SOURCES}"]
WAYS = ("none", "label_map", "plain")


def model_logits(image: np.ndarray) -> np.ndarray:
    """camvid_t's logits (K, h, w) of an image (H, W, 3) uint8 BGR."""
    backend = Predictor("camvid_t").backend
    logits = backend.run([resize_for(backend, image)])[0].logits
    return logits.numpy()


def count(folder: Path, logits: np.ndarray, size: tuple[int, int]) -> dict[str, int | float]:
    """Instructions by way, without those of reading and writing, and the share of equal labels."""
    logits.astype(np.float32).tofile(folder / "logits")
    sides = [str(side) for side in (*logits.shape, *size)]
    counts, labels = {}, {}
    for way in WAYS:
        words = [folder / "labels", way, *sides, folder / "logits", folder / "map"]
        command = [EMULATOR, "-plugin", folder / "count.so", *words]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            raise InputError(f"{EMULATOR} ended with status {run.returncode}: {run.stderr.strip()}")
        counts[way] = int(run.stderr)
        labels[way] = np.fromfile(folder / "map", np.uint8)
    same = float(np.mean(labels["label_map"] == labels["plain"]))
    return {way: counts[way] - counts["none"] for way in WAYS[1:]} | {"same": same}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", metavar="FILE", help="of a street; default: textures")
    args = parser.parse_args()
    with show_input_errors(), tempfile.TemporaryDirectory() as name:
        for program in (COMPILER, EMULATOR, "cc"):
            if shutil.which(program) is None:
                raise InputError(f"{program} is not installed")
        textures = cv2.cvtColor(make_textures(0, 360, 480)[0], cv2.COLOR_RGB2BGR)
        image = read_image(args.image) if args.image else textures
        folder = Path(name)
        files = [HERE / "labels.c", SOURCES / "label_map.c"]
        subprocess.run([COMPILER, *FLAGS, *files, "-lm", "-o", folder / "labels"], check=True)
        plugin = ["-shared", "-fPIC", HERE / "count.c", "-o", folder / "count.so"]
        subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", *plugin], check=True)
        noise = np.random.default_rng(0).normal(size=(150, 64, 85))
        smooth = np.stack([cv2.resize(each[:8, :11], (85, 64)) for each in noise])
        rows = []
        for what, logits, size in (
            ("camvid_t's, of the image", model_logits(image), image.shape[:2]),
            ("smooth noise", smooth, (512, 680)),
            ("noise", noise, (512, 680)),
        ):
            found = count(folder, logits, size)
            shape = "x".join(map(str, logits.shape))
            millions = [f"{found[way] / 1e6:.1f}" for way in WAYS[1:]]
            ratio = f"{found['plain'] / found['label_map']:.1f}"
            pixels = f"{size[0]}x{size[1]}"
            rows.append([what, shape, pixels, *millions, ratio, f"{found['same']:.4%}"])
        heads = ["logits", "shape", "labels", "label_map, millions", "plain, millions", "ratio"]
        print(tabulate(rows, [*heads, "same labels"], tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
