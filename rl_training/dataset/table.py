"""Rows of a CSV or JSONL file as text by column, each knowing its line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_training.dataset.example import DataError


@dataclass(frozen=True)
class Row:
    """One line of a table; `values` are trimmed, and empty where the line leaves them out."""

    file: Path
    number: int
    values: dict[str, str]

    @property
    def where(self) -> str:
        """Name of the file and line, as every error about the row begins."""
        return f"{self.file.name} line {self.number}"

    def error(self, what: str, hint: str) -> DataError:
        """Make an error about this row."""
        return DataError(f"{self.where}: {what}", hint)


def read_table(path: Path, columns: Collection[str], hint: str) -> list[Row]:
    """Read a .csv file (comma or semicolon, a header line) or a .jsonl file (an object a line), in UTF-8.

    Raises:
        DataError: the file cannot be read, is not UTF-8, has unknown columns or a line that does not fit; names the
            line.
    """
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}", "check the path") from error
    try:
        text = encoded.decode("utf-8-sig")  # spreadsheets write a mark at the start
    except UnicodeDecodeError as error:
        line = encoded[: error.start].count(b"\n") + 1
        raise DataError(f"{path.name} line {line} is not UTF-8", "save the file with the encoding UTF-8") from error
    rows = list(_json_lines(path, text, hint) if path.suffix.lower() == ".jsonl" else _csv_lines(path, text, hint))
    for row in rows:
        if unknown := sorted(row.values.keys() - set(columns)):
            raise row.error(f"has the unknown columns {', '.join(unknown)[:80]}", hint)
    return rows


def _csv_lines(path: Path, text: str, hint: str) -> Iterator[Row]:
    header = text.partition("\n")[0]
    delimiter = ";" if header.count(";") > header.count(",") else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        try:
            values: dict[Any, Any] | None = next(reader, None)
        except csv.Error as error:
            begun = reader.line_num + 1  # counts the lines of the rows before
            raise DataError(f"{path.name} line {begun} is not CSV: {error}", hint) from error
        if values is None:
            return
        row = Row(path, reader.line_num, {str(k).strip(): str(v or "").strip() for k, v in values.items() if k})
        if None in values:
            raise row.error("has more fields than the header", "put text that holds the separator into quotes")
        yield row


def _json_lines(path: Path, text: str, hint: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        row = Row(path, number, {})
        try:
            values = json.loads(line)
        except ValueError as error:
            raise row.error(f"is not JSON: {error}", hint) from error
        if not isinstance(values, dict):
            raise row.error("is not a JSON object", hint)
        yield Row(path, number, {name: _as_text(value) for name, value in values.items()})


def _as_text(value: Any) -> str:
    """Write a JSON value as a CSV file would hold it; a window may be a list."""
    if value is None:
        return ""
    if isinstance(value, list):
        return "/".join(map(str, value))
    return str(value).strip()
