"""The slice views, and which of them was clicked last."""

from __future__ import annotations

from typing import Any, Callable

import slicer
import vtk

NAMES = ("Red", "Yellow", "Green")


class Views:
    """Follows clicks and changes; `changed` is called after either."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.last_clicked = NAMES[0]
        self._changed = changed
        self._observed: list[tuple[Any, int]] = []

    def follow(self) -> None:
        """Begin to watch; again after the layout has changed."""
        self.release()
        manager = slicer.app.layoutManager()
        for name in manager.sliceViewNames() if manager is not None else ():
            interactor = manager.sliceWidget(name).sliceView().interactor()
            self._watch(interactor, vtk.vtkCommand.LeftButtonPressEvent, self._clicker(name))
            self._watch(self.logic(name), vtk.vtkCommand.ModifiedEvent, self._on_change)

    def release(self) -> None:
        for watched, tag in self._observed:
            watched.RemoveObserver(tag)
        self._observed.clear()

    @staticmethod
    def logic(name: str) -> Any:
        return slicer.app.applicationLogic().GetSliceLogicByLayoutName(name)

    def bring_back(self, name: str, volume: Any, slice_to_ras: Any) -> None:
        """Show a volume in a view, at a slice that was shown before."""
        logic = self.logic(name)
        logic.GetSliceCompositeNode().SetBackgroundVolumeID(volume.GetID())
        logic.GetSliceNode().GetSliceToRAS().DeepCopy(slicer.util.vtkMatrixFromArray(slice_to_ras))
        logic.GetSliceNode().UpdateMatrices()

    def _watch(self, watched: Any, event: int, call: Callable[..., None]) -> None:
        self._observed.append((watched, watched.AddObserver(event, call)))

    def _clicker(self, name: str) -> Callable[..., None]:
        def clicked(*_: Any) -> None:
            self.last_clicked = name
            self._changed()

        return clicked

    def _on_change(self, *_: Any) -> None:
        self._changed()
