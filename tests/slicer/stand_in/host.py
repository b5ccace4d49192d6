"""The rest of what a scripted module meets in Slicer: its base classes, translation, dialogs, layout manager."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import slicer
import slicer.util
import vtk

from tests.slicer.stand_in.application import VIEWS, Application
from tests.slicer.stand_in.qt_binding import install

MODULE = Path(__file__).parents[3] / "slicer_extension" / "MedReasoner"


class SliceWidget:
    """As far as the module asks: an interactor that can be clicked, and the view's logic."""

    def __init__(self, logic: Any) -> None:
        self._logic, self._interactor = logic, vtk.vtkGenericRenderWindowInteractor()
        self._view = SimpleNamespace(interactor=lambda: self._interactor)

    def sliceView(self) -> Any:
        return self._view

    def sliceLogic(self) -> Any:
        return self._logic

    def click(self) -> None:
        self._interactor.InvokeEvent(vtk.vtkCommand.LeftButtonPressEvent)


class ScriptedLoadableModule:
    def __init__(self, parent: Any) -> None:
        self.parent = parent


class ScriptedLoadableModuleWidget:
    def __init__(self, parent: Any = None) -> None:
        import qt

        self.parent = parent if parent is not None else qt.QWidget()
        self.layout = qt.QVBoxLayout(self.parent)

    def setup(self) -> None:
        """Slicer adds its reload buttons here."""

    def resourcePath(self, name: str) -> str:
        return str(MODULE / "Resources" / name)


class ScriptedLoadableModuleLogic:
    def __init__(self, parent: Any = None) -> None:
        self.parent = parent


def install_host(temporary: Path) -> Application:
    """Make `import qt`, `import slicer` and the module's imports work; settings go to a file under `temporary`."""
    qt = install()
    qt.QSettings.setDefaultFormat(qt.QSettings.IniFormat)
    qt.QSettings.setPath(qt.QSettings.IniFormat, qt.QSettings.UserScope, str(temporary))
    qt.QCoreApplication.setOrganizationName("MedReasonerTests")
    application = Application()
    widgets = {name: SliceWidget(logic) for name, logic in application.views.items()}
    manager = SimpleNamespace(sliceViewNames=lambda: tuple(VIEWS), sliceWidget=widgets.__getitem__)
    application.widgets = widgets  # type: ignore[attr-defined]
    slicer.app.layoutManager = lambda: manager
    slicer.app.temporaryPath = str(temporary)
    base = ModuleType("slicer.ScriptedLoadableModule")
    for kind in (ScriptedLoadableModule, ScriptedLoadableModuleWidget, ScriptedLoadableModuleLogic):
        setattr(base, kind.__name__, kind)
    base.ScriptedLoadableModuleTest = unittest.TestCase  # type: ignore[attr-defined]
    words = ModuleType("slicer.i18n")
    words.tr = lambda text: text  # type: ignore[attr-defined]
    words.translate = lambda _context, text: text  # type: ignore[attr-defined]
    for module in (base, words):
        sys.modules[module.__name__] = module
        setattr(slicer, module.__name__.split(".")[1], module)
    slicer.util.loadVolume = _load_volume
    slicer.util.setSliceViewerLayers = lambda background, fit: application.show(background)  # noqa: ARG005
    sys.path.insert(0, str(MODULE))
    return application


def _load_volume(file: str, properties: dict[str, str]) -> Any:
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(file)
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", properties["name"])
    if not storage.ReadData(volume):
        raise RuntimeError(f"{file} cannot be read")
    volume.CreateDefaultDisplayNodes()
    return volume
