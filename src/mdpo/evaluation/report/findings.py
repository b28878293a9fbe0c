"""What a report says: values, differences from the baseline, and what forbids comparing."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mdpo.evaluation.comparison import Comparison, compare, coverage_warnings, load_metrics
from mdpo.evaluation.report.gather import Scored
from mdpo.evaluation.suites.mmhal import CATEGORIES

SAME = ("data", "backend", "mode", "judge")
"""What two runs must share to be compared."""

OF_THE_MODEL = frozenset({"model", "adapter", "weights", "dtype", "endpoint", "responses"})
"""Settings of generation that may differ between systems."""


@dataclass(frozen=True)
class Finding:
    """A benchmark, with all systems that were scored on it.

    Attributes:
        suite: Name of the benchmark.
        runs: By system, in the order given.
        baseline: The system that others are compared with.
        apart: By system, why it cannot be compared with the baseline; empty if it can.
        comparisons: By system, those that can be compared.
        warnings: By system.
    """

    suite: str
    runs: Mapping[str, Scored]
    baseline: str
    apart: Mapping[str, Sequence[str]]
    comparisons: Mapping[str, Comparison]
    warnings: Mapping[str, Sequence[str]]

    def metrics(self) -> dict[str, str]:
        """List metrics to show.

        Returns:
            Direction by name: ``higher``, ``lower``, or nothing for the length of responses.
        """
        undefined = set(self.undefined())
        return {name: direction for name, direction in self._all().items() if name not in undefined}

    def undefined(self) -> list[str]:
        """List metrics that have no value for any system.

        Returns:
            Names.
        """
        return [
            name
            for name in self._all()
            if all((run.metrics.get(name) or {}).get("value") is None for run in self.runs.values())
        ]

    def headline(self, metric: str) -> bool:
        """Tell what papers print from parts and from the robust rule.

        Args:
            metric: Its name.

        Returns:
            Whether it is shown first.
        """
        if self.suite == "mmhal":
            return "/" not in metric and metric not in CATEGORIES
        if self.suite == "muirbench":
            return metric in ("accuracy", "length")
        return "/" not in metric

    def digits(self, metric: str) -> int:
        """Choose how many decimals are shown.

        Args:
            metric: Its name.

        Returns:
            Two for ratings of MMHal-Bench, as printed there, otherwise one.
        """
        rating = metric.removeprefix("robust/") in (*CATEGORIES, "score")
        return 2 if self.suite == "mmhal" and rating else 1

    def floors(self, metric: str) -> dict[str, list[float]]:
        """Collect what a metric is for answers that were given without looking.

        Args:
            metric: Its name.

        Returns:
            By kind of answers one value, or, where they are made of the systems' own answers and
            differ, one per system.
        """
        values: dict[str, list[float]] = {}
        for run in self.runs.values():
            entry = run.metrics.get(metric) or {}
            for name, value in (entry.get("baseline") or {}).items():
                values.setdefault(name, []).append(value)
        return {name: each[:1] if len(set(each)) == 1 else each for name, each in values.items()}

    def notes(self) -> list[str]:
        """Say what holds for single runs: how language was processed, judges, failures.

        Returns:
            Sentences.
        """
        notes = [f"Language backend: {backend}." for backend in self.backends() if _vague(backend)]
        for system, run in self.runs.items():
            if _own_judge(run):
                why = run.about["judge"].get("why")
                notes.append(
                    f"{system}: not comparable with published numbers, which are of another judge"
                    + (f" ({why})." if why else ".")
                )
            notes += [
                f"{system}: {name} has a standard deviation of {measured['sd']:.2f} over "
                f"{len(measured['values'])} judgments of the same answers."
                for name, measured in (run.about.get("judge_noise") or {}).items()
                if self.headline(name)
            ]
            if run.about.get("mode", "official") != "official":
                notes.append(f"{system}: {run.about['mode']}.")
        if undefined := self.undefined():
            notes.append(f"Undefined for all systems, and not shown: {', '.join(undefined)}.")
        return notes

    def _all(self) -> dict[str, str]:
        """List metrics that say which way is better, and the length of responses."""
        return {
            name: entry["direction"] or ""
            for run in self.runs.values()
            for name, entry in run.metrics.items()
            if entry["direction"] or name == "length"
        }

    def backends(self) -> list[str]:
        """List what processed language.

        Returns:
            Names, each once.
        """
        return list(dict.fromkeys(str(run.about.get("backend")) for run in self.runs.values()))

    def label(self) -> str:
        """Name the benchmark for headings of tables.

        Returns:
            Its name, marked if its numbers are approximate or of another judge than published.
        """
        marks = ["approximate"] if any(map(_vague, self.backends())) else []
        if any(_own_judge(run) for run in self.runs.values()):
            marks.append("own judge")
        return f"{self.suite} ({', '.join(marks)})" if marks else self.suite


def findings(scored: Sequence[Scored], baseline: str | None = None) -> list[Finding]:
    """Compare systems, benchmark by benchmark.

    Args:
        scored: Runs.
        baseline: System that others are compared with; None takes the first. A benchmark that
            it was not scored on takes the first system that was.

    Returns:
        One finding per benchmark.

    Raises:
        ValueError: If no run is of the baseline.
    """
    systems = list(dict.fromkeys(each.system for each in scored))
    if baseline is not None and baseline not in systems:
        raise ValueError(f"`--baseline` must be one of {', '.join(systems)}, got {baseline!r}.")
    found = []
    for suite in dict.fromkeys(each.suite for each in scored):
        runs = {each.system: each for each in scored if each.suite == suite}
        found.append(_finding(suite, runs, baseline if baseline in runs else next(iter(runs))))
    return found


def to_json(found: Sequence[Finding]) -> dict[str, Any]:
    """Put findings in the form of ``report.json``.

    Args:
        found: By benchmark.

    Returns:
        What JSON can hold.
    """
    return {
        "suites": {
            each.suite: {
                "baseline": each.baseline,
                "systems": {system: dict(run.about) for system, run in each.runs.items()},
                "not_comparable": {system: list(why) for system, why in each.apart.items() if why},
                "comparisons": {
                    system: asdict(comparison) for system, comparison in each.comparisons.items()
                },
                "warnings": {system: list(said) for system, said in each.warnings.items() if said},
                "notes": each.notes(),
            }
            for each in found
        }
    }


def _finding(suite: str, runs: Mapping[str, Scored], baseline: str) -> Finding:
    """Compare the systems of one benchmark."""
    first = runs[baseline]
    apart, comparisons, warnings = {}, {}, {}
    for system, run in runs.items():
        if system == baseline:
            continue
        apart[system] = _reasons(first, run)
        warnings[system] = _other_settings(first, run)
        if apart[system]:
            continue
        columns = {name for each in (*first.items, *run.items) for name in each.columns}
        comparisons[system] = compare(first.items, run.items, load_metrics(suite, columns))
        lengths = (_length(first), _length(run))
        warnings[system] += coverage_warnings(suite, comparisons[system].differences, lengths)
    return Finding(suite, runs, baseline, apart, comparisons, warnings)


def _reasons(first: Scored, other: Scored) -> list[str]:
    """Say why two runs cannot be compared."""
    reasons = []
    for name in SAME:
        before, after = (_bound(run.about.get(name)) for run in (first, other))
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            changed = sorted(key for key in before | after if before.get(key) != after.get(key))
            reasons.append(f"{name} differs: {', '.join(changed)}")
        else:
            reasons.append(f"{name} differs: {after!r}, {first.system} has {before!r}")
    answered = [{each.item for each in run.items} for run in (first, other)]
    return reasons or ([] if answered[0] & answered[1] else ["no item was answered by both"])


def _other_settings(first: Scored, other: Scored) -> list[str]:
    """Say how generation differed in more than the model."""
    before, after = (_flat(_bound(run.about.get("generation") or {})) for run in (first, other))
    if not before or not after:
        return []
    changed = sorted(
        key
        for key in before | after
        if key not in OF_THE_MODEL and before.get(key) != after.get(key)
    )
    if not changed:
        return []
    said = ", ".join(f"{key} {after.get(key)!r} ({before.get(key)!r})" for key in changed)
    return [f"Note: answers were generated with other settings than the baseline's: {said}."]


def _bound(settings: Any) -> Any:
    """Leave out settings that records do not depend on, such as folders; see ``runs.claim``."""
    if not isinstance(settings, dict):
        return settings
    # A prompt is known by its hash; where it was read does not matter.
    loose = {*settings.get("may_differ", ()), "may_differ"}
    loose |= {"prompt"} if "prompt_sha256" in settings else set()
    return {key: value for key, value in settings.items() if key not in loose}


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Put the settings of decoding beside the others."""
    rest = {key: value for key, value in settings.items() if key != "decoding"}
    return rest | dict(settings.get("decoding") or {})


def _length(run: Scored) -> float | None:
    """Mean words of a response."""
    return run.metrics.get("length", {}).get("exact")


def _vague(backend: str) -> bool:
    """Tell a backend that is not that of the official scorer."""
    return "approximate" in backend


def _own_judge(run: Scored) -> bool:
    """Tell a judge that published numbers are not of."""
    return (run.about.get("judge") or {}).get("comparable") is False
