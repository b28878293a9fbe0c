"""MMHal-Bench: does an answer inform, and does it invent? Sun et al. 2023, arXiv:2309.14525.

96 questions, one for each of 8 types and 12 topics. A language model that does not see the image
judges each answer against a human one and ends with ``Rating: N``: 3 to 6 without hallucination,
0 to 2 with; within each, more is more informative. What is scored here are the judge's replies.

The official rule looks for the texts ``rating: 0`` to ``rating: 6`` and takes the rating if
exactly one is found, and 0 otherwise. So ``**Rating**: 4`` is a hallucination to it, and
``Rating: 10`` is a 1. The robust rule reads the number that follows the word, whatever stands
between them, and leaves a reply unscored that has none, or several that differ.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mdpo.evaluation.suite import Array, Direction, ItemScore, Metric, Sums, count, share
from mdpo.evaluation.suites.rows import Row, by_item, read_rows, response_files, value_of

TEMPLATE = "mmhal-bench_answer_template.json"
CATEGORIES = (
    "attribute",
    "adversarial",
    "comparison",
    "counting",
    "relation",
    "environment",
    "holistic",
    "other",
)
REPLIES = ("judge_reply", "reply", "gpt4_review", "judgment")
RATING = re.compile(r"\brating\b(?:\s+(?:is|of))?[\s*_`:=#\[(\"'\u2010-\u2015-]*(\d+(?:\.\d+)?)")


def official_rating(reply: str) -> int:
    """Read a judge's reply as the official scorer does.

    Args:
        reply: The judge's text.

    Returns:
        The rating, 0 to 6; 0 if none or several are found.
    """
    found = [rating for rating in range(7) if f"rating: {rating}" in reply.lower()]
    return found[0] if len(found) == 1 else 0


def robust_rating(reply: str) -> int | None:
    """Read the rating however it is laid out.

    Args:
        reply: The judge's text.

    Returns:
        The rating, 0 to 6; None if there is none, or several that differ.
    """
    found = set(RATING.findall(reply.lower()))
    rating = found.pop() if len(found) == 1 else ""
    return int(rating) if rating in set("0123456") else None


class MMHalSuite:
    """MMHal-Bench: scores of replies that a judge has given."""

    name: str = "mmhal"
    backend: str = "string rules on a judge's replies"

    def __init__(self, rows: Sequence[Row], data_files: Sequence[Path]) -> None:
        self.rows = {str(row["image_id"]): row for row in rows}
        self.items: Sequence[str] = list(self.rows)
        self.data_files = data_files
        self.metrics: Sequence[Metric] = [
            *_metrics(""),
            *_metrics("robust/"),
            count("disagreements"),
            count("unscored"),
        ]

    @classmethod
    def load(cls, folder: Path) -> "MMHalSuite":
        """Read the official answer template.

        Args:
            folder: With ``mmhal-bench_answer_template.json``.

        Returns:
            The benchmark.

        Raises:
            FileNotFoundError: If the file is missing.
            ValueError: If a row lacks a field, is of an unknown type, or is there twice.
        """
        path = folder / TEMPLATE
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} must hold {TEMPLATE}: the 96 rows of MMHal-Bench with `image_id`, "
                "`question_type`, `question`, `gt_answer` and `image_content`."
            )
        rows = read_rows(path)
        for number, row in enumerate(rows, start=1):
            kind = value_of(row, ["question_type"], f"{path}:{number}")
            value_of(row, ["image_id"], f"{path}:{number}")
            if kind not in CATEGORIES:
                raise ValueError(
                    f"{path}:{number}: `question_type` must be one of {', '.join(CATEGORIES)}, "
                    f"got {kind!r}."
                )
        if len({row["image_id"] for row in rows}) < len(rows):
            raise ValueError(f"{path}: each `image_id` must occur once.")
        return cls(rows, [path])

    def read(self, path: Path) -> Mapping[str, str]:
        """Read a judge's replies.

        Known are rows of the template with a field for the reply (``judge_reply``, ``reply``,
        ``gpt4_review`` or ``judgment``), and the list of chat completions that the official
        script writes, in the order of the questions.

        Args:
            path: A file.

        Returns:
            Replies by item id.

        Raises:
            ValueError: If a reply is missing, or completions are not one per question.
        """
        answers = []
        for file in response_files(path):
            rows = read_rows(file)
            completions = all("choices" in row for row in rows)
            if completions and len(rows) != len(self.items):
                raise ValueError(
                    f"{file}: chat completions are joined by position, so there must be "
                    f"{len(self.items)}, got {len(rows)}. Give rows with `image_id` and "
                    "`judge_reply` instead."
                )
            for number, row in enumerate(rows, start=1):
                place = f"{file}:{number}"
                if completions:
                    answers.append((place, self.items[number - 1], _content(row, place)))
                    continue
                if "model_answer" in row and not any(name in row for name in REPLIES):
                    raise ValueError(
                        f"{place}: has `model_answer` but no judge's reply. MMHal-Bench scores "
                        f"replies of a judge: add one of {', '.join(REPLIES)} to each row."
                    )
                item = value_of(row, ["image_id", "item"], place)
                answers.append((place, item, value_of(row, REPLIES, place)))
        return by_item(answers, self.rows)

    def score(self, item: str, response: str) -> ItemScore:
        """Score one judge's reply.

        Args:
            item: Id: the image's.
            response: The judge's text.

        Returns:
            Rating and hallucination by each rule.
        """
        category = self.rows[item]["question_type"]
        rating, robust = official_rating(response), robust_rating(response)
        columns = _columns("", category, rating)
        if robust is None:
            columns["unscored"] = 1.0
        else:
            columns |= _columns("robust/", category, robust)
            columns["disagreements"] = float(robust != rating)
        details = {"category": category, "official": rating, "robust": robust}
        return ItemScore(item, item, columns, details)

    def baselines(self) -> Mapping[str, Mapping[str, float]]:
        """Answers are free text, so no constant answer has a score without a judge.

        Returns:
            Nothing.
        """
        return {}


def _columns(rule: str, category: str, rating: int) -> dict[str, float]:
    """What one rating adds."""
    hallucinated = rating < 3
    return {
        f"{rule}rated": 1.0,
        f"{rule}rating": float(rating),
        f"{rule}hallucinated": float(hallucinated),
        f"{rule}informative": float(rating if hallucinated else rating - 3),
        f"{rule}rated {category}": 1.0,
        f"{rule}rating {category}": float(rating),
    }


def _metrics(rule: str) -> list[Metric]:
    """Metrics of one rule."""
    return [
        _mean(rule, "score", "rating", "rated"),
        _mean(rule, "hallucination_rate", "hallucinated", "rated", "lower", percent=True),
        # Of RLHF-V: ratings of 0 to 3 within either half.
        _mean(rule, "informativeness", "informative", "rated", scale=100 / 3),
        *(_mean(rule, each, f"rating {each}", f"rated {each}") for each in CATEGORIES),
    ]


def _mean(
    rule: str,
    name: str,
    above: str,
    below: str,
    direction: Direction = "higher",
    *,
    scale: float = 1.0,
    percent: bool = False,
) -> Metric:
    """One metric; the official script prints two decimals, of fractions where we give percent."""
    mean, factor = share(f"{rule}{above}", f"{rule}{below}", scale=scale), 100 if percent else 1

    def official(sums: Sums) -> float:
        return round(factor * round(float(mean(sums)), 2), 2)

    def of(sums: Sums) -> Array:
        return factor * mean(sums)

    return Metric(f"{rule}{name}", direction, of, None if rule else official)


def _content(row: Row, place: str) -> str:
    """Take the text of a chat completion; a refusal has none."""
    try:
        return row["choices"][0]["message"]["content"] or ""
    except (KeyError, IndexError, TypeError):
        raise ValueError(
            f"{place}: `choices` must be those of a chat completion, got {row['choices']!r}."
        ) from None
