"""One server with the embedded models for all tests of the application; its start takes ten to twenty seconds."""

import pytest

from tests.app.server import make_studies, running


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Open to this machine, with an audit log. Tests may add images, labels and sessions, and delete their own only."""
    work = tmp_path_factory.mktemp("server")
    audit = work / "run" / "audit.jsonl"
    with running(make_studies(work / "studies"), work / "run", f"audit_log={audit}", "keep_session=30") as found:
        yield found
