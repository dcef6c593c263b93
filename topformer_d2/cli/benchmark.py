"""Time a model on a CPU, by backend: the network alone, and from the decoded image to the answer.

  topformer benchmark --config-file configs/seg_topformer_{t,s,b}.yaml --compare
  topformer benchmark --config-file C --weights W --size 512 704 --json times.json

Each backend runs a file of that fixed size, written anew. "Network" is from the normalised image to
raw outputs (of an exported detector to boxes, after NMS, where the format has that in its graph),
"whole way" from the decoded image to label map or boxes. The first row is Detectron2's
DefaultPredictor, with argmax for the label map.
All calls alternate, so that what else the machine does falls on all alike; times are medians,
ratios medians over the repetitions, "network / reference" beside the row that --reference adds.

--compare adds other libraries' networks, prepared as ours are: BatchNorm folded, and in PyTorch 1x1
convolutions by oneDNN and channels last where that is faster. Their argmax is timed outside the
network and inside its graph. It also adds each of our networks with the fastest plain argmax.

glibc keeps freed memory, as where a Predictor runs PyTorch (topformer_d2.inference.allocator).
Without --weights the network is untrained: its label map takes longer than a trained one's, and a
detector's scores are shifted so that it finds something. Where there is a GPU, the network is also
timed on it.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch

from ..analysis.benchmark import (
    Entry,
    Result,
    as_records,
    describe_machine,
    draw_latency,
    format_results,
    run_benchmark,
)
from ..analysis.gpu import format_gpu_times, time_on_gpu
from ..analysis.peers import PEERS, build_peer
from ..analysis.timed_models import (
    check_reference,
    model_in_use,
    own_entries,
    peer_entries,
    plain_entry,
    reference_entry,
    untrained_weights,
)
from ..config import load_config
from ..data.images import check_image_name, write_image
from ..data.synthetic import make_textures
from ..errors import InputError, printable, shown
from ..export import FORMATS
from ..files import check_output, write_json
from ..inference.allocator import keep_freed_memory
from ..inference.backends import BACKENDS
from ..inference.formats import import_extra
from .parsing import Parser

GPU_BATCHES = (1, 32)


def make_parser() -> Parser:
    """The arguments of `topformer benchmark`."""
    parser = Parser(__doc__)
    parser.add_argument("--config-file", nargs="+", required=True, metavar="FILE")
    parser.add_argument("--weights", metavar="FILE", help="of a single config; default: untrained")
    parser.add_argument(
        "--backends",
        nargs="+",
        default=["torch", *(each.runtime for each in FORMATS.values() if each.extra == "export")],
        choices=BACKENDS,
        help="default: torch and those of the extra `export`",
    )
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument(
        "--size", nargs=2, type=int, default=[512, 512], metavar=("HEIGHT", "WIDTH")
    )
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument(
        "--compare", action="store_true", help="beside torchvision's and transformers' networks"
    )
    parser.add_argument(
        "--reference", action="store_true", help="also the paper's operations as ONNX exports them"
    )
    parser.add_argument("--json", metavar="FILE", help="all figures")
    parser.add_argument("--chart", metavar="FILE", help="latency against GMACs, as a picture")
    return parser


def run(args: argparse.Namespace, parser: Parser) -> None:
    """Time, print the tables, and write what was asked for."""
    if args.weights and len(args.config_file) > 1:
        parser.error("--weights are one config's")
    if min(args.threads, args.repetitions, *args.size) < 1:
        parser.error("--threads, --repetitions and --size take 1 or more")
    for name in ("chart", "json"):
        if path := getattr(args, name):
            check_output(path, name)
    if args.chart:
        check_image_name(args.chart)
    import_runtimes(args)
    configs = read_configs(args)
    keep_freed_memory()
    image = cv2.cvtColor(make_textures(0, *args.size)[0], cv2.COLOR_RGB2BGR)
    with tempfile.TemporaryDirectory() as folder:
        weights = {name: args.weights or str(Path(folder) / f"{name}.pth") for name in configs}
        if not args.weights:
            for name, cfg in configs.items():
                untrained_weights(cfg, image, weights[name])
        entries = make_entries(args, configs, weights, image, Path(folder))
        record = report(args, run_benchmark(entries, args.repetitions))
        if torch.cuda.is_available():
            record["gpu"] = report_gpu(args, configs, weights)
            if args.json:
                write_json(args.json, record)


def read_configs(args: argparse.Namespace) -> dict:
    """By the file's name, which is the model's in the table."""
    configs = {}
    for file in args.config_file:
        name = Path(file).stem
        if name in configs:
            raise InputError(f"--config-file names two configs {name!r}: rename one")
        configs[name] = load_config(file)
    if args.compare:
        if {cfg.MODEL.META_ARCHITECTURE for cfg in configs.values()} != {"TopFormerSegmentor"}:
            raise InputError("--compare is for segmentation: name seg_*.yaml configs")
        counts = {name: cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES for name, cfg in configs.items()}
        if len(set(counts.values())) > 1:
            raise InputError(f"--compare takes configs of one number of classes; these: {counts}")
        for name in PEERS:
            build_peer(name, 1)  # or their library is missing
    if args.reference:
        for cfg in configs.values():
            check_reference(cfg)
    return configs


def import_runtimes(args: argparse.Namespace) -> None:
    """InputError where one is missing."""
    used = {*args.backends} | ({"onnxruntime"} if args.compare or args.reference else set())
    for kind in FORMATS.values():
        if kind.runtime in used and kind.not_run:
            raise InputError(f"`backends` {kind.runtime} cannot be timed: {kind.not_run}")
        for library in kind.libraries if kind.runtime in used else ():
            import_extra(library, kind.extra)


def make_entries(
    args: argparse.Namespace, configs: dict, weights: dict, image: np.ndarray, folder: Path
) -> list[Entry]:
    """What is timed on the CPU."""
    common = {"num_threads": args.threads, "folder": folder}
    entries = []
    for name, cfg in configs.items():
        entries += own_entries(name, cfg, weights[name], image, backends=args.backends, **common)
        if args.reference:
            entries.append(reference_entry(name, cfg, weights[name], image, **common))
        if args.compare:
            entries.append(plain_entry(name, cfg, weights[name], image, **common))
    if args.compare:
        num_classes = next(iter(configs.values())).MODEL.SEM_SEG_HEAD.NUM_CLASSES
        entries += peer_entries(image, num_classes=num_classes, **common)
    return entries


def report(args: argparse.Namespace, results: list[Result]) -> dict:
    """Print the table, write what was asked for, and return the JSON's content."""
    height, width = args.size
    machine = describe_machine()
    threads_used = f"{args.threads} thread{'s' if args.threads > 1 else ''}"
    print(f"{height}x{width}, batch 1, {threads_used}, {args.repetitions} repetitions; {machine}")
    print(printable(format_results(results)))
    settings = {"size": args.size, "threads": args.threads, "repetitions": args.repetitions}
    record = {**settings, "batch": 1, "machine": machine, "results": as_records(results)}
    if args.json:
        write_json(args.json, record)
    if args.chart:
        picture = draw_latency(results, f"{height}x{width}, {threads_used}")
        write_image(args.chart, picture[:, :, ::-1])
        print(f"wrote {shown(args.chart)}")
    return record


def report_gpu(
    args: argparse.Namespace, configs: dict, weights: dict, device: str = "cuda"
) -> list[dict]:
    """Print a table for each model, and return the times for the JSON."""
    gpu, size, records = torch.cuda.get_device_name(), tuple(args.size), []
    for name, cfg in configs.items():
        model = model_in_use(cfg, weights[name], device)
        times = {n: time_on_gpu(model, size, n, args.repetitions, device) for n in GPU_BATCHES}
        print(f"\n{name}, {gpu}\n{format_gpu_times(times)}")
        records += [
            {"model": name, "device": gpu, "batch": batch, "form": form, "ms": ms}
            for batch, by_form in times.items()
            for form, ms in by_form.items()
        ]
    return records
