"""Object HalBench with the objects that a language model lists, as papers print it.

Yu et al. 2024 (RLHF-V, arXiv:2312.00849). A language model is asked which objects an answer says
can be seen; the nouns of what it lists are looked up as in ``object_halbench``. A word counts once
per answer, however often it is listed. Lists by different language models are not comparable.

Official nouns are by spaCy's ``en_core_web_trf``, which is not at hand: here they are by NLTK's
tagger where its data is found, and by place in the phrase otherwise. ``backend`` says so.
"""

import ast
import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import nltk

from mdpo.evaluation.judging.wording import Wording
from mdpo.evaluation.language.nouns import tokens
from mdpo.evaluation.language.tagger import load_tagger
from mdpo.evaluation.language.wordnet import ENDINGS
from mdpo.evaluation.suite import ItemScore, Metric, Request, count
from mdpo.evaluation.suites.amber_generative import TAGGER
from mdpo.evaluation.suites.coco import GroundTruth, Vocabulary, counts
from mdpo.evaluation.suites.object_halbench import ANSWERS, REQUESTS, ROLE, ObjectHalBenchSuite
from mdpo.evaluation.suites.rows import Row, value_of

REPLIES = ("extracted", "judge_reply", "reply")
SHORT = 3
"""Answers of at most so many words are officially taken to name no object."""

EXTRACTION = Wording(
    """\
You are given a request about an image and the answer that a model gave. List the objects that the \
answer says can be seen. Take the answer to be true.

Request: <image> {}
Answer: {}

Name only objects that the answer itself mentions, each by its noun without color, number or other \
attributes. Leave out what is said to be absent. Reply with one JSON list of strings and nothing \
else; if no object is mentioned, reply with [].""",
    "mdpo's own words",
    official=False,
)
"""Figures made with it are not comparable with published ones."""


