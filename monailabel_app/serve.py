"""python -m monailabel_app.serve FOLDER_OR_URL: MONAI Label's application behind the gateway, on this machine alone.

The same as `monailabel start_server` with the gateway, less what that does around it: it listens on all addresses,
logs every request and writes into the application's folder.
"""

from __future__ import annotations

import argparse
import json
import logging.config
import os
import sys
from pathlib import Path

from medreasoner.console import check_address, errors_for_people
from medreasoner.contract.errors import MedReasonerError
from monailabel_app.gateway.audit import AuditLog
from monailabel_app.gateway.gate import Doorkeeper
from monailabel_app.lib.settings import Settings

_APPLICATION = Path(__file__).resolve().parent
_LAST_ANSWERS_S = 120  # at the end, for the questions that still run or wait

_LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"level": "INFO", "handlers": ["stderr"]},
    # MONAI Label logs whole requests, questions and file names among them; httpx whole addresses.
    "loggers": {name: {"level": "WARNING"} for name in ("monailabel", "httpx")},
}


def environment(studies: str, port: int, conf: dict[str, str]) -> dict[str, str]:
    """What MONAI Label reads when it is imported, and hands to the processes that it starts (training).

    Raises:
        MedReasonerError: the studies folder does not exist.
    """
    remote = studies.startswith(("http://", "https://"))
    if not remote and not Path(studies).is_dir():
        raise MedReasonerError(f"there is no folder {studies}", "name a folder of images, or a DICOMweb URL")
    here = Path(sys.executable).parent  # dcmqi's programs lie beside python
    return {
        "MONAI_LABEL_APP_DIR": str(_APPLICATION),
        "MONAI_LABEL_STUDIES": studies if remote else str(Path(studies).resolve()),
        "MONAI_LABEL_APP_CONF": json.dumps(conf),
        "MONAI_LABEL_SERVER_PORT": str(port),
        "MONAI_LABEL_AUTO_UPDATE_SCORING": "false",
        "PATH": os.pathsep.join([str(here), os.environ.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(_APPLICATION.parent), os.environ.get("PYTHONPATH", "")])),
    }


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key.strip(), value


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    parser = argparse.ArgumentParser(prog="medreasoner serve", description=__doc__)
    parser.add_argument("studies", help="folder of images, or the URL of a DICOMweb server")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; others need tokens")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--conf", type=_pair, action="append", default=[], metavar="KEY=VALUE", help="a setting")
    return parser


def main() -> None:
    args = parser().parse_args()
    with errors_for_people():
        conf = dict(args.conf)
        settings = Settings.load(conf)
        Doorkeeper(settings), AuditLog(settings.audit_log)  # errors of their files, before anything slow
        check_address(args.host, args.port)
        os.environ.update(environment(args.studies, args.port, conf))
        logging.config.dictConfig(_LOGGING)
        import uvicorn
        from monailabel.interfaces.utils.app import app_instance

        from monailabel_app.gateway.application import app

        app_instance()  # loads the models; the gateway asks for the same one, but here an error is a sentence
        uvicorn.run(
            app,
            host=args.host,
            port=args.port,
            access_log=False,  # addresses hold the ids of images
            log_config=None,
            timeout_graceful_shutdown=_LAST_ANSWERS_S,
        )


if __name__ == "__main__":
    main()
