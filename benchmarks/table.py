"""From raw numbers to medians with spread, and to text."""

from collections.abc import Sequence
from statistics import mean, median
from typing import Any

from sides import BASE_SIDE

MEBIBYTE = 1024**2


def summarise(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Take medians over rounds, side by side.

    Args:
        runs: Results of processes of one geometry; one with ``error`` counts as failed.

    Returns:
        By side: medians, each with smallest and largest value, and notes.
    """
    base = {run["round"]: _step(run) for run in runs if run["side"] == BASE_SIDE and _ok(run)}
    summary: dict[str, dict[str, Any]] = {}
    for side in dict.fromkeys(run["side"] for run in runs):
        own = [run for run in runs if run["side"] == side]
        good = [run for run in own if _ok(run)]
        notes = sorted({note for run in own for note in _notes(run)})
        summary[side] = {"rounds": len(good), "failed": len(own) - len(good), "notes": notes}
        if not good:
            continue
        ratios = [_step(run) / base[run["round"]] for run in good if run["round"] in base]
        summary[side] |= {
            "step_seconds": spread([_step(run) for run in good]),
            "ratio": spread(ratios) if ratios else None,
            "tokens_per_pair": mean(run["tokens_per_pair"] for run in good),
            "images_per_pair": mean(run["images_per_pair"] for run in good),
            "peak_bytes": spread([run["peak_bytes"] for run in good]),
            "peak_bytes_above_model": spread([run["peak_bytes_above_model"] for run in good]),
            "planned_bytes_above_model": _median(
                [run.get("planned_bytes_above_model") for run in good]
            ),
            "roofline": spread([run["roofline"] for run in good]),
            "mfu": spread([run["mfu"] for run in good]) if good[0]["mfu"] else None,
            "collation_seconds": median(run["collation_seconds"] for run in good),
        }
    return summary


def _median(values: Sequence[float | None]) -> float | None:
    """Median of what is there, if anything is."""
    known = [each for each in values if each is not None]
    return median(known) if known else None


def spread(values: Sequence[float]) -> dict[str, float]:
    """Take the median and the range.

    Args:
        values: At least one.

    Returns:
        ``median``, ``low`` and ``high``.
    """
    return {"median": median(values), "low": min(values), "high": max(values)}


def format_summary(summary: dict[str, dict[str, Any]]) -> str:
    """Write the main table.

    Args:
        summary: From ``summarise``.

    Returns:
        Aligned text.
    """
    header = [
        "side",
        "step, s",
        f"of {BASE_SIDE}",
        "LM tokens/pair",
        "images/pair",
        "peak, MiB",
        "above model, MiB",
        "planned, MiB",
        "roofline",
        "collation, s",
    ]
    with_mfu = any(each.get("mfu") for each in summary.values())
    lines = [header + ["MFU"] * with_mfu]
    for side, each in summary.items():
        if "step_seconds" not in each:
            lines.append([side, "failed"])
            continue
        lines.append(
            [
                side,
                _range(each["step_seconds"], ".3f"),
                _range(each["ratio"], ".3f") if each["ratio"] else "-",
                f"{each['tokens_per_pair']:.0f}",
                f"{each['images_per_pair']:.2f}",
                _range(each["peak_bytes"], ".0f", scale=1 / MEBIBYTE),
                _range(each["peak_bytes_above_model"], ".0f", scale=1 / MEBIBYTE),
                f"{planned / MEBIBYTE:.0f}"
                if (planned := each["planned_bytes_above_model"])
                else "-",
                _range(each["roofline"], ".2f"),
                f"{each['collation_seconds']:.2f}",
            ]
        )
        if with_mfu:
            lines[-1].append(_range(each["mfu"], ".2f") if each["mfu"] else "-")
    notes = [f"{side}: {note}" for side, each in summary.items() for note in each["notes"]]
    return "\n".join([align(lines), *notes])


def format_sweep(points: Sequence[dict[str, Any]]) -> str:
    """Write the table of cost against row length.

    Args:
        points: With ``varied``, ``value`` and ``runs`` of one side each.

    Returns:
        Aligned text.
    """
    lines = [
        ["varied", "value", "side", "step, s", "LM tokens/pair", "us per LM token", "images/pair"]
    ]
    for point in points:
        good = [run for run in point["runs"] if _ok(run)]
        start = [point["varied"], str(point["value"]), point["side"]]
        if not good:
            lines.append([*start, "failed"])
            continue
        tokens = mean(run["tokens_per_pair"] for run in good)
        per_token = [_step(run) / run["batch_size"] / run["tokens_per_pair"] * 1e6 for run in good]
        lines.append(
            [
                *start,
                _range(spread([_step(run) for run in good]), ".3f"),
                f"{tokens:.0f}",
                _range(spread(per_token), ".1f"),
                f"{good[0]['images_per_pair']:.2f}",
            ]
        )
    notes = {
        f"{point['side']}: {n}" for point in points for run in point["runs"] for n in _notes(run)
    }
    return "\n".join([align(lines), *sorted(notes)])


def align(lines: Sequence[Sequence[str]]) -> str:
    """Write lines with columns under each other, the first to the left, others to the right.

    Args:
        lines: The first is the header; later ones may be shorter.

    Returns:
        Text.
    """
    widths = [
        max(len(line[column]) for line in lines if column < len(line))
        for column in range(len(lines[0]))
    ]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=False))
        ).rstrip()
        for line in lines
    )


def _ok(run: dict[str, Any]) -> bool:
    """Whether a process came to its end."""
    return "error" not in run


def _step(run: dict[str, Any]) -> float:
    """Mean time of the steps of one process, in seconds."""
    return mean(run["step_seconds"])


def _notes(run: dict[str, Any]) -> list[str]:
    """What the reader must know of a run."""
    if not _ok(run):
        return [f"failed: {run['error'].strip().splitlines()[-1]}"]
    missing = run["missing_settings"]
    return [f"MEASURED WITHOUT {', '.join(missing)}, which mdpo lacks"] if missing else []


def _range(values: dict[str, float], form: str, *, scale: float = 1.0) -> str:
    """Write a median with its range."""
    middle, low, high = (format(values[key] * scale, form) for key in ("median", "low", "high"))
    return f"{middle} [{low}, {high}]"
