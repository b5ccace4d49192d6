"""MedReasoner: ask a clinical question about the slice on screen. The parts are in MedReasonerLib."""

import logging

import numpy as np
import slicer
from MedReasonerLib.conversation import region_by_hand
from MedReasonerLib.mask import Mask
from MedReasonerLib.panel import Panel
from MedReasonerLib.shown_slice import shown_in
from MedReasonerLib.views import Views
from MedReasonerLib.work import Work
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class MedReasoner(ScriptedLoadableModule):
    """What Slicer's module list says."""

    def __init__(self, parent):
        super().__init__(parent)
        self.parent.title = _("MedReasoner")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["The MedReasoner maintainers"]
        self.parent.helpText = _(
            "Type a clinical question about the slice on screen. A MedReasoner server answers with its reasoning, a "
            "box, two points and a mask, which you can correct. Research use only: not a medical device."
        )
        self.parent.acknowledgementText = _(
            "After MedReasoner: Reinforcement Learning Drives Reasoning Grounding from Clinical Thought to "
            "Pixel-Level Precision (Yan et al., arXiv:2508.08177). This is not its authors' own software."
        )


class MedReasonerLogic(ScriptedLoadableModuleLogic, Work):
    """The work without the panel, for scripts."""

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        Work.__init__(self)


class MedReasonerWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Loads MedReasoner.ui; the rest is MedReasonerLib/panel.py."""

    panel = None  # stays so when setup fails, as cleanup and enter are called all the same

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/MedReasoner.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = MedReasonerLogic()
        self.panel = Panel(self.ui, self.logic)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneChanged)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneChanged)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeRemovedEvent, self.onNodeRemoved)

    def cleanup(self):
        self.removeObservers()
        if self.panel is not None:
            self.panel.close()

    def enter(self):
        if self.panel is not None:
            self.panel.enter()

    def onSceneStartClose(self, *_event):
        self.logic.scene_closes()

    def onSceneChanged(self, *_event):
        self.panel.enter()
        self.panel.refresh()

    def onNodeRemoved(self, *_event):
        current = self.logic.current
        if current is not None and not current.exists and not slicer.mrmlScene.IsClosing():
            self.logic.select(None)


class MedReasonerTest(ScriptedLoadableModuleTest):
    """The self test, run inside Slicer (Developer mode, Reload and Test); it needs no server."""

    def setUp(self):
        slicer.mrmlScene.Clear(0)

    def runTest(self):
        self.setUp()
        self.test_slice_on_screen_is_read()
        self.setUp()
        self.test_answer_can_be_drawn_undone_and_removed()

    def test_slice_on_screen_is_read(self):
        shown = self._shown()
        assert (shown.axis, shown.slice_index) == ("axial", 5)
        assert shown.sent[0].shape == (10, 20, 30)

    def test_answer_can_be_drawn_undone_and_removed(self):
        answer = region_by_hand(self._shown(), "Where is it?")
        voxels = np.zeros((10, 20, 30), np.uint8)
        voxels[5, 3:9, 4:7] = 1
        answer.change("box", Mask.cropped(voxels))
        np.testing.assert_array_equal(answer.mask.full((30, 20, 10)), voxels)
        answer.undo()
        assert answer.mask.count == 0
        answer.discard()
        assert len(slicer.util.getNodesByClass("vtkMRMLMarkupsROINode")) == 0
        logging.info("MedReasoner: the self test has passed")

    def _shown(self):
        volume = slicer.util.addVolumeFromArray(np.arange(6000, dtype=np.int16).reshape(10, 20, 30))
        volume.CreateDefaultDisplayNodes()
        logic = Views.logic("Red")
        logic.GetSliceCompositeNode().SetBackgroundVolumeID(volume.GetID())
        logic.FitSliceToAll()
        logic.GetSliceNode().SetSliceOffset(5)
        return shown_in(logic)
