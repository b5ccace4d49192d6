"""Where things lie on the server is for administrators: others get the last name of each path, and the log the rest."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from PIL import Image

from medreasoner.contract.errors import CheckpointError
from monailabel_app.gateway.errors import without_folders
from monailabel_app.gateway.tokens import Role, new_token
from monailabel_app.lib.datastore.local import open_local
from monailabel_app.lib.settings import Settings
from monailabel_app.lib.trainers.run_folder import STATE, RunFolder
from monailabel_app.lib.trainers.training import Training
from tests.app.department import StoredApplication
from tests.app.small import served


@dataclass(frozen=True)
class Place:
    """A server with two users."""

    folder: Path
    application: StoredApplication
    reader: httpx.Client
    admin: httpx.Client


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("a registry")
    users = [new_token(role.name.lower(), role) for role in (Role.READER, Role.ADMIN)]
    (folder / "tokens").write_text("\n".join(line for _, line in users))
    studies = folder / "studies"
    studies.mkdir()
    Image.new("L", (8, 8)).save(studies / "case.png")
    settings = Settings(tokens=str(folder / "tokens"), registry=str(folder))
    application = StoredApplication(open_local(studies))
    application.training = Training(str(studies), folder, settings)
    RunFolder(folder).make_ready(anew=True)
    what = f"FileNotFoundError(2, 'No such file or directory', '{folder}/prepared/samples.jsonl')"
    state = {"status": "failed", "progress": 0.1, "step": 1, "of": 9, "message": what}
    (folder / "training" / STATE).write_text(json.dumps(state))
    with served(application, settings) as url:
        headers = [{"Authorization": f"Bearer {token}"} for token, _ in users]
        reader, admin = (httpx.Client(base_url=url, headers=header) for header in headers)
        with reader, admin:
            yield Place(folder, application, reader, admin)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/tmp/registry/0003/lineage.json cannot be used: it is empty", "lineage.json cannot be used: it is empty"),
        ("the registry /tmp/My Studies/local cannot be changed", "the registry local cannot be changed"),
        ("OSError(28, 'No space left', '/home/me/x.bin')", "OSError(28, 'No space left', 'x.bin')"),
        ("let the server write into /tmp/registry/training", "let the server write into training"),
        ("/tmp/a/one, then (/tmp/b/two)", "one, then (two)"),
        ("read 3/4 of it, and/or /tmp", "read 3/4 of it, and/or tmp"),
        ("send POST /train/medreasoner", "send POST /train/medreasoner"),  # addresses of the server are no folders
        ("POST /train/; its log is /tmp/registry/log.txt", "POST /train/; its log is log.txt"),
        ("no answer from http://gpu/tmp/v1", "no answer from http://gpu/tmp/v1"),
        ("see docs/http.md", "see docs/http.md"),
    ],
)
def test_of_a_path_the_last_name_is_left(text: str, left: str) -> None:
    assert without_folders(text) == left


def test_an_error_names_folders_to_administrators_and_in_the_log(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    weights = place.folder / "0002" / "adapter_model.safetensors"
    place.application.failure = CheckpointError(f"{weights} cannot be read", f"put it back into {weights.parent}")
    told, address = [], "/infer/medreasoner?image=case"
    with caplog.at_level(logging.WARNING):
        for client in (place.reader, place.admin):
            reply = client.post(address, data={"params": json.dumps({"question": "Where is the liver?"})})
            assert reply.status_code == 503
            told.append((reply.json()["detail"], reply.json()["hint"]))
    place.application.failure = None
    assert told[0] == ("adapter_model.safetensors cannot be read", "put it back into 0002")
    assert told[1] == (f"{weights} cannot be read", f"put it back into {weights.parent}")
    assert str(weights) in caplog.text


def test_a_damaged_registry_is_told_to_readers_without_its_folder(place: Place) -> None:
    lineage = place.folder / "0001" / "lineage.json"
    lineage.parent.mkdir()
    lineage.write_text("{")
    for client, named in ((place.reader, False), (place.admin, True)):
        reply = client.get("/loop")
        assert (reply.status_code, "lineage.json cannot be used" in reply.json()["detail"]) == (503, True)
        assert (str(place.folder) in reply.text) == named
    lineage.unlink()


def test_the_end_of_a_training_is_told_to_readers_without_folders(place: Place) -> None:
    for client, named in ((place.reader, False), (place.admin, True)):
        message = client.get("/train/").json()["training"]["message"]
        assert message.endswith("samples.jsonl')")
        assert (str(place.folder) in message) == named
        page = client.get("/loop").text
        assert "samples.jsonl" in page and str(place.folder) not in page
