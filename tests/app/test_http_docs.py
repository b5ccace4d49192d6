"""docs/http.md names every kind of error that a reply can hold, with the status that it comes with."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import monailabel_app
from medreasoner.contract.errors import MedReasonerError
from monailabel_app.gateway.errors import kind_and_status

PAGE = (Path(__file__).parents[2] / "docs" / "http.md").read_text(encoding="utf-8")
AT_THE_START = {"SettingsError", "WorklistError"}
IN_IDLE_TIME = {"NoQuestion"}  # of scoring, which nobody waits for
BUG = {("InternalError", 500)}


def kinds(error: type[MedReasonerError] = MedReasonerError) -> set[type[MedReasonerError]]:
    """The error and all that were made of it, less those that tests make."""
    found = {error}.union(*(kinds(child) for child in error.__subclasses__()))
    return {kind for kind in found if kind.__module__.startswith(("medreasoner.", "monailabel_app."))}


def test_the_page_names_every_kind_with_its_status() -> None:
    rows = re.findall(r"^\| (\d{3}) \| (.*?) \|", PAGE, re.MULTILINE)
    for module in walk_packages(monailabel_app.__path__, "monailabel_app."):
        import_module(module.name)  # a kind is known once its module is
    documented = {(kind, int(status)) for status, named in rows for kind in re.findall(r"`(\w+)`", named)}
    raised = {kind_and_status(kind("what", "hint")) for kind in kinds()}
    assert documented - BUG == {(kind, status) for kind, status in raised if kind not in AT_THE_START | IN_IDLE_TIME}
