"""POPE: is this object in the image? Li et al. 2023, arXiv:2305.10355.

Yes-no questions about objects that are there and objects that are not; the latter are drawn at
random, from the most frequent objects, or from those that often come with the objects in the
image (splits ``random``, ``popular``, ``adversarial``; images of COCO, A-OKVQA and GQA).

The official rule reads an answer as no if its first sentence holds the exact word ``No``, ``not``
or ``no``, and as yes otherwise; ``NO``, ``Nope``, ``isn't`` and ``I cannot tell`` are yes to it.

RePOPE (Neuhaus and Hein 2025, arXiv:2504.15707) relabels the COCO questions and drops ambiguous
ones. Where its files lie beside those of POPE, the same answers are scored with its labels too.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mdpo.evaluation.suite import ItemScore, Metric, Prompt, constant_answers, count
from mdpo.evaluation.suites.rows import (
    Row,
    by_item,
    read_rows,
    response_files,
    value_of,
    write_rows,
)
from mdpo.evaluation.suites.yes_no import confusion_metrics, outcome, read_yes_no, words_of

FILE = re.compile(r"([a-z]+)_(pope|repope)(?:_seem)?_(random|popular|adversarial)\.jsonl?")
SPLITS = ("random", "popular", "adversarial")
ANSWERS = ("answer", "response", "caption", "text")
UNSURE = re.compile(
    r"\b(?:not (?:sure|clear|certain)|un(?:sure|clear|certain)|"
    r"(?:cannot|can't|hard to) (?:tell|say))"
)
OBJECT = re.compile(r"\s*(?:is|are) there (?:an? |any )?(.+?) in th")
ABSENT = frozenset({"not", "none", "neither", "without", "absent", "cannot"})


def official_answer(text: str) -> str:
    """Read an answer as the official scorer does.

    Args:
        text: The answer.

    Returns:
        ``yes`` or ``no``.
    """
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def robust_answer(text: str, question: str) -> str | None:
    """Read an answer that says yes or no, or says that the object is or is not there.

    Args:
        text: The answer.
        question: Such as ``Is there a dog in the image?``.

    Returns:
        ``yes`` or ``no``; None if it says neither.
    """
    if said := read_yes_no(text):
        return said
    first = text.replace("\u2019", "'").lower().split(".")[0]
    words = words_of(first)
    if UNSURE.search(first):
        return None
    if any(word in ABSENT or word.endswith("n't") for word in words):
        return "no"
    asked = OBJECT.match(question.lower())
    return "yes" if asked and re.search(rf"\b{re.escape(asked[1])}", first) else None


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        split: Its file, for example ``coco/random``.
        number: Its ``question_id``, unique in the split.
        image: File name.
        text: What is asked.
        label: ``yes`` or ``no``.
    """

    split: str
    number: str
    image: str
    text: str
    label: str

    def agrees(self, row: Row) -> bool:
        """Tell whether a row of answers can be about this question.

        Args:
            row: With or without the question's text, image and split.

        Returns:
            False if something that the row states differs.
        """
        dataset, split = self.split.split("/")
        asked = str(row.get("question", self.text))
        image = str(row.get("image", self.image))
        return (
            asked.startswith(self.text)  # harnesses add how to answer
            and Path(image).stem == Path(self.image).stem
            and str(row.get("category", split)) in (split, self.split, dataset)
        )


