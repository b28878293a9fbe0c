"""Read answers, whoever wrote them."""

import json
from pathlib import Path

from mdpo.evaluation.generation_records import RECORDS


def read_responses(path: Path) -> list[tuple[str, str]]:
    """Read captions of a run or of another harness.

    Args:
        path: Folder of a run, or JSON lines with ``image_id`` and ``caption`` or ``text``.

    Returns:
        Image ids and texts, in order.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line is not of this form; the message names it.
    """
    file = path / RECORDS if path.is_dir() else path
    if not file.exists():
        raise FileNotFoundError(f"{file} not found. `mdpo generate` writes it.")
    rows = []
    written = file.read_text(encoding="utf-8")
    # Not `splitlines`: JSON may hold line separators of Unicode as they are.
    lines = written.removesuffix("\n").split("\n") if written else []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{file}:{number}: not JSON: {error}.") from None
        text = row.get("caption", row.get("text")) if isinstance(row, dict) else None
        if not isinstance(text, str) or "image_id" not in row:
            raise ValueError(f"{file}:{number}: must have `image_id` and `caption` or `text`.")
        rows.append((str(row["image_id"]), text))
    return rows
