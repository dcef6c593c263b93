#!/usr/bin/env python
"""Make the synthetic dataset: textured shapes on textured ground, with labels and boxes."""

import argparse

from topformer_d2.data.builtin import datasets_root
from topformer_d2.data.synthetic import write_synthetic
from topformer_d2.errors import show_input_errors, shown

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default=datasets_root(), help="default: DETECTRON2_DATASETS")
    parser.add_argument("--num-train", type=int, default=400)
    parser.add_argument("--num-val", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with show_input_errors():
        folder = write_synthetic(args.root, args.num_train, args.num_val, args.seed)
    print(f"synthetic dataset: {shown(folder)}")
