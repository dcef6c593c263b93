#!/usr/bin/env python
"""Write an exported .onnx file in 8-bit integers, calibrated on a folder of images.

  python tools/quantize_model.py --model topformer_t.onnx --images photos/ \\
    --output topformer_t_int8.onnx --dataset camvid_sem_seg_val

The images are to be like those that the model will see; some of them are used. With --dataset the
mIoU before and after is printed. The time is the network's on one thread, with both files called in
turn: integers pay where the processor multiplies them (AVX-512 VNNI, AVX-VNNI, Arm's dot product).
Files exported with --size gain most. OpenVINO runs the result as well.
"""

import argparse
import os

import numpy as np

from topformer_d2.analysis import keep_freed_memory, time_alternately
from topformer_d2.data.checks import check_dataset_present
from topformer_d2.data.files import list_images, read_image
from topformer_d2.errors import show_input_errors
from topformer_d2.evaluation.predictions import evaluate_labels
from topformer_d2.export.quantize import quantize_onnx
from topformer_d2.inference import Predictor
from topformer_d2.inference.backends import resize_for


def print_times(predictors: list[Predictor], image: np.ndarray, repetitions: int) -> None:
    """Network alone: medians of both files, and of the ratio within a repetition."""
    backends = [predictor.backend for predictor in predictors]
    resized = resize_for(backends[0], image)
    size, x = resized.shape[:2], backends[0].normalize([resized])
    times = time_alternately([lambda b=b: b.infer(x) for b in backends], repetitions)
    before, after = np.median(times, axis=0)
    ratio = np.median(times[:, 1] / times[:, 0])
    print(
        f"network at {size[0]}x{size[1]}, one thread, {repetitions} repetitions: "
        f"{before:.1f} ms in float32, {after:.1f} ms in int8, {ratio:.2f} times"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, metavar="FILE", help=".onnx of export_model.py")
    parser.add_argument("--images", required=True, metavar="DIR", help="to calibrate on")
    parser.add_argument("--output", required=True, metavar="FILE", help=".onnx to write")
    parser.add_argument("--dataset", metavar="NAME", help="registered, with pixel labels")
    parser.add_argument("--repetitions", type=int, default=50, help="of the timing; default: 50")
    args = parser.parse_args()
    if args.repetitions < 1:
        parser.error("--repetitions takes 1 or more")
    keep_freed_memory()
    with show_input_errors():
        if args.dataset:
            check_dataset_present(args.dataset)  # before the work, not after
        before = Predictor(args.model, num_threads=1)
        count = quantize_onnx(args.model, args.images, args.output)
        after = Predictor(args.output, num_threads=1)
        print(f"wrote {os.path.abspath(args.output)}, calibrated on {count} images")
        image = read_image(list_images(args.images, "--images")[0])
        print_times([before, after], image, args.repetitions)
        if args.dataset:
            results = [evaluate_labels(p, args.dataset)["mIoU"] for p in (before, after)]
            print(f"mIoU on {args.dataset}: {results[0]:.2f} in float32, {results[1]:.2f} in int8")


if __name__ == "__main__":
    main()
