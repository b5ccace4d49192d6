"""What the panel says about progress and answers."""

from __future__ import annotations

from html import escape

from slicer.i18n import tr as _

from medreasoner.contract.label import LabelRecord
from MedReasonerLib.network import Progress
from MedReasonerLib.scene import SceneAnswer


def progress_text(progress: Progress, seconds: float) -> str:
    """One line: what happens, how long already, and the place in the server's queue where it is known."""
    stages = {
        "preparing": _("Preparing the image"),
        "uploading": _("Sending the image"),
        "waiting": _("Waiting for the answer"),
        "reading": _("Drawing the answer"),
    }
    text = stages[progress.stage]
    if progress.fraction is not None:
        text += f" {progress.fraction:.0%}"
    elif progress.is_running:
        text = _("The server is working on it")
    elif progress.position is not None:
        text += ", " + _("{count} before it in the queue").format(count=progress.position)
    return f"{text} · {seconds:.0f} s"


def answer_title(answer: SceneAnswer) -> str:
    """Target and confidence, or that it is not there."""
    record, confidence = answer.record, answer.facts["confidence"]
    name = _("Not present in this slice") if record.absent else record.target or _("Marked region")
    return name if confidence is None else f"{name} · {_('confidence')} {confidence:.2f}"


def reasoning_html(record: LabelRecord) -> str:
    """Question and reasoning as paragraphs; whatever they hold is shown as text."""
    paragraphs = [p.strip() for p in record.reasoning.split("\n") if p.strip()]
    body = "".join(f"<p>{escape(p)}</p>" for p in paragraphs)
    return f"<p><b>{escape(record.question)}</b></p>{body}"


def history_line(answer: SceneAnswer) -> str:
    record = answer.record
    found = _("not present") if record.absent else record.target or _("marked by hand")
    where = record.axis if record.axis == "oblique" else f"{record.axis} {record.slice_index}"
    tick = "✓ " if answer.is_accepted else ""
    return f"{tick}{record.question} → {found} ({where})"
