"""Pack a trained model into the package, where list_models() finds it by its name.

  python tools/pack_model.py --run output/seg_topformer_t_camvid --name camvid_t \\
    --data "CamVid (research)" --command "topformer train --config-file ..." --metrics \\
    '{"camvid_sem_seg_val": {"sem_seg/mIoU": 58.9}}'

It writes the weights as float16, or with --int8 as checkpoint.compact does, the config's keys that
inference and evaluation need, and the card. What either changes is for an evaluation to say:
`topformer eval --config-file NAME`.
"""

import argparse
import hashlib
import json
import subprocess
from pathlib import Path

import yaml
from detectron2.config import get_cfg

import topformer_d2
from topformer_d2.checkpoint import read_weights, save_state_dict
from topformer_d2.checkpoint.compact import to_float16, to_int8
from topformer_d2.checkpoint.parts import TRAINING_ALONE
from topformer_d2.config import add_topformer_config, load_config
from topformer_d2.errors import summarize

FOLDER = Path(topformer_d2.__file__).parent / "zoo"
MOST_BYTES = 4_000_000
# Of MODEL and INPUT, what differs from the defaults; of the rest, these.
KEYS = ("STUFF_CLASSES", "THING_CLASSES", "TEST")


def differing(values: dict, defaults: dict) -> dict:
    """The part of nested values that differs from their defaults."""
    kept = {}
    for key, value in values.items():
        if isinstance(value, dict):
            if rest := differing(value, defaults[key]):
                kept[key] = rest
        elif _plain(value) != _plain(defaults[key]):
            kept[key] = _plain(value)
    return kept


def _plain(value: object) -> object:
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def main() -> None:
    """Write the three files and print their sizes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="OUTPUT_DIR of the training")
    parser.add_argument("--name", required=True)
    parser.add_argument("--weights", type=Path, help="default: its model_final.pth")
    parser.add_argument("--int8", action="store_true", help="for what float16 makes too large")
    parser.add_argument("--test", nargs="+", help="DATASETS.TEST; default: the run's")
    parser.add_argument("--data", required=True, help="what it was trained on, and the licence")
    parser.add_argument("--command", required=True, help="that trained it")
    parser.add_argument("--metrics", type=json.loads, required=True, help="JSON, by dataset")
    parser.add_argument("--note", default="", help="what the metrics do not say")
    parser.add_argument("--commit", help="of the training; default: this checkout's")
    args = parser.parse_args()
    cfg = load_config(str(args.run / "config.yaml"))
    defaults = get_cfg()
    add_topformer_config(defaults)
    values = {"VERSION": 2}
    values |= {node: differing(cfg[node], defaults[node]) for node in ("MODEL", "INPUT")}
    for key in ("WEIGHTS", "DEVICE", "TEACHER"):
        values["MODEL"].pop(key, None)
    values["DATASETS"] = {key: list(cfg.DATASETS[key]) for key in KEYS if cfg.DATASETS[key]}
    if args.test:
        values["DATASETS"]["TEST"] = args.test
    weights = {
        key: value
        for key, value in read_weights(str(args.weights or args.run / "model_final.pth")).items()
        # What is no part of an answer.
        if not key.endswith("num_batches_tracked") and not key.startswith(TRAINING_ALONE)
    }
    packed = to_int8(weights) if args.int8 else to_float16(weights)
    if lost := [key for key, value in packed.items() if not value.isfinite().all()]:
        raise SystemExit(f"{summarize(lost)}: not finite in {'int8' if args.int8 else 'float16'}")
    path = FOLDER / f"{args.name}.safetensors"
    save_state_dict(packed, str(path))
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise SystemExit(f"{path} has {size} bytes; a model that ships has {MOST_BYTES} at most")
    commit = args.commit or subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
    card = {
        "data": args.data,
        "command": args.command,
        "commit": commit,
        "seed": cfg.SEED,
        "metrics": args.metrics,
        "note": args.note,
        "bytes": size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    path.with_suffix(".yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    print(f"{path}: {size} bytes")


if __name__ == "__main__":
    main()
