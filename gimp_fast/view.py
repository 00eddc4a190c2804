"""``python -m gimp_fast.view``: heatmaps in a browser, with the slides.

python -m gimp_fast.view runs/first --slide-images slides
python -m gimp_fast.view maps_of_abmil maps_of_gimp --slide-images slides     # side by side
python -m gimp_fast.view maps --port 8765 --no-browser                        # over ssh -L
"""

from __future__ import annotations

import argparse
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from gimp_fast.cli import Parser, command


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"found '{text[:80]}'; expected a number from 0 to 65535")
    return int(text)


def build_parser() -> Parser:
    parser = Parser(
        "view",
        description="Show heatmaps in a browser: the patients, their slides in deep zoom, what the "
        "model looks at as an overlay, its highest patches and genes.",
        epilog="The page is served to this machine alone, at an address that nobody can guess, and "
        "changes nothing. Ctrl-C ends it.\nFrom another machine: ssh -L 8765:127.0.0.1:8765 HOST, "
        "and --port 8765 --no-browser there.",
    )
    add = parser.add_argument
    add(
        "maps",
        nargs="+",
        type=Path,
        metavar="RUN_OR_MAPS",
        help="folder that `gimp-fast heatmap` wrote, or a run with such maps; several are shown "
        "side by side",
    )
    add(
        "--slide-images",
        type=Path,
        metavar="FOLDER",
        help="whole-slide images, or .png and .jpg; without it the patches alone are shown",
    )
    add("--port", type=_port, default=0, metavar="N", help="default: 0, any free port")
    add("--no-browser", action="store_true", help="print the address, and open nothing")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


@command
def main(argv: Sequence[str]) -> int | None:
    args = build_parser().parse_args(argv)
    # After parsing, so that --help and a wrong option do not wait for pandas.
    from gimp_fast.errors import counted
    from gimp_fast.viewer import ViewServer, open_maps
    from gimp_fast.wsi.images import SlideImages

    folders = [open_maps(path) for path in args.maps]
    images = None if args.slide_images is None else SlideImages(args.slide_images)
    with ViewServer(folders, images, port=args.port) as server:
        for folder in folders:
            print(f"{folder.path}: {counted(len(folder.patients), 'patient')}")
        if images is None:
            print("no slides: the patches alone are shown; --slide-images FOLDER shows the slides")
        print(f"page: {server.url}\nCtrl-C ends it", flush=True)
        if not args.no_browser:
            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("ended")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
