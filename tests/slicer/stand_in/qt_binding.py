"""A `qt` module as PythonQt gives it, over PySide6: one flat name space, and properties that are attributes.

The change is made to PySide6's own classes, so it holds for the whole process: tests that use it run in one of their
own (tests/slicer/test_panel.py starts it).
"""

from __future__ import annotations

import sys
from types import ModuleType

from PySide6 import QtCore, QtGui, QtNetwork, QtTest, QtUiTools, QtWidgets

MODULES = (QtCore, QtGui, QtWidgets, QtNetwork, QtUiTools, QtTest)


def install() -> ModuleType:
    """Make `import qt` work, once."""
    if "qt" in sys.modules:
        return sys.modules["qt"]
    qt = ModuleType("qt")
    for module in MODULES:
        for name in dir(module):  # not vars(): PySide6 loads its classes when they are asked for
            if name.startswith("Q"):
                setattr(qt, name, getattr(module, name))
    for name in dir(qt):
        kind = getattr(qt, name)
        if isinstance(kind, type) and issubclass(kind, QtCore.QObject):
            _properties_as_attributes(kind)
    QtCore.QObject.name = property(_getter("objectName"))  # as PythonQt calls it
    qt.QUiLoader = _loader()  # type: ignore[attr-defined]
    sys.modules["qt"] = qt
    return qt


def run_events(milliseconds: int) -> None:
    """Run the event loop for a while.

    Not by QCoreApplication.processEvents(flags, time): each call of it takes a reference from None, in PySide6 6.12,
    and after some ten thousand the interpreter ends.
    """
    loop, timer = QtCore.QEventLoop(), QtCore.QTimer()
    timer.setSingleShot(True)
    timer.timeout.connect(loop.quit)
    timer.start(milliseconds)
    loop.exec()


def _properties_as_attributes(kind: type[QtCore.QObject]) -> None:
    meta = kind.staticMetaObject
    for number in range(meta.propertyOffset(), meta.propertyCount()):
        name = str(meta.property(number).name())
        setattr(kind, name, property(_getter(name), _setter(name)))


def _getter(name: str) -> object:
    return lambda self: self.property(name)


def _setter(name: str) -> object:
    return lambda self, value: self.setProperty(name, value)


def _loader() -> type:
    """A loader of .ui files that knows Slicer's widgets."""
    from tests.slicer.stand_in import slicer_widgets

    class Loader(QtUiTools.QUiLoader):
        def createWidget(self, name: str, parent: QtWidgets.QWidget | None = None, object_name: str = "") -> object:
            kind = getattr(slicer_widgets, name, None)
            if kind is None:
                return super().createWidget(name, parent, object_name)
            widget = kind(parent)
            widget.setObjectName(object_name)
            return widget

    return Loader
