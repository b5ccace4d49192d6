"""The page itself: one file with its style and plots inside, which runs no script and fetches thumbnails only."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from functools import lru_cache
from importlib.resources import files

import jinja2

from monailabel_app.gateway.loop import plots
from monailabel_app.gateway.loop.figures import Figures

_HERE = files("monailabel_app.gateway.loop")
_STYLE = _HERE.joinpath("page.css").read_text(encoding="utf-8")
_STYLE_HASH = b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
# Nothing may run, be embedded elsewhere, or come from another address.
POLICY = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@lru_cache(maxsize=4)
def render(figures: Figures) -> bytes:
    """Make the page, or return the one made for equal figures.

    Drawing takes half a second: call it off the event loop.
    """
    drawn = {
        "labels": plots.labels_over_time(figures.growth) if figures.days else None,
        "overlap": plots.overlap_by_checkpoint(figures.checkpoints) if figures.checkpoints else None,
        "disagreement": plots.disagreement(figures.bins) if figures.bins else None,
        "failures": plots.failures_by_modality(figures.modalities) if figures.modalities else None,
    }
    return _template().render(figures=figures, plots=drawn, css=_STYLE).encode()


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    pages = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    pages.filters["data_uri"] = lambda svg: f"data:image/svg+xml;base64,{b64encode(svg).decode()}"
    pages.filters["zip"] = zip
    return pages.from_string(_HERE.joinpath("page.html").read_text(encoding="utf-8"))
