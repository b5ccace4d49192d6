"""The application that MONAI Label loads: `monailabel start_server --app monailabel_app --studies FOLDER_OR_URL`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monailabel.config import settings as monai_label
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask

from medreasoner import __version__
from medreasoner.reasoner.champions import registry_folder
from monailabel_app.lib.activelearning.questions import AskedBefore
from monailabel_app.lib.activelearning.scores import AnswerScores
from monailabel_app.lib.activelearning.strategies import strategies
from monailabel_app.lib.activelearning.worklist import Worklist
from monailabel_app.lib.datastore import open_datastore
from monailabel_app.lib.datastore.shelved import UnknownImage
from monailabel_app.lib.models import Models
from monailabel_app.lib.scratch import remove_left_overs
from monailabel_app.lib.sessions import UploadedVolumes
from monailabel_app.lib.settings import Settings
from monailabel_app.lib.succession import Succession
from monailabel_app.lib.trainers.training import Training


class MedReasonerApp(MONAILabelApp):
    """Settings, then images, then models; nothing is downloaded, and only the reasoner is ever loaded anew.

    MONAI Label loads this file as a module of its own, beside the package: keep classes that others check with
    isinstance out of it.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.settings = Settings.load(conf)
        self.worklist = Worklist.of(self.settings.worklist) if self.settings.worklist else None
        self.scores: AnswerScores | None = None  # where none are wished for
        self.succession: Succession | None = None  # where the reasoner runs in another server
        self.training = Training(studies, registry_folder(self.settings.registry), self.settings)
        self.uploads = UploadedVolumes(monai_label.MONAI_LABEL_SESSION_PATH, self.settings.keep_session * 60)
        super().__init__(
            app_dir,
            studies,
            conf,
            name="MedReasoner",
            description="Answers clinical questions about medical images. Research use only, not a medical device.",
            version=__version__,
        )

    def init_datastore(self) -> Datastore:
        return open_datastore(self.studies, self.settings)

    def sessions(self) -> UploadedVolumes:
        return self.uploads

    def cleanup_sessions(self) -> None:
        """Called at the start and every five minutes."""
        self.uploads.remove_expired()
        remove_left_overs()

    def init_infers(self) -> dict[str, InferTask]:
        models = Models.of(self.settings)
        self.pipeline, self.succession = models.pipeline, models.succession
        return models.tasks

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> Any:
        """Answer, as MONAI Label does, and look whether another reasoner has to come.

        Raises:
            UnknownImage: a file that went while its question waited. MONAI Label would take its path for an id, and the
                error would tell the client where files lie.
        """
        path = Path(str(request.get("image") or ""))
        if path.is_absolute() and not path.exists():
            raise UnknownImage("the image is no longer there", "upload it again, or ask about another")
        if self.succession is not None:
            self.succession.look()
        return super().infer(request, datastore)

    @property
    def models(self) -> frozenset[str]:
        """What can be asked, by name. As the next two it costs nothing, while `info` looks through all labels."""
        return frozenset(self._infers)

    @property
    def trainers(self) -> frozenset[str]:
        """What can be trained, by name."""
        return frozenset(self._trainers)

    @property
    def strategies(self) -> frozenset[str]:
        """By what the next image to label can be chosen."""
        return frozenset(self._strategies)

    def info(self) -> dict[str, Any]:
        """MONAI Label's description, and which reasoner answers."""
        standing = {} if self.succession is None else {"reasoner": self.succession.standing()}
        return {**super().info(), **standing}

    def init_strategies(self) -> dict[str, Strategy]:
        return strategies(lambda: self.pipeline.reasoner.sha256)

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        settings = self.settings
        if not settings.scoring:
            return {}
        questions = self.worklist or AskedBefore(self.datastore())
        self.scores = AnswerScores(self.pipeline, questions, settings.score_samples, settings.score_questions)
        return {"answers": self.scores}

    def init_trainers(self) -> dict[str, TrainTask]:
        return {"medreasoner": self.training}

    def init_batch_infer(self) -> Any:
        """None: a batch would go past the queue and its limits."""
        return None
