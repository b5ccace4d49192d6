"""A slice view as Slicer draws it, off the screen: the slice, segments and markups of one view, as an RGB array."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from tests.slicer.stand_in.application import Application

DRAWN = ("vtkMRMLSegmentationsDisplayableManager2D", "vtkMRMLMarkupsDisplayableManager")


class SliceView:
    """Draws one of the application's views; keep it as long as its pictures are wanted."""

    def __init__(self, application: Application, name: str, size: tuple[int, int]) -> None:
        self._logic, self._size = application.views[name], size
        self._logic.GetSliceNode().SetDimensions(*size, 1)
        self._window = vtk.vtkRenderWindow()
        self._window.SetOffScreenRendering(1)
        self._window.SetMultiSamples(0)
        self._window.SetSize(*size)
        self._renderer = vtk.vtkRenderer()
        self._window.AddRenderer(self._renderer)
        self._interactor = vtk.vtkGenericRenderWindowInteractor()
        self._window.SetInteractor(self._interactor)
        self._renderer.GetActiveCamera().ParallelProjectionOn()
        self._mapper = vtk.vtkImageMapper()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        actor = vtk.vtkActor2D()
        actor.SetMapper(self._mapper)
        actor.GetProperty().SetDisplayLocationToBackground()
        self._renderer.AddViewProp(actor)
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        factory.SetMRMLApplicationLogic(application.logic)
        for kind in DRAWN:
            if not factory.IsDisplayableManagerRegistered(kind):
                factory.RegisterDisplayableManager(kind)
        self._group = factory.InstantiateDisplayableManagers(self._renderer)
        self._group.SetMRMLDisplayableNode(self._logic.GetSliceNode())

    def picture(self) -> np.ndarray:
        """(height, width, 3) uint8, first row on top."""
        self._logic.UpdatePipeline()
        self._mapper.SetInputConnection(self._logic.GetImageDataConnection())
        self._window.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self._window)
        grab.SetInputBufferTypeToRGB()
        grab.ReadFrontBufferOff()
        grab.Update()
        pixels: Any = vtk_to_numpy(grab.GetOutput().GetPointData().GetScalars())
        return pixels.reshape(self._size[1], self._size[0], 3)[::-1].copy()

    def pixel_of(self, world: Any) -> tuple[int, int]:
        """Row and column of a patient position (RAS mm) on the picture."""
        matrix = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(self._logic.GetSliceNode().GetXYToRAS(), matrix)
        x, y = matrix.MultiplyPoint([*world, 1.0])[:2]
        return self._size[1] - 1 - round(y), round(x)

    def close(self) -> None:
        self._group.SetMRMLDisplayableNode(None)
        self._window.Finalize()
