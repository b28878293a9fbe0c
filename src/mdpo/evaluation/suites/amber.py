"""AMBER: descriptions and yes-no questions on 1,004 images. Wang et al. 2023, arXiv:2311.07397.

Items 1 to 1004 ask for a description of an image (``amber_generative``), items 1005 to 15220 ask
yes-no questions about the same images (``amber_discriminative``). A set of responses may hold
either half or part of one; metrics of a half without responses are undefined. ``AMBER`` sums both
halves up: (100 - CHAIR + F1) / 2, of the numbers as printed.
"""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from mdpo.evaluation.language.places import look_beside
from mdpo.evaluation.suite import (
    Array,
    ItemScore,
    Metric,
    Prompt,
    Sums,
    added,
    constant_answers,
    count,
)
from mdpo.evaluation.suites import amber_discriminative as discriminative
from mdpo.evaluation.suites import amber_generative as generative
from mdpo.evaluation.suites.amber_generative import Annotation, Dictionary, Noun, Nouns
from mdpo.evaluation.suites.rows import Row, read_rows, response_files, value_of

FILES = ("annotations.json", "relation.json", "safe_words.txt")
QUERIES = "query_all.json, or query_generative.json and query_discriminative.json"
IDS = ("id", "item", "item_id")
ANSWERS = ("response", "answer", "text", "caption")
EXPORT = "amber_responses.json"


class AmberSuite:
    """AMBER, both halves."""

    name: str = "amber"

    def __init__(
        self,
        annotations: Mapping[str, Row],
        queries: Mapping[str, Row],
        dictionary: Dictionary,
        data_files: Sequence[Path],
    ) -> None:
        self.annotations, self.queries, self.dictionary = annotations, queries, dictionary
        self.data_files = data_files
        self.items: Sequence[str] = list(annotations)
        self.dimensions = {
            item: discriminative.DIMENSIONS.get(str(row["type"]), "relation")
            for item, row in annotations.items()
            if row["type"] != "generative"
        }
        self.nouns = Nouns(sorted(dictionary.words))
        self.backend: str = self.nouns.backend
        self.metrics: Sequence[Metric] = [
            *generative.metrics("", self.describes),
            *discriminative.metrics("", self.dimension),
            Metric("AMBER", "higher", _amber, _official_amber),
            *generative.metrics("robust/", self.describes),
            *discriminative.metrics("robust/", self.dimension),
            count("disagreements"),
            count("unscored"),
        ]

    @classmethod
    def load(cls, folder: Path) -> "AmberSuite":
        """Read the official data.

        Args:
            folder: With ``annotations.json``, ``relation.json``, ``safe_words.txt`` and query
                files, at any depth.

        Returns:
            The benchmark.

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If an annotated item has no query.
        """
        look_beside(folder)
        found = {name: sorted(folder.rglob(name)) for name in FILES}
        queries = sorted(folder.rglob("query_all.json")) or [
            *sorted(folder.rglob("query_generative.json"))[:1],
            *sorted(folder.rglob("query_discriminative.json"))[:1],
        ]
        if missing := [name for name, paths in found.items() if not paths] or (
            [] if queries else [QUERIES]
        ):
            raise FileNotFoundError(
                f"{folder} must hold, at any depth, {', '.join(FILES)} and {QUERIES} of AMBER; "
                f"{missing[0]} is missing."
            )
        files = [*(paths[0] for paths in found.values()), *queries[:2]]
        annotations = {str(row["id"]): row for row in read_rows(files[0])}
        asked = {str(row["id"]): row for path in files[3:] for row in read_rows(path)}
        if without := [item for item in annotations if item not in asked]:
            raise ValueError(
                f"{files[3]}: item {without[0]} of {files[0].name} has no query. Needed are "
                f"{QUERIES}."
            )
        relation = json.loads(files[1].read_text(encoding="utf-8"))
        safe = files[2].read_text(encoding="utf-8").split("\n")
        return cls(annotations, asked, Dictionary(relation, safe), files)

    def read(self, path: Path) -> Mapping[str, str]:
        """Read the official list of ``id`` and ``response``, or rows like it.

        Args:
            path: A file, or a folder with several.

        Returns:
            Responses by item id. As officially, an item may have several, which all count: the
            second is ``ID/2``, and so on.

        Raises:
            ValueError: If an id is not one of AMBER's.
        """
        responses: dict[str, str] = {}
        for file in response_files(path):
            for number, row in enumerate(read_rows(file), start=1):
                place = f"{file}:{number}"
                written = value_of(row, IDS, place)
                if written.split("/")[0] not in self.annotations:
                    raise ValueError(f"{place}: item {written!r} is not in the benchmark's data.")
                item, further = written, 1
                while item in responses:
                    further += 1
                    item = f"{written}/{further}"
                responses[item] = value_of(row, ANSWERS, place)
        return responses

    def score(self, item: str, response: str) -> ItemScore:
        """Score one response.

        Args:
            item: Id.
            response: A description, or an answer.

        Returns:
            What it adds, by each rule.
        """
        image = str(self.queries[_number(item)]["image"])
        if self.describes(item):
            return self._description(item, image, response)
        return self._answer(item, image, response)

    def prompts(self) -> Sequence[Prompt]:
        """List what a model is asked.

        Returns:
            A request for a description, or a question; images are ``AMBER_1.jpg`` and so on.
        """
        rows = ((item, self.queries[item]) for item in self.items)
        return [Prompt(item, [str(row["image"])], str(row["query"])) for item, row in rows]

    def export(self, responses: Mapping[str, str], out: Path) -> Sequence[Path]:
        """Write the list that the official scorer reads.

        Args:
            responses: By item id.
            out: Folder.

        Returns:
            The file.
        """
        rows = [{"id": int(_number(item)), "response": text} for item, text in responses.items()]
        rows.sort(key=lambda row: row["id"])
        out.mkdir(parents=True, exist_ok=True)
        path = out / EXPORT
        path.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        return [path]

    def describes(self, item: str) -> bool:
        """Tell whether an item is of the generative half.

        Args:
            item: Id.

        Returns:
            Whether it asks for a description.
        """
        return _number(item) not in self.dimensions

    def dimension(self, item: str) -> str | None:
        """Name what an item asks about.

        Args:
            item: Id.

        Returns:
            ``existence``, ``state``, ``number``, ``action`` or ``relation``; None for descriptions.
        """
        return self.dimensions.get(_number(item))

    def baselines(self) -> Mapping[str, Mapping[str, float]]:
        """Score constant answers to questions, and saying nothing about images.

        Returns:
            Metrics by baseline.
        """
        images = [item for item in self.items if self.describes(item)]
        return {
            **constant_answers(self, {"empty description": ""}, images),
            "always Yes": self._constant("yes"),
            "always No": self._constant("no"),
        }

    def _constant(self, answer: str) -> dict[str, float]:
        """Score one answer to all questions, alike questions at once."""
        truths = (
            (each, str(self.annotations[item]["truth"])) for item, each in self.dimensions.items()
        )
        sums: Counter[str] = Counter()
        for (dimension, truth), number in Counter(truths).items():
            for column, value in discriminative.columns_of("", dimension, answer, truth).items():
                sums[column] += number * int(value)
        values = {
            each.name: float(each.of({name: np.array(total) for name, total in sums.items()}))
            for each in discriminative.metrics("", None)
        }
        return {name: value for name, value in values.items() if not np.isnan(value)}

    @classmethod
    def metrics_for(cls, columns: Collection[str]) -> Sequence[Metric]:
        """List the metrics of the halves that items are of.

        Args:
            columns: Of items.

        Returns:
            Metrics.
        """
        metrics: list[Metric] = []
        halves = [("responses", generative.metrics), ("/asked", discriminative.metrics)]
        for rule in ("", "robust/"):
            for column, made in halves:
                if any(name.endswith(column) for name in columns):
                    metrics += made(rule, None)
        if {"CHAIR", "F1"} <= {each.name for each in metrics}:
            metrics.append(Metric("AMBER", "higher", _amber, _official_amber))
        return metrics

    def _description(self, item: str, image: str, response: str) -> ItemScore:
        """Score a description."""
        row = self.annotations[_number(item)]
        shown = Annotation(row["truth"], row["hallu"])
        nouns = self.nouns.of(response)
        looked_up = {
            "": [self.dictionary.official(noun, self.nouns.lemma) for noun in nouns],
            "robust/": [self.dictionary.robust(noun, self.nouns.lemma) for noun in nouns],
        }
        columns: dict[str, float] = {}
        verdicts = {}
        for rule, words in looked_up.items():
            known = [word for word in words if word is not None]
            verdicts[rule] = self.dictionary.judge(known, shown)
            columns |= generative.columns_of(rule, verdicts[rule], shown)
        columns["disagreements"] = float(looked_up[""] != looked_up["robust/"])
        details = _details(nouns, looked_up[""], verdicts[""], shown)
        return ItemScore(item, image, columns, details)

    def _answer(self, item: str, image: str, response: str) -> ItemScore:
        """Score an answer to a question."""
        number = _number(item)
        dimension, truth = self.dimensions[number], str(self.annotations[number]["truth"])
        said = discriminative.official_answer(response)
        robust = discriminative.robust_answer(response)
        columns = discriminative.columns_of("", dimension, said, truth)
        if robust is None:
            columns["unscored"] = 1.0
        else:
            columns |= discriminative.columns_of("robust/", dimension, robust, truth)
            columns["disagreements"] = float(robust != said)
        details = {"label": truth, "official": said, "robust": robust, "right": said == truth}
        return ItemScore(item, image, columns, details)


