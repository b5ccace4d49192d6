"""Pack umrg-mini's pictures and masks, letterboxed to the reasoner's canvas, into two files that travel to a GPU.

python -m rl_training.pack DATA OUT [--canvas 336]
"""

from __future__ import annotations

import argparse
import io
import itertools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medreasoner.console import errors_for_people
from medreasoner.evaluation.cases import Sample, read_samples
from medreasoner.reasoner.letterbox import Letterbox


def letterboxed_mask(path: Path, canvas: int) -> NDArray[np.bool_]:
    """Return a mask on the canvas, (canvas, canvas) bool."""
    with Image.open(path) as file:
        mask = np.asarray(file.convert("L")) > 0
    fit = Letterbox.of(mask.shape[1], mask.shape[0], canvas)
    return fit.mask(mask)


def pack(data: Path, out: Path, canvas: int = 336) -> None:
    """Write pictures.npz (JPEG bytes and offsets) and targets.npz (packed mask bits), in the order of samples.jsonl."""
    samples = read_samples(data)
    names = sorted({row["image"] for row in samples})
    jpegs = []
    for name in names:
        with Image.open(data / name) as file:
            pixels = np.asarray(file.convert("RGB"))
        boxed = Letterbox.of(pixels.shape[1], pixels.shape[0], canvas).picture(pixels)
        stream = io.BytesIO()
        Image.fromarray(boxed).save(stream, "JPEG", quality=88)
        jpegs.append(stream.getvalue())
    out.mkdir(parents=True, exist_ok=True)
    ends = np.cumsum([len(j) for j in jpegs])
    np.savez(out / "pictures.npz", bytes=np.frombuffer(b"".join(jpegs), np.uint8), ends=ends, names=np.array(names))
    bits = np.stack([np.packbits(letterboxed_mask(data / row["mask"], canvas)) for row in samples])
    np.savez_compressed(out / "targets.npz", bits=bits, canvas=canvas)


def load_pictures(packed: Path) -> tuple[NDArray[np.uint8], dict[str, int]]:
    """Return (pictures, canvas, canvas, 3) uint8 and the row of each image name."""
    stored = np.load(packed / "pictures.npz")
    stream, ends = stored["bytes"].tobytes(), [0, *stored["ends"].tolist()]
    pictures = [np.asarray(Image.open(io.BytesIO(stream[a:b]))) for a, b in itertools.pairwise(ends)]
    return np.stack(pictures), {str(name): row for row, name in enumerate(stored["names"])}


def open_pictures(packed: Path, samples: list[Sample]) -> NDArray[np.uint8]:
    """Return (pictures, canvas, canvas, 3) uint8; each sample gets the row of its own among them as `picture_row`."""
    pictures, rows = load_pictures(packed)
    for sample in samples:
        sample["picture_row"] = rows[sample["image"]]
    return pictures


def load_masks(packed: Path) -> NDArray[np.uint8]:
    """Return (samples, canvas, canvas) uint8 of zeros and ones."""
    stored = np.load(packed / "targets.npz")
    canvas = int(stored["canvas"])
    return np.unpackbits(stored["bits"], axis=1)[:, : canvas * canvas].reshape(-1, canvas, canvas)


@errors_for_people()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="umrg-mini")
    parser.add_argument("out", type=Path)
    parser.add_argument("--canvas", type=int, default=336, help="side in pixels")
    args = parser.parse_args()
    pack(args.data, args.out, args.canvas)


if __name__ == "__main__":
    main()
