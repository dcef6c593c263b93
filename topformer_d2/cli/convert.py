"""Convert weights: between official keys and ours, and between one task and both.

An official TopFormer (segmentation or ImageNet) to this toolkit's keys:
  topformer convert TopFormer-T_512x512_2x8_160k.pth topformer_t_ade20k.pth

This toolkit's segmenter, or its backbone alone, to the official keys:
  topformer convert topformer_t.pth official.pth --to-official

The segmenter (sem_seg) or the detector (instances) in a joint model, or TopFormer alone (backbone)
in any:
  topformer convert joint.pth segmenter.pth --extract sem_seg

A joint model to start training from, of a segmenter and a detector, with TopFormer from IN:
  topformer convert segmenter.pth joint.pth --merge detector.pth

OUT may be .pth, which any Detectron2 tool reads, or .safetensors. No pickled code is run.
"""

from __future__ import annotations

import argparse
from collections import Counter

from ..checkpoint import (
    convert_official_state_dict,
    convert_to_official,
    extract_backbone,
    extract_task,
    is_official,
    merge_tasks,
    read_state_dict,
    read_weights,
    save_state_dict,
    split_parts,
)
from ..errors import InputError, printable, shown
from .parsing import Parser

# What the library's functions are here.
NAMES = {
    "extract_task": "--extract",
    "extract_backbone": "--extract backbone",
    "merge_tasks": "--merge",
    "convert_to_official": "--to-official",
}


def make_parser() -> Parser:
    """The arguments of `topformer convert`."""
    parser = Parser(__doc__, NAMES)
    parser.add_argument("source", metavar="IN", help=".pth or .safetensors")
    parser.add_argument("out", metavar="OUT", help=".pth or .safetensors")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--to-official", action="store_true", help="give IN the official keys")
    mode.add_argument(
        "--extract",
        choices=("sem_seg", "instances", "backbone"),
        help="the task to take out of a joint IN, or TopFormer out of any",
    )
    mode.add_argument("--merge", metavar="OTHER", help="the other task's checkpoint")
    return parser


def run(args: argparse.Namespace, parser: Parser) -> None:
    """Convert, and print what was written."""
    if not args.out.endswith((".pth", ".safetensors")):
        raise InputError(f"{args.out}: the name has to end in .pth or .safetensors")
    state_dict = convert(args)
    save_state_dict(state_dict, args.out, wrapper="state_dict" if args.to_official else "model")
    counts = printable(describe(state_dict))
    print(f"wrote {shown(args.out)}: {len(state_dict)} tensors ({counts})")


def convert(args: argparse.Namespace) -> dict:
    """What is to be written; the report on an official file is printed."""
    if args.to_official:
        return convert_to_official(read_weights(args.source))
    if args.extract == "backbone":
        return extract_backbone(read_weights(args.source))
    if args.extract:
        return extract_task(read_weights(args.source), args.extract)
    if args.merge:
        return merge_tasks(read_weights(args.source), read_weights(args.merge))
    state_dict, report = convert_official_state_dict(read_state_dict(args.source))
    print(printable(str(report)))
    return state_dict


def describe(state_dict: dict) -> str:
    """How many tensors each part has."""
    if is_official(state_dict):
        counts: dict[str, int] = Counter(key.split(".")[0] for key in state_dict)
    else:
        counts = {name: len(part) for name, part in split_parts(state_dict).items()}
    return ", ".join(f"{name} {count}" for name, count in counts.items())
