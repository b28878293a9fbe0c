"""HallusionBench: yes-no questions asked with and without, and with altered, figures.

Guan et al. 2024, arXiv:2310.14566. Figures come in sets: an original (``figure_id`` 0, which for
the category VS is no figure at all) and altered ones, with the same questions. Three accuracies:
of questions (``aAcc``), of figures all of whose questions are answered right (``fAcc``; no figure
is none), and of questions that are answered right for all figures of their set (``qAcc``). Of
the latter, ``easy`` asks about figures that are original or left out, ``hard`` about altered ones.

Officially a language model compares each answer with the reference: ``incorrect``, ``correct`` or
anything else, which is unclear and counts as right where there is no figure. Without a judge,
answers are read as strings; official is then the rule of lmms-eval: yes if ``yes`` occurs
anywhere, no otherwise. A figure with unread answers has no part in robust scores.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from mdpo.evaluation.judging.wording import Wording
from mdpo.evaluation.suite import (
    Array,
    ItemScore,
    Metric,
    Prompt,
    Request,
    Sums,
    constant_answers,
    count,
    share,
)
from mdpo.evaluation.suites.rows import Row, by_item, read_rows, response_files, value_of
from mdpo.evaluation.suites.yes_no import read_yes_no

FILE = "HallusionBench.json"
KEYS = ("category", "subcategory", "set_id", "figure_id", "question_id")
LEVELS = {"aAcc": "question", "fAcc": "figure", "qAcc": "pair", "easy": "easy", "hard": "hard"}


EXPORT = "hallusionbench_predictions.json"
WORDING = Wording(
    """\
Compare the answer of a model with the right answer to a question about a figure. The answer is \
correct if it agrees with the right one and contradicts it nowhere; incorrect if it contradicts it \
or states something that the right answer rules out; unclear if it does not answer, says that it \
cannot tell, or leaves open which way it means.

Question: {}
Right answer: {}
Answer of the model: {}

