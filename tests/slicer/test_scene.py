"""From the view to the request and from the answer to the scene, on 3D Slicer's own scene library.

The mask that ends in the scene is compared with what is bright in the volume itself, slice by slice: any flip, swap,
shift or forgotten transform on the way breaks the equality, for the phantom has no symmetry.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import slicer
import slicer.util
import slicerio
from MedReasonerLib.mask import Mask
from MedReasonerLib.nrrd_file import compressed_file
from MedReasonerLib.scene import SceneAnswer, answers_in
from MedReasonerLib.shown_slice import shown_in
from scipy.spatial.transform import Rotation

from medreasoner.contract.errors import MedReasonerError
from medreasoner.imaging import StoredImage
from medreasoner.imaging.oblique import sample
from tests.slicer import phantom
from tests.slicer.stand_in.application import Application
from tests.slicer.steps import finish

AXES = {"Red": ("axial", 0), "Yellow": ("sagittal", 2), "Green": ("coronal", 1)}  # name, and its axis in (k, j, i)
INSIDE = (9, 8, 8)  # k, j, i of a voxel of the block


def scroll_to(scene: Application, view: str, volume: object, kji: tuple[int, ...] = INSIDE) -> object:
    """Show a volume with the view through a voxel."""
    logic = scene.show(volume, view)
    local = phantom.matrix() @ [*kji[::-1], 1.0] if volume is None else _world(volume, kji)
    logic.GetSliceNode().JumpSliceByOffsetting(*local)
    return logic


def voxels(answer: SceneAnswer) -> np.ndarray:
    """The answer's mask in the volume's grid, (k, j, i)."""
    return answer.mask.full(phantom.SIZE if answer.volume.GetName() == "phantom" else (30, 20, 1))


def _world(volume: object, kji: tuple[int, ...]) -> list[float]:
    affine = slicer.util.arrayFromVTKMatrix(_ijk_to_ras(volume))
    point = (affine @ [*kji[::-1], 1.0])[:3]
    transform = volume.GetParentTransformNode()
    if transform is None:
        return list(point)
    world = [0.0, 0.0, 0.0]
    volume.TransformPointToWorld(point, world)
    return world


def _ijk_to_ras(volume: object) -> object:
    import vtk

    found = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(found)
    return found


def put_under_transform(scene: Application, volume: object) -> None:
    """A turn of 90 degrees and a shift: rows become columns in the patient."""
    transform = scene.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    matrix[:3, 3] = [20, -15, 8]
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    volume.SetAndObserveTransformNodeID(transform.GetID())


@pytest.mark.parametrize("view", AXES)
@pytest.mark.parametrize("flipped", [False, True])
def test_the_mask_lies_on_the_slice_that_was_shown(scene: Application, view: str, flipped: bool) -> None:
    volume = phantom.volume(flipped=flipped)
    shown = shown_in(scroll_to(scene, view, volume))
    name, axis = AXES[view]
    assert (shown.axis, shown.slice_index, shown.is_oblique) == (name, INSIDE[axis], False)
    expected = np.zeros_like(phantom.block())
    on_slice = tuple(INSIDE[axis] if a == axis else slice(None) for a in range(3))
    expected[on_slice] = phantom.block()[on_slice]
    np.testing.assert_array_equal(voxels(phantom.answer(shown)), expected)


@pytest.mark.parametrize("view", AXES)
def test_volumes_under_a_transform_keep_their_mask_and_box(scene: Application, view: str) -> None:
    volume = phantom.volume()
    put_under_transform(scene, volume)
    shown = shown_in(scroll_to(scene, view, volume))
    # turned by 90 degrees, the view that cuts the patient sagittally cuts the volume coronally, and the other way round
    own_name, axis = {"Red": ("axial", 0), "Yellow": ("coronal", 1), "Green": ("sagittal", 2)}[view]
    assert (shown.axis, shown.slice_index) == (own_name, INSIDE[axis])
    answer = phantom.answer(shown)
    expected = np.zeros_like(phantom.block())
    on_slice = tuple(INSIDE[axis] if a == axis else slice(None) for a in range(3))
    expected[on_slice] = phantom.block()[on_slice]
    np.testing.assert_array_equal(voxels(answer), expected)
    for part in (answer.box, answer.points, answer.segmentation):
        assert part.GetTransformNodeID() == volume.GetTransformNodeID()
    centre = np.zeros(3)
    answer.box.GetCenterWorld(centre)
    middle = tuple((s.start + s.stop - 1) / 2 if a != axis else INSIDE[axis] for a, s in enumerate(phantom.BLOCK))
    np.testing.assert_allclose(centre, _world(volume, middle), atol=0.5)  # half a picture pixel


@pytest.mark.parametrize("view", AXES)
def test_views_turned_to_a_tilted_volumes_planes_show_stored_slices(scene: Application, view: str) -> None:
    volume = phantom.volume(tilt=25.0)
    logic = scene.show(volume, view)
    logic.RotateSliceToLowestVolumeAxes()
    logic.GetSliceNode().JumpSliceByOffsetting(*_world(volume, INSIDE))
    shown = shown_in(logic)
    assert not shown.is_oblique
    axis = {"axial": 0, "coronal": 1, "sagittal": 2}[shown.axis]
    assert shown.slice_index == INSIDE[axis]
    found = voxels(phantom.answer(shown))
    on_slice = tuple(INSIDE[axis] if a == axis else slice(None) for a in range(3))
    np.testing.assert_array_equal(found[on_slice], phantom.block()[on_slice])
    assert found.sum() == phantom.block()[on_slice].sum()


@pytest.mark.parametrize("view", AXES)
@pytest.mark.parametrize("transformed", [False, True])
def test_oblique_reformats_are_sent_as_images_of_their_own(scene: Application, view: str, transformed: bool) -> None:
    volume = phantom.volume(tilt=25.0)
    if transformed:
        put_under_transform(scene, volume)
    shown = shown_in(scroll_to(scene, view, volume))
    assert shown.is_oblique
    assert shown.axis == "stored"
    sent, to_ras = shown.sent
    assert sent.shape == (1, shown.plane.size[1], shown.plane.size[0])
    assert np.ptp(np.linalg.norm(to_ras[:3, :2], axis=0)) < 1e-9  # square pixels
    found = voxels(phantom.answer(shown))
    # a voxel of the mask is bright or borders on the block, where interpolation mixes both; and the middle is hit
    near = grown(phantom.block())
    assert found.sum() > 20
    assert not (found & ~near & 1).any()
    assert found[INSIDE] == 1
    # one voxel column is hit once: the mask is a sheet, not a slab
    assert min(found.sum(axis=axis).max() for axis in range(3)) == 1


def grown(block: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_dilation

    return binary_dilation(block, np.ones((3, 3, 3))).astype(np.uint8)


def test_resampled_slices_hold_what_the_core_samples_there(scene: Application) -> None:
    shown = shown_in(scroll_to(scene, "Green", phantom.volume(tilt=25.0)))
    sent, _ = shown.sent
    stored = StoredImage(Path("v"), phantom.values().transpose(2, 1, 0), np.eye(4), is_volume=True)
    expected, inside = sample(stored.values, shown.plane.to_ijk, *shown.plane.size)
    deep = inside & np.roll(inside, 3, 0) & np.roll(inside, -3, 0) & np.roll(inside, 3, 1) & np.roll(inside, -3, 1)
    assert deep.sum() > 300
    np.testing.assert_allclose(sent[0][deep], expected[deep], atol=1.0)  # VTK rounds down to whole numbers


@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_the_picture_sent_has_the_greys_on_screen(scene: Application, kind: type, tmp_path: Path) -> None:
    from vtk.util.numpy_support import vtk_to_numpy

    from medreasoner.imaging import open_image

    volume = phantom.volume(flipped=True, kind=kind)
    volume.SetSpacing(1.0, 1.0, 2.0)  # square already, so that neither side interpolates
    volume.GetDisplayNode().SetWindowLevel(60, 20)
    volume.GetDisplayNode().SetInterpolate(False)
    logic = scroll_to(scene, "Red", volume)
    shown = shown_in(logic)
    (tmp_path / "v.nrrd").write_bytes(finish(compressed_file(*shown.sent)))
    picture = open_image(tmp_path / "v.nrrd").picture(shown.axis, shown.slice_index, shown.window)
    layer = logic.GetBackgroundLayer()
    layer.UpdateImageDisplay()
    layer.GetReslice().Update()
    drawn = volume.GetDisplayNode()
    layer.GetVolumeDisplayNode().GetOutputImageDataConnection().GetProducer().Update()
    image = layer.GetVolumeDisplayNode().GetOutputImageDataConnection().GetProducer().GetOutput()
    screen = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(*image.GetDimensions()[1::-1], -1)[..., 0]
    assert drawn.GetWindow() == 60
    to_ijk = layer.GetXYToIJKTransform()
    compared = 0
    for y in range(5, screen.shape[0], 7):
        for x in range(5, screen.shape[1], 7):
            column, row = shown.plane.pixels_of(to_ijk.TransformPoint(x, y, 0))[0]
            inside = 0 <= column < picture.width and 0 <= row < picture.height
            if inside and abs(column % 1 - 0.5) < 0.3 and abs(row % 1 - 0.5) < 0.3:
                assert abs(int(picture.pixels[int(row), int(column), 0]) - int(screen[y, x])) <= 1
                compared += 1
    assert compared > 50


def test_colour_volumes_are_sent_as_colours(scene: Application) -> None:
    colours = np.zeros((1, 20, 30, 3), np.uint8)
    colours[0, 4:9, 3:16] = 255
    volume = slicer.util.addVolumeFromArray(colours, np.diag([-1.0, -1, 1, 1]), "photograph", "vtkMRMLVectorVolumeNode")
    volume.CreateDefaultDisplayNodes()
    shown = shown_in(scene.show(volume))
    assert shown.window is None
    assert shown.sent[0].shape == (1, 20, 30, 3)
    np.testing.assert_array_equal(voxels(phantom.answer(shown)), colours[..., 0] // 255)


def test_sequences_send_the_frame_that_is_shown(scene: Application) -> None:
    logic = slicer.vtkSlicerSequencesLogic()  # registers the node classes
    logic.SetMRMLScene(scene.scene)
    sequence = scene.scene.AddNewNodeByClass("vtkMRMLSequenceNode")
    for time in range(3):
        frame = slicer.util.addVolumeFromArray(np.full((4, 5, 6), time, np.int16))
        sequence.SetDataNodeAtValue(frame, str(time))
        scene.scene.RemoveNode(frame)
    browser = scene.scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    browser.SetSelectedItemNumber(2)
    logic.UpdateProxyNodesFromSequences(browser)
    shown = shown_in(scene.show(browser.GetProxyNode(sequence)))
    assert (shown.sent[0] == 2).all()


def test_views_without_an_image_say_so(scene: Application) -> None:
    with pytest.raises(MedReasonerError, match="Red view shows no volume"):
        shown_in(scene.views["Red"])
    volume = phantom.volume()
    logic = scene.show(volume)
    logic.GetSliceNode().SetSliceOffset(1000)
    with pytest.raises(MedReasonerError, match="beside phantom"):
        shown_in(logic)
    empty = scene.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    with pytest.raises(MedReasonerError, match="shows no volume"):
        shown_in(scene.show(empty))


def test_a_bending_transform_is_refused_with_advice(scene: Application) -> None:
    import vtk

    volume = phantom.volume()
    logic = scene.show(volume)
    bend = vtk.vtkThinPlateSplineTransform()
    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    for point in [(0, 0, 0), (50, 0, 0), (0, 50, 0), (0, 0, 90), (50, 50, 90)]:
        source.InsertNextPoint(point)
        target.InsertNextPoint(point[0] + point[1] * point[0] / 100, point[1], point[2])
    bend.SetSourceLandmarks(source)
    bend.SetTargetLandmarks(target)
    bend.SetBasisToR()
    node = scene.scene.AddNewNodeByClass("vtkMRMLTransformNode")
    node.SetAndObserveTransformToParent(bend)
    volume.SetAndObserveTransformNodeID(node.GetID())
    with pytest.raises(MedReasonerError, match="bends it") as caught:
        shown_in(logic)
    assert "harden" in caught.value.hint


@pytest.mark.parametrize("tilt", [0.0, 25.0])
@pytest.mark.parametrize("view", AXES)
def test_moved_boxes_and_points_are_read_back_in_pixels(scene: Application, view: str, tilt: float) -> None:
    answer = phantom.answer(shown_in(scroll_to(scene, view, phantom.volume(tilt=tilt))))
    record = answer.record
    box, points = answer.edited_region()
    np.testing.assert_allclose(box, record.box, atol=0.02)
    np.testing.assert_allclose(points, record.points, atol=0.02)
    # two pixels to the right and one wider
    x_axis, centre, size = np.zeros(3), np.zeros(3), answer.box.GetSize()
    answer.box.GetXAxis(x_axis)
    answer.box.GetCenter(centre)
    pixel = size[0] / (record.box[2] - record.box[0])
    answer.box.SetSize(size[0] + pixel, size[1], size[2])
    answer.box.SetCenter(centre + 2 * pixel * x_axis)
    moved, _ = answer.edited_region()
    expected = [record.box[0] + 1.5, record.box[1], record.box[2] + 2.5, record.box[3]]
    np.testing.assert_allclose(moved, expected, atol=0.02)


def test_boxes_beside_the_picture_or_deleted_say_so(scene: Application) -> None:
    answer = phantom.answer(shown_in(scroll_to(scene, "Red", phantom.volume())))
    answer.box.SetCenter([500.0, 500.0, 60.0])
    with pytest.raises(MedReasonerError, match="beside the picture"):
        answer.edited_region()
    scene.scene.RemoveNode(answer.box)
    with pytest.raises(MedReasonerError, match="deleted"):
        answer.edited_region()


def test_accepted_answers_survive_a_file_that_slicerio_reads(scene: Application, tmp_path: Path) -> None:
    answer = phantom.answer(shown_in(scroll_to(scene, "Red", phantom.volume(tilt=0, flipped=True))))
    before = voxels(answer)
    answer.accept()
    storage = slicer.vtkMRMLSegmentationStorageNode()
    scene.scene.AddNode(storage)
    storage.SetFileName(str(tmp_path / "answer.seg.nrrd"))
    assert storage.WriteData(answer.segmentation)
    read = slicerio.read_segmentation(str(tmp_path / "answer.seg.nrrd"))
    (segment,) = read["segments"]
    assert segment["name"] == "bright block"
    tags = segment["tags"]
    assert tags["MedReasoner.Question"] == "Where is the block?"
    assert "phantom" in tags["MedReasoner.Reasoning"]
    # voxel by voxel, through the file's own geometry
    expected = {tuple(np.round(p, 3)) for p in lps_of(before, phantom.matrix(0, True))}
    found = {tuple(np.round(p, 3)) for p in lps_of(read["voxels"].transpose(2, 1, 0), None, read["ijkToLPS"])}
    assert expected == found


def lps_of(voxels: np.ndarray, to_ras: np.ndarray | None, to_lps: np.ndarray | None = None) -> np.ndarray:
    k, j, i = np.nonzero(voxels)
    affine = np.diag([-1, -1, 1, 1]) @ to_ras if to_lps is None else to_lps
    return np.column_stack([i, j, k, np.ones(len(i))]) @ affine.T[:, :3]


def test_answers_survive_saving_and_loading_the_scene(scene: Application, tmp_path: Path) -> None:
    answer = phantom.answer(shown_in(scroll_to(scene, "Green", phantom.volume())))
    before, record, region = voxels(answer), answer.record, answer.edited_region()
    file = str(tmp_path / "scene.mrb")
    assert scene.scene.WriteToMRB(file)
    scene.close_scene()
    assert answers_in(scene.scene) == []
    assert scene.scene.ReadFromMRB(file)
    (loaded,) = answers_in(scene.scene)
    np.testing.assert_array_equal(voxels(loaded), before)
    assert loaded.record == record
    np.testing.assert_allclose(loaded.edited_region()[0], region[0], atol=0.02)


def test_undo_survives_saving_and_loading_the_scene(scene: Application, tmp_path: Path) -> None:
    answer = phantom.answer(shown_in(scroll_to(scene, "Green", phantom.volume())))
    first, box = voxels(answer), answer.record.box
    answer.change("box", Mask.cropped(np.roll(first, 3, axis=2)), box=[1.0, 1.0, 9.0, 9.0])
    answer.change("mask", Mask.cropped(phantom.block()))
    file = str(tmp_path / "scene.mrb")
    assert scene.scene.WriteToMRB(file)
    scene.close_scene()
    assert scene.scene.ReadFromMRB(file)
    (loaded,) = answers_in(scene.scene)  # what Undo goes back to is no answer of its own
    np.testing.assert_array_equal(voxels(loaded), phantom.block())
    loaded.undo()
    np.testing.assert_array_equal(voxels(loaded), np.roll(first, 3, axis=2))
    loaded.undo()
    np.testing.assert_array_equal(voxels(loaded), first)
    np.testing.assert_allclose(loaded.edited_region()[0], box, atol=0.02)
    assert loaded.record.edits == ()
    assert not loaded.can_undo


def test_what_undo_goes_back_to_is_bounded_and_ends_with_accept(scene: Application) -> None:
    answer = phantom.answer(shown_in(scroll_to(scene, "Red", phantom.volume())))
    for number in range(30):
        answer.change("box", Mask.cropped(np.roll(phantom.block(), number, axis=2)))
    kept = answer.node.GetNodeReference("earlier")
    assert kept.GetHideFromEditors()
    assert len(json.loads(kept.GetText())) == 20
    answer.accept()
    assert not answer.can_undo
    assert kept.GetScene() is None


def test_a_damaged_memory_of_undo_says_so_and_changes_nothing(scene: Application) -> None:
    answer = phantom.answer(shown_in(scroll_to(scene, "Red", phantom.volume())))
    answer.change("box", Mask.cropped(phantom.block()))
    node, before = answer.node.GetNodeReference("earlier"), answer.node.GetText()
    node.SetText(node.GetText().replace('"bits": "', '"bits": "AAAA'))
    with pytest.raises(MedReasonerError, match="kept for Undo"):
        answer.undo()
    assert answer.node.GetText() == before
    np.testing.assert_array_equal(voxels(answer), phantom.block())


def test_undo_goes_back_by_one_change(scene: Application) -> None:
    answer = phantom.answer(shown_in(scroll_to(scene, "Red", phantom.volume())))
    first, box = voxels(answer), answer.record.box
    assert not answer.can_undo
    smaller = first.copy()
    smaller[:, :, :8] = 0
    answer.change("box", Mask.cropped(smaller), box=[1.0, 1.0, 9.0, 9.0])
    np.testing.assert_array_equal(voxels(answer), smaller)
    assert [edit.what for edit in answer.record.edits] == ["box"]
    answer.change("mask", Mask.cropped(np.zeros_like(first)))
    assert not voxels(answer).any()
    answer.undo()
    np.testing.assert_array_equal(voxels(answer), smaller)
    answer.undo()
    np.testing.assert_array_equal(voxels(answer), first)
    np.testing.assert_allclose(answer.edited_region()[0], box, atol=0.02)
    assert not answer.can_undo


def test_the_users_own_segments_and_other_answers_stay(scene: Application) -> None:
    logic = scroll_to(scene, "Red", phantom.volume())
    own = scene.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
    own.GetSegmentation().AddEmptySegment("tumour", "tumour")
    before = set(nodes(scene))
    first, second = phantom.answer(shown_in(logic)), phantom.answer(shown_in(logic))
    kept = voxels(first)
    second.discard()
    np.testing.assert_array_equal(voxels(first), kept)
    first.discard()
    assert own.GetSegmentation().GetSegmentIDs() == ("tumour",)
    assert set(nodes(scene)) - before <= {"vtkMRMLSubjectHierarchyNode1"}


def nodes(scene: Application) -> list[str]:
    return [scene.scene.GetNthNode(n).GetID() for n in range(scene.scene.GetNumberOfNodes())]


def test_absent_answers_draw_nothing(scene: Application) -> None:
    logic = scroll_to(scene, "Red", phantom.volume(), (20, 2, 30))
    answer = phantom.answer(shown_in(logic))
    assert answer.record.absent
    assert (answer.box, answer.points, answer.segmentation) == (None, None, None)
    answer.accept()
    assert answer.is_accepted


def test_parts_can_be_hidden_one_by_one(scene: Application) -> None:
    answer = phantom.answer(shown_in(scroll_to(scene, "Red", phantom.volume())))
    for part in ("box", "points", "segmentation"):
        answer.show_part(part, False)
        shown = {p: answer.node.GetNodeReference(p).GetDisplayVisibility() for p in ("box", "points", "segmentation")}
        assert [p for p, visible in shown.items() if not visible] == [part]
        answer.show_part(part, True)


def test_answers_of_deleted_volumes_are_gone(scene: Application) -> None:
    volume = phantom.volume()
    answer = phantom.answer(shown_in(scroll_to(scene, "Red", volume)))
    assert answer.exists
    scene.scene.RemoveNode(volume)
    assert not answer.exists
    assert answers_in(scene.scene) == []


def test_the_surface_in_3d_follows_the_mask(scene: Application) -> None:
    answer = phantom.answer(shown_in(scroll_to(scene, "Red", phantom.volume())))
    node = answer.segmentation
    assert node.CreateClosedSurfaceRepresentation()
    before = surface_bounds(node)
    moved = np.roll(voxels(answer), 5, axis=2)
    answer.change("box", Mask.cropped(moved))
    after = surface_bounds(node)
    assert node.GetSegmentation().ContainsRepresentation("Closed surface")
    np.testing.assert_allclose(after[0] - before[0], 5 * phantom.SPACING[0], atol=0.2)


def surface_bounds(node: object) -> tuple[float, ...]:
    import vtk

    surface = vtk.vtkPolyData()
    assert node.GetClosedSurfaceRepresentation("answer", surface)
    assert surface.GetNumberOfPoints() > 0
    return surface.GetBounds()
