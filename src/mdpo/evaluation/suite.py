"""What a benchmark is: items with what each adds to sums, and metrics that are made of sums.

Every metric of every suite is a function of a few sums over items: hallucinated words and words,
true and false positives, ratings and answers rated. So one bootstrap serves all: it draws images,
adds up their columns and lets each metric make its value of them.

Shapes: ``n`` clusters, here images; ``k`` columns; a sum is a number, or one number per draw.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from mdpo.evaluation.judging.wording import Wording
from mdpo.evaluation.statistics import Estimate

Array = np.ndarray
Sums = Mapping[str, Float[Array, " *draws"]]
"""Sums of columns over items, by name."""

Direction = Literal["higher", "lower"] | None
"""Which way is better; None where neither is."""

DRAWS = 2000


@dataclass(frozen=True)
class ItemScore:
    """What one answer adds to the sums.

    Attributes:
        item: Id of the item in its benchmark.
        cluster: Image that it is about; items of one image are drawn together.
        columns: What it adds to each sum; columns left out are 0.
        details: For people and pages: parsed answer, matched words with spans, and the like.
    """

    item: str
    cluster: str
    columns: Mapping[str, float]
    details: Mapping[str, Any]


@dataclass(frozen=True)
class Metric:
    """One number of a benchmark.

    Attributes:
        name: As papers print it.
        direction: Which way is better.
        of: Its value from sums, exact and unrounded; nan where it is undefined.
        official: Its value as the official scorer prints it, offsets and rounding included; None
            where that is ``of``.
        within: Tells of an item whether the metric is about it; None if it is about all.
    """

    name: str
    direction: Direction
    of: Callable[[Sums], Float[Array, " *draws"]]
    official: Callable[[Sums], float] | None = None
    within: Callable[[str], bool] | None = None


@dataclass(frozen=True)
class Prompt:
    """What one item asks a model: one turn of a user.

    Attributes:
        item: Id of the item.
        images: File names below the folder of images, or the bytes of encoded pictures.
        text: The question; ``<image>`` marks where an image stands, otherwise they come first.
    """

    item: str
    images: Sequence[str | bytes]
    text: str


@dataclass(frozen=True)
class Request:
    """What a judge is asked.

    Attributes:
        messages: Chat messages with ``role`` and ``content``.
        temperature: Of sampling.
        max_tokens: Longest reply; None leaves it to the judge.
    """

    messages: Sequence[Mapping[str, str]]
    temperature: float = 0.0
    max_tokens: int | None = None


class Suite(Protocol):
    """A benchmark, with its data loaded.

    Attributes:
        name: On the command line.
        metrics: In the order in which they are printed.
        backend: What processed language, and whether it is that of the official scorer.
        data_files: Files that scores depend on.
        items: Ids of all items, in order.
    """

    name: str
    metrics: Sequence[Metric]
    backend: str
    data_files: Sequence[Path]
    items: Sequence[str]

    def read(self, path: Path) -> Mapping[str, str]:
        """Read responses in any of the formats that the benchmark knows.

        Args:
            path: A file.

        Returns:
            Responses by item id.
        """
        ...

    def score(self, item: str, response: str) -> ItemScore:
        """Score one response.

        Args:
            item: Id.
            response: As the model gave it; where a judge is needed, the judge's reply.

        Returns:
            What it adds.
        """
        ...

    def prompts(self) -> Sequence[Prompt]:
        """List what a model is asked.

        Returns:
            One prompt per item, in order.
        """
        ...

    def export(self, responses: Mapping[str, str], out: Path) -> Sequence[Path]:
        """Write a model's answers in the format that the official scorer reads.

        Args:
            responses: By item id.
            out: Folder.

        Returns:
            Files written.
        """
        ...

    @classmethod
    def metrics_for(cls, columns: Collection[str]) -> Sequence[Metric]:
        """List the metrics of scored items, for comparisons that have no data at hand.

        Args:
            columns: Names of the columns that items have.

        Returns:
            Metrics; ``within`` may be left out.
        """
        ...


@runtime_checkable
class Describing(Protocol):
    """A benchmark with items that are described, so that any description could be of any image."""

    def describes(self, item: str) -> bool:
        """Tell whether an item asks for a description.

        Args:
            item: Id.

        Returns:
            Whether it does.
        """
        ...


@runtime_checkable
class Judged(Protocol):
    """A benchmark that scores what a judge says of answers, and not the answers.

    Attributes:
        items: Ids of all items, in order.
        wording: In which the judge is asked; may be replaced by the user's copy of the official.
    """

    items: Sequence[str]
    wording: Wording

    def request(self, item: str, response: str) -> Request | str:
        """Say what to ask the judge.

        Args:
            item: Id.
            response: As the model gave it.

        Returns:
            A request, or the reply where nothing needs asking.
        """
        ...

    def read_answers(self, path: Path) -> Mapping[str, str]:
        """Read a model's answers in the official format, to have them judged.

        Args:
            path: A file, or a folder with several.

        Returns:
            Answers by item id.
        """
        ...


@runtime_checkable
class Grouped(Protocol):
    """A benchmark that also asks whether several items are answered right together."""

    def groups(self, scored: Sequence[ItemScore]) -> Sequence[ItemScore]:
        """Score groups of items.

        Args:
            scored: Items, in any order.

        Returns:
            What groups add; each lies within one cluster.
        """
        ...


def score_all(suite: Suite, responses: Mapping[str, str]) -> list[ItemScore]:
    """Score responses, and the groups they form where a benchmark has groups.

    Args:
        suite: The benchmark.
        responses: By item id.

    Returns:
        Scores of items, then of groups.
    """
    scored = [suite.score(item, response) for item, response in responses.items()]
    return scored + list(suite.groups(scored)) if isinstance(suite, Grouped) else scored


def shuffled(
    suite: Suite, items: Sequence[ItemScore], responses: Mapping[str, str], *, seed: int = 0
) -> list[ItemScore]:
    """Score each description against another image: what a benchmark gives without looking.

    Args:
        suite: With items that are described.
        items: Scores of the responses as they are, which know the image of each item.
        responses: By item id.
        seed: Of the exchange; images are exchanged in a circle, so that none keeps its own.

    Returns:
        Scores; none if fewer than two images are described.
    """
    if not isinstance(suite, Describing):
        return []
    of_image: dict[str, list[str]] = {}
    for each in items:
        if each.item in responses and suite.describes(each.item):
            of_image.setdefault(each.cluster, []).append(each.item)
    images = sorted(of_image)
    if len(images) < 2:
        return []
    order = [images[k] for k in np.random.default_rng(seed).permutation(len(images))]
    scores = []
    for image, other in zip(order, [*order[1:], order[0]], strict=True):
        theirs = sorted(of_image[other])
        for k, item in enumerate(sorted(of_image[image])):
            scores.append(suite.score(item, responses[theirs[k % len(theirs)]]))
    return scores


def constant_answers(
    suite: Suite, answers: Mapping[str, str], items: Sequence[str] | None = None
) -> dict[str, dict[str, float]]:
    """Score the same answer to every item: what a benchmark gives without looking.

    Args:
        suite: The benchmark.
        answers: By name of the baseline, for example ``always yes``.
        items: That are answered; None for all.

    Returns:
        Metrics of each baseline by name; those that are undefined, and those of the robust rule,
        are left out.
    """
    baselines = {}
    for name, answer in answers.items():
        asked = suite.items if items is None else items
        sums = total(score_all(suite, dict.fromkeys(asked, answer)))
        values = {each.name: float(each.of(sums)) for each in suite.metrics if each.direction}
        baselines[name] = {
            metric: value
            for metric, value in values.items()
            if not np.isnan(value) and not metric.startswith("robust/")
        }
    return baselines


def added(sums: Sums, columns: Iterable[str]) -> Array:
    """Add up several columns.

    Args:
        sums: By column.
        columns: Names; those that no item has are 0.

    Returns:
        Their sum.
    """
    return sum((np.asarray(sums.get(name, 0.0)) for name in columns), np.zeros(()))


def count(name: str) -> Metric:
    """Make a metric that is a plain count.

    Args:
        name: Of the metric and of its column.

    Returns:
        The metric; neither way is better.
    """
    return Metric(name, None, lambda sums: added(sums, [name]))


def share(above: str, below: str, *, scale: float = 100.0) -> Callable[[Sums], Array]:
    """Make a metric that divides one sum by another.

    Args:
        above: Column of the numerator.
        below: Column of the denominator; columns that no item has are 0.
        scale: Factor; 100 gives percent.

    Returns:
        From sums to the ratio; nan where the denominator is 0.
    """

    def of(sums: Sums) -> Array:
        return scale * ratio(added(sums, [above]), added(sums, [below]))

    return of


def ratio(above: Array, below: Array) -> Array:
    """Divide.

    Args:
        above: Numerators.
        below: Denominators.

    Returns:
        Ratios; nan where the denominator is 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > 0, np.divide(above, below), np.nan)


