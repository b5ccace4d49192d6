"""An answer in the scene: a box to edit, two points, a segment, and a text node that ties them together.

The text node is the record: question, reasoning, history and the picture's plane as JSON, references to the other
nodes, so that an answer survives saving and loading the scene. A second, hidden text node holds what Undo goes back
to; it goes when the answer is accepted. Nodes stay in the volume's own coordinates and under its parent transform.
Each answer has a segmentation of its own; the user's segments are never touched.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Optional

import numpy as np
import slicer

from medreasoner.contract.label import LabelRecord
from MedReasonerLib import markups, nodes, segments
from MedReasonerLib.geometry import PicturePlane
from MedReasonerLib.mask import Mask
from MedReasonerLib.shown_slice import ShownSlice, ijk_to_ras

KIND = "MedReasoner.answer"  # attribute of the text nodes that are answers
_TAG = "MedReasoner."
_MAX_UNDO = 20  # changes; each takes some kilobytes of the saved scene


class SceneAnswer:
    """One answer; every property reads the scene, so that nothing here outlives what the user deletes."""

    def __init__(self, text_node: Any) -> None:
        self.node = text_node

    @classmethod
    def create(cls, shown: ShownSlice, record: LabelRecord, mask: Mask, confidence: Optional[float]) -> SceneAnswer:
        """Add an answer to the scene of the volume it is about.

        Args:
            shown: the slice that was asked about.
            record: box and points in pixels of the slice's picture.
            mask: in the volume's grid.
            confidence: 0 to 1, or None for what a person drew.
        """
        if shown.is_oblique:
            record = replace(record, axis="oblique")
        scene = shown.volume.GetScene()
        node = scene.AddNewNodeByClass("vtkMRMLTextNode", scene.GenerateUniqueName(_short(record.question)))
        node.SetAttribute(KIND, "1")
        node.SetNodeReferenceID("volume", shown.volume.GetID())
        facts = {
            "confidence": confidence,
            "accepted": False,
            "view": shown.view,
            "slice_to_ras": shown.slice_to_ras.tolist(),
            "oblique": shown.is_oblique,
            "digest": mask.digest,
            "empty": not mask.count,
            "to_ijk": shown.plane.to_ijk.tolist(),
            "size": list(shown.plane.size),
        }
        answer = cls(node)
        answer._write({**facts, "record": json.loads(record.to_json())})
        answer._show(mask)
        return answer

    # what it holds

    @property
    def exists(self) -> bool:
        return self.node.GetScene() is not None and self.volume is not None

    @property
    def volume(self) -> Any:
        return self.node.GetNodeReference("volume")

    @property
    def box(self) -> Any:
        return self.node.GetNodeReference("box")

    @property
    def points(self) -> Any:
        return self.node.GetNodeReference("points")

    @property
    def segmentation(self) -> Any:
        return self.node.GetNodeReference("segmentation")

    @property
    def facts(self) -> dict[str, Any]:
        return json.loads(self.node.GetText())

    @property
    def record(self) -> LabelRecord:
        return LabelRecord.from_json(json.dumps(self.facts["record"]))

    @property
    def shown(self) -> ShownSlice:
        """The slice that was asked about, as the view showed it then."""
        facts, record = self.facts, self.record
        plane = PicturePlane(np.array(facts["to_ijk"]), tuple(facts["size"]))
        axis = "stored" if facts["oblique"] else record.axis
        view = facts["view"], np.array(facts["slice_to_ras"])
        return ShownSlice(self.volume, axis, record.slice_index, record.window, plane, facts["oblique"], *view)

    @property
    def is_accepted(self) -> bool:
        return bool(self.facts["accepted"])

    @property
    def digest(self) -> str:
        """Of the mask as it came from the server; another one says that it was painted on since."""
        return str(self.facts["digest"])

    @property
    def came_empty(self) -> bool:
        """Whether the server's mask held nothing; reading the segment to see would take longer."""
        return bool(self.facts["empty"])

    @property
    def can_undo(self) -> bool:
        return self.node.GetNodeReference("earlier") is not None

    @property
    def mask(self) -> Mask:
        """The segment in the volume's grid, with whatever was painted there by hand."""
        return Mask.empty() if self.segmentation is None else segments.read(self.segmentation, self.volume)

    # what is done to it

    def edited_region(self) -> tuple[list[float], Optional[list[list[float]]]]:
        """Box and points where the user has put them, in picture pixels.

        Raises:
            MedReasonerError: the box was deleted, or lies beside the picture.
        """
        to_ras, plane = ijk_to_ras(self.volume), self.shown.plane
        return markups.box_pixels(self.box, plane, to_ras), markups.point_pixels(self.points, plane, to_ras)

    def change(self, what: str, mask: Mask, confidence: Optional[float] = None, **fields: Any) -> None:
        """Take a new mask (and box, points) for this answer; `undo` goes back."""
        self._keep([*self._earlier(), {"answer": self.node.GetText(), "mask": self.mask.packed()}])
        record = replace(self.record, absent=False, **fields).edited(what)
        new = {
            "record": json.loads(record.to_json()),
            "confidence": confidence,
            "digest": mask.digest,
            "empty": not mask.count,
        }
        self._write({**self.facts, **new})
        self._show(mask, keep_markups=True)

    def undo(self) -> None:
        """Go back by one change: box, points and mask.

        Raises:
            MedReasonerError: what was kept for it cannot be read.
        """
        *earlier, last = self._earlier()
        mask = Mask.unpacked(last["mask"])
        self.node.SetText(last["answer"])
        self._keep(earlier)
        self._show(mask)

    def accept(self) -> None:
        """Name the segment after the target, tag it with question and reasoning, and put box and points away."""
        self._write({**self.facts, "accepted": True})
        self._keep([])
        record = self.record
        for part in (self.box, self.points):
            if part is not None:
                part.SetLocked(True)
                part.SetDisplayVisibility(False)
        if self.segmentation is None:
            return
        name = record.target or _short(record.question)
        segment = self.segmentation.GetSegmentation().GetSegment(segments.ID)
        segment.SetName(name)
        self.segmentation.SetName(self.node.GetScene().GenerateUniqueName(name))
        tags = {"Question": record.question, "Reasoning": record.reasoning, "Reasoner": record.reasoner.get("name", "")}
        for tag, value in tags.items():
            segment.SetTag(_TAG + tag, value)

    def discard(self) -> None:
        """Remove everything of this answer, and nothing else."""
        self._keep([])
        for node in (self.box, self.points, self.segmentation, self.node):
            nodes.remove(node)

    def show_part(self, part: str, visible: bool) -> None:
        """Show or hide the box, the points or the segmentation."""
        node = self.node.GetNodeReference(part)
        if node is not None:
            node.SetDisplayVisibility(visible)

    # the nodes

    def _earlier(self) -> list[dict[str, Any]]:
        """The answer's text and mask before each change, oldest first."""
        return nodes.hidden_values(self.node, "earlier")

    def _keep(self, earlier: list[dict[str, Any]]) -> None:
        nodes.hide_values(self.node, "earlier", earlier[-_MAX_UNDO:])

    def _write(self, facts: dict[str, Any]) -> None:
        self.node.SetText(json.dumps(facts, indent=2, ensure_ascii=False))

    def _show(self, mask: Mask, keep_markups: bool = False) -> None:
        record, plane, to_ras = self.record, self.shown.plane, ijk_to_ras(self.volume)
        if record.box is not None and not (keep_markups and self.box is not None):
            markups.put_box(self._part("box", "vtkMRMLMarkupsROINode"), record.box, plane, to_ras)
        if record.points is not None and not (keep_markups and self.points is not None):
            markups.put_points(self._part("points", "vtkMRMLMarkupsFiducialNode"), record.points, plane, to_ras)
        for part, where in (("box", record.box), ("points", record.points)):
            node = self.node.GetNodeReference(part)
            if where is None:
                nodes.remove(node)
        if mask.count or self.segmentation is not None:
            node = self._part("segmentation", "vtkMRMLSegmentationNode")
            segments.paint(node, self.volume, mask, record.target or "answer")

    def _part(self, role: str, kind: str) -> Any:
        """The node of a role, made when there is none, under the volume's parent transform."""
        node = self.node.GetNodeReference(role)
        if node is None:
            node = self.node.GetScene().AddNewNodeByClass(kind, f"{self.node.GetName()} {role}")
            node.CreateDefaultDisplayNodes()
            self.node.SetNodeReferenceID(role, node.GetID())
        node.SetAndObserveTransformNodeID(self.volume.GetTransformNodeID())
        return node


def answers_in(scene: Any) -> list[SceneAnswer]:
    """The answers of a scene, oldest first, those of a loaded scene too."""
    texts = slicer.util.getNodesByClass("vtkMRMLTextNode", scene)
    return [SceneAnswer(node) for node in texts if node.GetAttribute(KIND) and node.GetNodeReference("volume")]


def _short(question: str) -> str:
    return question if len(question) <= 40 else question[:39].rstrip() + "…"
