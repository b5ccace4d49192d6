"""The models of one server: reasoner and experts as the settings name them, and the tasks that ask them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from monailabel.interfaces.tasks.infer_v2 import InferTask

from medreasoner.expert import SegmentationExpert, load_expert
from medreasoner.expert.volume import open_volume_expert
from medreasoner.pipeline import GroundingPipeline
from medreasoner.reasoner.catalogue import SERVER, open_reasoner
from medreasoner.reasoner.champions import Champions, registry_folder
from medreasoner.reasoner.protocol import Reasoner
from monailabel_app.lib.images import OpenedImages
from monailabel_app.lib.infers.ground import Ground
from monailabel_app.lib.infers.refine import Refine
from monailabel_app.lib.infers.volume import Volume
from monailabel_app.lib.settings import Settings
from monailabel_app.lib.succession import Succession

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Models:
    """What answers.

    Attributes:
        pipeline: reasoner and expert; a succession may exchange the reasoner at any time.
        succession: None where the reasoner runs in another server.
        tasks: by the name that clients ask for.
    """

    pipeline: GroundingPipeline
    succession: Succession | None
    tasks: dict[str, InferTask]

    @classmethod
    def of(cls, settings: Settings) -> Models:
        """Load what the settings name; nothing is downloaded. Errors as `load_expert` and `open_reasoner`."""
        expert = load_expert(settings.expert)
        succession = None if settings.reasoner == SERVER else _succession(settings, expert)
        pipeline = GroundingPipeline(open_reasoner(SERVER), expert) if succession is None else succession.pipeline
        logger.info("reasoner %s, expert %s", pipeline.reasoner.name, expert.name)
        images = OpenedImages(settings.cached_volumes)
        same = settings.volume_expert in ("", settings.expert)
        follower = open_volume_expert(expert if same else load_expert(settings.volume_expert))
        tasks: dict[str, InferTask] = {
            "medreasoner": Ground(pipeline, images),
            "medreasoner_refine": Refine(pipeline, images),
            "medreasoner_volume": Volume(pipeline, images, follower),
        }
        return cls(pipeline, succession, tasks)


def _succession(settings: Settings, expert: SegmentationExpert) -> Succession:
    def load(folder: Path | None) -> Reasoner:
        return open_reasoner(settings.reasoner if folder is None else str(folder), settings.device or None)

    return Succession(Champions(registry_folder(settings.registry)), load, expert)