class PopeSuite:
    """POPE, with the questions of one or several splits."""

    name: str = "pope"
    backend: str = "string rules"

    def __init__(
        self,
        questions: Sequence[Question],
        relabelled: Mapping[tuple[str, str, str], str],
        data_files: Sequence[Path],
    ) -> None:
        self.questions = {f"{each.split}/{each.number}": each for each in questions}
        self.relabelled = relabelled
        self.data_files = data_files
        self.splits = list(dict.fromkeys(each.split for each in questions))
        self.items: Sequence[str] = list(self.questions)
        self.metrics: Sequence[Metric] = _metrics(self.splits, relabelled=bool(relabelled))

    @classmethod
    def load(cls, folder: Path) -> "PopeSuite":
        """Read question files such as ``coco_pope_random.json``.

        Args:
            folder: With the files, at any depth; or one file.

        Returns:
            The benchmark.

        Raises:
            FileNotFoundError: If there is no file of questions.
        """
        files = [folder] if folder.is_file() else sorted(folder.rglob("*pope_*.json*"))
        named = [(path, match) for path in files if (match := FILE.fullmatch(path.name))]
        named.sort(key=lambda each: (each[1][1], SPLITS.index(each[1][3])))
        if not any(match[2] == "pope" for _, match in named):
            raise FileNotFoundError(
                f"{folder} must hold POPE's files of questions, named coco_pope_random.json, "
                "coco_pope_popular.json, coco_pope_adversarial.json (also aokvqa_ and gqa_); "
                "RePOPE's coco_repope_random.json may lie beside them."
            )
        questions, relabelled = [], {}
        for path, match in named:
            read = _questions(path, f"{match[1]}/{match[3]}")
            if match[2] == "pope":
                questions += read
            else:
                relabelled |= {(each.split, each.image, each.text): each.label for each in read}
        return cls(questions, relabelled, [path for path, _ in named])

    def read(self, path: Path) -> Mapping[str, str]:
        """Read answers: JSON lines, or one array, with ``answer`` or ``text``.

        A row is joined by its ``question_id``. Splits share these, so a file must state the
        question, image or ``category`` of its rows, or have the split in its name, or only one
        split may be loaded. Rows without ids must ask the questions of one split in order.

        Args:
            path: A file, or a folder with one per split.

        Returns:
            Answers by item id.
        """
        answers = []
        for file in response_files(path):
            rows = read_rows(file)
            items = self._joined(rows, file)
            for number, (row, item) in enumerate(zip(rows, items, strict=True), start=1):
                place = f"{file}:{number}"
                # LLaVA's answers have the question as `prompt` and the answer as `text`.
                answers.append((place, item, value_of(row, ANSWERS, place)))
        return by_item(answers, self.questions)

    def score(self, item: str, response: str) -> ItemScore:
        """Score one answer.

        Args:
            item: Id, such as ``coco/random/1``.
            response: The answer.

        Returns:
            One cell of the confusion matrix by each rule.
        """
        question = self.questions[item]
        said, robust = official_answer(response), robust_answer(response, question.text)
        columns = {f"{question.split}/{outcome(said, question.label)}": 1.0}
        if label := self.relabelled.get((question.split, question.image, question.text)):
            columns[f"repope/{question.split}/{outcome(said, label)}"] = 1.0
        if robust is None:
            columns["unscored"] = 1.0
        else:
            columns[f"robust/{question.split}/{outcome(robust, question.label)}"] = 1.0
            columns["disagreements"] = float(robust != said)
        details = {
            "label": question.label,
            "official": said,
            "robust": robust,
            "right": said == question.label,
        }
        return ItemScore(item, question.image, columns, details)

    @classmethod
    def metrics_for(cls, columns: Collection[str]) -> Sequence[Metric]:
        """List the metrics of scored items.

        Args:
            columns: Names of the columns that items have.

        Returns:
            Metrics.
        """
        named = [name.split("/") for name in columns]
        splits = {"/".join(parts[-3:-1]) for parts in named if len(parts) >= 3}
        return _metrics(
            sorted(splits, key=_place), relabelled=any(parts[0] == "repope" for parts in named)
        )

    def prompts(self) -> Sequence[Prompt]:
        """List what a model is asked: the questions as they stand.

        Returns:
            One prompt per question; images are named as in the questions.
        """
        return [Prompt(item, [each.image], each.text) for item, each in self.questions.items()]

    def export(self, responses: Mapping[str, str], out: Path) -> Sequence[Path]:
        """Write JSON lines with ``question`` and ``answer``, a file per split.

        Args:
            responses: By item id.
            out: Folder.

        Returns:
            Files such as ``coco_pope_random_answers.json``.
        """
        files = []
        for split in self.splits:
            rows = [
                {
                    "question_id": int(each.number) if each.number.isdecimal() else each.number,
                    "image": each.image,
                    "question": each.text,
                    "answer": responses[item],
                }
                for item, each in self.questions.items()
                if each.split == split and item in responses
            ]
            if rows:
                dataset, name = split.split("/")
                files.append(write_rows(out / f"{dataset}_pope_{name}_answers.json", rows))
        return files

    def baselines(self) -> Mapping[str, Mapping[str, float]]:
        """Score constant answers.

        Returns:
            Metrics of always yes and always no.
        """
        return constant_answers(self, {"always yes": "Yes", "always no": "No"})

    def _joined(self, rows: Sequence[Row], file: Path) -> list[str]:
        """Find the items that the rows of one file answer."""
        candidates = {split: self._in_split(rows, split) for split in self.splits}
        fitting = {split: items for split, items in candidates.items() if items}
        if len(fitting) > 1:
            fitting = {s: items for s, items in fitting.items() if _names(file, s)} or fitting
        if len(fitting) == 1:
            return next(iter(fitting.values()))
        if mixed := self._by_row(rows):
            return mixed
        raise ValueError(
            f"{file}: rows fit {' and '.join(fitting) or 'none'} of the loaded splits "
            f"{', '.join(self.splits)}. Give one file per split with the split in its name (such "
            "as answers_random.jsonl), or rows with `question_id` and `category`."
        )

    def _in_split(self, rows: Sequence[Row], split: str) -> list[str]:
        """Join all rows to one split, by id or else in order; empty if they do not fit."""
        asked = [item for item, each in self.questions.items() if each.split == split]
        if all("question_id" in row for row in rows):
            items = [f"{split}/{row['question_id']}" for row in rows]
        elif len(rows) == len(asked) and all("question" in row for row in rows):
            items = asked
        else:
            return []
        fits = (
            item in self.questions and self.questions[item].agrees(row)
            for item, row in zip(items, rows, strict=True)
        )
        return items if all(fits) else []

    def _by_row(self, rows: Sequence[Row]) -> list[str]:
        """Join rows of mixed splits, each by what it states; empty if one does not fit."""
        items = []
        for row in rows:
            known = [f"{split}/{row.get('question_id')}" for split in self.splits]
            known += [str(row.get("item"))]
            fitting = [i for i in known if i in self.questions and self.questions[i].agrees(row)]
            if len(fitting) != 1:
                return []
            items += fitting
        return items


