"""What the panel shows: every widget in line with `Work`, the view and the scene. Changes nothing but widgets."""

from __future__ import annotations

import time
from typing import Any

import qt
from slicer.i18n import tr as _

from medreasoner.contract.errors import MedReasonerError
from MedReasonerLib.examples import examples_for
from MedReasonerLib.scene import SceneAnswer
from MedReasonerLib.shown_slice import shown_in
from MedReasonerLib.wording import answer_title, history_line, progress_text, reasoning_html
from MedReasonerLib.work import Work

_TICK_MS = 250


class Face:
    """The panel's looks.

    Attributes:
        listed: the answers in the list, in its order.
    """

    def __init__(self, ui: Any, work: Work) -> None:
        self.ui, self.work = ui, work
        self.listed: list[SceneAnswer] = []
        self._has_slice = False
        self._clock = qt.QTimer()
        self._clock.setInterval(_TICK_MS)
        self._clock.timeout.connect(self._tick)

    def close(self) -> None:
        self._clock.stop()

    def refresh(self) -> None:
        """Bring every widget in line with what goes on."""
        work, ui = self.work, self.ui
        if work.error is not None:
            self.say_error(work.error)
        else:
            self.say(work.message)
        busy = work.is_busy
        ui.progressBar.setVisible(busy)
        fraction = work.progress.fraction if work.progress is not None else None
        ui.progressBar.maximum = 0 if fraction is None else 100
        ui.progressBar.value = round(100 * (fraction or 0))
        if busy and not self._clock.active:
            self._clock.start()
        elif not busy:
            self._clock.stop()
        self._tick()
        if not busy:  # a job changes the scene with its last step only, and tells its progress often
            self._show_answer()
            self._show_history()
        self.show_buttons()

    def _tick(self) -> None:
        if self.work.is_busy and self.work.progress is not None:
            self.say(progress_text(self.work.progress, time.monotonic() - self.work.job.started))

    def say(self, text: str) -> None:
        self.ui.statusLabel.text = text
        self.ui.statusLabel.toolTip = ""

    def say_error(self, error: MedReasonerError) -> None:
        self.ui.statusLabel.text = f"{error.what}\n→ {error.hint}"

    def show_slice(self, slice_logic: Any, earlier: list[str]) -> None:
        """Say what would be asked about, and what could be asked of it."""
        ui, volume = self.ui, None
        try:
            shown = shown_in(slice_logic)
            volume = shown.volume
            where = _("oblique slice") if shown.is_oblique else f"{shown.axis} {shown.slice_index}"
            ui.shownLabel.text = f"{volume.GetName()} · {where} · {shown.view}"
        except MedReasonerError as error:
            ui.shownLabel.text = error.what
        suggestions = [_("Examples and earlier questions"), *examples_for(volume), *earlier]
        if [ui.suggestionBox.itemText(n) for n in range(ui.suggestionBox.count)] != suggestions:
            ui.suggestionBox.clear()
            ui.suggestionBox.addItems(suggestions)
        self._has_slice = volume is not None
        self.show_buttons()

    def ask_consent(self, volume: str, address: str) -> None:
        self.ui.consentLabel.text = _(
            "The image of {volume}, its voxels and position without name or tags, will be sent to {address}. Agree?"
        ).format(volume=volume, address=address)
        self.ui.consentFrame.setVisible(True)
        self.show_buttons()

    def show_buttons(self, *_arguments: Any) -> None:
        ui, work, answer = self.ui, self.work, self.work.current
        busy, obstacle = work.is_busy, self._obstacle()
        ui.askButton.enabled = not obstacle
        ui.askButton.toolTip = obstacle or _("Ask about the slice shown (Ctrl+Return)")
        ui.cancelButton.enabled = busy or ui.consentFrame.visible
        is_there = answer is not None and answer.exists
        is_open = is_there and not answer.is_accepted
        ui.acceptButton.enabled = is_open and not busy
        ui.discardButton.enabled = is_there
        ui.undoButton.enabled = is_open and answer.can_undo and not busy
        ui.drawButton.enabled = self._has_slice and not busy
        ui.volumeButton.enabled = is_open and not busy and answer.box is not None
        ui.saveButton.enabled = is_there and not busy
        ui.nextButton.enabled = ui.testButton.enabled = not busy

    def _obstacle(self) -> str:
        """Why no question can be asked now; empty when one can."""
        if self.work.is_busy:
            return _("Wait for the answer, or cancel")
        if not self._has_slice:
            return _("Show a volume in the view")
        return "" if self.ui.questionEdit.plainText.strip() else _("Type a question")

    def _show_answer(self) -> None:
        answer = self.work.current
        shown = answer is not None and answer.exists
        self.ui.answerTitle.text = answer_title(answer) if shown else _("No answer yet")
        html = reasoning_html(answer.record) if shown else ""
        if self.ui.reasoningBrowser.property("shown") != html:
            self.ui.reasoningBrowser.setProperty("shown", html)
            self.ui.reasoningBrowser.setHtml(html)

    def _show_history(self) -> None:
        self.listed = self.work.answers
        current = self.work.current
        rows = [n for n, a in enumerate(self.listed) if current is not None and a.node is current.node]
        box = self.ui.historyList
        box.blockSignals(True)
        box.clear()
        box.addItems([history_line(answer) for answer in self.listed])
        box.currentRow = rows[0] if rows else -1
        box.blockSignals(False)
