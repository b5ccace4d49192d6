"""Static tokens: who they let in, until when, and that a removed line is a revoked token."""

import hashlib
import subprocess
import sys
from datetime import date, datetime, timedelta, timezone

import pytest

from monailabel_app.gateway.tokens import Role, TokenFile, User, new_token
from monailabel_app.lib.settings import SettingsError


def written(tmp_path, *lines):
    path = tmp_path / "tokens"
    path.write_text("# name role sha256 last-day\n\n" + "\n".join(lines) + "\n")
    return path


def test_a_token_lets_its_user_in_and_is_not_in_the_file(tmp_path):
    token, line = new_token("ann@clinic", Role.ANNOTATOR)
    path = written(tmp_path, new_token("bob", Role.READER)[1], line + "  # radiology")
    assert TokenFile(path).user_of(token) == User("ann@clinic", Role.ANNOTATOR)
    assert token not in path.read_text()
    assert hashlib.sha256(token.encode()).hexdigest() in path.read_text()


@pytest.mark.parametrize("wrong", ["", "x", "é", "0" * 10_000])
def test_other_texts_are_nobody(tmp_path, wrong):
    token, line = new_token("ann", Role.READER)
    tokens = TokenFile(written(tmp_path, line))
    assert tokens.user_of(wrong) is None
    assert tokens.user_of(token.lower()) is None
    assert tokens.user_of(line.split()[2]) is None  # the hash, which a thief of the file has, is no token


def test_a_token_holds_through_its_last_day(tmp_path):
    today = datetime.now(timezone.utc).date()
    for days, known in ((0, True), (1, True), (-1, False)):
        token, line = new_token("ann", Role.READER, days)
        assert (TokenFile(written(tmp_path, line)).user_of(token) is not None) is known
        assert date.fromisoformat(line.split()[-1]) == today + timedelta(days)


def test_a_changed_file_counts_at_once(tmp_path):
    (first, one), (second, two) = new_token("ann", Role.READER), new_token("bob", Role.ADMIN)
    tokens = TokenFile(written(tmp_path, one))
    assert tokens.user_of(second) is None
    written(tmp_path, one, two)
    assert tokens.user_of(second) == User("bob", Role.ADMIN)
    written(tmp_path, two)
    assert tokens.user_of(first) is None


@pytest.mark.parametrize(
    "line",
    [
        "ann reader",
        f"ann king {'0' * 64}",
        f"ann reader {'g' * 64}",
        f"ann reader {'0' * 63}",
        f"ann reader {'0' * 64} soon",
        f"ann reader {'0' * 64} 2027-02-31",
        f"an n reader {'0' * 64}",
    ],
)
def test_a_wrong_line_is_named(tmp_path, line):
    with pytest.raises(SettingsError, match="line 3 of the token file tokens"):
        TokenFile(written(tmp_path, line))


def test_a_missing_file_is_an_error_not_an_open_door(tmp_path):
    path = written(tmp_path, new_token("ann", Role.READER)[1])
    tokens = TokenFile(path)
    path.unlink()
    for act in (lambda: tokens.user_of("x"), lambda: TokenFile(path)):
        with pytest.raises(SettingsError, match="cannot be read"):
            act()


def test_the_command_prints_a_token_and_its_line(tmp_path):
    command = [sys.executable, "-m", "monailabel_app.gateway.tokens", "ann", "admin", "--days", "30"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    token, line = (row.split(": ")[1] for row in said.splitlines())
    assert TokenFile(written(tmp_path, line)).user_of(token) == User("ann", Role.ADMIN)
