"""Scoring in idle time: one thread that draws an answer only while nobody waits for one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from medreasoner.contract.errors import MedReasonerError
from monailabel_app.lib.activelearning.questions import NoQuestion
from monailabel_app.lib.activelearning.scores import AnswerScores
from monailabel_app.lib.datastore.shelved import ShelvedDatastore

log = logging.getLogger(__name__)

_TRY_AGAIN_S = 3600.0  # until an image that could not be scored is tried again: its archive may have been away


class IdleScoring:
    """Scores one image after the other, for as long as the server has nothing else to do.

    A question that arrives waits for the answer that is being drawn, about a second, and for nothing more: scoring goes
    on once nothing has waited or run for `settle` seconds. What was drawn is kept meanwhile; after a restart the image
    that was under way begins anew, and those scored before are left alone.
    """

    def __init__(
        self,
        scores: AnswerScores,
        datastore: ShelvedDatastore,
        quiet_seconds: Callable[[], float],
        settle: float = 2.0,
        look_again: float = 30.0,
    ) -> None:
        """Prepare; `start` begins.

        Args:
            scores: what to do.
            datastore: the images.
            quiet_seconds: for how long the server has had nothing to do; 0 while it has.
            settle: seconds of quiet before scoring goes on.
            look_again: seconds until a look for new images where none is due, and the pause after one that failed.
        """
        self._scores, self._datastore, self._quiet_seconds = scores, datastore, quiet_seconds
        self._settle, self._look_again = settle, look_again
        self._failed: dict[str, float] = {}  # image -> when it may be tried again
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scoring", daemon=True)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def close(self) -> None:
        """End; waits for the answer that is being drawn."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while self._may_go_on():
            try:
                pause = not self._score_one()
            except (MedReasonerError, OSError) as error:  # the studies are away; what it says may name a file
                log.warning("the images cannot be listed for scoring: %s", type(error).__name__)
                pause = True
            if pause:
                self._ended.wait(self._look_again)

    def _may_go_on(self) -> bool:
        """Wait until the server is quiet; False once it ends."""
        while not self._ended.is_set():
            quiet = self._quiet_seconds()
            if quiet >= self._settle:
                return True
            self._ended.wait(max(0.05, min(self._settle - quiet, 0.5)))
        return False

    def _score_one(self) -> bool:
        """Score the next image; False where none is due, or it could not be scored.

        One that failed comes after all that were never tried: else enough of them would take every turn.
        """
        now = time.monotonic()
        due = (image for image in self._scores.due(self._datastore) if self._failed.get(image, 0) <= now)
        image = min(due, key=lambda image: self._failed.get(image, 0), default=None)
        if image is None:
            return False
        try:
            self._scores.score(image, self._datastore, self._may_go_on)
        except NoQuestion:  # nothing is wrong with it, and nothing is gained by a pause
            self._failed[image] = now + _TRY_AGAIN_S
        except Exception as error:  # whatever is wrong with one image, the others are to be scored
            self._failed[image] = now + _TRY_AGAIN_S
            expected = isinstance(error, MedReasonerError | OSError | MemoryError)
            log.warning("an image cannot be scored: %s", type(error).__name__, exc_info=None if expected else error)
            return False
        return True
