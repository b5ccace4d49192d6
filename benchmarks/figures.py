"""How every benchmark ends: its figures, one a line, then all of them with their origin as one line of JSON."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any


def print_figures(figures: dict[str, Any]) -> None:
    """Print the figures, and as the last line JSON with the command, the commit and the machine that made them."""
    revision = ""
    if shutil.which("git"):  # a rented machine may have neither git nor the repository's history
        asked = ["git", "rev-parse", "--short", "HEAD"]
        revision = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    program = f"python -m {spec.name}" if spec else f"python {Path(sys.argv[0]).name}"
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    origin = {
        "command": " ".join([program, *words]),
        "commit": revision,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f}, {_gpu()}",
    }
    for name, value in figures.items():
        print(f"{name}: {value}")
    print(json.dumps({**figures, **origin}))


def _gpu() -> str:
    torch = sys.modules.get("torch")  # a benchmark that used none has not loaded it
    return str(torch.cuda.get_device_name()) if torch is not None and torch.cuda.is_available() else "no GPU"
