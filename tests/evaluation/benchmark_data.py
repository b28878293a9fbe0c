"""Data of benchmarks and results of their official scorers, where a folder `shared` has them."""

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = next(
    (each / "shared/data" for each in (ROOT, ROOT.parent) if (each / "shared/data").is_dir()),
    ROOT / "shared/data",
)
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no folder shared/data")


def expected(entry: str) -> Any:
    """Results of an official scorer."""
    return json.loads((DATA / "expected.json").read_text(encoding="utf-8"))[entry]
