"""Where models that do not ship with the package are looked for."""

from __future__ import annotations

import os
from pathlib import Path


def models_folder() -> Path:
    """Return MEDREASONER_MODELS where it is set, else the user's data folder; it need not exist."""
    given = os.environ.get("MEDREASONER_MODELS")
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return Path(given).expanduser() if given else data / "medreasoner" / "models"
