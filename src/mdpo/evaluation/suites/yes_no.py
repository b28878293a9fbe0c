"""Answers to yes-no questions: how to read them, and how to count them.

Benchmarks read answers by rules of their own, kept in their modules. The rule here is the robust
one that stands beside them: it reads whole words, knows case and contractions, and leaves an
answer unread rather than guess.
"""

import re
from collections.abc import Callable, Sequence

from mdpo.evaluation.suite import Array, Metric, Sums, added, ratio

WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
YES = frozenset({"yes", "yeah", "yep"})
NO = frozenset({"no", "nope"})


def words_of(text: str) -> list[str]:
    """Split a text into words in lower case.

    Args:
        text: An answer.

    Returns:
        Words; contractions stay whole.
    """
    return WORD.findall(text.lower().replace("\u2019", "'"))


def read_yes_no(text: str) -> str | None:
    """Read an answer that says yes or no.

    Args:
        text: An answer.

    Returns:
        ``yes`` or ``no``: the first word if it is one, otherwise the one that occurs while the
        other does not; None if the answer says neither, or both.
    """
    words = words_of(text)
    for candidates in (words[:1], words):
        said = {"yes" if word in YES else "no" for word in candidates if word in YES | NO}
        if len(said) == 1:
            return said.pop()
    return None


def outcome(answer: str, label: str) -> str:
    """Name the cell of the confusion matrix; yes is the positive class.

    Args:
        answer: ``yes`` or ``no``.
        label: ``yes`` or ``no``.

    Returns:
        ``tp``, ``fp``, ``tn`` or ``fn``.
    """
    return ("t" if answer == label else "f") + ("p" if answer == "yes" else "n")


def confusion_metrics(
    prefix: str, splits: Sequence[str], within: Callable[[str], bool] | None = None
) -> list[Metric]:
    """Make accuracy, precision, recall, F1 and the share of yes, of several splits together.

    Args:
        prefix: Of the names of metrics, for example ``random/``.
        splits: Prefixes of the columns ``tp``, ``fp``, ``tn`` and ``fn``.
        within: Tells the items of these splits; None if they are all.

    Returns:
        Metrics in percent; nan where a ratio divides by 0.
    """

    def rate(above: str, below: str) -> Callable[[Sums], Array]:
        over, under = ([f"{s}{cell}" for s in splits for cell in c.split()] for c in (above, below))
        return lambda sums: 100 * ratio(added(sums, over), added(sums, under))

    return [
        Metric(f"{prefix}accuracy", "higher", rate("tp tn", "tp fp tn fn"), within=within),
        Metric(f"{prefix}precision", "higher", rate("tp", "tp fp"), within=within),
        Metric(f"{prefix}recall", "higher", rate("tp", "tp fn"), within=within),
        Metric(f"{prefix}f1", "higher", rate("tp tp", "tp tp fp fn"), within=within),
        Metric(f"{prefix}yes_ratio", None, rate("tp fp", "tp fp tn fn"), within=within),
    ]
