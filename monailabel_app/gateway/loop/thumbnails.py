"""Small pictures of the next cases: the middle slice, made one at a time, the last ones kept."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from medreasoner.imaging import open_image
from monailabel_app.gateway.errors import Unavailable
from monailabel_app.lib.images import state_of

SIDE = 320  # pixels, longest; twice what the page shows, for fine screens
_KEPT = 256  # of about 10 kB each
_WAITING = 64  # at most; a page asks for ten


class Thumbnails:
    """JPEG pictures of a datastore's images.

    One thread makes them, for a volume takes much memory while it is open; so it alone touches those that are kept.
    """

    def __init__(self, store: Any) -> None:
        self._store = store
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="thumbnails")
        self._room = threading.BoundedSemaphore(_WAITING)

    def promised(self, image: str) -> Future[bytes]:
        """Queue the picture of an image, which follows its files; errors as those of datastore and `open_image`.

        Raises:
            Unavailable: too many wait already.
        """
        if not self._room.acquire(blocking=False):
            raise Unavailable("too many pictures are being made", "load the page again in a moment")
        promised = self._thread.submit(self._of, image)
        promised.add_done_callback(lambda _: self._room.release())
        return promised

    def close(self) -> None:
        """Finish the one that is being made, drop those that wait."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _of(self, image: str) -> bytes:
        path = Path(self._store.get_image_uri(image))
        state = state_of(path)
        if state not in self._kept:
            self._kept[state] = _made(path)
        self._kept.move_to_end(state)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return self._kept[state]


def _made(path: Path) -> bytes:
    small = Image.fromarray(open_image(path).picture().pixels)
    small.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=80)
    return out.getvalue()
