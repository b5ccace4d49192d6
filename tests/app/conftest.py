"""One server with the embedded models for all tests of the application; its start takes ten to twenty seconds."""

import pytest

from tests.app.server import make_studies, running


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Open to this machine without tokens. Tests may add images, labels and sessions, and must not delete others'."""
    work = tmp_path_factory.mktemp("server")
    with running(make_studies(work / "studies"), work / "run") as found:
        yield found
