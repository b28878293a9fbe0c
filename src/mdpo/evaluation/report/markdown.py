"""A report as Markdown, with tables that are aligned as text too."""

from collections.abc import Sequence
from typing import Any

from mdpo.evaluation.comparison import Comparison, Difference
from mdpo.evaluation.published import SOURCE, Table
from mdpo.evaluation.report.findings import Finding

ARROWS = {"higher": "higher is better", "lower": "lower is better", "": ""}

READING = (
    "Values are those of the official scorers. Intervals are 95 %: a seeded percentile bootstrap "
    "over images, of the exact values without official rounding. Differences are paired: system "
    "less baseline on the items that both have answered, images drawn once for both. p is twice "
    "the share of draws on or beyond 0 on the rarer side, one added above and below the line; "
    "questions that are right or wrong have McNemar's exact test besides, which takes items as "
    "independent although several may be about one image. No p-value is corrected for the number "
    "of comparisons."
)


def as_markdown(found: Sequence[Finding], published: Sequence[Table]) -> str:
    """Write a report.

    Args:
        found: By benchmark.
        published: Tables to add, marked as such.

    Returns:
        Markdown.
    """
    lines = ["# Report of evaluations", "", READING, ""]
    for each in found:
        lines += _suite(each)
    if published:
        lines += ["## Published, not measured here", "", f"Source: {SOURCE}.", ""]
    for table in published:
        heads = ["", *(each.title for each in table.columns)]
        rows = [[name, *(number or "-" for number in numbers)] for name, numbers in table.rows]
        lines += [f"### {table.place}: {table.title} (published)", "", table.note, ""]
        lines += [*aligned(heads, rows), ""]
    return "\n".join(lines).rstrip() + "\n"


