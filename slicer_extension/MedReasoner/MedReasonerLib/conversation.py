"""What the panel's buttons say to the server and do to the scene, step by step. Knows no widget.

Each method is a generator for MedReasonerLib/network.py's `Job`: it yields calls and gets replies. A session is the
server's name for an uploaded volume; it is used again until the volume's voxels or geometry change.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
import slicer

from medreasoner.contract.errors import MedReasonerError
from medreasoner.contract.label import LabelRecord
from medreasoner.contract.wire import GroundingRequest, RegionRequest, checked_question
from MedReasonerLib import client, replies
from MedReasonerLib.client import Aside, Call, Server, ServerError, ServerImage, Steps
from MedReasonerLib.geometry import ACROSS, VIEWS, box_corners, index_axes
from MedReasonerLib.mask import Mask
from MedReasonerLib.multipart import Form
from MedReasonerLib.nifti_header import is_left_handed
from MedReasonerLib.nrrd_file import compressed_file, read_mask, write_form
from MedReasonerLib.replies import Answered
from MedReasonerLib.scene import SceneAnswer
from MedReasonerLib.shown_slice import ShownSlice, ijk_to_ras

CASE = "MedReasoner.case"  # attribute of volumes: which case of which server they are
BY_HAND = "(drawn by hand)"
_PREFIX = "medreasoner"  # of temporary folders
_HEAD = 4096  # bytes of a file that tell its kind, and hold a NIfTI header even when compressed
_VERSIONS = "update the older of server and extension"


class Conversation:
    """Remembers what was uploaded where."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[Any, ...], ServerImage] = {}

    def ask(self, server: Server, shown: ShownSlice, question: str) -> Steps:
        """Ask a question; returns a `SceneAnswer`."""
        request = GroundingRequest(checked_question(question), shown.axis, shown.slice_index, shown.window)
        answered, mask = yield from self._answer(server, shown, lambda image: client.ask(image, request))
        record = LabelRecord.of(answered.result, shown.window)
        return SceneAnswer.create(shown, record, mask, answered.result.confidence)

    def refine(self, server: Server, answer: SceneAnswer, what: str) -> Steps:
        """Get the mask for the box and points where the user has put them; returns the answer."""
        box, points = answer.edited_region()
        shown = answer.shown
        inside = points if points and all(_is_in(box, point) for point in points) else None  # others would mislead
        region = RegionRequest(box, inside, "", shown.axis, shown.slice_index, shown.window)
        answered, mask = yield from self._answer(server, shown, lambda image: client.refine(image, region))
        _still(answer)
        answer.change(what, mask, answered.result.confidence, box=box, points=points)
        return answer

    def whole_volume(self, server: Server, answer: SceneAnswer) -> Steps:
        """Take the mask through all slices; returns the answer."""
        shown = answer.shown
        if shown.is_oblique:
            raise MedReasonerError("an oblique slice has no neighbours", "ask on an axial, coronal or sagittal view")
        box, _ = answer.edited_region()
        region = RegionRequest(box, None, "", shown.axis, shown.slice_index, shown.window)
        answered, mask = yield from self._answer(server, shown, lambda image: client.whole_volume(image, region))
        _still(answer)
        answer.change("mask", mask, answered.result.confidence, box=box)
        return answer

    def save(self, server: Server, answer: SceneAnswer) -> Steps:
        """Store the mask as it is now, with its question and history; returns the case's name."""
        volume = answer.volume
        case = _case_of(volume, server) or (yield from self._add_case(server, volume))
        mask, record = answer.mask, answer.record
        if mask.digest != answer.digest:
            record = record.edited("mask")
        if answer.shown.is_oblique:  # pixels of a plane that the stored image does not have
            record = replace(record, box=None, points=None)
        record = _as_the_case_counts(record, volume)
        shape = volume.GetImageData().GetDimensions()
        file = yield from compressed_file(mask.full(shape), ijk_to_ras(volume))
        yield client.save_label(case, file, record)
        return case

    def next_case(self) -> Steps:
        """Fetch the case to label next; returns None when all are labelled.

        A server that scores images chooses by how far answers disagree, another gives the first by name.

        Returns:
            The `NextCase`, its file, and whether Slicer will turn the file's slices round.
        """
        scores = replies.read_json((yield client.info())).get("scoring")
        case = replies.read_case((yield client.next_case("disagreement" if scores else "first")))
        if case is None:
            return None
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=slicer.app.temporaryPath))
        file = folder / "case"
        try:
            yield client.get_case(case.name, file)
        except BaseException:  # cancelled too: half a case is of no use, and may fill the disk
            shutil.rmtree(folder, ignore_errors=True)
            raise
        with file.open("rb") as opened:
            head = opened.read(_HEAD)
        return case, file.rename(file.with_suffix(replies.ending_of(head))), is_left_handed(head)

    def forget(self) -> None:
        """Forget all volumes: the scene was closed."""
        self._sessions.clear()

    def sends_something_new(self, server: Server, shown: ShownSlice) -> bool:
        """Whether asking about this slice would give the server an image that it does not have."""
        return _key(server, shown) not in self._sessions and _case_of(shown.volume, server) is None

    def _answer(self, server: Server, shown: ShownSlice, call: Callable[[ServerImage], Call]) -> Steps:
        """Make a call about a slice, uploading where needed; returns `Answered` and the mask in the volume's grid."""
        (shape, to_ras), key = shown.sent_grid, _key(server, shown)
        image = yield from self._image(server, shown)
        try:
            reply = yield call(image)
        except ServerError as error:
            if error.status != 404 or not image.session:
                raise
            self._sessions.pop(key, None)  # the server has ended the session meanwhile
            image = yield from self._image(server, shown)
            reply = yield call(image)
        answered = replies.read_answer(reply)
        mask = yield from read_mask(answered.mask_file, shape, to_ras)
        if shown.volume.GetScene() is None:
            raise MedReasonerError("the volume was removed before the answer came", "load it and ask again")
        _check_place(answered, shown)
        return answered, shown.in_volume(mask)

    def _image(self, server: Server, shown: ShownSlice) -> Steps:
        """The server's name for the image, after an upload where it has none yet."""
        key = _key(server, shown)
        if key in self._sessions:
            return self._sessions[key]
        for other in [k for k in self._sessions if k[:3] == key[:3]]:
            yield Aside(client.close_session(self._sessions.pop(other)))
        reply = yield from _upload(*shown.sent, "files", client.open_session)
        self._sessions[key] = replies.read_session(reply)
        return self._sessions[key]

    def _add_case(self, server: Server, volume: Any) -> Steps:
        name = f"slicer-{uuid.uuid4().hex[:12]}"  # a volume's own name may hold the patient's
        voxels = ShownSlice.voxels_of(volume)
        yield from _upload(voxels, ijk_to_ras(volume), "file", lambda body, kind: client.add_case(name, body, kind))
        came_from(server, volume, name)
        return name