def _metrics(splits: Sequence[str], *, relabelled: bool) -> list[Metric]:
    """Metrics of all splits together, then of each, by each rule."""
    metrics = []
    datasets = {split.split("/")[0] for split in splits}
    for rule in ("", "repope/", "robust/") if relabelled else ("", "robust/"):
        metrics += confusion_metrics(rule, [f"{rule}{split}/" for split in splits])
        for split in splits if len(splits) > 1 else ():
            named = split if len(datasets) > 1 else split.split("/")[1]
            metrics += confusion_metrics(
                f"{rule}{named}/", [f"{rule}{split}/"], partial(_of_split, split)
            )
    return [*metrics, count("disagreements"), count("unscored")]


def _of_split(split: str, item: str) -> bool:
    """Tell the items of a split."""
    return item.startswith(f"{split}/")


def _place(split: str) -> tuple[str, int]:
    """Order splits as files are read."""
    dataset, kind = split.split("/")
    return dataset, SPLITS.index(kind)


def _names(file: Path, split: str) -> bool:
    """Tell whether a file's name has the name of a split in it."""
    return split.split("/")[1] in file.name.lower()


def _questions(path: Path, split: str) -> list[Question]:
    """Read one file of questions."""
    questions = {}
    for number, row in enumerate(read_rows(path), start=1):
        place = f"{path}:{number}"
        each = Question(
            split,
            *(value_of(row, [name], place) for name in ("question_id", "image", "text", "label")),
        )
        if each.label not in ("yes", "no"):
            raise ValueError(f"{place}: `label` must be yes or no, got {each.label!r}.")
        if each.number in questions:
            raise ValueError(f"{place}: `question_id` {each.number} occurs twice.")
        questions[each.number] = each
    return list(questions.values())