Reply with one word: correct, incorrect or unclear.""",
    "mdpo's own words",
    official=False,
)
"""Figures made with it are not comparable with published ones."""


def judged(reply: str) -> str:
    """Read a judge's reply as the official scorer does.

    Args:
        reply: The judge's text, or the official code: 0, 1 or 2.

    Returns:
        ``incorrect``, ``correct`` or ``unclear``.
    """
    codes = {"0": "incorrect", "1": "correct", "2": "unclear"}
    if reply.strip() in codes:
        return codes[reply.strip()]
    return next((each for each in ("incorrect", "correct") if each in reply.lower()), "unclear")


def group_of(row: Row, level: str) -> str | None:
    """Name the group that must be right together.

    Args:
        row: A question.
        level: ``figure``, ``pair``, ``easy`` or ``hard``.

    Returns:
        Its name; None if the question is in no group of this level.
    """
    if level == "figure":
        shown = row["category"] != "VS" or str(row["figure_id"]) != "0"
        return _join(row, ("category", "subcategory", "set_id", "figure_id")) if shown else None
    altered = str(row["visual_input"]) == "2"
    if level in ("easy", "hard") and altered != (level == "hard"):
        return None
    return _join(row, ("category", "subcategory", "set_id", "question_id"))


class HallusionBenchSuite:
    """HallusionBench with answers read as strings."""

    name: str = "hallusionbench"
    backend: str = "string rules; published numbers use a judge"
    fields: Sequence[str] = ("model_prediction", "response", "answer", "caption", "text")

    def __init__(self, rows: Sequence[Row], data_files: Sequence[Path]) -> None:
        self.rows = {_join(row, KEYS): row for row in rows}
        self.items: Sequence[str] = list(self.rows)
        self.data_files = data_files
        self.wording = WORDING
        self.metrics: Sequence[Metric] = self.metrics_for(())

    @classmethod
    def load(cls, folder: Path) -> "HallusionBenchSuite":
        """Read the official questions.

        Args:
            folder: With ``HallusionBench.json``.

        Returns:
            The benchmark.

        Raises:
            FileNotFoundError: If the file is missing.
            ValueError: If a row lacks a field, or a question is there twice.
        """
        path = folder / FILE
        if not path.is_file():
            raise FileNotFoundError(f"{folder} must hold {FILE}, the official list of questions.")
        rows = read_rows(path)
        for number, row in enumerate(rows, start=1):
            for field in (*KEYS, "visual_input", "gt_answer"):
                value_of(row, [field], f"{path}:{number}")
            if str(row["gt_answer"]) not in ("0", "1"):
                raise ValueError(
                    f"{path}:{number}: `gt_answer` must be 0 or 1, got {row['gt_answer']!r}."
                )
        if len({_join(row, KEYS) for row in rows}) < len(rows):
            raise ValueError(f"{path}: {', '.join(KEYS)} together must be unique.")
        return cls(rows, [path])

    def read(self, path: Path) -> Mapping[str, str]:
        """Read rows of the official list with ``model_prediction``.

        Args:
            path: A file, or a folder with several, such as one for VD and one for VS.

        Returns:
            Answers by item id.
        """
        answers = []
        for file in response_files(path):
            for number, row in enumerate(read_rows(file), start=1):
                place = f"{file}:{number}"
                keys = [value_of(row, [key], place) for key in KEYS] if "item" not in row else []
                item = "_".join(keys) or str(row["item"])
                answers.append((place, item, value_of(row, self.fields, place)))
        return by_item(answers, self.rows)

    def score(self, item: str, response: str) -> ItemScore:
        """Score one answer.

        Args:
            item: Id: category, subcategory, set, figure and question, joined by underscores.
            response: The answer.

        Returns:
            Whether it is right, by each rule.
        """
        row = self.rows[item]
        official, robust = self._verdicts(row, response)
        columns = {"question": 1.0, "question right": float(official)}
        if robust is None:
            columns["unscored"] = 1.0
        else:
            columns |= {"robust/question": 1.0, "robust/question right": float(robust)}
            columns["disagreements"] = float(robust != official)
        details = {"gt_answer": row["gt_answer"], "official": official, "robust": robust}
        details["right"] = official
        return ItemScore(item, _join(row, ("category", "subcategory", "set_id")), columns, details)

    def groups(self, scored: Sequence[ItemScore]) -> list[ItemScore]:
        """Score figures, and questions over all figures of their set.

        Args:
            scored: Questions.

        Returns:
            Per group whether all its scored questions are right.
        """
        members: dict[tuple[str, str, str], list[ItemScore]] = defaultdict(list)
        for each in scored:
            for level in ("figure", "pair", "easy", "hard"):
                if group := group_of(self.rows[each.item], level):
                    members[level, group, each.cluster].append(each)
        return [_group(level, name, cluster, of) for (level, name, cluster), of in members.items()]

    def prompts(self) -> Sequence[Prompt]:
        """List what a model is asked.

        Returns:
            Questions; where there is no figure, without an image.
        """
        prompts = []
        for item, row in self.rows.items():
            shown = [] if _is_blind(row) else [str(row["filename"]).removeprefix("./")]
            prompts.append(Prompt(item, shown, str(row["question"])))
        return prompts

    def export(self, responses: Mapping[str, str], out: Path) -> Sequence[Path]:
        """Write the official rows with ``model_prediction``.

        Args:
            responses: The model's answers by item id.
            out: Folder.

        Returns:
            The file.
        """
        rows = [
            {**row, "model_prediction": responses[item]}
            for item, row in self.rows.items()
            if item in responses
        ]
        out.mkdir(parents=True, exist_ok=True)
        written = json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
        (out / EXPORT).write_text(written, encoding="utf-8")
        return [out / EXPORT]

    @classmethod
    def metrics_for(cls, columns: Collection[str]) -> Sequence[Metric]:
        """List the metrics, which are always the same.

        Args:
            columns: Of items.

        Returns:
            Metrics.
        """
        return [
            *(_accuracy("", name, level) for name, level in LEVELS.items()),
            *(_accuracy("robust/", name, level) for name, level in LEVELS.items()),
            count("disagreements"),
            count("unscored"),
        ]

    def baselines(self) -> Mapping[str, Mapping[str, float]]:
        """Score constant answers.

        Returns:
            Metrics of always yes and always no.
        """
        return constant_answers(self, {"always yes": "Yes", "always no": "No"})

    def _verdicts(self, row: Row, response: str) -> tuple[bool, bool | None]:
        """Whether the answer is right by the official and by the robust rule."""
        truth = str(row["gt_answer"]) == "1"
        official = ("yes" in response.lower()) == truth
        said = read_yes_no(response)
        return official, None if said is None else (said == "yes") == truth


class HallusionBenchJudgeSuite(HallusionBenchSuite):
    """HallusionBench with the verdicts of a judge."""

    name: str = "hallusionbench-judge"
    backend: str = "string rules on a judge's replies"
    fields: Sequence[str] = (
        "gpt4v_output_gpt_check",
        "judge_reply",
        "verdict",
        "judgment",
        "reply",
    )

    def request(self, item: str, response: str) -> Request | str:
        """Ask a judge that does not see the figure.

        Args:
            item: Id.
            response: The model's answer.

        Returns:
            The request: one message. The official script leaves the temperature to the server,
            where it is 1; in our words it is 0, so that a reply can be had again.
        """
        row = self.rows[item]
        text = self.wording.fill(str(row["question"]), str(row["gt_answer_details"]), response)
        warmth = 1.0 if self.wording.official else 0.0
        return Request([{"role": "user", "content": text}], temperature=warmth)

    def read_answers(self, path: Path) -> Mapping[str, str]:
        """Read a model's answers, to have them judged: rows with ``model_prediction``.

        Args:
            path: A file, or a folder with several.

        Returns:
            Answers by item id.
        """
        return HallusionBenchSuite(list(self.rows.values()), self.data_files).read(path)

    def baselines(self) -> Mapping[str, Mapping[str, float]]:
        """A constant answer has no verdict without a judge.

        Returns:
            Nothing.
        """
        return {}

    def _verdicts(self, row: Row, response: str) -> tuple[bool, bool | None]:
        """The same by both rules, but that an empty reply of the judge says nothing."""
        right = judged(response) in (("correct", "unclear") if _is_blind(row) else ("correct",))
        return right, right if response.strip() else None


def _is_blind(row: Row) -> bool:
    """Tell a question that is asked without its figure."""
    return row["category"] == "VS" and str(row["figure_id"]) == "0"


def _join(row: Row, keys: Sequence[str]) -> str:
    """Name a row by some of its keys."""
    return "_".join(str(row[key]) for key in keys)


def _group(level: str, name: str, cluster: str, members: Sequence[ItemScore]) -> ItemScore:
    """Score one group."""
    columns = {
        level: 1.0,
        f"{level} right": float(all(each.columns["question right"] for each in members)),
    }
    if not any("unscored" in each.columns for each in members):
        right = all(each.columns["robust/question right"] for each in members)
        columns |= {f"robust/{level}": 1.0, f"robust/{level} right": float(right)}
    return ItemScore(f"{level} {name}", cluster, columns, {"questions": len(members)})


def _accuracy(rule: str, name: str, level: str) -> Metric:
    """Make an accuracy; the official script rounds to four decimals."""
    of: Callable[[Sums], Array] = share(f"{rule}{level} right", f"{rule}{level}")
    official = None if rule else lambda sums: float(np.round(of(sums), 4))
    return Metric(f"{rule}{name}", "higher", of, official)
