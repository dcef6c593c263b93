"""Write an exported file (.onnx, .tflite) in 8-bit integers, calibrated on images.

  topformer quantize --model topformer_t.onnx --images photos/ \\
    --output topformer_t_int8.onnx --dataset camvid_sem_seg_val

The images are to be like those that the model will see; some of them are used. With --dataset the
mIoU and the boxes' AP before and after are printed. The times are on one thread, with both files
called in turn, and the ratios within a repetition; the reference is float32. Integers pay where the
processor multiplies them (AVX-512 VNNI, AVX-VNNI, Arm's dot product). Files exported with --size
gain most. OpenVINO runs an .onnx file's result as well.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ..analysis.benchmark import describe_machine, format_results, run_benchmark
from ..analysis.timed_models import file_entry
from ..data.image_files import list_images
from ..data.images import read_image
from ..errors import printable, shown
from ..evaluation.predictions import evaluate_tasks
from ..export.quantize import check_files, quantize_model
from ..inference import Predictor
from ..inference.backends import resize_for
from ..tasks import TASKS
from .parsing import Parser


def make_parser() -> Parser:
    """The arguments of `topformer quantize`."""
    parser = Parser(__doc__, {"path": "--model"})
    parser.add_argument(
        "--model",
        required=True,
        metavar="FILE",
        help="of `topformer export`",
    )
    parser.add_argument("--images", required=True, metavar="DIR", help="to calibrate on")
    parser.add_argument(
        "--output", required=True, metavar="FILE", help="to write, with the same extension"
    )
    parser.add_argument("--dataset", metavar="NAME", help="registered, with labels")
    parser.add_argument("--repetitions", type=int, default=50, help="of the timing; default: 50")
    return parser


def run(args: argparse.Namespace, parser: Parser) -> None:
    """Quantise, and print the times and the mIoU and AP of both files."""
    if args.repetitions < 1:
        parser.error("--repetitions takes 1 or more")
    check_files(args.model, args.output)
    image = read_image(list_images(args.images, "images")[0])
    before = Predictor(args.model, num_threads=1)
    results = []
    if args.dataset:
        # First, for it finds out whether the dataset fits.
        results.append(evaluate_tasks(before, args.dataset))
    count = quantize_model(args.model, args.images, args.output)
    print(f"wrote {shown(args.output)}, calibrated on {count} images")
    after = Predictor(args.output, num_threads=1)
    print_times(Path(args.model).stem, before, after, image, args.repetitions)
    if args.dataset:
        results.append(evaluate_tasks(after, args.dataset))
        for task in TASKS.values():
            if task.metrics in results[0]:
                float32, int8 = (found[task.metrics][task.main_metric] for found in results)
                figures = f"{float32:.2f} in float32, {int8:.2f} in int8"
                print(f"{task.main_metric} on {args.dataset}: {figures}")


def print_times(
    name: str, before: Predictor, after: Predictor, image: np.ndarray, repetitions: int
) -> None:
    """Of both files in turn, on one thread."""
    files = {"float32": before, "int8": after}
    entries = [file_entry(name, key, files[key], image, num_threads=1) for key in files]
    entries[0].is_reference = True
    height, width = resize_for(before.backend, image).shape[:2]
    results = run_benchmark(entries, repetitions)
    print(f"{height}x{width}, one thread, {repetitions} repetitions; {describe_machine()}")
    print(printable(format_results(results)))