def aligned(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Write a Markdown table whose columns are aligned.

    Args:
        heads: Of columns; all but the first are set to the right.
        rows: Cells.

    Returns:
        Lines.
    """
    cells = [[_cell(each) for each in row] for row in (heads, *rows)]
    widths = [max(3, *(len(row[k]) for row in cells)) for k in range(len(heads))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    cells.insert(1, rule)
    return [
        "| "
        + " | ".join(
            cell.rjust(width) if k else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in cells
    ]


def value_text(entry: dict[str, Any] | None, digits: int) -> str:
    """Write a value.

    Args:
        entry: Of ``metrics.json``; None if a run lacks the metric.
        digits: Decimals.

    Returns:
        Its text; ``-`` if it is undefined.
    """
    return "-" if not entry or entry["value"] is None else f"{entry['value']:.{digits}f}"


def interval_text(entry: dict[str, Any] | None, digits: int) -> str:
    """Write an interval.

    Args:
        entry: Of ``metrics.json``; None if a run lacks the metric.
        digits: Decimals.

    Returns:
        Its text; empty if there is none.
    """
    if not entry or entry.get("low") is None:
        return ""
    return f"[{entry['low']:.{digits}f}, {entry['high']:.{digits}f}]"


def difference_text(difference: Difference | None, digits: int) -> tuple[str, str]:
    """Write a difference and its interval.

    Args:
        difference: None if there is none.
        digits: Decimals.

    Returns:
        Both texts.
    """
    if difference is None or difference.value is None:
        return "-", ""
    value, low, high = (
        _signed(each, digits) for each in (difference.value, difference.low, difference.high)
    )
    return value, f"[{low}, {high}]"


def p_text(p: float | None) -> str:
    """Write a p-value.

    Args:
        p: None if there is none.

    Returns:
        Its text.
    """
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def answers_rows(finding: Finding) -> list[list[str]]:
    """Say of each system how many items it rests on, and how many it does not.

    Args:
        finding: Of a benchmark.

    Returns:
        System; answers scored, failed, missing; not read by the robust rule; read differently
        by the two rules.
    """
    rows = []
    for system, run in finding.runs.items():
        counts = run.about.get("responses") or {}
        row = [system, *(str(counts.get(key, "-")) for key in ("scored", "failed", "missing"))]
        for name in ("unscored", "disagreements"):
            entry = run.metrics.get(name)
            row.append("-" if not entry or entry["value"] is None else f"{entry['value']:.0f}")
        rows.append(row)
    return rows


ANSWERS_HEADS = ("system", "scored", "failed", "missing", "unread (robust)", "rules disagree")


def right_text(comparison: Comparison, system: str, baseline: str) -> str:
    """Put McNemar's test into a sentence.

    Args:
        comparison: With counts of right and wrong.
        system: Compared.
        baseline: That it is compared with.

    Returns:
        The sentence; empty where items are not right or wrong.
    """
    counts = comparison.right_or_wrong
    if counts is None:
        return ""
    return (
        f"{system}: {counts.only_system} items right that {baseline} has wrong, "
        f"{counts.only_baseline} the other way round, {counts.both} right in both, "
        f"{counts.neither} in neither; McNemar's exact p {p_text(counts.p)}."
    )


def shared_text(comparison: Comparison, system: str, baseline: str) -> str:
    """Say on how many items a comparison rests.

    Args:
        comparison: Of two systems.
        system: Compared.
        baseline: That it is compared with.

    Returns:
        A sentence.
    """
    said = f"{system} against {baseline}: {comparison.items} shared items"
    left_out = (
        (comparison.left_out_baseline, baseline),
        (comparison.left_out_system, system),
    )
    parts = [f"{number} that only {name} answered" for number, name in left_out if number]
    return f"{said}; left out: {', '.join(parts)}." if parts else f"{said}."


def _suite(finding: Finding) -> list[str]:
    """Write the section of a benchmark."""
    lines = [f"## {finding.label()}", ""]
    for system, reasons in finding.apart.items():
        if reasons:
            lines.append(
                f"- **NOT COMPARABLE: {system} with {finding.baseline}: {'; '.join(reasons)}.** "
                "No differences are given."
            )
    lines += [
        f"- **{system}: {said}**" if said.startswith("Strong") else f"- {system}: {said}"
        for system, warnings in finding.warnings.items()
        for said in warnings
    ]
    lines += [f"- {each}" for each in finding.notes()]
    lines += [
        f"- {shared_text(each, system, finding.baseline)}"
        for system, each in finding.comparisons.items()
    ]
    lines += [
        f"- {said}"
        for system, each in finding.comparisons.items()
        if (said := right_text(each, system, finding.baseline))
    ]
    lines += ["", *_values(finding), "", *_differences(finding)]
    return [*lines, *aligned(ANSWERS_HEADS, answers_rows(finding)), ""]


def _values(finding: Finding) -> list[str]:
    """Write the table of values: a line per metric, a column per system."""
    rows = []
    for name, direction in finding.metrics().items():
        digits = finding.digits(name)
        entries = [dict(run.metrics.get(name) or {}) for run in finding.runs.values()]
        cells = [
            f"{value_text(entry, digits)} {interval_text(entry, digits)}".strip()
            for entry in entries
        ]
        floor = ", ".join(
            f"{of} {'/'.join(f'{value:.{digits}f}' for value in values)}"
            for of, values in finding.floors(name).items()
        )
        rows.append([name, ARROWS[direction], *cells, floor])
    heads = [finding.label(), "", *_marked(finding), "without looking"]
    return aligned(heads, rows)


def _marked(finding: Finding) -> list[str]:
    """Name systems, those that cannot be compared marked."""
    return [
        f"{system} (not comparable)" if finding.apart.get(system) else system
        for system in finding.runs
    ]


def _differences(finding: Finding) -> list[str]:
    """Write the table of differences: a line per metric and system."""
    rows = []
    for name in finding.metrics():
        for system, comparison in finding.comparisons.items():
            found = comparison.differences.get(name)
            value, interval = difference_text(found, finding.digits(name))
            rows.append([name, system, value, interval, p_text(found.p if found else None)])
    if not rows:
        return []
    heads = [f"{finding.label()}: less {finding.baseline}", "system", "difference", "95 %", "p"]
    return [*aligned(heads, rows), ""]


def _cell(text: str) -> str:
    """Keep a text in its cell."""
    return " ".join(text.replace("|", "\\|").split())


def _signed(value: float | None, digits: int) -> str:
    """Write a number with its sign; what is shown as 0 has none."""
    text = "-" if value is None else f"{value:+.{digits}f}"
    return text.lstrip("+-") if value is not None and float(text) == 0 else text
