"""Static bearer tokens: a file of names, roles and SHA-256 hashes. The tokens themselves are nowhere on the server.

python -m monailabel_app.gateway.tokens NAME ROLE [--days N]   prints a new token, once, and the line for the file
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import re
import secrets
import threading
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from enum import IntEnum
from pathlib import Path

from monailabel_app.lib.settings import SettingsError

_LINE = re.compile(
    r"(?P<name>[\w.@+-]{1,64})\s+(?P<role>\w+)\s+(?P<sha256>[0-9a-f]{64})(?:\s+(?P<until>\d{4}-\d\d-\d\d))?"
)


class Role(IntEnum):
    """What a user may do; each role includes those before it."""

    READER = 1  # ask questions, look at images and labels
    ANNOTATOR = 2  # add images, save labels
    ADMIN = 3  # delete, train, see everyone's questions

    @classmethod
    def named(cls, name: str) -> Role | None:
        """Return the role of that name, in any case; None for other words."""
        return cls.__members__.get(name.upper())


@dataclass(frozen=True)
class User:
    """Who sends a request."""

    name: str
    role: Role


@dataclass(frozen=True)
class _Entry:
    user: User
    sha256: str
    until: date | None  # last day, UTC


class TokenFile:
    """The tokens of one file; a changed file counts from the next request on, so a removed line is a revoked token."""

    def __init__(self, path: Path) -> None:
        """Read the file; raises `SettingsError` where it is missing or a line of it is wrong."""
        self._path, self._lock = path, threading.Lock()
        self._seen: tuple[int, int] | None = None
        self._entries: list[_Entry] = []
        self._refresh()

    def user_of(self, token: str) -> User | None:
        """Return whose token this is, or None where it is nobody's or its last day is over."""
        self._refresh()
        presented = hashlib.sha256(token.encode()).hexdigest()
        found = None
        for entry in self._entries:  # always all of them: the time taken says nothing about which
            if hmac.compare_digest(entry.sha256, presented):
                found = entry
        today = datetime.now(timezone.utc).date()
        return None if found is None or (found.until and found.until < today) else found.user

    def _refresh(self) -> None:
        try:
            status = self._path.stat()
            stamp = status.st_mtime_ns, status.st_size
            with self._lock:
                if stamp != self._seen:
                    self._entries = _parse(self._path.read_text(encoding="utf-8"), self._path)
                    self._seen = stamp
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"the token file {self._path.name} cannot be read", "name a readable file") from error


def _parse(text: str, path: Path) -> list[_Entry]:
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        content = line.split("#")[0].strip()
        if not content:
            continue
        match = _LINE.fullmatch(content)
        role = Role.named(match["role"]) if match else None
        try:
            until = date.fromisoformat(match["until"]) if match and match["until"] else None
        except ValueError:
            role, until = None, None
        if match is None or role is None:
            raise SettingsError(
                f"line {number} of the token file {path.name} is no token",
                "write: name, reader or annotator or admin, SHA-256 in hex, and perhaps the last day (2027-01-31)",
            )
        entries.append(_Entry(User(match["name"], role), match["sha256"], until))
    return entries


def new_token(name: str, role: Role, days: int | None = None) -> tuple[str, str]:
    """Make a token of 256 random bits and the line that lets it in."""
    token = secrets.token_urlsafe(32)
    until = f" {datetime.now(timezone.utc).date() + timedelta(days)}" if days is not None else ""
    return token, f"{name} {role.name.lower()} {hashlib.sha256(token.encode()).hexdigest()}{until}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="the user, as labels and the audit log will name them")
    parser.add_argument("role", choices=[role.name.lower() for role in Role])
    parser.add_argument("--days", type=int, help="how long it holds; default: until its line is removed")
    args = parser.parse_args()
    token, line = new_token(args.name, Role[args.role.upper()], args.days)
    print(f"token, shown only now: {token}\nline for the token file: {line}")  # noqa: T201


if __name__ == "__main__":
    main()
