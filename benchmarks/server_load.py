"""Does a server under load lose or mix up answers, does it stay awake, does its memory grow?

python -m benchmarks.server_load [--seconds 300] > benchmarks/results/server_load.json   (the last line is JSON)

A real server process on loopback. Every answer is asked for once alone; then clients ask at random, questions and
refinements mixed, and each answer is compared with the one for its own image and question: text, box, points, and the
SHA-256 of the mask's voxels. A full queue (503) is waited for as Retry-After says, and the question sent again.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import random
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from requests_toolbelt import MultipartDecoder

from benchmarks.figures import print_figures
from tests.app.server import RunningServer, data_folder, running

QUESTIONS = ("Where do the nerve fibres leave the eye as one bundle?", "Which part of the skin looks dangerous?")
BOXES = ([20, 60, 90, 130], [60, 30, 200, 180])
SAMPLE = ("retina.jpg", "ihc.png", "cell.png", "moon.png", "microaneurysms.png", "camera.png")
PAUSE_S = 0.05  # between two looks at /healthz


@dataclass(frozen=True)
class Asked:
    """One thing that can be asked, and by what its answer is known."""

    image: str
    model: str
    params: str


@dataclass
class Tally:
    """What happened. Lists are appended to by many threads."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {"medreasoner": [], "medreasoner_refine": []})
    crossed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    health: list[float] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)  # seconds since the start, MiB


def make_images(folder: Path) -> list[str]:
    """Six photographs that scikit-image carries, 256 x 256."""
    folder.mkdir()
    for name in SAMPLE:
        picture = Image.open(data_folder("skimage") / "data" / name).convert("RGB").resize((256, 256))
        picture.save(folder / f"{Path(name).stem}.png")
    return [Path(name).stem for name in SAMPLE]


def everything(images: list[str]) -> list[Asked]:
    """Each question and each box for each image."""
    wishes = [("medreasoner", {"question": question}) for question in QUESTIONS]
    wishes += [("medreasoner_refine", {"box": box}) for box in BOXES]
    more = {"result_extension": ".nii.gz"}
    return [Asked(image, model, json.dumps({**wish, **more})) for image in images for model, wish in wishes]


def ask(client: httpx.Client, asked: Asked) -> httpx.Response:
    """Send one question."""
    form = {"params": (None, asked.params)}
    return client.post(f"/infer/{asked.model}", params={"image": asked.image}, files=form)


def fingerprint(reply: httpx.Response) -> str:
    """What makes an answer this answer; its seconds do not, nor the time in the header of gzip."""
    parts = MultipartDecoder(reply.content, reply.headers["content-type"]).parts
    params: dict[str, Any] = json.loads(parts[0].content)
    told = [params[name] for name in ("question", "reasoning", "absent", "box", "points")]
    voxels = hashlib.sha256(gzip.decompress(parts[1].content)).hexdigest()
    return json.dumps([told, voxels])


def keep_asking(server: RunningServer, known: dict[Asked, str], end: float, seed: int, tally: Tally) -> None:
    """One client: ask at random until the time is over."""
    choose, wishes = random.Random(seed), list(known)
    with httpx.Client(base_url=server.url, timeout=600) as client:
        while time.monotonic() < end:
            asked, start = choose.choice(wishes), time.monotonic()
            try:
                reply = ask(client, asked)
            except httpx.HTTPError as error:
                tally.lost.append(f"{asked}: {error!r}")
                continue
            if reply.status_code == 503:
                wait = float(reply.headers["Retry-After"])
                tally.busy.append(wait)
                time.sleep(min(wait, max(0.0, end - time.monotonic())))
            elif reply.status_code != 200:
                tally.lost.append(f"{asked}: {reply.status_code} {reply.text[:200]}")
            else:
                tally.seconds[asked.model].append(time.monotonic() - start)
                if fingerprint(reply) != known[asked]:
                    tally.crossed.append(str(asked))


def keep_looking(server: RunningServer, stop: threading.Event, tally: Tally) -> None:
    """Time /healthz and read the server's memory until told to stop."""
    statm, page, begin = Path(f"/proc/{server.process.pid}/statm"), os.sysconf("SC_PAGE_SIZE"), time.monotonic()
    with httpx.Client(base_url=server.url, timeout=60) as client:
        while not stop.wait(PAUSE_S):
            start = time.perf_counter()
            client.get("/healthz").raise_for_status()
            tally.health.append(time.perf_counter() - start)
            tally.memory.append((time.monotonic() - begin, int(statm.read_text().split()[1]) * page / 2**20))


def quarters(memory: list[tuple[float, float]]) -> list[float]:
    """Mean MiB in each quarter of the time."""
    last = memory[-1][0] + 1e-9
    return [
        round(statistics.fmean(m for t, m in memory if q <= 4 * t / last < q + 1), 1)
        for q in range(4)
        if any(q <= 4 * t / last < q + 1 for t, _ in memory)
    ]


def measure(seconds: float, clients: int, queue: int) -> dict[str, Any]:
    """Run the load and return the figures."""
    tally, stop = Tally(), threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        images = make_images(Path(folder) / "studies")
        with running(Path(folder) / "studies", Path(folder) / "run", f"queue_length={queue}") as server:
            with httpx.Client(base_url=server.url, timeout=600) as client:
                known = {asked: fingerprint(ask(client, asked).raise_for_status()) for asked in everything(images)}
            assert len(set(known.values())) > len(known) / 2, "answers too alike to tell a mix-up"
            end = time.monotonic() + seconds
            looking = threading.Thread(target=keep_looking, args=(server, stop, tally))
            asking = [
                threading.Thread(target=keep_asking, args=(server, known, end, seed, tally)) for seed in range(clients)
            ]
            for thread in (looking, *asking):
                thread.start()
            for thread in asking:
                thread.join()
            stop.set()
            looking.join()
    return {
        "clients": clients,
        "seconds": seconds,
        "answers": {model: len(times) for model, times in tally.seconds.items()},
        "median_s": {model: round(statistics.median(t), 2) for model, t in tally.seconds.items() if t},
        "lost": len(tally.lost),
        "crossed": len(tally.crossed),
        "examples": (tally.lost + tally.crossed)[:5],
        "told_to_wait": len(tally.busy),
        "healthz_ms": {p: round(1000 * float(np.percentile(tally.health, p)), 1) for p in (50, 99, 100)},
        "memory_quarters_mib": quarters(tally.memory),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--queue", type=int, default=6, help="questions that may wait; fewer than the clients send")
    args = parser.parse_args()
    print_figures(measure(args.seconds, args.clients, args.queue))


if __name__ == "__main__":
    main()
