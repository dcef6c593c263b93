#!/usr/bin/env python
"""Time exported files of one model: the network, and from the decoded image to the answer.

  python benchmarks/benchmark_files.py --image street.png camvid.onnx camvid_int8.onnx camvid.mnn

All calls alternate, so that what else the machine does falls on all alike; times are medians.
"network / reference" is beside the first file in the same repetition.
"""

import argparse

from topformer_d2 import Predictor
from topformer_d2.analysis.benchmark import describe_machine, format_results, run_benchmark
from topformer_d2.analysis.timed_models import file_entry
from topformer_d2.data.images import read_image
from topformer_d2.errors import InputError, printable, show_input_errors
from topformer_d2.inference.backends import FileBackend


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="FILE", help="of `topformer export`")
    parser.add_argument("--image", required=True, metavar="FILE")
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument("--repetitions", type=int, default=30, help="default: 30")
    args = parser.parse_args()
    with show_input_errors():
        if min(args.threads, args.repetitions) < 1:
            raise InputError("--threads and --repetitions take 1 or more")
        image, entries = read_image(args.image), []
        for path in args.models:
            predictor = Predictor(path, num_threads=args.threads)
            if not isinstance(predictor.backend, FileBackend):
                raise InputError(f"{path} is not an exported file: `topformer export` writes one")
            entries.append(file_entry("", path, predictor, image, args.threads))
        entries[0].is_reference = True
        results = run_benchmark(entries, args.repetitions)
        height, width = image.shape[:2]
        print(
            f"image {height}x{width}, threads: {args.threads}, {args.repetitions} repetitions; "
            f"{describe_machine()}"
        )
        print(printable(format_results(results)))


if __name__ == "__main__":
    main()
