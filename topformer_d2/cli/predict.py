"""Segment images, a video or what a camera sees, or find objects in them.

  topformer predict --config-file configs/seg_topformer_t_camvid.yaml \\
    --weights output/seg_topformer_t_camvid/model_final.pth --input photos/ --output predictions/
  topformer predict --model camvid_t --input street.jpg --output predictions/
  topformer predict --model model.onnx --input street.mp4 --output predictions/street.mp4

  topformer predict --model model.onnx --input photos/ --output labels/ --no-overlays
  topformer predict --model model.onnx --input photos/ --output found/ --save-labels labelme
  topformer predict --model model.onnx --input camera --output seen.mp4
  topformer predict --model model.onnx --engine ray --input paths.txt --output labels/

Of images: overlays, label maps as PNG, boxes as JSON lines, labels for a labelling tool. Of a
video: the video with them drawn. Of a camera: the same until Ctrl-C, in a window where OpenCV has
one.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from typing import Any

from ..config import list_models, load_config
from ..data.image_files import list_images, looks_like_image
from ..data.images import MAX_PIXELS
from ..errors import InputError, printable, shown
from ..inference import Predictor, write_predictions
from ..inference.backends import BACKENDS
from ..inference.label_files import WRITERS
from ..inference.prediction_files import split_outputs
from ..inference.video import VideoReader, is_video
from ..logs import get_logger
from .parsing import Parser, add_min_score, add_opts, min_score_of
from .predict_bulk import add_bulk_options, check_engine, run_bulk

logger = get_logger(__name__)

NAMES = {
    **{"source": "--input", "paths": "--input", "json_file": "--save-json"},
    "label_format": "--save-labels",
    **{"num_threads": "--threads", "cpus_per_actor": "--threads"},
}


def make_parser() -> Parser:
    """The arguments of `topformer predict`."""
    parser = Parser(__doc__, NAMES)
    parser.add_argument("--config-file", metavar="FILE")
    parser.add_argument("--weights", metavar="FILE", help="of the config: .pth or .safetensors")
    parser.add_argument(
        "--model",
        metavar="FILE_OR_NAME",
        help="instead: what `topformer export` wrote, or a model that comes with the package: "
        + ", ".join(list_models()),
    )
    parser.add_argument("--backend", choices=BACKENDS, help="default: by the model's extension")
    parser.add_argument("--threads", type=int, help="default: as the libraries choose")
    parser.add_argument(
        "--tile-size",
        type=int,
        help="leave images at their own size and run larger ones in overlapping tiles of so many "
        "pixels, a multiple of 64",
    )
    parser.add_argument(
        "--input",
        required=True,
        help="an image, a folder, a quoted glob, a video, or camera; camera:1 is the second one",
    )
    parser.add_argument(
        "--output",
        help="a folder; of a video or camera an .mp4 or .avi, and of a camera it may be left out",
    )
    add_min_score(parser)
    parser.add_argument(
        "--save-json",
        metavar="FILE",
        help="all boxes as COCO results, one JSON object a line; of a video by the frame's number",
    )
    parser.add_argument(
        "--track",
        action="store_true",
        help="of a video or camera: number the objects that boxes show, by ByteTrack (pip install "
        "trackers)",
    )
    parser.add_argument(
        "--save-labels",
        choices=WRITERS,
        help="of images: also what a labelling tool opens, boxes and the outlines of regions; "
        "coco: one annotations.json",
    )
    parser.add_argument(
        "--no-overlays",
        action="store_true",
        help="of images: label maps and boxes alone, which takes less time",
    )
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=MAX_PIXELS,
        help="an image of more is skipped, as a small file can claim any size; raise it for large "
        "ones, best with --tile-size, at 10 bytes of memory a pixel; default: %(default)s",
    )
    add_bulk_options(parser)
    add_opts(parser)
    return parser


def run(args: argparse.Namespace, parser: Parser) -> int:
    """The exit status: 1 where an image could not be read or its pictures written."""
    min_score = min_score_of(args)
    if args.max_pixels < 1:
        raise InputError(f"--max-pixels is {args.max_pixels}; it takes 1 or more")
    check_engine(args)
    camera = camera_number(args.input)
    if camera is None and args.output is None:
        parser.error("the following arguments are required: --output")
    if args.engine:
        check_still(args, camera)
        return run_bulk(load_predictor(args), args)
    paths = [] if camera is not None or shows_video(args) else list_images(args.input, "input")
    paths, earlier = split_outputs(paths)
    if not paths:
        check_no_images(args)
    elif args.track:
        raise InputError("--track is for videos and cameras: images have no order in time")
    if args.no_overlays and args.min_score is not None and not args.save_labels:
        raise InputError(
            "--min-score says which boxes are drawn, and --no-overlays draws none: leave one of "
            "them out (--save-json has all boxes with their scores)"
        )
    predictor = load_predictor(args)
    if camera is not None:
        return run_camera(predictor, camera, args)
    if not paths:
        from ..visualization import predict_video  # drawing imports Matplotlib

        done, problem = predict_video(predictor, args.input, args.output, **moving_options(args))
        print(f"{done} frames done: {shown(args.output)}")
        if problem:
            print(f"warning: {printable(problem, newlines=True)}", file=sys.stderr)
        return 1 if problem else 0
    keys = {
        "json_file": args.save_json,
        "max_pixels": args.max_pixels,
        "label_format": args.save_labels,
        "min_score": min_score,
        "keep": earlier,
    }
    if earlier:
        logger.warning(
            "%s: %d images that an earlier run seems to have written are left out, such as %s",
            *(printable(args.input), len(earlier), printable(earlier[0])),
        )
    if args.no_overlays:
        problems = write_predictions(predictor, paths, args.output, **keys)
    else:
        from ..visualization import predict_files

        problems = predict_files(predictor, paths, args.output, **keys)
    done = len(paths) - len(problems)
    print(f"{done} of {len(paths)} images done: {shown(args.output)}")
    for problem in shortened(problems, paths):
        print("skipped:", parser.reword(problem), file=sys.stderr)
    return 1 if problems else 0


def check_still(args: argparse.Namespace, camera: int | None) -> None:
    """Raise InputError where --engine is asked to read what moves."""
    is_list = args.input.lower().endswith((".txt", ".parquet"))
    moves = is_video(args.input) and not is_list and not looks_like_image(args.input)
    if moves or camera is not None or args.output.lower().endswith((".mp4", ".avi")):
        raise InputError(
            f"--engine {args.engine} reads images, and no video or camera: leave it out"
        )


def check_no_images(args: argparse.Namespace) -> None:
    """Raise InputError where an option is for images, and --input is a video or a camera."""
    if args.no_overlays:
        raise InputError("--no-overlays is for images; a video is written with them drawn in")
    if args.save_labels:
        raise InputError("--save-labels is for images: write the video's frames as images first")


def camera_number(source: str) -> int | None:
    """The camera that --input names; None where it names a file, which may be called so."""
    found = re.fullmatch(r"camera(?::(\d{1,4}))?", source)
    if found is None or os.path.exists(source):
        return None
    return int(found[1] or 0)


def moving_options(args: argparse.Namespace) -> dict[str, Any]:
    """What predict_video and predict_camera take."""
    return {"min_score": min_score_of(args), "json_file": args.save_json, "track": args.track}


def run_camera(predictor: Predictor, number: int, args: argparse.Namespace) -> int:
    """The exit status: 1 where the camera gave no frames any more, 0 after Ctrl-C."""
    from ..visualization import predict_camera

    done = predict_camera(predictor, number, args.output, **moving_options(args))
    rate = f" ({done.num_frames / done.seconds:.1f} a second)" if done.seconds else ""
    target = f": {shown(args.output)}" if args.output and done.num_frames else ""
    print(f"{done.num_frames} frames done{rate}, {done.num_left_out} left out{target}")
    if done.problem:
        print(f"warning: {printable(done.problem, newlines=True)}", file=sys.stderr)
    return 1 if done.problem else 0


def shows_video(args: argparse.Namespace) -> bool:
    """Whether --input is a video: by its content, where its name does not say what it is."""
    to_video = args.output.lower().endswith((".mp4", ".avi"))
    if to_video and args.input.lower().endswith(".gif") and os.path.isfile(args.input):
        return True
    if not is_video(args.input) or looks_like_image(args.input):
        return False
    try:
        VideoReader(args.input)
    except InputError as e:
        raise InputError(
            f"--input {args.input} is neither an image nor a video that can be read"
        ) from e
    return True


def shortened(problems: list[str], paths: list[str]) -> list[str]:
    """The problems, or one line for all where every image has the same."""
    if len(problems) != len(paths) or len(paths) < 2:
        return problems
    reasons = {
        problem.replace(printable(path, newlines=True), "").lstrip(": ")
        for problem, path in zip(problems, paths, strict=True)
    }
    return [f"all {len(paths)} images: {reasons.pop()}"] if len(reasons) == 1 else problems


def load_predictor(args: argparse.Namespace) -> Predictor:
    """From --config-file and --weights, or from --model."""
    keys = {
        "backend": args.backend,
        # With several processes, each has a core.
        "num_threads": 1 if args.engine and args.threads is None else args.threads,
        "tile_size": args.tile_size,
    }
    if args.model is not None:
        if args.config_file or args.weights or args.opts:
            raise InputError("--model has its config and weights inside: leave those out")
        return Predictor(args.model, **keys)
    if not args.config_file:
        raise InputError("name a model: --config-file and --weights, or --model")
    return Predictor(load_config(args.config_file, args.opts), args.weights, **keys)
