"""Write a mask so that every viewer lays it over the image it belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medreasoner.contract.errors import ImageError
from medreasoner.imaging.stored_image import StoredImage
from medreasoner.picture import Matrix, Picture


def write_mask(mask: NDArray[np.bool_], picture: Picture, image: StoredImage, path: Path) -> Path:
    """Put a picture mask into the image's own grid and save it as `write_volume_mask` does.

    Args:
        mask: (height, width) bool, in picture pixels.
        picture: the picture it was drawn on, cut from `image`.
        image: where the picture came from.
        path: .png holds the frame that the picture shows.

    Returns:
        `path`.

    Raises:
        ImageError: another size than the picture, or what `write_volume_mask` raises.
    """
    if mask.shape != (picture.height, picture.width) or picture.shape != image.shape:
        raise _misfit(mask, image)
    frame = picture.slice_index if picture.shape[2] > 1 else 0
    return write_volume_mask(picture.mask_in_volume(mask), image, path, frame)


def write_volume_mask(
    volume: NDArray[Any], image: StoredImage, path: Path, frame: int = 0, segment: str = "target"
) -> Path:
    """Save a mask that lies in the image's own grid already.

    Args:
        volume: (i, j, k) as the image's values, zeros and ones; its type is the file's.
        image: the image that it lies over.
        path: .nii, .nii.gz or .nrrd hold the whole grid, with the geometry of the image (none where the image has
            none); .seg.nrrd is a segmentation of 3D Slicer; .png holds one frame, 0 and 255, columns and rows as
            stored, and is not for volumes.
        frame: which k a .png holds.
        segment: what a .seg.nrrd calls it.

    Returns:
        `path`.

    Raises:
        ImageError: another size than the image, a file type that does not fit, or a folder that cannot be written.
    """
    if volume.shape != image.shape:
        raise _misfit(volume, image)
    name = path.name.lower()
    try:
        if name.endswith((".nii", ".nii.gz")):
            _write_nifti(volume, image, path)
        elif name.endswith(".nrrd"):
            _write_nrrd(volume, image, path, _slicer_segment(volume, segment) if name.endswith(".seg.nrrd") else {})
        elif name.endswith(".png"):
            _write_png(volume[:, :, frame], image, path)
        else:
            raise ImageError(f"masks are not written as {path.suffix or 'files without ending'}", _endings(image))
    except OSError as error:
        raise ImageError(f"{path} cannot be written: {error.strerror or error}", "choose another folder") from error
    return path


def _misfit(mask: NDArray[Any], image: StoredImage) -> ImageError:
    return ImageError(
        f"a mask of {' x '.join(map(str, mask.shape))} does not fit {image.path.name}",
        "pass the picture that the mask was drawn on and the image that the picture was cut from",
    )


def _endings(image: StoredImage) -> str:
    return "use .nii.gz or .nrrd" if image.is_volume else "use .png, .nii.gz or .nrrd"


def _write_nifti(volume: NDArray[Any], image: StoredImage, path: Path) -> None:
    import nibabel

    new_file: Any = nibabel.Nifti1Image
    if image.index_to_lps is None:
        file: Any = new_file(volume, None)
        file.header.set_zooms(image.pixel_size)
        file.header.set_xyzt_units("mm")
        nibabel.save(file, path)
        return
    index_to_ras: Matrix = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.index_to_lps
    file = new_file(volume, index_to_ras)
    file.set_sform(index_to_ras, code="scanner")  # holds any affine; a qform cannot hold the shear of a tilted gantry
    orthogonal = _is_orthogonal(index_to_ras)
    file.set_qform(index_to_ras if orthogonal else None, code="scanner" if orthogonal else "unknown")
    file.header.set_xyzt_units("mm")
    nibabel.save(file, path)


def _is_orthogonal(affine: Matrix) -> bool:
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.allclose(directions.T @ directions, np.eye(3), atol=1e-4))


def _slicer_segment(volume: NDArray[Any], name: str) -> dict[str, object]:
    """The fields by which Slicer knows one segment (Modules/Loadable/Segmentations, vtkMRMLSegmentationStorageNode)."""
    i, j, k = (size - 1 for size in volume.shape)
    return {
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
        "Segment0_ID": "Segment_1",
        "Segment0_Name": " ".join(name.split()),
        "Segment0_LabelValue": "1",
        "Segment0_Layer": "0",
        "Segment0_Extent": f"0 {i} 0 {j} 0 {k}",
    }


def nrrd_geometry(image: StoredImage) -> dict[str, Any]:
    """Return what an NRRD header says of three axes i, j, k: where they lie in the patient, or their spacing."""
    if image.index_to_lps is None:
        return {"kinds": ["domain"] * 3, "spacings": list(image.pixel_size)}
    return {
        "kinds": ["domain"] * 3,
        "space": "left-posterior-superior",
        "space directions": image.index_to_lps[:3, :3].T,
        "space origin": image.index_to_lps[:3, 3],
    }


def _write_nrrd(volume: NDArray[Any], image: StoredImage, path: Path, more: dict[str, object]) -> None:
    import nrrd

    header = {"encoding": "gzip", **nrrd_geometry(image), **more}
    nrrd.write(str(path), volume, header, compression_level=1, index_order="F")  # 9 takes longer and saves little


def _write_png(frame: NDArray[Any], image: StoredImage, path: Path) -> None:
    from PIL import Image

    if image.is_volume:
        raise ImageError(f"a .png cannot hold a mask of the volume {image.path.name}", _endings(image))
    Image.fromarray((frame.T != 0) * np.uint8(255)).save(path)
