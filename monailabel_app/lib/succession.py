"""The reasoner in service: the registry's champion, or the one as shipped; exchanged between two questions."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from medreasoner.contract.errors import CheckpointError
from medreasoner.expert import SegmentationExpert
from medreasoner.pipeline import GroundingPipeline, identity
from medreasoner.reasoner.champions import CHAMPION, SHIPPED, Champions, ServiceRecord
from medreasoner.reasoner.protocol import Reasoner

logger = logging.getLogger(__name__)


class Succession:
    """Keeps the reasoner of a pipeline to the champion of a registry.

    A new champion is loaded beside the old reasoner, which answers until then: for that moment there are two in memory.
    A question that has begun ends with the reasoner that it began with. A champion that cannot be loaded leaves the old
    one in service, is logged, and told in `standing`, until champion.json changes again.
    """

    def __init__(
        self, champions: Champions, load: Callable[[Path | None], Reasoner], expert: SegmentationExpert
    ) -> None:
        """Load the champion, or the reasoner as shipped where there is none or it cannot be loaded.

        Args:
            champions: the registry.
            load: opens the checkpoint in a folder, or for None the reasoner as shipped.
            expert: of the pipeline.

        Raises:
            CheckpointError: the reasoner as shipped cannot be loaded either.
        """
        self.champions, self._load = champions, load
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="succession")
        self._coming: Future[None] | None = None
        self._seen, self._in_service, self._trouble = self._stamp(), ServiceRecord(), ""
        self._in_service, reasoner = self._newer() or (self._in_service, load(None))
        self.pipeline = GroundingPipeline(reasoner, expert)

    def look(self) -> None:
        """Notice another champion and begin to load it; returns at once. Costs one look at a file's time."""
        stamp = self._stamp()
        if stamp != self._seen:
            self._seen = stamp
            self._coming = self._loader.submit(self._exchange)

    def standing(self) -> dict[str, Any]:
        """Say what answers: its number and identity; whether another is being loaded; what is wrong, if anything."""
        standing: dict[str, Any] = {"number": self._in_service.number, **identity(self.pipeline.reasoner)}
        loading = self._coming is not None and not self._coming.done()
        return {**standing, "loading": loading, "trouble": self._trouble}

    def _exchange(self) -> None:
        """Put the champion in service; in the loader's thread, so that two never load at once."""
        newer = self._newer()
        if newer is not None:
            record, self.pipeline.reasoner = newer
            self._in_service = record
            logger.info("number %d answers from now on: %s", record.number, self.pipeline.reasoner.sha256[:12])

    def _newer(self) -> tuple[ServiceRecord, Reasoner] | None:
        """Load the champion; None where it is in service already, or cannot be loaded, as `_trouble` says then."""
        try:
            record = self.champions.service_record()
        except CheckpointError as error:
            self._report(f"{CHAMPION} cannot be used", error)
            return None
        if (record.number, record.since) == (self._in_service.number, self._in_service.since):
            self._trouble = ""
            return None
        try:
            reasoner = self._opened(record.number)
        except Exception as error:  # whatever is wrong with the new one, the old one has to answer on
            self._report(f"number {record.number} cannot be loaded", error)
            return None
        self._trouble = ""
        return record, reasoner

    def _opened(self, number: int) -> Reasoner:
        if number == SHIPPED:
            return self._load(None)
        with self.champions.reading(number) as folder:
            return self._load(folder)

    def _report(self, what: str, error: Exception) -> None:
        self._trouble = f"{what}; number {self._in_service.number} answers on"
        expected = isinstance(error, CheckpointError | MemoryError)
        logger.error("%s: %s", self._trouble, error or "out of memory", exc_info=None if expected else error)

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = (self.champions.folder / CHAMPION).stat()
        except OSError:  # none yet; what else may be wrong with it, reading it will say
            return None
        return found.st_mtime_ns, found.st_ino
