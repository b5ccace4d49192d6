"""Make an empty virtual environment with pip in it, also where Python came without ensurepip (Debian, Ubuntu).

python scripts/make_venv.py FOLDER
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path


def make(folder: Path) -> None:
    """Replace the folder by a new environment of the running Python."""
    has_ensurepip = importlib.util.find_spec("ensurepip") is not None
    venv.EnvBuilder(clear=True, symlinks=True, with_pip=has_ensurepip).create(folder)
    if not has_ensurepip:
        packages = sysconfig.get_path("purelib", "posix_prefix", {"base": str(folder)})
        subprocess.run([sys.executable, "-m", "pip", "install", "--target", packages, "pip"], check=True)


if __name__ == "__main__":
    make(Path(sys.argv[1]).absolute())
