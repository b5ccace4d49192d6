"""Slicer's and CTK's widgets of the .ui file, as plain ones that look alike."""

from __future__ import annotations

from typing import Any

from PySide6 import QtCore, QtWidgets


class qMRMLWidget(QtWidgets.QWidget):
    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene


class ctkCollapsibleButton(QtWidgets.QGroupBox):
    """Its property is called text, where a group box has a title."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)

    def _text(self) -> str:
        return str(self.property("title"))

    def _set_text(self, text: str) -> None:
        self.setTitle(text)

    text = QtCore.Property(str, _text, _set_text)