def who_is_there() -> Steps:
    """Ask the server for its name; raises `MedReasonerError` when it has no MedReasoner model."""
    info = replies.read_json((yield client.info()))
    name = str(info.get("name", ""))
    if "medreasoner" not in (info.get("models") or {}):
        raise MedReasonerError(f"the server {name!r} has no MedReasoner model", "start it with `medreasoner serve`")
    return name


def came_from(server: Server, volume: Any, case: str, is_turned: bool = False) -> None:
    """Remember that a volume is a case of a server, so that its labels are saved there.

    Questions about it still send the voxels as Slicer has them: the server's answer must lie in the grid on screen.

    Args:
        is_turned: Slicer has turned the file's slices round, so their numbers count from the other end.
    """
    volume.SetAttribute(CASE, json.dumps({"address": server.address, "image": case, "turned": is_turned}))


def region_by_hand(shown: ShownSlice, question: str) -> SceneAnswer:
    """Put a box of a third of the picture on its middle, for the user to move."""
    width, height = shown.plane.size
    box = [round(width / 3), round(height / 3), round(2 * width / 3), round(2 * height / 3)]
    text = " ".join(question.split()) or BY_HAND
    record = LabelRecord(text, False, shown.axis, shown.slice_index, window=shown.window, box=[float(v) for v in box])
    return SceneAnswer.create(shown, record, Mask.empty(), None)


def _upload(voxels: np.ndarray, to_ras: np.ndarray, field: str, call: Callable[[Path, str], Call]) -> Steps:
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=slicer.app.temporaryPath) as folder:
        form, body = Form(), Path(folder) / "body"
        yield from write_form(voxels, to_ras, form, field, "volume.nrrd", body)
        return (yield call(body, form.content_type))


def _key(server: Server, shown: ShownSlice) -> tuple[Any, ...]:
    """Server, volume and whether it is a reformat; then all that the sent image depends on."""
    volume = shown.volume
    state = volume.GetImageData().GetMTime(), ijk_to_ras(volume).tobytes()
    plane = shown.plane.to_ijk.tobytes() if shown.is_oblique else b""
    return server.address, volume.GetID(), shown.is_oblique, state, plane


def _case_of(volume: Any, server: Server) -> Optional[str]:
    case = json.loads(volume.GetAttribute(CASE) or "{}")
    return case.get("image") if case.get("address") == server.address else None


def _as_the_case_counts(record: LabelRecord, volume: Any) -> LabelRecord:
    """The record with the slice's number in the server's file; box and points are the same in both."""
    is_turned = json.loads(volume.GetAttribute(CASE) or "{}").get("turned", False)
    if not is_turned or record.axis not in VIEWS or index_axes(ijk_to_ras(volume))[ACROSS[record.axis]] != 2:
        return record
    return replace(record, slice_index=volume.GetImageData().GetDimensions()[2] - 1 - record.slice_index)


def _is_in(box: list[float], point: list[float]) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def _still(answer: SceneAnswer) -> None:
    if not answer.exists:
        raise MedReasonerError("the answer was removed meanwhile", "ask again")


def _check_place(answered: Answered, shown: ShownSlice) -> None:
    """Server and extension must mean the same pixels; raises `MedReasonerError` when they do not."""
    result = answered.result
    if tuple(result.picture_size) != tuple(shown.plane.size):
        raise MedReasonerError(
            f"the server's picture has {result.picture_size} pixels, not {shown.plane.size}", _VERSIONS
        )
    if result.box is None or result.box_corners_ijk is None or shown.is_oblique:
        return
    expected = shown.plane.ijk_of(box_corners(result.box))
    if np.abs(expected - np.asarray(result.box_corners_ijk)).max() > 0.1:
        raise MedReasonerError("the server's box lies elsewhere in the volume than its pixels say", _VERSIONS)
