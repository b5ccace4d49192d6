"""A small application for the gateway's tests: answers at once or when told to, and keeps its images in a dict."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
import time
from types import SimpleNamespace

import uvicorn

from monailabel_app.gateway.application import build
from monailabel_app.lib.settings import Settings


class SmallApplication:
    """What the gateway uses of MONAI Label's application, with a model that writes down what it was asked."""

    studies = tempfile.gettempdir()
    models, strategies, trainers = {"medreasoner", "medreasoner_refine"}, (), ()
    succession = None  # no reasoner that could be exchanged

    def __init__(self) -> None:
        self.asked: list[dict] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.failure: Exception | None = None
        self.store = SimpleNamespace(
            list_images=lambda: ["case"],
            get_image_uri=lambda id: f"/studies/{id}.nii.gz",
            status=lambda: {"total": 1},
            close=lambda: None,
        )

    def infer(self, request):
        self.asked.append(request)
        assert self.may_answer.wait(30)
        if self.failure is not None:
            raise self.failure
        with tempfile.NamedTemporaryFile(suffix=".nrrd", delete=False) as mask:
            mask.write(b"mask of " + request["question"].encode())
        timings = {"reason": 0.2, "segment": 0.1, "total": 0.3}
        params = {"question": request["question"], "absent": "unicorn" in request["question"], "timings": timings}
        return {"file": mask.name, "params": params}

    def info(self):
        return {"models": {"medreasoner": {}, "medreasoner_refine": {}}, "strategies": {}, "trainers": {}}

    def datastore(self):
        return self.store

    def sessions(self):
        return SimpleNamespace(get_session=lambda *_, **__: None)

    def server_mode(self, _):
        pass

    def on_init_complete(self):
        pass


@contextlib.contextmanager
def served(application, settings=None, **options):
    """Serve an application behind the gateway on a free loopback port; yields its address. Options are uvicorn's."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(build(lambda: application, settings or Settings()), log_config=None, **options)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True  # what SIGTERM sets
            thread.join(30)
