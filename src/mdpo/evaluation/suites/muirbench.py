"""MuirBench: multiple choice over several images. Wang et al. 2024, arXiv:2406.09411.

2,600 questions of 12 tasks; each comes with a variant that cannot be answered, and both count.

The rule called official here is that of lmms-eval: a letter with a full stop that begins the
answer, or else the whole answer, must equal the letter of the right option; so ``(B)`` is wrong.
The robust rule also takes a letter with a colon or a bracket that begins the answer, and then
follows the authors': letters in brackets, then letters that stand alone, then, in answers of more
than five words, the text of an option; the last one found counts. Where they draw an option at
random because none is found, it leaves the answer unscored.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from mdpo.evaluation.suite import ItemScore, Metric, Prompt, constant_answers, count, share
from mdpo.evaluation.suites.rows import (
    Row,
    by_item,
    read_rows,
    response_files,
    value_of,
    write_rows,
)

FILES = ("muirbench.jsonl", "muirbench.json")
ANSWERS = ("response", "pred", "prediction", "model_answer", "caption", "text")
EXPORT = "muirbench_responses.jsonl"
REQUEST = "Answer with the option's letter from the given choices directly."
LETTER = re.compile(r"\s*([A-Z])\.")
LEADING = re.compile(r"\s*\**([A-Z])[.:)]")


def official_choice(answer: str) -> str:
    """Read an answer as lmms-eval does.

    Args:
        answer: The answer.

    Returns:
        A letter, or the answer itself, in lower case.
    """
    match = LETTER.match(answer)
    return (match[1] if match else answer).lower().strip()


def robust_choice(answer: str, options: Sequence[str]) -> str | None:
    """Find the option that an answer begins with, or else names last.

    Args:
        answer: The answer.
        options: Texts of options A, B, C ...

    Returns:
        Its letter in lower case; None if no option is named.
    """
    letters = [chr(ord("A") + k) for k in range(len(options))]
    if (match := LEADING.match(answer)) and match[1] in letters:
        return match[1].lower()
    for mark in ",.!?;:'":
        answer = answer.strip(mark)
    text = f" {answer} "
    places = [{each: text.rfind(f"({each})") for each in letters}]
    places.append({each: text.rfind(f" {each} ") for each in letters})
    if len(text.split()) > 5:
        named = [text.lower().rfind(option.lower()) for option in options]
        places.append(dict(zip(letters, named, strict=True)))
    for found in places:
        last = max(letters, key=lambda each: found[each])
        if found[last] >= 0:
            return last.lower()
    return None


class MuirBenchSuite:
    """MuirBench."""

    name: str = "muirbench"
    backend: str = "string rules"

    def __init__(self, rows: Sequence[Row], data_files: Sequence[Path]) -> None:
        self.rows = {str(row["idx"]): row for row in rows}
        self.items: Sequence[str] = list(self.rows)
        self.tasks = sorted({str(row["task"]) for row in rows})
        self.data_files = data_files
        self.metrics: Sequence[Metric] = [
            replace(each, within=partial(self._is_of, each.name.removeprefix("robust/")))
            if each.name.removeprefix("robust/") in self.tasks
            else each
            for each in _metrics(self.tasks)
        ]

    @classmethod
    def load(cls, folder: Path) -> "MuirBenchSuite":
        """Read the questions.

        Args:
            folder: With ``muirbench.jsonl`` or ``muirbench.json``.

        Returns:
            The benchmark.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If a row is not a question, or one is there twice.
        """
        path = next((folder / name for name in FILES if (folder / name).is_file()), None)
        if path is None:
            raise FileNotFoundError(
                f"{folder} must hold {' or '.join(FILES)}: the data set MUIRBENCH/MUIRBENCH "
                "without its images, rows with `idx`, `task`, `question`, `options` and `answer`."
            )
        rows = read_rows(path)
        for number, row in enumerate(rows, start=1):
            _check(row, f"{path}:{number}")
        if len({str(row["idx"]) for row in rows}) < len(rows):
            raise ValueError(f"{path}: each `idx` must occur once.")
        return cls(rows, [path])

    def read(self, path: Path) -> Mapping[str, str]:
        """Read rows with ``idx`` and ``response``, ``pred``, ``model_answer`` or ``text``.

        Args:
            path: A file, or a folder with several.

        Returns:
            Answers by item id.
        """
        answers = []
        for file in response_files(path):
            for number, row in enumerate(read_rows(file), start=1):
                place = f"{file}:{number}"
                item = value_of(row, ["idx", "item"], place)
                answers.append((place, item, value_of(row, ANSWERS, place)))
        return by_item(answers, self.rows)

    def score(self, item: str, response: str) -> ItemScore:
        """Score one answer.

        Args:
            item: Id: its ``idx``.
            response: The answer.

        Returns:
            Whether it is right, by each rule.
        """
        row = self.rows[item]
        task, answer = str(row["task"]), str(row["answer"]).strip().lower()
        said, robust = official_choice(response), robust_choice(response, row["options"])
        columns = _columns("", task, said == answer)
        if robust is None:
            columns["unscored"] = 1.0
        else:
            columns |= _columns("robust/", task, robust == answer)
            columns["disagreements"] = float((robust == answer) != (said == answer))
        details = {
            "task": task,
            "answer": answer,
            "official": said,
            "robust": robust,
            "right": said == answer,
        }
        return ItemScore(item, self._images(item), columns, details)

    @classmethod
    def metrics_for(cls, columns: Collection[str]) -> Sequence[Metric]:
        """List the metrics of scored items.

        Args:
            columns: Names of the columns that items have.

        Returns:
            Metrics.
        """
        ending = " asked"
        tasks = {name.removesuffix(ending) for name in columns if name.endswith(ending)}
        return _metrics(sorted(each for each in tasks if not each.startswith("robust/")))

    def prompts(self) -> Sequence[Prompt]:
        """List what a model is asked, as lmms-eval asks it.

        Returns:
            Questions with lettered options; ``<image>`` marks images where the data does.

        Raises:
            ValueError: If a row does not name its images.
        """
        prompts = []
        for item, row in self.rows.items():
            images = row.get("images", row.get("image_list"))
            if not isinstance(images, list) or not all(isinstance(each, str) for each in images):
                raise ValueError(
                    f"{self.data_files[0]}: item {item!r} must name its images, `images`: a list "
                    f"of files below the folder of images, got {images!r}."
                )
            letters = [chr(ord("A") + k) for k in range(len(row["options"]))]
            options = [f"{a}. {text}" for a, text in zip(letters, row["options"], strict=True)]
            text = "\n".join([str(row["question"]), *options, REQUEST])
            prompts.append(Prompt(item, images, text))
        return prompts

    def export(self, responses: Mapping[str, str], out: Path) -> Sequence[Path]:
        """Write JSON lines with ``idx`` and ``response``.

        Args:
            responses: By item id.
            out: Folder.

        Returns:
            The file.
        """
        rows = [{"idx": item, "response": text} for item, text in responses.items()]
        return [write_rows(out / EXPORT, rows)]

    def baselines(self) -> Mapping[str, Mapping[str, float]]:
        """Score constant answers.

        Returns:
            Metrics of always the first option.
        """
        return constant_answers(self, {"always A": "A"})

    def _is_of(self, task: str, item: str) -> bool:
        """Tell the questions of a task."""
        return str(self.rows[item]["task"]) == task

    def _images(self, item: str) -> str:
        """Name the images: a question and its variant that cannot be answered share them."""
        other = str(self.rows[item].get("counterpart_idx", item))
        return min(item, other) if other in self.rows else item


def _metrics(tasks: Sequence[str]) -> list[Metric]:
    """Accuracy over all questions, then by task, by each rule."""
    metrics = []
    for rule in ("", "robust/"):
        metrics.append(Metric(f"{rule}accuracy", "higher", share(f"{rule}right", f"{rule}asked")))
        for task in tasks:
            of = share(f"{rule}{task} right", f"{rule}{task} asked")
            metrics.append(Metric(f"{rule}{task}", "higher", of))
    return [*metrics, count("disagreements"), count("unscored")]


def _columns(rule: str, task: str, right: bool) -> dict[str, float]:
    """What one answer adds."""
    return {
        f"{rule}asked": 1.0,
        f"{rule}right": float(right),
        f"{rule}{task} asked": 1.0,
        f"{rule}{task} right": float(right),
    }


def _check(row: Row, place: str) -> None:
    """Refuse a row that is not a question."""
    for name in ("idx", "task", "question", "answer"):
        value_of(row, [name], place)
    options = row.get("options")
    if not isinstance(options, list) or not all(isinstance(each, str) for each in options):
        raise ValueError(f"{place}: `options` must be a list of texts, got {options!r}.")
    letters = [chr(ord("A") + k) for k in range(len(options))]
    if str(row["answer"]).strip() not in letters:
        raise ValueError(
            f"{place}: `answer` must be one of {', '.join(letters)}, got {row['answer']!r}."
        )
