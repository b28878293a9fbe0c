"""Rows of JSON files, as benchmarks and harnesses write them."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


def read_rows(path: Path) -> list[Row]:
    """Read a JSON array of objects, or one object a line.

    Args:
        path: A file.

    Returns:
        Objects, in order.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not of this form; the message names the line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found.")
    written = path.read_text(encoding="utf-8-sig")
    if written.lstrip().startswith("["):
        try:
            rows = list(enumerate(json.loads(written), start=1))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: not JSON: {error}.") from None
    else:
        rows = list(_lines(written, path))
    for number, row in rows:
        if not isinstance(row, dict):
            raise ValueError(f"{path}:{number}: must be a JSON object, got {row!r}.")
    return [row for _, row in rows]


def _lines(written: str, path: Path) -> Iterator[tuple[int, Any]]:
    """Parse one value a line; empty lines are left out."""
    # Not `splitlines`: JSON may hold line separators of Unicode as they are.
    for number, line in enumerate(written.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}:{number}: not JSON: {error}.") from None


def response_files(path: Path, endings: Sequence[str] = (".json", ".jsonl")) -> list[Path]:
    """List the files that hold responses.

    Args:
        path: A file, or a folder of files.
        endings: Of the files that count in a folder.

    Returns:
        Files, sorted.

    Raises:
        FileNotFoundError: If there is none.
    """
    if path.is_file():
        return [path]
    files = sorted(each for each in path.glob("*") if each.suffix in endings)
    if not files:
        raise FileNotFoundError(f"{path} must be a file of responses, or a folder of such files.")
    return files


def write_rows(path: Path, rows: Iterable[Row]) -> Path:
    """Write one JSON object a line.

    Args:
        path: Of the file; its folder is made if missing.
        rows: Objects.

    Returns:
        The path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def value_of(row: Row, names: Sequence[str], place: str) -> str:
    """Take the first of several fields that a row has.

    Args:
        row: A row.
        names: Fields, in order of preference.
        place: File and number of the row, for messages.

    Returns:
        Its text; numbers are written out.

    Raises:
        ValueError: If the row has none of them, or the first it has is neither text nor number.
    """
    for name in names:
        if name in row:
            if isinstance(row[name], (str, int)) and not isinstance(row[name], bool):
                return str(row[name])
            raise ValueError(f"{place}: `{name}` must be text, got {row[name]!r}.")
    listed = " or ".join(f"`{name}`" for name in names)
    raise ValueError(f"{place}: {listed} is missing; the row has {', '.join(row)}.")


def by_item(
    answers: Iterable[tuple[str, str, str]], items: Sequence[str] | Mapping[str, Any]
) -> dict[str, str]:
    """Join answers to items.

    Args:
        answers: Place in the file, item id and answer.
        items: Ids of the benchmark.

    Returns:
        Answers by item id.

    Raises:
        ValueError: If an item is unknown, or answered twice; the message names the place.
    """
    known, found = set(items), dict[str, str]()
    for place, item, answer in answers:
        if item not in known:
            raise ValueError(f"{place}: item {item!r} is not in the benchmark's data.")
        if item in found:
            raise ValueError(f"{place}: item {item!r} is answered twice; keep one answer.")
        found[item] = answer
    return found
