"""The work behind the panel: one job at a time, the answer that is being edited, and when to ask for its mask again.

Knows no widget: a script can use `MedReasonerLogic`, which is this, without the panel. `changed` is called whenever
something that a panel shows has changed.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Callable, Optional

import qt
import slicer
import vtk

from medreasoner.contract.errors import MedReasonerError
from MedReasonerLib.client import Server, Steps
from MedReasonerLib.conversation import Conversation, came_from, region_by_hand, who_is_there
from MedReasonerLib.network import Job, Progress
from MedReasonerLib.replies import NextCase
from MedReasonerLib.scene import SceneAnswer, answers_in
from MedReasonerLib.shown_slice import ShownSlice

DEBOUNCE_MS = 350  # after the last movement of a box or point
MOVED_PIXELS = 0.25  # less is rounding on the way through millimetres
EDITS = (vtk.vtkCommand.ModifiedEvent, slicer.vtkMRMLMarkupsNode.PointModifiedEvent)


def _nothing(*_: Any) -> None:
    """Nobody watches."""


class Work:
    """What goes on; see the module's text.

    Attributes:
        current: the answer that edits belong to, or None.
        progress: of the running job, or None.
        message: how the last job ended, in words; never empty once there was one.
        error: of the last job, or None.
    """

    def __init__(self) -> None:
        self.server = Server("http://127.0.0.1:8000")
        self.conversation = Conversation()
        self.changed: Callable[[], None] = _nothing
        self.current: Optional[SceneAnswer] = None
        self.progress: Optional[Progress] = None
        self.message, self.error = "", None
        self.job: Optional[Job] = None
        self._manager = qt.QNetworkAccessManager()
        self._done: Callable[[Any], str] = str
        self._edited, self._is_refining = "", False
        self._observed: list[tuple[Any, int]] = []
        self._debounce = qt.QTimer()
        self._debounce.setSingleShot(True)
        self._debounce.setInterval(DEBOUNCE_MS)
        self._debounce.timeout.connect(self._refine_edited)

    @property
    def is_busy(self) -> bool:
        return self.job is not None and self.job.is_running

    @property
    def answers(self) -> list[SceneAnswer]:
        """The scene's answers, newest first."""
        return answers_in(slicer.mrmlScene)[::-1]

    # what the user can do

    def test_server(self) -> None:
        self._run(who_is_there(), "Connected to {}.".format)

    def ask(self, shown: ShownSlice, question: str) -> None:
        self._run(self.conversation.ask(self.server, shown, question), self._answered)

    def refine(self, what: str = "box") -> None:
        """Get a new mask for the current answer's box and points; quicker than a question."""
        if self.current is not None:
            self._run(self.conversation.refine(self.server, self.current, what), self._refined)
            self._is_refining = True

    def draw_box(self, shown: ShownSlice, question: str) -> None:
        """Put a box on the slice for the user to move, whatever the reasoner said; the mask follows the box."""
        self.cancel()
        self.select(region_by_hand(shown, question))
        self._say("Drag the box round what you look for; the mask follows.", None)

    def whole_volume(self) -> None:
        if self.current is not None:
            self._run(self.conversation.whole_volume(self.server, self.current), self._refined)

    def save(self) -> None:
        if self.current is not None:
            self._run(self.conversation.save(self.server, self.current), "Saved on the server as {}.".format)

    def next_case(self, propose: Callable[[str], None] = _nothing) -> None:
        """Load what to label next; `propose` is told what the server would ask about it, if anything."""
        self._run(self.conversation.next_case(), partial(self._loaded, propose))

    def cancel(self) -> None:
        """End the running job; what it would still bring is dropped."""
        self._debounce.stop()
        if self.is_busy:
            self.job.cancel()
            self._end("Cancelled.", None)

    def undo(self) -> None:
        if self.current is not None and self.current.can_undo:
            self._edit(self.current.undo, "Undone.")

    def accept(self) -> None:
        if self.current is not None:
            self._edit(self.current.accept, "Accepted.")

    def discard(self) -> None:
        """Remove the current answer, and stop what is being asked about it."""
        if self.current is not None:
            answer, self.current = self.current, None
            self.cancel()
            self._release()
            answer.discard()
            self._say("Discarded.", None)

    def select(self, answer: Optional[SceneAnswer]) -> None:
        """Make an answer the one that edits belong to."""
        self._debounce.stop()
        self._release()
        self.current = answer
        for part in ("box", "points"):
            node = getattr(answer, part) if answer is not None and not answer.is_accepted else None
            if node is not None:
                self._observed += [(node, node.AddObserver(event, self._editor(part))) for event in EDITS]
        self.changed()

    def scene_closes(self) -> None:
        """Forget everything that was about the scene; late answers are dropped."""
        self.cancel()
        self.select(None)
        self.conversation.forget()

    # how jobs run and end

    def _run(self, steps: Steps, done: Callable[[Any], str]) -> None:
        self.cancel()
        self._done, self._is_refining = done, False
        self.job = Job(self._manager, self.server, steps, self._finished, self._failed, self._progressed)

    def _finished(self, found: Any) -> None:
        try:
            message = self._done(found)
        except MedReasonerError as error:
            self._failed(error)
            return
        self._end(message, None)

    def _failed(self, error: MedReasonerError) -> None:
        self._end(error.what, error)

    def _progressed(self, progress: Progress) -> None:
        self.progress = progress
        self.changed()

    def _end(self, message: str, error: Optional[MedReasonerError]) -> None:
        self.progress = None
        self._say(message, error)

    def _say(self, message: str, error: Optional[MedReasonerError]) -> None:
        self.message, self.error = message, error
        self.changed()

    def _answered(self, answer: SceneAnswer) -> str:
        self.select(answer)
        if answer.record.absent:
            return "Answered: not present in this slice."
        return "Answered, but the mask is empty: move the box." if answer.came_empty else "Answered."

    def _refined(self, answer: SceneAnswer) -> str:
        self.select(answer)
        return "The mask is empty: move the box." if answer.came_empty else "New mask."

    def _loaded(self, propose: Callable[[str], None], found: Optional[tuple[NextCase, Path, bool]]) -> str:
        if found is None:
            return "No case is left to label."
        case, file, is_turned = found
        try:
            volume = slicer.util.loadVolume(str(file), {"name": case.name})
        except RuntimeError as error:
            raise MedReasonerError(
                f"Slicer cannot read the case {case.name}: {error}", "look at the server's file"
            ) from error
        came_from(self.server, volume, case.name, is_turned)
        slicer.util.setSliceViewerLayers(background=volume, fit=True)
        if not case.question:
            return f"Loaded {case.name}."
        propose(case.question)
        return f"Loaded {case.name}. Answers differ about: {case.question}"

    # edits in the views

    def _editor(self, what: str) -> Callable[..., None]:
        def edited(*_: Any) -> None:
            self._edited = what
            self._debounce.start()

        return edited

    def _refine_edited(self) -> None:
        if self.is_busy and not self._is_refining:
            self._debounce.start()  # no question is given up for a moved box
            return
        if self.current is not None and self.current.exists and _is_moved(self.current):
            self.refine(self._edited)

    def _edit(self, change: Callable[[], None], message: str) -> None:
        answer, error = self.current, None
        self._release()
        try:
            change()
        except MedReasonerError as failure:
            message, error = failure.what, failure
        self.select(answer)
        self._say(message, error)

    def _release(self) -> None:
        for node, tag in self._observed:
            node.RemoveObserver(tag)
        self._observed.clear()


def _is_moved(answer: SceneAnswer) -> bool:
    """Whether box or points are elsewhere than the mask was made for: looks and selection change nodes too."""
    record = answer.record
    try:
        box, points = answer.edited_region()
    except MedReasonerError:
        return True  # the job will say what is wrong
    now, before = [box, *(points or [])], [record.box or [], *(record.points or [])]
    return len(now) != len(before) or any(_differ(a, b) for a, b in zip(now, before))


def _differ(now: list[float], before: list[float]) -> bool:
    return len(now) != len(before) or any(abs(a - b) > MOVED_PIXELS for a, b in zip(now, before))