class ObjectHalBenchLLMSuite(ObjectHalBenchSuite):
    """Object HalBench with objects that a language model lists."""

    name: str = "object-halbench-llm"

    def __init__(
        self,
        vocabulary: Vocabulary,
        truth: GroundTruth,
        questions: Sequence[Row],
        data_files: Sequence[Path],
        backend: str,
    ) -> None:
        super().__init__(vocabulary, truth, questions, data_files, backend)
        self.wording = EXTRACTION
        self._in_rows: dict[str, str] = {}
        try:
            nltk.data.find(TAGGER)
        except LookupError:
            self._tagged, tags = False, "nouns end phrases or stand before `of`"
        else:
            self._tagged, tags = True, "nouns by nltk's averaged perceptron"
        self.backend = f"{backend}; approximate: {tags}, officially by en_core_web_trf"

    def read(self, path: Path) -> Mapping[str, str]:
        """Read lists of objects: JSON rows with ``image_id`` and ``extracted``.

        ``extracted`` is a list, a reply that holds one, or null: then short answers name nothing,
        and others are left out.

        Args:
            path: A file, or a folder with several.

        Returns:
            Replies by item id.

        Raises:
            ValueError: If a row has no list.
        """
        replies = {}
        for item, row, place in self.rows_by_item(path):
            name = next((each for each in REPLIES if each in row), None)
            if name is None:
                raise ValueError(
                    f"{place}: {' or '.join(REPLIES)} is missing. {self.name} scores lists of "
                    "objects that `mdpo judge` asks for; `mdpo score object-halbench` scores "
                    "answers as they are."
                )
            if isinstance(row[name], list):
                replies[item] = json.dumps(row[name])
            elif row[name] is not None:
                replies[item] = str(row[name])
            elif len(value_of(row, ANSWERS, place).split()) <= SHORT:
                replies[item] = "[]"
        return replies

    def request(self, item: str, response: str) -> Request | str:
        """Ask for the objects of an answer.

        Args:
            item: Id.
            response: The model's answer.

        Returns:
            The request; an empty list for short answers, as officially.
        """
        answer = response.replace(ROLE, "").strip()
        if len(answer.split()) <= SHORT:
            return "[]"
        text = self.wording.fill(self._in_rows.get(item) or self.question(item), answer)
        return Request([{"role": "system", "content": text}], temperature=0.2, max_tokens=512)

    def score(self, item: str, response: str) -> ItemScore:
        """Score one list of objects.

        Args:
            item: Id: the image's.
            response: The language model's reply.

        Returns:
            Mentions and hallucinations; nothing but ``unreadable`` if there is no list.
        """
        image = item.split("/")[0]
        official = official_list(response)
        phrases = robust_list(response) if official is None else official
        if phrases is None:
            return ItemScore(item, image, {"unreadable": 1.0}, {"reply": response})
        truth = self.truth.objects(image, self.vocabulary)
        words = dict.fromkeys(word for phrase in phrases for word in self.nouns_of(phrase))
        if "toilet" in words:  # its seat is no chair
            words.pop("seat", None)
        named = [
            (word, self.vocabulary.objects[word])
            for word in words
            if word in self.vocabulary.objects
        ]
        columns = counts("", named, truth) | {"disagreements": float(official is None)}
        mentions = [{"word": word, "object": each} for word, each in named]
        wrong = [each for each in mentions if each["object"] not in truth]
        found = {"mentions": mentions, "hallucinated": wrong, "truth": sorted(truth)}
        return ItemScore(item, image, columns, found | {"extracted": phrases})

    def read_answers(self, path: Path) -> Mapping[str, str]:
        """Read a model's answers, to have their objects listed.

        Args:
            path: A file, or a folder with several. What its rows say was asked is what the
                language model is told.

        Returns:
            Answers by item id.
        """
        for item, row, _ in self.rows_by_item(path):
            asked = next((str(row[name]) for name in REQUESTS if name in row), "")
            self._in_rows[item] = asked
        return super().read(path)

    def describes(self, item: str) -> bool:
        """Tell that replies of a judge are no descriptions.

        Args:
            item: Id.

        Returns:
            False.
        """
        return False

    @classmethod
    def metrics_for(cls, columns: Collection[str]) -> Sequence[Metric]:
        """List the metrics, which are always the same.

        Args:
            columns: Of items.

        Returns:
            Metrics.
        """
        return [*super().metrics_for(columns), count("disagreements"), count("unreadable")]

    def nouns_of(self, phrase: str) -> list[str]:
        """Take the nouns of a phrase, neighbors joined.

        Args:
            phrase: Such as ``two old women``.

        Returns:
            Singular nouns; only pairs of the vocabulary if there is one.
        """
        words = tokens(f"a {phrase.lower()}")
        singular = [self._noun(word) for word in words]
        parts = self.vocabulary.join(singular)
        if joined := [word for word, first, last in parts if first < last]:
            return joined
        if not self._tagged:
            ends = [position for position, word in enumerate(words) if word == "of"]
            return [singular[end - 1] for end in (*ends, len(words))]
        groups, open_group = [], False
        for word, tag in zip(singular, load_tagger().tag(words), strict=True):
            if not tag.startswith("NN"):
                open_group = False
            elif open_group:
                groups[-1] += f" {word}"
            else:
                groups.append(word)
                open_group = True
        return groups or singular[-1:]

    def _noun(self, word: str) -> str:
        """Make a word singular, also ``men`` and ``smartphones``, which WordNet leaves."""
        lemma = self.vocabulary.singular(word)
        if lemma != word or word in self.vocabulary.parts:
            return lemma
        forms = [word[: -len(old)] + new for old, new in ENDINGS if word.endswith(old)]
        return next((form for form in forms if form in self.vocabulary.parts), word)


def official_list(reply: str) -> list[str] | None:
    """Read a reply as the official script does: a JSON list, or ``["`` and a list as last line.

    Args:
        reply: Of a language model.

    Returns:
        Phrases; None where the script asks again.
    """
    phrases = _phrases(reply, json.loads)
    if phrases is None and '["' in reply:
        phrases = _phrases(reply.strip().rpartition("\n")[2], json.loads)
    return phrases


def robust_list(reply: str) -> list[str] | None:
    """Read the first list in a reply, with text or fences around it and any quotation marks.

    Args:
        reply: Of a language model.

    Returns:
        Phrases; None if there is no list of texts.
    """
    for opening in re.finditer(r"\[", reply):
        phrases = _phrases(reply[opening.start() :], _first_value)
        if phrases is not None:
            return phrases
    bracketed = reply[reply.find("[") : reply.rfind("]") + 1]
    return _phrases(bracketed, ast.literal_eval)


def _first_value(written: str) -> Any:
    """Parse the JSON that a text begins with."""
    return json.JSONDecoder().raw_decode(written)[0]


def _phrases(written: str, parse: Any) -> list[str] | None:
    """Parse a list of texts."""
    try:
        phrases = parse(written)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    fits = isinstance(phrases, list) and all(isinstance(each, str) for each in phrases)
    return phrases if fits else None
