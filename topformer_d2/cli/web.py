"""Write a page that runs a model in the visitor's browser, and serve it.

  topformer web camvid_t --output site/
  topformer web model.onnx --output site/ --serve
  topformer web configs/det_retinanet_lite_topformer_t.yaml --weights model_final.pth --serve

MODEL is what `topformer export` or `topformer quantize` wrote as .onnx, a model that comes with the
package, or a config with its weights, which is exported and checked first. The page opens pictures,
videos and the camera. All of it runs on the visitor's machine: nothing is uploaded, and any server
of static files will do. Without --output the page is in a temporary folder until --serve ends.

ONNX Runtime Web comes from npm (33 MB, once), or from --runtime.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from ..config import list_models
from ..errors import InputError, shown
from .parsing import Parser


def make_parser() -> Parser:
    """The arguments of `topformer web`."""
    parser = Parser(__doc__)
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="an .onnx file, a config, or one of: " + ", ".join(list_models()),
    )
    parser.add_argument("--weights", metavar="FILE", help="of a config: .pth or .safetensors")
    parser.add_argument("--output", metavar="DIR", help="new, empty, or an earlier page")
    parser.add_argument(
        "--runtime",
        metavar="DIR",
        help="the unpacked npm package onnxruntime-web; default: npm fetches it",
    )
    parser.add_argument(
        "--serve", action="store_true", help="show the page at 127.0.0.1 until Ctrl-C"
    )
    parser.add_argument("--port", type=int, help="of --serve; 0: any; default: 8000")
    return parser


def run(args: argparse.Namespace, parser: Parser) -> None:
    """Write the page, say where it is, and serve it."""
    from ..web import SiteServer, check_site_folder, model_for_web, runtime_files, write_site
    from ..web.server import DEFAULT_PORT, check_port

    if args.output is None and not args.serve:
        parser.error("name a folder by --output, or show the page by --serve")
    if args.port is not None and not args.serve:
        raise InputError("--port is of --serve")
    port = DEFAULT_PORT if args.port is None else args.port
    if args.serve:
        check_port(port)
    if args.output is not None:
        check_site_folder(args.output)
    runtime = runtime_files(args.runtime)
    with tempfile.TemporaryDirectory(prefix="topformer_web_") as folder:
        model, info = model_for_web(args.model, args.weights, Path(folder))
        output = args.output or Path(folder) / "site"
        size = write_site(output, model, info, Path(args.model).stem, runtime)
        if args.output is not None:
            print(f"wrote {shown(output)} ({size / 2**20:.0f} MB)", flush=True)
        if args.serve:
            SiteServer(output, port).run()
