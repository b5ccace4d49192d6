"""How much does the server add to the pipeline, for one 512 x 512 slice of a volume that it has opened before?

python -m benchmarks.server_overhead [--repeats 20] > benchmarks/results/server_overhead.json   (the last line is JSON)

The pipeline's own seconds come with each answer, so both are of the same moment and a busy machine slows both:
overhead = what the client waited - what the expert took. It holds HTTP, checks, the queue, cutting the slice, writing
the mask over the whole volume (NRRD), and reading the reply. Refinements, for they do not hide it behind a reasoner.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import nibabel
import numpy as np
from PIL import Image

from benchmarks.figures import print_figures
from tests.app.server import data_folder, running

SLICES = 30
OUTPUTS = ("all", "json")


def make_volume(folder: Path) -> None:
    """A 512 x 512 x 30 volume of 16 bits: a photograph, a little brighter from slice to slice."""
    folder.mkdir()
    grey = np.asarray(Image.open(data_folder("skimage") / "data" / "camera.png").convert("L").resize((512, 512)))
    values = grey.T[:, :, None].astype(np.int16) + np.arange(SLICES, dtype=np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([0.7, 0.7, 2.0, 1.0])), folder / "volume.nii.gz")


def measure(repeats: int) -> dict[str, Any]:
    """Return medians in milliseconds, by what the reply holds."""
    waited: dict[str, list[float]] = {output: [] for output in OUTPUTS}
    over: dict[str, list[float]] = {output: [] for output in OUTPUTS}
    with tempfile.TemporaryDirectory() as folder:
        make_volume(Path(folder) / "studies")
        with (
            running(Path(folder) / "studies", Path(folder) / "run") as server,
            httpx.Client(base_url=server.url, timeout=600) as client,
        ):
            for number in range(-2, repeats):  # two to warm up
                for output in OUTPUTS:
                    box = [100 + number, 90, 300, 320]
                    wish = json.dumps({"box": box, "axis": "axial", "slice_index": 15, "result_extension": ".nrrd"})
                    start = time.perf_counter()
                    reply = client.post(
                        f"/infer/medreasoner_refine?image=volume&output={output}", files={"params": (None, wish)}
                    )
                    took = time.perf_counter() - start
                    text = reply.raise_for_status().content
                    timings = json.loads(text if output == "json" else _params(reply))["timings"]
                    if number >= 0:
                        waited[output].append(took)
                        over[output].append(took - timings["encode"] - timings["segment"])
    return {
        "volume": f"512 x 512 x {SLICES}, int16",
        "overhead_ms": {output: round(1000 * statistics.median(times), 1) for output, times in over.items()},
        "waited_ms": {output: round(1000 * statistics.median(times), 1) for output, times in waited.items()},
        "overhead_ms_all": {output: [round(1000 * t, 1) for t in times] for output, times in over.items()},
        "goal_ms": 60,
    }


def _params(reply: httpx.Response) -> bytes:
    from requests_toolbelt import MultipartDecoder

    return MultipartDecoder(reply.content, reply.headers["content-type"]).parts[0].content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20, help="medians over this many")
    args = parser.parse_args()
    print_figures(measure(args.repeats))


if __name__ == "__main__":
    main()
