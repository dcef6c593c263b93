"""Write a trained model as a file for another runtime, and check that it gives PyTorch's numbers.

  topformer export --format onnx --config-file configs/seg_topformer_t.yaml \\
    --weights topformer_t.pth --output topformer_t.onnx
  topformer export --format openvino --config-file configs/seg_topformer_t.yaml \\
    --weights topformer_t.pth --output topformer_t.xml --size 512 512 --with-preprocessing --labels
  topformer export --format ncnn --config-file configs/seg_topformer_t.yaml \\
    --weights topformer_t.pth --output topformer_t.param --size 512 512 --precision float16
  topformer export --format executorch --config-file configs/seg_topformer_t.yaml \\
    --weights topformer_t.pth --output topformer_t.pte --size 512 512 --precision int8 \\
    --images photos/

The input is "images", float32 (N, 3, H, W), normalised; with --with-preprocessing "image", uint8
(H, W, 3) BGR of any size. Height and width are free, with any values, unless --size fixes them,
which is faster; N is free where they are, and 1 where boxes come out.

The outputs are, for pixels, "logits" (N, K, h, w) at stride 8, or with --labels "labels" (N, H, W);
for objects "boxes" (n, 4) XYXY in pixels of the input, "scores" and "classes" (n,), best first, or
with --raw-boxes "class_logits_p3", ... and "box_deltas_p3", ... The file describes itself: classes,
colours, sizes, normalisation, versions; of ncnn, MNN, LiteRT and ExecuTorch a .json beside it does.
What a format has not, such as free sizes or boxes, docs/formats.md says.

It is run at once, on noise and on images, beside the PyTorch model; where they differ by more than
0.001 (less of small logits, more of large ones: docs/deploy.md), it says where and writes nothing.
--precision int8 is for ExecuTorch and MNN. ExecuTorch is calibrated on up to 32 of --images; of MNN
the weights alone are in int8. Both are compared with float32 on these images. `topformer quantize`
makes int8 files of .onnx and .tflite files.
"""

from __future__ import annotations

import argparse

from ..config import load_config
from ..errors import printable, shown
from ..export import FORMATS, export_model
from .parsing import Parser, config_parser


def make_parser() -> Parser:
    """The arguments of `topformer export`."""
    parser = config_parser(__doc__, {"path": "--output", "file_format": "--format"})
    parser.add_argument(
        "--weights", metavar="FILE", help=".pth or .safetensors; default: MODEL.WEIGHTS"
    )
    parser.add_argument("--format", required=True, choices=FORMATS)
    parser.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help="with the format's extension: "
        + ", ".join(kind.extension for kind in FORMATS.values()),
    )
    parser.add_argument(
        "--size", nargs=2, type=int, metavar=("HEIGHT", "WIDTH"), help="of the network's input"
    )
    parser.add_argument("--labels", action="store_true", help="the label map instead of logits")
    parser.add_argument("--raw-boxes", action="store_true", help="no decoding and no NMS")
    parser.add_argument(
        "--with-preprocessing",
        action="store_true",
        help="resize (to --size, or as in evaluation) and normalise in the graph",
    )
    parser.add_argument(
        "--precision",
        default="float32",
        choices=sorted({each for kind in FORMATS.values() for each in kind.precisions}),
        help="of the weights; float16 halves the file, int8 takes about 0.3 of it; "
        "default: float32",
    )
    parser.add_argument(
        "--images",
        metavar="DIR",
        help="to check on, and for int8; default: synthetic images",
    )
    return parser


def run(args: argparse.Namespace, parser: Parser) -> None:
    """Export, and print how far the file's numbers are from PyTorch's."""
    cfg = load_config(args.config_file, args.opts)
    _, differences = export_model(
        cfg,
        args.weights or cfg.MODEL.WEIGHTS,
        args.output,
        file_format=args.format,
        size=args.size and tuple(args.size),
        labels=args.labels,
        raw_boxes=args.raw_boxes,
        with_preprocessing=args.with_preprocessing,
        precision=args.precision,
        images=args.images,
    )
    for found in differences:
        print(printable(str(found)))
    if not_run := FORMATS[args.format].not_run:
        print(f"not run here: {not_run}")
    print(f"wrote {shown(args.output)}")
