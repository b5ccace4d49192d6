"""Where models lie: the reasoner that ships with the package, and those that are added."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path


def embedded_folder() -> Path:
    """Folder of the reasoner that ships with this package."""
    return Path(str(files("medreasoner"))) / "weights" / "embedded"


def models_folder() -> Path:
    """Return MEDREASONER_MODELS where it is set, else the user's data folder; it need not exist."""
    given = os.environ.get("MEDREASONER_MODELS")
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return Path(given).expanduser() if given else data / "medreasoner" / "models"
