#!/usr/bin/env python
"""Where the time of an ONNX file goes, by operator and by layer, as ONNX Runtime counts it.

  python benchmarks/profile_export.py topformer_b.onnx --size 512 512

The graph is the one that ONNX Runtime makes of the file: normalisation folded, activations joined
to convolutions, maps in a blocked layout (ReorderInput and ReorderOutput go there and back). A
node's time is the 10% quantile over the runs, and "all" the sum of these.
"""

import argparse

from topformer_d2.analysis.benchmark import describe_machine
from topformer_d2.errors import InputError, printable, show_input_errors
from topformer_d2.export.profile import format_profile, profile_onnx


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="FILE", help=".onnx, exported without preprocessing")
    parser.add_argument(
        "--size",
        nargs=2,
        type=int,
        default=(512, 512),
        metavar=("HEIGHT", "WIDTH"),
        help="of the input, where the file leaves it free; default: 512 512",
    )
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument("--repetitions", type=int, default=50, help="default: 50")
    parser.add_argument("--layers", type=int, default=25, help="that are listed; default: 25")
    args = parser.parse_args()
    with show_input_errors():
        if min(args.threads, args.repetitions, args.layers, *args.size) < 1:
            raise InputError("--size, --threads, --repetitions and --layers take 1 or more")
        nodes, shape = profile_onnx(
            args.model,
            tuple(args.size),
            repetitions=args.repetitions,
            num_threads=args.threads,
        )
        print(
            f"input {'x'.join(map(str, shape))}, threads: {args.threads}, "
            f"{args.repetitions} repetitions; {describe_machine()}"
        )
        print(printable(format_profile(nodes, args.layers)))


if __name__ == "__main__":
    main()
