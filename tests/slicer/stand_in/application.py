"""slicer.mrmlScene, slicer.app and slicer.modules over slicer-core, with the three standard slice views."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import slicer
import slicer.util
import vtk

VIEWS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}
SIZE = (256, 200)  # pixels of a view


class Application:
    """One running "application"; its scene is emptied, not replaced, between tests, as in Slicer."""

    def __init__(self) -> None:
        slicer.mrmlScene = self.scene = slicer.vtkMRMLScene()
        self.logic = slicer.vtkSlicerApplicationLogic()
        self.logic.SetMRMLScene(self.scene)
        self.scene.SetCacheManager(slicer.vtkCacheManager())
        self._data = slicer.vtkDataIOManager()
        self._data.SetCacheManager(self.scene.GetCacheManager())
        self.scene.SetDataIOManager(self._data)
        self._logics = {
            "volumes": slicer.vtkSlicerVolumesLogic(),
            "segmentations": slicer.vtkSlicerSegmentationsModuleLogic(),
            "markups": slicer.vtkSlicerMarkupsLogic(),
            "colors": slicer.vtkMRMLColorLogic(),
        }
        for name, logic in self._logics.items():
            logic.SetMRMLScene(self.scene)
            self.logic.SetModuleLogic(name.capitalize(), logic)
        slicer.modules = SimpleNamespace(
            **{name: SimpleNamespace(logic=lambda logic=logic: logic) for name, logic in self._logics.items()}
        )
        slicer.app = SimpleNamespace(applicationLogic=lambda: self.logic)
        slices = vtk.vtkCollection()
        self.views = {}
        for name, orientation in VIEWS.items():
            view = slicer.vtkMRMLSliceLogic()
            view.SetMRMLScene(self.scene)
            view.AddSliceNode(name) if hasattr(view, "AddSliceNode") else view.SetName(name)
            slices.AddItem(view)
            self.views[name] = view
            view.GetSliceNode().SetOrientation(orientation)
            view.GetSliceNode().SetDimensions(*SIZE, 1)
        self.logic.SetSliceLogics(slices)

    def show(self, volume: Any, view: str = "Red") -> Any:
        """Put a volume into a view's background, fitted, and return the view's logic."""
        logic = self.views[view]
        logic.GetSliceCompositeNode().SetBackgroundVolumeID(volume.GetID())
        logic.FitSliceToAll(*SIZE)
        return logic

    def close_scene(self) -> None:
        """As File, Close Scene; views go back to where they were at the start, for the next test."""
        self.scene.Clear(0)
        for name, orientation in VIEWS.items():
            node = self.views[name].GetSliceNode()
            node.SetOrientation(orientation)
            node.SetDimensions(*SIZE, 1)