def _number(item: str) -> str:
    """Take the id of the second and further responses to an item."""
    return item.partition("/")[0]


def _details(
    nouns: Sequence[Noun],
    words: Sequence[str | None],
    verdict: generative.Verdict,
    shown: Annotation,
) -> dict[str, object]:
    """Say which nouns were found and what they are."""
    mentions = [
        {"word": noun.surface, "object": word, "start": noun.start, "end": noun.end}
        for noun, word in zip(nouns, words, strict=True)
        if word is not None
    ]
    marked = zip(mentions, verdict.hallucinated, strict=True)
    return {
        "mentions": mentions,
        "hallucinated": [mention for mention, wrong in marked if wrong],
        "truth": list(shown.truth),
        "covered": [shown.truth[place] for place in sorted(verdict.covered)],
        "invented": [shown.hallu[place] for place in sorted(verdict.invented)],
    }


def _amber(sums: Sums) -> Array:
    """Sum both halves up."""
    chair, f1 = (
        next(each.of for each in metrics if each.name == name)(sums)
        for name, metrics in (
            ("CHAIR", generative.metrics("", None)),
            ("F1", discriminative.metrics("", None)),
        )
    )
    return (100 - chair + f1) / 2


def _official_amber(sums: Sums) -> float:
    """Sum both halves up as printed."""
    asked = added(sums, [f"{each}/asked" for each in discriminative.POOLED[""]])
    if not added(sums, ["responses"]) or not asked:
        return float("nan")
    chair = next(each for each in generative.metrics("", None) if each.name == "CHAIR")
    assert chair.official is not None
    return float(np.mean([100 - chair.official(sums), discriminative.official_f1(sums)]))
