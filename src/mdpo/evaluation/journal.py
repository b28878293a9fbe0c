"""Append-only records of a run, one JSON object a line, with one writer at a time.

A crash can only tear the last line. Readers leave a torn line out; the next writer cuts it off,
so that it does not swallow the record written after it.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

Record = dict[str, Any]


def content_key(content: Any) -> str:
    """Hash what a record depends on, so that the same is not asked twice.

    Args:
        content: Values that JSON can hold.

    Returns:
        SHA-256 in hexadecimal.
    """
    written = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(written.encode()).hexdigest()


def read_journal(path: Path) -> list[Record]:
    """Read whole records; nothing is written.

    Args:
        path: Of the file.

    Returns:
        Records in the order they were written; none if there is no file.

    Raises:
        ValueError: If a line before the last is not a JSON object.
    """
    if not path.exists():
        return []
    # As bytes: a line may be torn within a character.
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    records = []
    for number, line in enumerate(whole.split(b"\n") if whole else [], start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}:{number}: not JSON: {error}.") from None
        if not isinstance(record, dict):
            raise ValueError(f"{path}:{number}: must be a JSON object, got {record!r}.")
        records.append(record)
    return records


class Journal:
    """A file of records that is locked while it is written.

    Attributes:
        path: Of the file.
        records: Whole records found at the start, and those appended since.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: list[Record] = []
        self._lock = FileLock(path.with_name(path.name + ".lock"), timeout=0)

    def __enter__(self) -> "Journal":
        """Take the lock, cut off a torn line and read what is there.

        Returns:
            The journal.

        Raises:
            ValueError: If another process writes it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise ValueError(
                f"{self.path} is being written by another process. Wait for it, or take another "
                "folder."
            ) from None
        try:
            self.records = read_journal(self.path)
            self._file = self.path.open("ab")
            whole = self.path.read_bytes().rfind(b"\n") + 1
            self._file.truncate(whole)
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file and free the lock."""
        self._file.close()
        self._lock.release()

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record; it is in the file when this returns.

        Args:
            record: Values that JSON can hold.
        """
        line = json.dumps(record, ensure_ascii=False) + "\n"
        self._file.write(line.encode())
        self._file.flush()
        self.records.append(dict(record))
