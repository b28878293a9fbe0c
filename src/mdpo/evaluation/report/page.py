"""A report as one HTML page that needs nothing else: no network, no other file.

The page allows itself only its own style and script, by their hashes, and images inside it.
Answers and names reach it escaped: by the template, or as JSON that the script turns into text.
"""

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mdpo.evaluation.comparison import Difference
from mdpo.evaluation.published import SOURCE, Table
from mdpo.evaluation.report.browsing import browsable
from mdpo.evaluation.report.findings import Finding
from mdpo.evaluation.report.markdown import (
    ANSWERS_HEADS,
    ARROWS,
    READING,
    answers_rows,
    difference_text,
    interval_text,
    p_text,
    right_text,
    shared_text,
    value_text,
)
from mdpo.evaluation.report.pictures import Pictures
from mdpo.evaluation.suites.mmhal import CATEGORIES

COLOURS = 8
"""Colours and shapes of systems; a ninth system has those of the first."""


def as_page(
    found: Sequence[Finding],
    published: Sequence[Table],
    *,
    images: Path | None = None,
    max_items: int = 200,
) -> str:
    """Write a report.

    Args:
        found: By benchmark.
        published: Tables to add, marked as such.
        images: Folder of images; None leaves them out.
        max_items: Most items per benchmark that can be looked at.

    Returns:
        HTML.

    Raises:
        ValueError: If a folder of images is given and holds none of the items' images.
    """
    systems = list(dict.fromkeys(system for each in found for system in each.runs))
    pictures = Pictures(images)
    items, counts = [], []
    for each in found:
        shown, number = browsable(each, pictures, max_items)
        items += shown
        counts.append({"suite": each.suite, "shown": len(shown), "all": number})
    if pictures.missing and not pictures.urls:
        raise ValueError(
            f"{images} holds none of the images, such as {min(pictures.missing)!r}. Give --images "
            "the folder with the images of the benchmark, or leave it out."
        )
    data = {"systems": systems, "items": items, "images": pictures.urls}
    style, script = (_beside(name) for name in ("page.css", "page.js"))
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_beside("report.html.j2")).render(
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        suites=[_suite(each, systems) for each in found],
        systems=[{"name": name, "mark": k % COLOURS} for k, name in enumerate(systems)],
        published=published,
        source=SOURCE,
        reading=READING,
        data=Markup(_inert(data)),
        counts=counts,
        has_images=bool(pictures.urls),
        missing=len(pictures.missing),
    )


def _suite(finding: Finding, systems: Sequence[str]) -> dict[str, Any]:
    """Lay out the section of a benchmark."""
    marks = {name: k % COLOURS for k, name in enumerate(systems)}
    blocks = [_block(finding, name, marks) for name in finding.metrics()]
    comparisons = finding.comparisons.items()
    return {
        "name": finding.suite,
        "label": finding.label(),
        "baseline": finding.baseline,
        "apart": {system: why for system, why in finding.apart.items() if why},
        "warnings": [(s, said) for s, each in finding.warnings.items() for said in each],
        "notes": [
            *finding.notes(),
            *(shared_text(each, system, finding.baseline) for system, each in comparisons),
            *filter(None, (right_text(each, s, finding.baseline) for s, each in comparisons)),
        ],
        "headline": [each for each in blocks if finding.headline(each["name"])],
        "parts": [each for each in blocks if not finding.headline(each["name"])],
        "categories": _categories(finding, marks),
        "answers": {"heads": ANSWERS_HEADS, "rows": answers_rows(finding)},
    }


def _block(finding: Finding, name: str, marks: Mapping[str, int]) -> dict[str, Any]:
    """Lay out one metric: all its systems on one scale."""
    digits, direction = finding.digits(name), finding.metrics()[name]
    entries = {system: dict(run.metrics.get(name) or {}) for system, run in finding.runs.items()}
    floors = finding.floors(name)
    numbers = [
        entry[key]
        for entry in entries.values()
        for key in ("value", "low", "high")
        if entry.get(key) is not None
    ]
    scale = _Scale([*numbers, *(value for values in floors.values() for value in values)])
    rows = []
    for system, entry in entries.items():
        comparison = finding.comparisons.get(system)
        difference = comparison.differences.get(name) if comparison else None
        value, interval = difference_text(difference, digits)
        rows.append(
            {
                "system": system,
                "mark": marks[system],
                "apart": bool(finding.apart.get(system)),
                "baseline": system == finding.baseline,
                "value": value_text(entry, digits),
                "interval": interval_text(entry, digits),
                "place": scale.places(entry),
                "n": entry.get("n", "-"),
                "unscored": entry.get("unscored") or 0,
                "difference": value,
                "difference_interval": interval,
                "p": p_text(difference.p) if difference else "",
                "verdict": _verdict(difference, direction),
            }
        )
    return {
        "name": name,
        "direction": direction,
        "says": ARROWS[direction],
        "ends": scale.ends(),
        "rows": rows,
        "floors": [
            {
                "name": of,
                "text": "/".join(f"{value:.{digits}f}" for value in values),
                "at": [scale.at(value) for value in values],
            }
            for of, values in floors.items()
        ],
    }


def _verdict(difference: Difference | None, direction: str) -> str:
    """Say whether an interval leaves out 0, and on which side."""
    if difference is None or difference.low is None or difference.high is None or not direction:
        return ""
    if difference.low <= 0 <= difference.high:
        return "unclear"
    return "better" if (difference.low > 0) == (direction == "higher") else "worse"


def _categories(finding: Finding, marks: Mapping[str, int]) -> list[dict[str, Any]]:
    """Lay out the mean ratings of MMHal-Bench by category, all on the scale of ratings."""
    if finding.suite != "mmhal":
        return []
    scale = _Scale([0.0, 6.0])
    return [
        {
            "name": category,
            "rows": [
                {
                    "system": system,
                    "mark": marks[system],
                    "text": f"{value_text(entry, 2)} {interval_text(entry, 2)}",
                    "place": scale.places(entry),
                }
                for system, run in finding.runs.items()
                if (entry := dict(run.metrics.get(category) or {}))
            ],
        }
        for category in CATEGORIES
    ]


class _Scale:
    """From values to percent of a track whose ends are round numbers."""

    def __init__(self, values: Sequence[float]) -> None:
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        span = (high - low) or max(abs(high), 1.0)
        step = 10.0 ** math.floor(math.log10(span))
        step = step / 2 if span / step < 4 else step
        self.low = math.floor(low / step) * step
        self.high = max(math.ceil(high / step) * step, self.low + step)

    def at(self, value: float) -> float:
        """Place a value."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    def ends(self) -> tuple[str, str]:
        """Write what stands at the ends of the track."""
        return f"{round(self.low, 6):g}", f"{round(self.high, 6):g}"

    def places(self, entry: Mapping[str, Any]) -> dict[str, float] | None:
        """Place a value and its interval; nothing where it is undefined."""
        if entry.get("value") is None:
            return None
        low, high = (
            entry["value"] if entry.get(key) is None else entry[key] for key in ("low", "high")
        )
        return {"at": self.at(entry["value"]), "low": self.at(low), "high": self.at(high)}


def _beside(name: str) -> str:
    """Read a file that lies beside this module."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Hash a style or script as a content security policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _inert(data: Any) -> str:
    """Write JSON that no text in it can end, or turn into markup."""
    written = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        written = written.replace(sign, f"\\u{ord(sign):04x}")
    return written
