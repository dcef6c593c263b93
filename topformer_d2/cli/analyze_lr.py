"""Try rising learning rates for some iterations, and suggest one for SOLVER.BASE_LR.

  topformer analyze lr --config-file my.yaml
  topformer analyze lr --config-file my.yaml --low 1e-5 --high 0.1 --iterations 200

It is the range test of Smith, "Cyclical Learning Rates for Training Neural Networks" (WACV 2017),
Section 3.3: the config's training from MODEL.WEIGHTS, with a rate that rises in each iteration. A
table shows the loss at each rate, and a picture the curve. The suggestion is the rate at which the
loss falls fastest. Nothing of the trained model is kept, and OUTPUT_DIR gets the picture alone.
"""

from __future__ import annotations

import argparse
import os

from tqdm.auto import tqdm

from ..analysis.lr_sweep import build_sweep, draw_sweep, format_sweep, sweep_rates
from ..config import load_config
from ..data import check_config
from ..data.images import check_image_name, write_image
from ..engine.processes import check_single_run
from ..engine.solver import batch_scale
from ..errors import printable, shown
from .parsing import Parser, config_parser


def make_parser() -> Parser:
    """The arguments of `topformer analyze lr`."""
    parser = config_parser(__doc__)
    parser.add_argument("--low", type=float, default=1e-6, help="first rate; default: 1e-6")
    parser.add_argument("--high", type=float, default=1.0, help="last rate; default: 1")
    parser.add_argument("--iterations", type=int, default=100, help="default: 100")
    parser.add_argument("--chart", metavar="FILE", help="default: lr_sweep.png in OUTPUT_DIR")
    return parser


def run(args: argparse.Namespace, parser: Parser) -> None:
    """Sweep, print the table, and draw the curve."""
    check_single_run()
    cfg = load_config(args.config_file, args.opts)
    chart = args.chart or os.path.join(cfg.OUTPUT_DIR, "lr_sweep.png")
    check_image_name(chart)  # before the work, not after
    check_config(cfg, train=True)
    step, scaled = build_sweep(cfg)
    with tqdm(total=args.iterations, unit="it", disable=None, leave=False) as bar:
        sweep = sweep_rates(
            *(step, scaled.SOLVER.BASE_LR),
            low=args.low,
            high=args.high,
            iterations=args.iterations,
            tell=lambda _: bar.update(),
        )
    print(parser.reword(format_sweep(sweep, batch_scale(cfg))))
    title = f"{os.path.basename(args.config_file)}, batch {cfg.SOLVER.IMS_PER_BATCH}"
    write_image(chart, draw_sweep(sweep, printable(title))[:, :, ::-1])
    print(f"wrote {shown(chart)}")
