"""A tiny hospital folder to practise on: one real CT slice that pydicom carries, cut differently for 12 patients.

python -m rl_training.dataset.practice FOLDER

It shows the layout that `rl_training.prepare` reads: DICOM files, PNG masks and questions.csv. What is learnt from one
slice is of no use to anybody.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid
from scipy import ndimage

PATIENTS = 12
SIDE = 104  # pixels of the 128 that each patient's picture shows
SHIFT = 12  # pixels by which the pictures differ at most, right and down
BRIGHT_HU = 110  # bone, and blood with contrast medium
QUESTIONS = {
    "vertebra": {
        "implicit": "Which structure carries the weight of the trunk and shields the cord?",
        "clinical": "Is there a fracture of the bone in the middle of the back?",
        "explicit": "Outline the vertebra.",
    },
    "aorta": {
        "implicit": "Which vessel carries blood to the abdomen and the legs?",
        "visual": "What is the smooth, evenly bright disc at the upper edge?",
        "explicit": "Outline the descending aorta.",
    },
}
ABSENT = "Where is bile stored between meals?"


def targets(hounsfield: NDArray[np.float64]) -> dict[str, NDArray[np.bool_]]:
    """Return the masks of the two targets of pydicom's CT_small, the two largest bright pieces of it."""
    pieces, _ = ndimage.label(ndimage.median_filter(hounsfield, 3) > BRIGHT_HU)
    largest = np.bincount(pieces.ravel())[1:].argsort()[::-1] + 1
    return {"vertebra": pieces == largest[0], "aorta": pieces == largest[1]}


def make_folder(folder: Path) -> Path:
    """Write images, masks and questions.csv into a new folder, and return it."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    scan = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    stored = scan.pixel_array
    masks = targets(stored * float(scan.RescaleSlope) + float(scan.RescaleIntercept))
    rng = np.random.default_rng(0)
    rows: list[dict[str, str]] = []
    for number in range(1, PATIENTS + 1):
        left, top = (int(v) for v in rng.integers(0, SHIFT + 1, 2))
        part = np.s_[top : top + SIDE, left : left + SIDE]
        scan.PixelData = (stored[part] + rng.integers(-20, 21, (SIDE, SIDE))).astype(stored.dtype).tobytes()
        scan.Rows = scan.Columns = SIDE
        scan.PatientID = f"practice-{number:02d}"
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(scan, keyword, generate_uid(entropy_srcs=[scan.PatientID, keyword]))
        scan.file_meta.MediaStorageSOPInstanceUID = scan.SOPInstanceUID
        image = f"images/{number:02d}.dcm"
        scan.save_as(folder / image)
        for target, wordings in QUESTIONS.items():
            mask = f"masks/{number:02d}-{target}.png"
            Image.fromarray(np.where(masks[target][part], 255, 0).astype(np.uint8)).save(folder / mask)
            for style, question in wordings.items():
                rows.append({"image": image, "mask": mask, "target": target, "style": style, "question": question})
        rows.append({"image": image, "target": "gallbladder", "absent": "yes", "style": "implicit", "question": ABSENT})
    with (folder / "questions.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["image", "mask", "target", "absent", "style", "question"])
        writer.writeheader()
        writer.writerows(rows)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a new folder")
    print(make_folder(parser.parse_args().folder))


if __name__ == "__main__":
    main()
