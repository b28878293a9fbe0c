"""The hallucination subset of MME: existence, count, position, color.

Fu et al. 2023, arXiv:2306.13394. Each image has two questions, one whose answer is yes and one
whose answer is no. A category scores the percent of questions answered right (``acc``) plus the
percent of images with both right (``acc+``), 200 at most; ``total`` is the sum of the four.

The official rule takes an answer in lower case and looks for ``yes``, then ``no``, in its first
four characters; all else is wrong. So ``**No**`` is read, but ``I see no cat`` is not, and
``Notably, yes`` is a no.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mdpo.evaluation.suite import (
    Array,
    ItemScore,
    Metric,
    Prompt,
    Sums,
    added,
    constant_answers,
    count,
    ratio,
)
from mdpo.evaluation.suites.rows import by_item, read_rows, response_files, value_of
from mdpo.evaluation.suites.yes_no import read_yes_no

CATEGORIES = ("existence", "count", "position", "color")
ANSWERS = ("response", "answer", "caption", "text")


class Question(NamedTuple):
    """One question.

    Attributes:
        category: One of the four.
        image: File name.
        text: What is asked.
    """

    category: str
    image: str
    text: str

    @property
    def item(self) -> str:
        """Its id."""
        return f"{self.category}/{self.image}/{self.text}"


def official_answer(text: str) -> str:
    """Read an answer as the official scorer does.

    Args:
        text: The answer.

    Returns:
        ``yes``, ``no`` or ``other``.
    """
    start = text.lower()[:4]
    return next((each for each in ("yes", "no") if each in start), "other")


class MMESuite:
    """The four categories of MME that measure hallucination of objects and attributes."""

    name: str = "mme"
    backend: str = "string rules"

    def __init__(self, labels: Mapping[Question, str], data_files: Sequence[Path]) -> None:
        self.questions = {each.item: each for each in labels}
        self.labels = {each.item: label for each, label in labels.items()}
        self.items: Sequence[str] = list(self.questions)
        self.data_files = data_files
        self.metrics: Sequence[Metric] = self.metrics_for(())

    @classmethod
    def load(cls, folder: Path) -> "MMESuite":
        """Read the templates of the official evaluation tool.

        Args:
            folder: With ``existence.txt``, ``count.txt``, ``position.txt`` and ``color.txt``.

        Returns:
            The benchmark.

        Raises:
            FileNotFoundError: If one of the files is missing.
            ValueError: If a line is not a question, or an image does not have two.
        """
        labels: dict[Question, str] = {}
        files = [folder / f"{category}.txt" for category in CATEGORIES]
        for path in files:
            if not path.is_file():
                raise FileNotFoundError(
                    f"{folder} must hold {', '.join(f'{each}.txt' for each in CATEGORIES)} with "
                    f"lines of image, question and Yes or No, separated by tabs; {path.name} is "
                    "missing."
                )
            images: dict[str, int] = defaultdict(int)
            for place, question, rest in _lines(path):
                label = rest[0].strip().lower()
                if label not in ("yes", "no"):
                    raise ValueError(f"{place}: the third column must be Yes or No, got {label!r}.")
                if question in labels:
                    raise ValueError(f"{place}: {question.text!r} is asked twice of one image.")
                labels[question] = label
                images[question.image] += 1
            if odd := [image for image, number in images.items() if number != 2]:
                raise ValueError(f"{path}: each image must have two questions, not so {odd[0]!r}.")
        return cls(labels, files)

    def read(self, path: Path) -> Mapping[str, str]:
        """Read answers.

        Known are the official files, with the answer in a fourth column, and JSON rows with
        ``category``, ``image``, ``question`` and ``response`` or ``answer``.

        Args:
            path: A file, or a folder such as the evaluation tool's.

        Returns:
            Answers by item id.
        """
        answers = []
        for file in response_files(path, (".txt", ".json", ".jsonl")):
            if file.suffix == ".txt":
                if file.stem in CATEGORIES:  # the folder may hold the other ten categories
                    answers += _official_answers(file)
                continue
            for number, row in enumerate(read_rows(file), start=1):
                place = f"{file}:{number}"
                names = ("category", "image", "question")
                question = Question(*(value_of(row, [name], place) for name in names))
                answers.append((place, question.item, value_of(row, ANSWERS, place)))
        return by_item(answers, self.questions)

    def score(self, item: str, response: str) -> ItemScore:
        """Score one answer.

        Args:
            item: Id: category, image and question.
            response: The answer.

        Returns:
            Whether it is right, by each rule.
        """
        question, label = self.questions[item], self.labels[item]
        said, robust = official_answer(response), read_yes_no(response)
        category = question.category
        columns = {f"{category} asked": 1.0, f"{category} right": float(said == label)}
        if robust is None:
            columns["unscored"] = 1.0
        else:
            columns[f"robust/{category} asked"] = 1.0
            columns[f"robust/{category} right"] = float(robust == label)
            columns["disagreements"] = float(robust != said)
        details = {"label": label, "official": said, "robust": robust, "right": said == label}
        return ItemScore(item, f"{category}/{question.image}", columns, details)

    @classmethod
    def metrics_for(cls, columns: Collection[str]) -> Sequence[Metric]:
        """List the metrics of scored items.

        Args:
            columns: Names of the columns that items have.

        Returns:
            Metrics.
        """
        return [
            *_metrics(""),
            *_metrics("robust/"),
            count("disagreements"),
            count("unscored"),
        ]

    def prompts(self) -> Sequence[Prompt]:
        """List what a model is asked.

        Returns:
            The questions as they stand, which end in a request for yes or no. Images are named
            with their category, ``existence/000000006040.jpg``.
        """
        return [
            Prompt(item, [f"{each.category}/{each.image}"], each.text)
            for item, each in self.questions.items()
        ]

    def export(self, responses: Mapping[str, str], out: Path) -> Sequence[Path]:
        """Write the files that the official tool reads, one per category.

        Args:
            responses: By item id; line breaks and tabs become blanks.
            out: Folder.

        Returns:
            Files.
        """
        out.mkdir(parents=True, exist_ok=True)
        files = []
        for category in CATEGORIES:
            lines = [
                f"{each.image}\t{each.text}\t{self.labels[item].capitalize()}\t"
                f"{' '.join(responses[item].split())}\n"
                for item, each in self.questions.items()
                if each.category == category and item in responses
            ]
            if lines:
                files.append(out / f"{category}.txt")
                files[-1].write_text("".join(lines), encoding="utf-8")
        return files

    def groups(self, scored: Sequence[ItemScore]) -> list[ItemScore]:
        """Score images by both of their questions.

        Args:
            scored: Questions.

        Returns:
            Per image with two answers whether both are right.
        """
        pairs: dict[str, list[ItemScore]] = defaultdict(list)
        for each in scored:
            pairs[each.cluster].append(each)
        images = []
        for name, pair in pairs.items():
            category, columns = name.split("/")[0], {}
            for rule in ("", "robust/"):
                right = [each.columns.get(f"{rule}{category} right") for each in pair]
                if len(right) == 2 and None not in right:
                    columns[f"{rule}{category} images"] = 1.0
                    columns[f"{rule}{category} both"] = float(all(right))
            images.append(ItemScore(f"image {name}", name, columns, {"questions": len(pair)}))
        return images

    def baselines(self) -> Mapping[str, Mapping[str, float]]:
        """Score constant answers.

        Returns:
            Metrics of always yes and always no.
        """
        return constant_answers(self, {"always yes": "Yes", "always no": "No"})


def _lines(path: Path) -> Iterator[tuple[str, Question, list[str]]]:
    """Read lines of image, question and further columns."""
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip():
            image, *columns = line.split("\t")
            if len(columns) < 2:
                raise ValueError(
                    f"{path}:{number}: must be image, question and Yes or No, separated by tabs, "
                    f"got {line!r}."
                )
            yield f"{path}:{number}", Question(path.stem, image, columns[0]), columns[1:]


def _official_answers(path: Path) -> Iterator[tuple[str, str, str]]:
    """Read the fourth column of an official file."""
    for place, question, rest in _lines(path):
        if len(rest) != 2:
            raise ValueError(f"{place}: must have four columns, the last the answer.")
        yield place, question.item, rest[1]


def _is_of(category: str, item: str) -> bool:
    """Tell the questions of a category."""
    return item.startswith(f"{category}/")


def _metrics(rule: str) -> list[Metric]:
    """Metrics of one rule."""

    def percent(sums: Sums, above: str, below: str) -> Array:
        return 100 * ratio(added(sums, [f"{rule}{above}"]), added(sums, [f"{rule}{below}"]))

    def accuracy(sums: Sums, category: str) -> Array:
        return percent(sums, f"{category} right", f"{category} asked")

    def accuracy_plus(sums: Sums, category: str) -> Array:
        return percent(sums, f"{category} both", f"{category} images")

    def score(sums: Sums, category: str) -> Array:
        return accuracy(sums, category) + accuracy_plus(sums, category)

    metrics = [
        Metric(
            f"{rule}{each}{suffix}",
            "higher",
            lambda sums, of=of, each=each: of(sums, each),
            within=partial(_is_of, each),
        )
        for each in CATEGORIES
        for suffix, of in (("", score), ("/acc", accuracy), ("/acc+", accuracy_plus))
    ]
    total = Metric(
        f"{rule}total",
        "higher",
        lambda sums: score(sums, CATEGORIES[0]) + sum(score(sums, each) for each in CATEGORIES[1:]),
    )
    return [*metrics, total]
