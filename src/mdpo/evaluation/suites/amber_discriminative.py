"""AMBER's discriminative half: yes-no questions on existence, attributes and relations.

``No`` is the positive class: precision and recall are those of denying what is not there. The
official rule compares answers with exactly ``Yes`` and ``No``; anything else, ``No.`` included, is
neither and so wrong. Normalise answers before, as its authors' prompt asks models to, or look at
the robust rule beside it, which reads sentences. The dimension existence has no question whose
answer is yes.
"""

from collections.abc import Callable, Sequence

from mdpo.evaluation.suite import Array, Metric, Sums, added, ratio
from mdpo.evaluation.suites.yes_no import read_yes_no

DIMENSIONS = {
    "discriminative-hallucination": "existence",
    "discriminative-attribute-state": "state",
    "discriminative-attribute-number": "number",
    "discriminative-attribute-action": "action",
}
"""From type of question; the rest is relation."""

POOLED: dict[str, Sequence[str]] = {
    "": ("existence", "state", "number", "action", "relation"),
    "existence/": ("existence",),
    "attribute/": ("state", "number", "action"),
    "state/": ("state",),
    "number/": ("number",),
    "action/": ("action",),
    "relation/": ("relation",),
}
"""Prefix of metrics, and the dimensions that they pool."""

OFFSET = 0.001


def official_answer(text: str) -> str | None:
    """Read an answer as the official scorer does.

    Args:
        text: The answer.

    Returns:
        ``yes`` or ``no``; None for anything but ``Yes`` and ``No``.
    """
    return {"Yes": "yes", "No": "no"}.get(text)


def robust_answer(text: str) -> str | None:
    """Read an answer that is a sentence.

    Args:
        text: The answer.

    Returns:
        ``yes`` or ``no``; None if it says neither, or both.
    """
    return read_yes_no(text)


def columns_of(rule: str, dimension: str, answer: str | None, truth: str) -> dict[str, float]:
    """Count what one answer adds.

    Args:
        rule: Prefix of the columns.
        dimension: Of the question.
        answer: As read.
        truth: ``yes`` or ``no``.

    Returns:
        Columns.
    """
    prefix = f"{rule}{dimension}/"
    return {
        f"{prefix}asked": 1.0,
        f"{prefix}correct": float(answer == truth),
        f"{prefix}true no": float(truth == "no"),
        f"{prefix}said no": float(answer == "no"),
        f"{prefix}right no": float(answer == truth == "no"),
    }


def metrics(rule: str, dimension_of: Callable[[str], str | None] | None) -> list[Metric]:
    """Make Accuracy, Precision, Recall and F1 of all questions and of each dimension.

    Args:
        rule: Prefix of columns and names; the official one is empty.
        dimension_of: Dimension of an item; None for items of the other half.

    Returns:
        Metrics in percent.
    """
    made = []
    for prefix, dimensions in POOLED.items():

        def within(item: str, dimensions: Sequence[str] = dimensions) -> bool:
            return dimension_of is not None and dimension_of(item) in dimensions

        made += [
            Metric(
                f"{rule}{prefix}{name}",
                "higher",
                _exact(rule, dimensions, name),
                None if rule else _official(dimensions, name),
                within if dimension_of else None,
            )
            for name in ("Accuracy", "Precision", "Recall", "F1")
        ]
    return made


PARTS = {
    "Accuracy": ("correct", "asked"),
    "Precision": ("right no", "said no"),
    "Recall": ("right no", "true no"),
}
"""Numerators and denominators."""


def official_f1(sums: Sums) -> float:
    """F1 of all questions as the official scorer prints it.

    Args:
        sums: Of columns.

    Returns:
        In percent.
    """
    return _official(POOLED[""], "F1")(sums)


def _exact(rule: str, dimensions: Sequence[str], name: str) -> Callable[[Sums], Array]:
    """Make the plain metric."""

    def part(sums: Sums, column: str) -> Array:
        return added(sums, [f"{rule}{each}/{column}" for each in dimensions])

    def rate(sums: Sums) -> Array:
        above, below = PARTS[name]
        return 100 * ratio(part(sums, above), part(sums, below))

    def f1(sums: Sums) -> Array:
        both = part(sums, "said no") + part(sums, "true no")
        return 100 * ratio(2 * part(sums, "right no"), both)

    return f1 if name == "F1" else rate


def _official(dimensions: Sequence[str], name: str) -> Callable[[Sums], float]:
    """Make the metric with the official offsets and rounding."""
    # The scorer counts all questions together, and those on attributes by kind.
    counters = 1 if len(dimensions) == len(POOLED[""]) else len(dimensions)

    def rate(sums: Sums, of: str) -> float:
        above, below = (
            float(added(sums, [f"{each}/{column}" for each in dimensions])) for column in PARTS[of]
        )
        return round(above / (counters * OFFSET + below) * 100, 1)

    def f1(sums: Sums) -> float:
        # Of rounded numbers, with an offset that is larger for existence.
        precision, recall = rate(sums, "Precision") / 100, rate(sums, "Recall") / 100
        offset = 0.001 if tuple(dimensions) == ("existence",) else 0.0001
        return round(2 * precision * recall / (precision + recall + offset) * 100, 1)

    return f1 if name == "F1" else lambda sums: rate(sums, name)
