"""Files in, pictures out: DICOM, NIfTI, NRRD and ordinary image files, with the exact way back to the patient.

`open_image` reads a file or a DICOM series folder; the `StoredImage` it returns cuts a `Picture` for the reasoner;
`write_mask` puts the expert's mask back into the file's own grid, `write_volume_mask` saves one that already lies in
it, `write_volume` the image itself. docs/coordinates.md has the drawing.
"""

from medreasoner.imaging.mask_file import write_mask, write_volume_mask
from medreasoner.imaging.opening import open_image
from medreasoner.imaging.stored_image import StoredImage
from medreasoner.imaging.volume_file import write_volume

__all__ = ["StoredImage", "open_image", "write_mask", "write_volume", "write_volume_mask"]
