"""The panel: widgets of MedReasoner.ui to `Work`, and back. Follows the rules that hold in PythonQt and PySide alike:
properties are read as attributes, signals are connected to bound methods, nothing modal is in the way.
"""

from __future__ import annotations

from typing import Any, Optional

import qt
from slicer.i18n import tr as _

from medreasoner.contract.errors import MedReasonerError
from MedReasonerLib.address import is_readable_by_others, normalised
from MedReasonerLib.client import Server
from MedReasonerLib.face import Face
from MedReasonerLib.preferences import Preferences
from MedReasonerLib.shown_slice import ShownSlice, shown_in
from MedReasonerLib.views import NAMES, Views
from MedReasonerLib.work import Work

_SETTLE_MS = 80  # views change many times while one scrolls
PARTS = {"showBox": "box", "showPoints": "points", "showMask": "segmentation"}


class Panel:
    """Connects the widgets; `close` undoes it."""

    def __init__(self, ui: Any, work: Work) -> None:
        self.ui, self.work, self.preferences = ui, work, Preferences()
        self._waiting: Optional[tuple[Any, ...]] = None  # what goes on once the user agrees to an upload
        self.face = Face(ui, work)
        self._settle = _timer(_SETTLE_MS, self._show_slice)
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
        self.face.close()
        self._settle.stop()

    def refresh(self) -> None:
        """Bring every widget in line with what goes on."""
        self.face.refresh()

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
        ui.questionEdit.textChanged.connect(self.face.show_buttons)
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
            self.work.next_case(self._propose)

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
        self.face.ask_consent(shown.volume.GetName(), address)

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
            self.face.say(_("Nothing was sent."))

    # server and view

    def _use_server(self) -> bool:
        """Take address and token from the panel; says what is wrong with them and returns False."""
        try:
            address = normalised(self.ui.addressBox.currentText)
        except MedReasonerError as error:
            self.face.say_error(error)
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

    def _show_slice(self, *_arguments: Any) -> None:
        self.face.show_slice(self.views.logic(self._view_name()), self.preferences.questions)
        self._settle.stop()  # to read a view makes it say that it has changed

    def _shown(self) -> Optional[ShownSlice]:
        try:
            return shown_in(self.views.logic(self._view_name()))
        except MedReasonerError as error:
            self.face.say_error(error)
            return None

    # lists

    def _jump(self, row: int) -> None:
        """Go back to an earlier answer, with its slice and view."""
        if 0 <= row < len(self.face.listed) and self.face.listed[row].exists:
            answer = self.face.listed[row]
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

    def _propose(self, question: str) -> None:
        """Put the server's question into the box, unless something is written there that was not asked yet."""
        written = " ".join(self.ui.questionEdit.plainText.split())
        if not written or written in self.preferences.questions:
            self.ui.questionEdit.plainText = question


def _timer(milliseconds: int, call: Any) -> Any:
    timer = qt.QTimer()
    timer.setInterval(milliseconds)
    timer.setSingleShot(True)
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
