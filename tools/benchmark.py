#!/usr/bin/env python
"""Time a model on a CPU, network only and from the decoded image to the answer, by backend.

  python tools/benchmark.py --config-file configs/seg_topformer_{t,s,b}.yaml --compare
  python tools/benchmark.py --config-file C --weights W --size 512 704 --json times.json

Each backend runs a file of that fixed size, written anew. "Network" is from the normalised image to
raw outputs, "whole way" from the decoded image to label map or boxes. The first row is Detectron2's
DefaultPredictor, with argmax for the label map. All calls alternate, so that what else the machine
does falls on all alike; times are medians, ratios medians over the repetitions. Without --weights
the network is untrained, and its label map takes longer than a trained one's. Where there is a GPU,
the network is also timed on it.
"""

import argparse
import os
import tempfile
from pathlib import Path

import cv2
import torch
from detectron2.modeling import build_model

from topformer_d2.analysis import keep_freed_memory
from topformer_d2.analysis.benchmark import (
    as_records,
    describe_machine,
    draw_latency,
    format_results,
    run_benchmark,
)
from topformer_d2.analysis.complexity import Network
from topformer_d2.analysis.entries import own_entries, peer_entries, reference_entry
from topformer_d2.analysis.gpu import format_gpu_times, time_on_gpu
from topformer_d2.checkpoint import save_state_dict
from topformer_d2.config import load_config
from topformer_d2.data.files import check_image_name, write_image, write_json
from topformer_d2.data.synthetic import make_textures
from topformer_d2.errors import InputError, show_input_errors
from topformer_d2.inference.backends import BACKENDS
from topformer_d2.inference.threads import threads

GPU_BATCHES = (1, 32)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", nargs="+", required=True, metavar="FILE")
    parser.add_argument("--weights", metavar="FILE", help="of a single config; default: untrained")
    parser.add_argument("--backends", nargs="+", default=list(BACKENDS), choices=BACKENDS)
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
    args = parser.parse_args()
    if args.weights and len(args.config_file) > 1:
        parser.error("--weights are one config's")
    if min(args.threads, args.repetitions, *args.size) < 1:
        parser.error("--threads, --repetitions and --size take 1 or more")
    return args


def untrained_weights(cfg, folder: Path) -> str:
    """A file of random weights whose label maps have many classes."""
    torch.manual_seed(0)
    model = build_model(cfg)
    for module in getattr(model, "sem_seg_head", torch.nn.Module()).modules():
        if getattr(module, "out_channels", None) == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES:
            torch.nn.init.normal_(module.weight, std=0.1)
    path = str(folder / "untrained.pth")
    save_state_dict(model.state_dict(), path)
    return path


def main() -> None:
    args = parse_arguments()
    with show_input_errors():
        if args.chart:
            check_image_name(args.chart)
        configs = {Path(file).stem: load_config(file) for file in args.config_file}
        kinds = {cfg.MODEL.META_ARCHITECTURE for cfg in configs.values()}
        if args.compare and kinds != {"TopFormerSegmentor"}:
            raise InputError("--compare is for segmentation: name seg_*.yaml configs")
        keep_freed_memory()
        with threads(args.threads), tempfile.TemporaryDirectory() as folder:
            measure(args, configs, Path(folder))


def measure(args: argparse.Namespace, configs: dict, folder: Path) -> None:
    """Print the table and write what was asked for."""
    size = tuple(args.size)
    image = cv2.cvtColor(make_textures(0, *size)[0], cv2.COLOR_RGB2BGR)
    common = {"num_threads": args.threads, "folder": folder}
    entries = []
    for name, cfg in configs.items():
        weights = args.weights or untrained_weights(cfg, folder)
        entries += own_entries(name, cfg, weights, image, backends=args.backends, **common)
        if args.reference:
            entries.append(reference_entry(name, cfg, weights, image, **common))
    if args.compare:
        entries += peer_entries(image, num_classes=cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, **common)
    results = run_benchmark(entries, args.repetitions)
    machine = describe_machine()
    threads_used = f"{args.threads} thread{'s' if args.threads > 1 else ''}"
    print(
        f"{size[0]}x{size[1]}, batch 1, {threads_used}, {args.repetitions} repetitions; {machine}"
    )
    print(format_results(results))
    if args.json:
        settings = {"size": size, "batch": 1, "threads": args.threads, "machine": machine}
        write_json(args.json, as_records(results, **settings))
    if args.chart:
        title = f"{size[0]}x{size[1]}, {threads_used}"
        write_image(args.chart, draw_latency(results, title)[:, :, ::-1])
        print(f"wrote {os.path.abspath(args.chart)}")
    if torch.cuda.is_available():
        for name, cfg in configs.items():
            network = Network(build_model(cfg))
            times = {n: time_on_gpu(network, size, n, args.repetitions) for n in GPU_BATCHES}
            print(f"\n{name}, {torch.cuda.get_device_name()}\n{format_gpu_times(times)}")


if __name__ == "__main__":
    main()
