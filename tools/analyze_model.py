#!/usr/bin/env python
"""Print a model's parameters and GMACs, module by module.

python tools/analyze_model.py --config-file configs/det_retinanet_topformer_t.yaml --size 800 1333
"""

import argparse

from detectron2.modeling import build_model

from topformer_d2.analysis import complexity, format_costs
from topformer_d2.config import load_config, model_tasks
from topformer_d2.errors import InputError, show_input_errors


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument(
        "--size", nargs=2, type=int, default=(512, 512), metavar=("HEIGHT", "WIDTH")
    )
    parser.add_argument("--depth", type=int, default=2, help="of the module names; default: 2")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs")
    args = parser.parse_args()
    with show_input_errors():
        if min(*args.size) < 1:
            raise InputError(f"--size is {args.size}; both sides are 1 or more")
        cfg = load_config(args.config_file, args.opts)
        model_tasks(cfg)  # says what is wrong with META_ARCHITECTURE
        print(format_costs(complexity(build_model(cfg), *args.size), args.depth))


if __name__ == "__main__":
    main()
