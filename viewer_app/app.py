"""The browser side: what is typed, dragged and clicked becomes a call of `Reading`, whose state is shown again.

What the page knows better at the moment of a click (question, box) comes as an argument: its state may still be on its
way here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trame.app import TrameApp
from trame.decorators import change, trigger

from medreasoner.contract.answer import Box, GroundingAnswer, Point
from medreasoner.contract.errors import MedReasonerError
from viewer_app.layout import TITLE, build
from viewer_app.pictures import address_of, address_of_mask
from viewer_app.reading import Answered, Reading

_EMPTY: dict[str, Any] = {
    "path": "",
    "axis": "",
    "axes": [],
    "slice_index": 0,
    "last_slice": 0,
    "window_centre": None,
    "window_width": None,
    "picture": "",
    "picture_size": [1, 1],
    "question": "",
    "busy": "",
    "seconds": 0,
    "error": "",
    "hint": "",
    "status": "",
    "reasoning": "",
    "absent": False,
    "confidence": "",
    "asked": "",
    "answers": [],
    "box": None,
    "points": [],
    "mask": "",
    "show_box": True,
    "show_points": True,
    "show_mask": True,
    "drawing": False,
    "anchor": None,
    "moving": -1,
    "dark": True,
}


class ViewerApp(TrameApp):
    """One browser page over one `Reading`."""

    def __init__(self, reading: Reading, server: Any = None) -> None:
        super().__init__(server)
        self.reading = reading
        self._following = True  # off while the state is filled in from here
        self.state.update(_EMPTY)
        self.state.trame__title = TITLE
        build(self)

    @trigger("open_image")
    def open_image(self, path: str) -> None:
        """Open a file or series folder."""
        with self._errors_shown():
            self.reading.open(Path(path.strip()).expanduser())
            self.show_opened()

    def show_opened(self) -> None:
        """Put the image that was just opened on the page."""
        assert self.reading.image is not None
        self.state.update({"path": str(self.reading.image.path), "axes": self.reading.axes(), "status": ""})
        self.state.drawing = False
        self._show_window()
        self._show_slice()

    @trigger("ask")
    async def ask(self, question: str) -> None:
        """Ask about the slice on screen, without stopping the page."""
        await self._work("thinking", lambda: self.reading.ask(question))

    @trigger("refine")
    async def refine(self, corners: list[float] | None, marks: list[list[float]]) -> None:
        """Get a new mask for a box and points as they are on the page."""
        self.state.drawing = False
        if not corners:
            return
        with self._errors_shown():
            box = Box(*map(float, corners))
            points = (Point(*map(float, marks[0])), Point(*map(float, marks[1]))) if len(marks) == 2 else None
            await self._work("segmenting", lambda: self.reading.refine(box, points))
            return
        self._show_answer()  # again: what was drawn cannot be used, and the page has taken the rest away

    def undo(self) -> None:
        """Take the latest answer or correction back."""
        self.state.status = "taken back" if self.reading.undo() else "nothing to undo"
        self._show_answer()

    def go_to(self, number: int) -> None:
        """Jump back to an earlier answer, its slice and its window."""
        self.reading.go_to(number)
        self._show_window()
        self._show_slice()

    def save(self) -> None:
        """Write overlay, mask and result."""
        with self._errors_shown():
            written = self.reading.save()
            self.state.status = f"saved {written.mask.name}, {written.overlay.name} and {written.result.name}"

    @change("axis", "slice_index", "window_centre", "window_width")
    def on_view(self, axis: str, slice_index: int, window_centre: Any, window_width: Any, **_: Any) -> None:
        """Follow the view, slice and window that were chosen on the page."""
        if not self._following or self.reading.image is None:
            return
        picture = self.reading.picture
        turned = picture is not None and axis != (self.reading.axis or picture.axis)
        with self._errors_shown():
            unset = (None, "")  # a centre of 0 is one
            whole = window_centre not in unset and window_width not in unset
            window = (float(window_centre), float(window_width)) if whole else None
            # A view that nobody chose stays: its name, "axial" or even "oblique", asks for another one or for none.
            wished = (axis or None) if turned else self.reading.axis
            self.reading.show(wished, None if turned else int(slice_index), window)
            self._show_slice()

    async def _work(self, what: str, job: Callable[[], Answered]) -> None:
        """Run a job in a thread, count its seconds on the page, and show what it found."""
        if self.state.busy:
            return
        self.state.update({"busy": what, "seconds": 0, "status": ""})
        start, task = time.monotonic(), asyncio.create_task(asyncio.to_thread(job))
        while not task.done():
            self.state.seconds = int(time.monotonic() - start)
            self.state.flush()
            await asyncio.wait({task}, timeout=0.25)
        with self._errors_shown():
            try:
                task.result()
            finally:
                self.state.busy = ""
        self._show_answer()
        self.state.flush()

    def _show_window(self) -> None:
        """Fill its fields in; not while somebody types there, of whom one of the two may have come yet."""
        centre, width = self.reading.window or (None, None)
        self.state.update({"window_centre": centre, "window_width": width})

    def _show_slice(self) -> None:
        reading = self.reading
        picture = reading.picture
        assert picture is not None
        self._following = False
        with self.state:
            self.state.update(
                {
                    "picture": address_of(picture),
                    "picture_size": [picture.width, picture.height],
                    "axis": reading.axis or picture.axis,
                    "slice_index": picture.slice_index,
                    "last_slice": reading.slice_count() - 1,
                }
            )
        self._following = True
        self._show_answer()

    def _show_answer(self) -> None:
        found = self.reading.answer
        answer = None if found is None else found.grounding.answer
        there = answer if isinstance(answer, GroundingAnswer) else None
        self.state.update(
            {
                "box": [round(v, 2) for v in there.box.as_list()] if there else None,
                "points": [[round(p.x, 2), round(p.y, 2)] for p in there.points] if there else [],
                "mask": address_of_mask(found.grounding.mask) if found else "",
                "reasoning": answer.reasoning if answer else "",
                "asked": found.grounding.question if found else "",
                "absent": found is not None and found.grounding.absent,
                "confidence": f"{found.grounding.confidence:.2f}" if found else "",
                "answers": [
                    {
                        "number": number,
                        "question": one.grounding.question,
                        "where": f"{one.picture.axis} {one.picture.slice_index}",
                        "edited": one.edited,
                    }
                    for number, one in enumerate(self.reading.answers)
                ],
            }
        )

    def _errors_shown(self) -> _ErrorsShown:
        return _ErrorsShown(self.state)


class _ErrorsShown:
    """Show an expected error on the page: what went wrong, and what to do next."""

    def __init__(self, state: Any) -> None:
        self._state = state

    def __enter__(self) -> None:
        self._state.update({"error": "", "hint": ""})

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool:
        if isinstance(error, MedReasonerError):
            self._state.update({"error": error.what, "hint": error.hint})
            return True
        if isinstance(error, MemoryError):
            self._state.update({"error": "not enough memory for this", "hint": "close other programs"})
            return True
        return False
