"""Scores of images that nobody has labelled: how far answers drawn at random disagree, and how unsure they are."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from monailabel.interfaces.tasks.scoring import ScoringMethod

from medreasoner.contract.label import LabelRecord, now
from medreasoner.contract.wire import RegionRequest
from medreasoner.imaging import open_image
from medreasoner.picture import Picture
from medreasoner.pipeline import Grounding, GroundingPipeline
from medreasoner.reasoner.protocol import sampling
from monailabel_app.lib.activelearning.questions import NOTE, NoQuestion, Questions
from monailabel_app.lib.activelearning.score_notes import Asked, Score
from monailabel_app.lib.datastore.shelved import ShelvedDatastore
from monailabel_app.lib.infers.wishes import picture_of


class AnswerScores(ScoringMethod):
    """Draws answers to the questions about each unlabelled image, and notes the `Score` beside it."""

    def __init__(self, pipeline: GroundingPipeline, questions: Questions, samples: int, most_questions: int) -> None:
        """Prepare.

        Args:
            pipeline: reasoner and expert; the reasoner may be exchanged at any time.
            questions: what to ask about an image.
            samples: answers drawn to each question, at least 2.
            most_questions: questions asked about one image.

        Raises:
            ReasonerError: the reasoner cannot draw answers.
        """
        super().__init__("How far answers drawn at random disagree, and how unsure they are, for unlabelled images")
        sampling(pipeline.reasoner)
        self._pipeline, self._questions = pipeline, questions
        self._samples, self._most = samples, most_questions

    def __call__(self, request: dict[str, Any], datastore: ShelvedDatastore) -> dict[str, Any]:  # noqa: ARG002
        """Score every image that is due, one after the other; raises as `score`."""
        due = list(self.due(datastore))
        for image in due:
            self.score(image, datastore)
        return {"scored": len(due)}

    def due(self, datastore: ShelvedDatastore) -> Iterator[str]:
        """Go through the unlabelled images that this reasoner has not been asked about with these questions.

        In an order that has nothing to do with names, so that those scored first are a fair choice from all.
        """
        if not self._questions.known:
            return
        current = self._pipeline.reasoner.sha256, self._questions.sha256
        notes = datastore.notes()
        for image in sorted(datastore.get_unlabeled_images(), key=lambda image: zlib.crc32(image.encode())):
            note = notes.get(image, {}).get(NOTE, {})
            if (note.get("reasoner_sha256"), note.get("questions_sha256")) != current:
                yield image

    def score(self, image: str, datastore: ShelvedDatastore, go_on: Callable[[], bool] = lambda: True) -> bool:
        """Ask about one image and note the score.

        Args:
            image: its id.
            datastore: where it is.
            go_on: called before each answer is drawn; it may wait, and says no where there is no time for more.

        Returns:
            Whether the image was scored; nothing is noted where `go_on` said no.

        Raises:
            NoQuestion: nobody says what to ask about such an image.
            MedReasonerError: the image cannot be opened, or an answer cannot be used.
        """
        reasoner, version = self._pipeline.reasoner.sha256, self._questions.sha256
        picture = key_picture(image, datastore)
        questions = self._questions.about(picture.modality)[: self._most]
        if not questions:
            raise NoQuestion(f"no question is known on {picture.modality or 'such'} images", "add some to the worklist")
        found = []
        for question in questions:
            draws, drawn = self._pipeline.samples(question, picture, self._samples), list[Grounding]()
            while len(drawn) < self._samples:
                if not go_on():
                    return False
                drawn.append(next(draws))
            found.append(Asked.of(drawn))
        found.sort(key=lambda asked: -asked.scores["disagreement"])
        score = Score(found, picture.axis, picture.slice_index, reasoner, version, now())
        datastore.update_image_info(image, {NOTE: score.to_note()})
        return True


def key_picture(image: str, datastore: ShelvedDatastore) -> Picture:
    """Cut the slice that is asked about: that of the newest label of whatever tag, else the middle one as it opens.

    Raises:
        ImageError: the image or slice cannot be opened.
    """
    labels = (datastore.get_label_info(image, tag).get(NOTE) for tag in datastore.get_labels_by_image_id(image))
    records = [LabelRecord.from_json(json.dumps(record)) for record in labels if record]
    view = RegionRequest()
    if records:
        newest = max(records, key=lambda record: record.saved_at)
        axis = None if newest.axis == "oblique" else newest.axis  # an acquired plane: the image opens in it
        view = RegionRequest(axis=axis, slice_index=newest.slice_index, window=newest.window)
    # Not from the cache of opened images: what people ask about shall stay there.
    return picture_of(open_image(Path(datastore.get_image_uri(image))), view)
