#!/usr/bin/env python
"""Convert an official TopFormer checkpoint (segmentation or ImageNet) to this toolkit's keys.

  python tools/convert_weights.py TopFormer-T_512x512_2x8_160k.pth topformer_t_ade20k.pth

OUT may be .pth, which any Detectron2 tool reads, or .safetensors. No pickled code is run.
"""

import argparse
import os

from topformer_d2.checkpoint import (
    convert_official_state_dict,
    read_state_dict,
    save_state_dict,
)
from topformer_d2.errors import InputError, show_input_errors


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("official", metavar="OFFICIAL.pth")
    parser.add_argument("out", metavar="OUT", help=".pth or .safetensors")
    args = parser.parse_args()
    with show_input_errors():
        if not args.out.endswith((".pth", ".safetensors")):
            raise InputError(f"{args.out}: the name has to end in .pth or .safetensors")
        state_dict, report = convert_official_state_dict(read_state_dict(args.official))
        folder = os.path.dirname(os.path.abspath(args.out))
        os.makedirs(folder, exist_ok=True)
        save_state_dict(state_dict, args.out)
    print(report)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