def tabulate(items: Iterable[ItemScore], columns: Sequence[str]) -> Float[Array, "n k"]:
    """Add up columns by cluster.

    Args:
        items: Scored.
        columns: Names.

    Returns:
        One row per cluster, in sorted order, so that the order of items changes nothing.
    """
    places: dict[str, Array] = {}
    for each in items:
        row = places.setdefault(each.cluster, np.zeros(len(columns)))
        row += [each.columns.get(name, 0.0) for name in columns]
    rows = [places[name] for name in sorted(places)]
    return np.array(rows).reshape(len(rows), len(columns))


def columns_of(items: Iterable[ItemScore]) -> list[str]:
    """List the columns that items have.

    Args:
        items: Scored.

    Returns:
        Names, sorted.
    """
    return sorted({name for each in items for name in each.columns})


def total(items: Sequence[ItemScore]) -> Sums:
    """Add up all items.

    Args:
        items: Scored.

    Returns:
        Sums by column.
    """
    columns = columns_of(items)
    table = tabulate(items, columns)
    return dict(zip(columns, table.sum(axis=0), strict=True))


def summarise(
    items: Sequence[ItemScore], metrics: Sequence[Metric], *, seed: int = 0, draws: int = DRAWS
) -> dict[str, Estimate]:
    """Work out metrics with percentile bootstrap intervals over clusters.

    Args:
        items: Scored; at least one.
        metrics: What to work out.
        seed: Of the draws.
        draws: Number of bootstrap samples.

    Returns:
        Estimates by metric; without value where a metric is undefined.

    Raises:
        ValueError: If there is no item.
    """
    if not items:
        raise ValueError("There must be at least one scored item, got none.")
    columns = columns_of(items)
    table = tabulate(items, columns)
    number = len(table)
    sums = dict(zip(columns, table.sum(axis=0), strict=True))
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(number, np.full(number, 1 / number), size=draws)
    drawn = dict(zip(columns, (counts @ table).T, strict=True))
    return {each.name: _estimate(each, sums, drawn, number) for each in metrics}


def _estimate(metric: Metric, sums: Sums, drawn: Sums, number: int) -> Estimate:
    """Work out one metric."""
    value = float(metric.of(sums))
    if np.isnan(value):
        return Estimate(None, None, None, number)
    values = metric.of(drawn)
    low, high = np.nanquantile(values, [0.025, 0.975])
    return Estimate(value, float(low), float(high), number)
