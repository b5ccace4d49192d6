"""python -m viewer_app [IMAGE] [--port 8080]: serve the page on this machine; `medreasoner viewer` starts it."""

from __future__ import annotations

import argparse
import secrets
import sys
from pathlib import Path

from medreasoner.console import check_address, errors_for_people, out
from medreasoner.expert import load_expert
from medreasoner.expert.catalogue import DEFAULT_EXPERT
from medreasoner.pipeline import GroundingPipeline
from medreasoner.reasoner.catalogue import DEFAULT_REASONER, open_reasoner
from viewer_app.reading import Reading

HOST = "127.0.0.1"


def main() -> None:
    """Load the models, open the image, serve until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="medreasoner viewer", description="The question box in a browser.")
    parser.add_argument("image", type=Path, nargs="?", help="file or series folder to open at once")
    parser.add_argument("--port", type=int, default=8080, help="on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--reasoner", default=DEFAULT_REASONER)
    parser.add_argument("--expert", default=DEFAULT_EXPERT)
    parser.add_argument("--device", default=None, help="cpu or cuda")
    parser.add_argument("--out", type=Path, default=Path("medreasoner-answers"), help="folder for what is saved")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    args = parser.parse_args()
    with errors_for_people():
        check_address(HOST, args.port)
        with out.status("loading models ..."):
            pipeline = GroundingPipeline(open_reasoner(args.reasoner, args.device), load_expert(args.expert))
        reading = Reading(pipeline, args.out)
        if args.image is not None:
            reading.open(args.image)
        serve(reading, args.port, not args.no_browser)


def serve(reading: Reading, port: int, open_browser: bool) -> None:
    """Serve one page to whoever knows this run's key, which is in the address that is printed."""
    from trame.app import get_server

    from viewer_app.app import ViewerApp

    key = secrets.token_urlsafe(24)  # another page in the same browser must not reach the image through this port
    sys.argv[1:] = ["--authKey", key]  # trame reads it from there only
    server = get_server("medreasoner-viewer")
    app = ViewerApp(reading, server)
    if reading.image is not None:
        app.show_opened()

    @server.controller.add("on_server_ready")
    def tell(**_: object) -> None:
        address = f"http://{HOST}:{server.port}/index.html?secret={key}"
        out.print(f"viewer: {address}", soft_wrap=True)
        if open_browser:
            import webbrowser

            webbrowser.open(address)

    server.start(host=HOST, port=port, open_browser=False, show_connection_info=False, timeout=0)


if __name__ == "__main__":
    main()
