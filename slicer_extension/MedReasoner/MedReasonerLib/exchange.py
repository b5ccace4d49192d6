"""One call on Slicer's event loop, through QNetworkAccessManager; large bodies come from files and go into files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import qt

from medreasoner.contract.errors import MedReasonerError
from MedReasonerLib import client
from MedReasonerLib.client import Call, Reply, Server

_BUFFER = 1 << 20  # bytes of a large reply that Qt holds before they go into its file


class Exchange:
    """One call on its way; exactly one of `on_reply` and `on_failed` is called, unless it is cancelled."""

    def __init__(
        self,
        manager: Any,
        server: Server,
        call: Call,
        on_reply: Callable[[Reply], None],
        on_failed: Callable[[MedReasonerError], None],
        on_sent: Callable[[float], None],
    ) -> None:
        self._server, self._call = server, call
        self._on_reply, self._on_failed, self._on_sent = on_reply, on_failed, on_sent
        self._open, self._late = True, False
        self._file: Any = None
        self._into = call.into.open("wb") if call.into is not None else None
        request = qt.QNetworkRequest(qt.QUrl(server.url(call)))
        for name, value in server.headers(call).items():
            request.setRawHeader(name.encode(), value.encode())
        self._reply = self._send(manager, request)
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._too_late)
        self._timer.start(int(call.seconds * 1000))
        self._reply.uploadProgress.connect(self._progressed)
        self._reply.finished.connect(self._finished)
        if self._into is not None:
            self._reply.setReadBufferSize(_BUFFER)
            self._reply.readyRead.connect(self._store)

    def cancel(self) -> None:
        """Give up; no callback comes any more."""
        if self._open:
            self._open = False
            self._reply.abort()

    def _send(self, manager: Any, request: Any) -> Any:
        call = self._call
        if call.method == "GET":
            return manager.get(request)
        if call.method == "DELETE":
            return manager.deleteResource(request)
        body = call.body or b""
        if isinstance(body, Path):
            self._file = qt.QFile(str(body))
            self._file.open(qt.QIODevice.ReadOnly)
            body = self._file
        return manager.put(request, body) if call.method == "PUT" else manager.post(request, body)

    def _too_late(self) -> None:
        self._late = True
        self._reply.abort()

    def _progressed(self, sent: int, total: int) -> None:
        if self._open and total > 0:
            self._on_sent(sent / total)

    def _head(self) -> Reply:
        """What came back, without its body; status 0 when nothing did."""
        status = self._reply.attribute(qt.QNetworkRequest.HttpStatusCodeAttribute)
        kind = self._reply.header(qt.QNetworkRequest.ContentTypeHeader) or ""
        return Reply(int(status or 0), str(kind), b"")

    def _read(self) -> bytes:
        return bytes(self._reply.readAll().data())

    def _store(self) -> None:
        """Move what has come into the call's file; a refusal is not written, but read as a whole at the end."""
        if not self._open or self._into is None:
            return
        if not self._head().is_good:
            self._reply.setReadBufferSize(0)
            return
        try:
            self._into.write(self._read())
        except OSError as error:
            self.cancel()
            self._on_failed(no_room(error))

    def _finished(self) -> None:
        self._timer.stop()
        self._reply.deleteLater()
        self._store()
        for file in (self._file, self._into):
            if file is not None:
                file.close()
        if not self._open:
            return
        self._open = False
        head = self._head()
        if self._late:
            self._on_failed(client.unreachable(self._server, f"none within {self._call.seconds:.0f} s"))
        elif not head.status or (head.is_good and self._reply.error() != qt.QNetworkReply.NoError):  # or cut short
            self._on_failed(client.unreachable(self._server, self._reply.errorString()))
        else:
            self._on_reply(replace(head, body=self._read()))


def no_room(error: OSError) -> MedReasonerError:
    """Say that a temporary file cannot be written, and what helps."""
    return MedReasonerError(
        f"Slicer's temporary folder cannot be written: {error.strerror or error}",
        "make room on its disk, or choose another in Application Settings, Modules; then try again",
    )
