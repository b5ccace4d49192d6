"""How the command line speaks: one clear sentence for every error, and an exit code that scripts can rely on."""

from __future__ import annotations

import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from medreasoner.contract.errors import AnswerError, CheckpointError, MedReasonerError, ReasonerError

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

BAD_INPUT, MODEL_TROUBLE, NO_ANSWER, INTERRUPTED = 2, 3, 4, 130


def exit_code(error: MedReasonerError) -> int:
    """2 for bad input, 3 for models and servers, 4 for an answer that could not be used."""
    if isinstance(error, AnswerError):
        return NO_ANSWER
    return MODEL_TROUBLE if isinstance(error, CheckpointError | ReasonerError) else BAD_INPUT


def tell(error: MedReasonerError) -> None:
    """Print what went wrong and what to do next."""
    err.print("error: ", style="bold red", end="")
    err.print(error.what, markup=False, soft_wrap=True)
    err.print(f"  -> {error.hint}", markup=False, soft_wrap=True)


def check_address(host: str, port: int) -> None:
    """Raise `MedReasonerError` where a server could not listen; asked before models are loaded, which takes long."""
    try:
        family, kind, protocol, _, (address, _, *more) = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
            probe.bind((address, port, *more))
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise MedReasonerError(f"{host}:{port} cannot be used: {why}", "choose another --port or --host") from error


@contextmanager
def errors_for_people() -> Iterator[None]:
    """Turn expected errors into a message and an exit code; let real bugs keep their traceback."""
    warnings.filterwarnings("ignore", category=UserWarning, module="openjpeg")  # headers at odds that pydicom settles
    try:
        yield
    except MedReasonerError as error:
        tell(error)
        sys.exit(exit_code(error))
    except MemoryError:
        tell(MedReasonerError("not enough memory for this image or model", "close other programs or use a smaller one"))
        sys.exit(MODEL_TROUBLE)
    except KeyboardInterrupt:
        err.print("stopped")
        sys.exit(INTERRUPTED)
