"""The files of a generation run: settings, and one record per answer.

Nothing here loads a model, so scoring stays light.
"""

import json
from pathlib import Path
from typing import Any

RECORDS = "generations.jsonl"
SETTINGS = "generation.json"


def read_records(run: Path) -> list[dict[str, Any]]:
    """Read the records of a run; a last line torn by a crash is left out.

    Args:
        run: Folder of the run.

    Returns:
        Records in the order they were written; none if there is no file.
    """
    path = run / RECORDS
    if not path.exists():
        return []
    # As bytes: a line may be torn within a character.
    whole, newline, torn = path.read_bytes().rpartition(b"\n")
    if torn:
        # The torn line would swallow the next one written: cut it off.
        path.write_bytes(whole + newline)
    return [json.loads(line) for line in whole.split(b"\n")] if whole else []


def claim(run: Path, settings: dict[str, Any]) -> None:
    """Write down what the answers of a run depend on, or check that it is the same.

    Args:
        run: Folder of the run.
        settings: What the answers depend on.

    Raises:
        ValueError: If the folder holds a run with other settings.
    """
    path = run / SETTINGS
    if not path.exists():
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    for key in before | settings:
        if before.get(key) != settings.get(key):
            raise ValueError(
                f"{path.parent} holds answers made with `{key}` {before.get(key)!r}, now "
                f"{settings.get(key)!r}. Take another folder."
            )
