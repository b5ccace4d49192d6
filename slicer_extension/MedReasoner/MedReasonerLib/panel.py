"""The panel: widgets of MedReasoner.ui to `Work`, and back. Follows the rules that hold in PythonQt and PySide alike:
properties are read as attributes, signals are connected to bound methods, nothing modal is in the way.
"""

from __future__ import annotations

import time
from typing import Any, Optional

import qt
import slicer
from slicer.i18n import tr as _

from medreasoner.contract.errors import MedReasonerError
from MedReasonerLib.address import is_readable_by_others, normalised
from MedReasonerLib.client import Server
from MedReasonerLib.examples import examples_for
from MedReasonerLib.preferences import Preferences
from MedReasonerLib.scene import SceneAnswer, answers_in
from MedReasonerLib.shown_slice import ShownSlice, shown_in
from MedReasonerLib.views import NAMES, Views
from MedReasonerLib.wording import answer_title, history_line, progress_text, reasoning_html
from MedReasonerLib.work import Work

_TICK_MS = 250
_SETTLE_MS = 80  # views change many times while one scrolls
PARTS = {"showBox": "box", "showPoints": "points", "showMask": "segmentation"}


class Panel:
    """Connects the widgets; `close` undoes it."""

    def __init__(self, ui: Any, work: Work) -> None:
        self.ui, self.work, self.preferences = ui, work, Preferences()
        self._waiting: Optional[tuple[Any, ...]] = None  # what goes on once the user agrees to an upload
        self._listed: list[SceneAnswer] = []
        self._has_slice = False
        self._clock = _timer(_TICK_MS, self._tick, single=False)
        self._settle = _timer(_SETTLE_MS, self._show_slice, single=True)
        self.views = Views(self._settle.start)
        work.changed = self.refresh
        self._fill()
        self._connect()
        self.enter()
        self.refresh()

    def enter(self) -> None:
        """The module is shown (again): layouts may have changed meanwhile."""
        self.views.follow()
        self._settle.start()

    def close(self) -> None:
        self.views.release()
        self.work.scene_closes()
        self._clock.stop()
        self._settle.stop()

    # set up

    def _fill(self) -> None:
        ui = self.ui
        ui.addressBox.addItems(self.preferences.addresses)
        ui.viewBox.addItems([_("Last clicked view"), *NAMES])
        ui.consentFrame.setVisible(False)
        ui.progressBar.setVisible(False)
        self._show_address()

    def _connect(self) -> None:
        ui, work = self.ui, self.work
        for button, call in (
            (ui.testButton, self._test),
            (ui.askButton, self._ask),
            (ui.cancelButton, self._cancel),
            (ui.allowButton, self._allow),
            (ui.refuseButton, self._refuse),
            (ui.acceptButton, work.accept),
            (ui.discardButton, work.discard),
            (ui.undoButton, work.undo),
            (ui.drawButton, self._draw),
            (ui.volumeButton, self._whole_volume),
            (ui.saveButton, self._save),
            (ui.nextButton, self._next),
        ):
            button.clicked.connect(_without_arguments(call))
        for name, part in PARTS.items():
            getattr(ui, name).toggled.connect(_show_part(work, part))
        ui.addressBox.currentTextChanged.connect(self._show_address)
        ui.viewBox.currentIndexChanged.connect(self._show_slice)
        ui.questionEdit.textChanged.connect(self._show_buttons)
        ui.suggestionBox.activated.connect(self._suggest)
        ui.historyList.currentRowChanged.connect(self._jump)
        self._shortcuts = [
            qt.QShortcut(qt.QKeySequence(keys), ui.questionEdit) for keys in ("Ctrl+Return", "Ctrl+Enter")
        ]
        for shortcut in self._shortcuts:
            shortcut.setContext(qt.Qt.WidgetShortcut)  # inside the question box only: no clash with Slicer's own
            shortcut.activated.connect(self._ask)

    # buttons

    def _test(self) -> None:
        if self._use_server():
            self.work.test_server()

    def _ask(self) -> None:
        if not self.ui.askButton.enabled:
            return
        shown, question = self._shown(), self.ui.questionEdit.plainText
        if shown is not None and self._use_server():
            self.preferences.asked(" ".join(question.split()))
            self._with_consent(shown, self.work.ask, shown, question)

    def _draw(self) -> None:
        shown = self._shown()
        if shown is not None and self._use_server():
            self._with_consent(shown, self.work.draw_box, shown, self.ui.questionEdit.plainText)

    def _whole_volume(self) -> None:
        answer = self.work.current
        if answer is not None and self._use_server():
            self._with_consent(answer.shown, self.work.whole_volume)

    def _save(self) -> None:
        answer = self.work.current
        if answer is not None and self._use_server():
            self._with_consent(answer.shown, self.work.save)

    def _next(self) -> None:
        if self._use_server():
            self.work.next_case()

    def _cancel(self) -> None:
        self._refuse()
        self.work.cancel()

    # consent

    def _with_consent(self, shown: ShownSlice, call: Any, *arguments: Any) -> None:
        """Go on, after asking once per address whether images may be sent there."""
        address = self.work.server.address
        is_new = self.work.conversation.sends_something_new(self.work.server, shown)
        if self.preferences.may_upload(address) or not is_new:
            call(*arguments)
            return
        self._waiting = (call, *arguments)
        self.ui.consentLabel.text = _(
            "The image of {volume}, its voxels and position without patient data, will be sent to {address}. Agree?"
        ).format(volume=shown.volume.GetName(), address=address)
        self.ui.consentFrame.setVisible(True)

    def _allow(self) -> None:
        waiting, self._waiting = self._waiting, None
        self.ui.consentFrame.setVisible(False)
        if waiting is not None:
            self.preferences.allow_upload(self.work.server.address)
            waiting[0](*waiting[1:])

    def _refuse(self) -> None:
        if self._waiting is not None:
            self._waiting = None
            self.ui.consentFrame.setVisible(False)
            self._say(_("Nothing was sent."))

    # server and view

    def _use_server(self) -> bool:
        """Take address and token from the panel; says what is wrong with them and returns False."""
        try:
            address = normalised(self.ui.addressBox.currentText)
        except MedReasonerError as error:
            self._say_error(error)
            return False
        self.work.server = Server(address, self.ui.tokenEdit.text.strip())
        self.preferences.used_address(address)
        return True

    def _show_address(self, *_arguments: Any) -> None:
        try:
            readable = is_readable_by_others(normalised(self.ui.addressBox.currentText))
        except MedReasonerError:  # half typed
            readable = False
        self.ui.plainHttpLabel.setVisible(readable)

    def _view_name(self) -> str:
        chosen = self.ui.viewBox.currentIndex
        return self.views.last_clicked if chosen <= 0 else NAMES[chosen - 1]

    def _shown(self) -> Optional[ShownSlice]:
        try:
            return shown_in(self.views.logic(self._view_name()))
        except MedReasonerError as error:
            self._say_error(error)
            return None

    # what is shown

    def refresh(self) -> None:
        """Bring every widget in line with what goes on."""
        work, ui = self.work, self.ui
        if work.error is not None:
            self._say_error(work.error)
        else:
            self._say(work.message)
        busy = work.is_busy
        ui.progressBar.setVisible(busy)
        fraction = work.progress.fraction if work.progress is not None else None
        ui.progressBar.maximum = 0 if fraction is None else 100
        ui.progressBar.value = round(100 * (fraction or 0))
        (self._clock.start if busy else self._clock.stop)()
        self._tick()
        if not busy:  # a job changes the scene with its last step only, and tells its progress often
            self._show_answer()
            self._show_history()
        self._show_buttons()

    def _tick(self) -> None:
        if self.work.is_busy and self.work.progress is not None:
            self._say(progress_text(self.work.progress, time.monotonic() - self.work.job.started))

    def _say(self, text: str) -> None:
        self.ui.statusLabel.text = text
        self.ui.statusLabel.toolTip = ""

    def _say_error(self, error: MedReasonerError) -> None:
        self.ui.statusLabel.text = f"{error.what}\n→ {error.hint}"

    def _show_slice(self, *_arguments: Any) -> None:
        volume = None
        try:
            shown = shown_in(self.views.logic(self._view_name()))
            volume = shown.volume
            where = _("oblique slice") if shown.is_oblique else f"{shown.axis} {shown.slice_index}"
            self.ui.shownLabel.text = f"{volume.GetName()} · {where} · {shown.view}"
        except MedReasonerError as error:
            self.ui.shownLabel.text = error.what
        ui, earlier = self.ui, self.preferences.questions
        suggestions = [_("Examples and earlier questions"), *examples_for(volume), *earlier]
        if [ui.suggestionBox.itemText(n) for n in range(ui.suggestionBox.count)] != suggestions:
            ui.suggestionBox.clear()
            ui.suggestionBox.addItems(suggestions)
        self._has_slice = volume is not None
        self._show_buttons()

    def _show_buttons(self, *_arguments: Any) -> None:
        ui, work, answer = self.ui, self.work, self.work.current
        busy, obstacle = work.is_busy, self._obstacle()
        ui.askButton.enabled = not obstacle
        ui.askButton.toolTip = obstacle or _("Ask about the slice shown (Ctrl+Return)")
        ui.cancelButton.enabled = busy or self._waiting is not None
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
        self._listed = answers_in(slicer.mrmlScene)[::-1]
        current = self.work.current
        rows = [n for n, a in enumerate(self._listed) if current is not None and a.node is current.node]
        box = self.ui.historyList
        box.blockSignals(True)
        box.clear()
        box.addItems([history_line(answer) for answer in self._listed])
        box.currentRow = rows[0] if rows else -1
        box.blockSignals(False)

    def _jump(self, row: int) -> None:
        """Go back to an earlier answer, with its slice and view."""
        if 0 <= row < len(self._listed) and self._listed[row].exists:
            answer = self._listed[row]
            shown = answer.shown
            if not self.work.is_busy:
                self.work.select(answer)
            self.views.bring_back(shown.view, shown.volume, shown.slice_to_ras)

    def _suggest(self, *_arguments: Any) -> None:
        box = self.ui.suggestionBox  # asked itself: in Qt 5 the signal brings a number or a text
        if box.currentIndex > 0:
            self.ui.questionEdit.plainText = box.currentText
            box.currentIndex = 0
            self.ui.questionEdit.setFocus()


def _timer(milliseconds: int, call: Any, single: bool) -> Any:
    timer = qt.QTimer()
    timer.setInterval(milliseconds)
    timer.setSingleShot(single)
    timer.timeout.connect(call)
    return timer


def _without_arguments(call: Any) -> Any:
    """`clicked` brings whether a button is checked; Qt's bindings differ in whether they pass it."""

    def called(*_arguments: Any) -> None:
        call()

    return called


def _show_part(work: Work, part: str) -> Any:
    def toggled(visible: bool) -> None:
        if work.current is not None and work.current.exists:
            work.current.show_part(part, visible)

    return toggled
