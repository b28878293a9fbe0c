"""AMBER's generative half: which objects does a description cover, and which does it invent?

Nouns of the description that belong to AMBER's vocabulary are compared with the objects that the
image shows (truth) and with objects that models tend to invent for it (hallu). A noun covers an
object if it is the object, or a word associated with it, or is similar to either. A noun that
covers nothing is hallucinated, unless it is one of a few safe words.

Quirks that are kept: case counts (``Dogs`` never matches); associated words are looked up before
objects, so naming an object can credit another one; ``chopsticks``, ``earrings`` and ``slippers``
never match, as WordNet makes them singular. The robust rule ignores case and also takes words as
they stand.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import nltk

from mdpo.evaluation.language.nouns import lemma_backend, spans, tokens
from mdpo.evaluation.language.similarity import similar_words
from mdpo.evaluation.language.tagger import load_tagger
from mdpo.evaluation.suite import Array, Metric, Sums, added, ratio, share

TAGGER = "taggers/averaged_perceptron_tagger_eng/"
NO_TAGGER = (
    "approximate: no part-of-speech tagger, rules for `can`; put taggers/"
    "averaged_perceptron_tagger_eng where NLTK_DATA points for the official one"
)
DETERMINERS = frozenset(
    ["a", "an", "the", "this", "that", "these", "those", "some", "any", "each", "every", "another"]
)
NUMBERS = frozenset(["one", "two", "three", "four", "five", "several", "many"])
MATERIALS = frozenset(
    ["tin", "metal", "aluminum", "soda", "coke", "beer", "garbage", "trash", "paint", "spray"]
)
BEFORE_A_CAN = DETERMINERS | NUMBERS | MATERIALS
OFFSET = 0.001
"""What each denominator of the official scorer starts at."""


class Noun(NamedTuple):
    """A word of a text that may name an object.

    Attributes:
        surface: As it stands.
        start: In the text, in characters.
        end: In the text, in characters.
    """

    surface: str
    start: int
    end: int


class Annotation(NamedTuple):
    """What an image shows, and what models invent for it.

    Attributes:
        truth: Objects that are there.
        hallu: Objects that are not.
    """

    truth: Sequence[str]
    hallu: Sequence[str]


class Verdict(NamedTuple):
    """What the nouns of a description are.

    Attributes:
        hallucinated: Of each noun, whether it covers nothing.
        covered: Objects of the truth that are named.
        invented: Objects of hallu that are named.
    """

    hallucinated: Sequence[bool]
    covered: set[int]
    invented: set[int]


class Nouns:
    """Nouns of texts, by NLTK's tagger and WordNet where their data is found.

    Attributes:
        backend: Name of what is used.
        lemma: From a word to its singular.
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.lemma, lemmas = lemma_backend([*vocabulary, *(word.lower() for word in vocabulary)])
        try:
            nltk.data.find(TAGGER)
        except LookupError:
            self._find, tags = nouns_by_rules, NO_TAGGER
        else:
            self._find, tags = tagged_nouns, "tags of nltk's averaged perceptron"
        self.backend = f"{lemmas}; {tags}; 20 similar pairs in place of en_core_web_lg 3.7.1"
        # The same text is scored by two rules, and against other images.
        self.of = cache(self._of)

    def _of(self, text: str) -> tuple[Noun, ...]:
        """Find nouns."""
        words = tokens(text)
        is_noun = self._find(words)
        return tuple(
            Noun(word, *span)
            for word, span, noun in zip(words, spans(text, words), is_noun, strict=True)
            if noun
        )


def tagged_nouns(words: Sequence[str]) -> list[bool]:
    """Tell nouns by the tagger.

    Args:
        words: Of a text.

    Returns:
        Of each word whether it is a noun.
    """
    return [tag.startswith("NN") for tag in load_tagger().tag(words)]


def nouns_by_rules(words: Sequence[str]) -> list[bool]:
    """Take every word for a noun, but ``can`` only where it cannot be a verb.

    Without the rule, ``you can see`` would name an object.

    Args:
        words: Of a text.

    Returns:
        Of each word whether it may be a noun.
    """
    before = ["", *(word.lower() for word in words)]
    return [
        word.lower() != "hot" and (word.lower() != "can" or previous in BEFORE_A_CAN)
        for previous, word in zip(before, words, strict=False)
    ]


class Dictionary:
    """AMBER's vocabulary.

    Attributes:
        associated: From object to words that stand for it.
        safe: Words that are neither right nor wrong.
        words: All words that count.
    """

    def __init__(self, associated: Mapping[str, Sequence[str]], safe: Sequence[str]) -> None:
        self.associated, self.safe = associated, frozenset(safe)
        self.words = frozenset({*associated, *(w for each in associated.values() for w in each)})
        self._lowered = {word.lower(): word for word in sorted(self.words)}

    def official(self, noun: Noun, lemma: Callable[[str], str]) -> str | None:
        """Look a noun up as the official scorer does.

        Args:
            noun: Of a text.
            lemma: What makes it singular.

        Returns:
            A word of the vocabulary, or None.
        """
        word = lemma(noun.surface)
        return word if word in self.words else None

    def robust(self, noun: Noun, lemma: Callable[[str], str]) -> str | None:
        """Look a noun up whatever its case, as it stands or in the singular.

        Args:
            noun: Of a text.
            lemma: What makes it singular.

        Returns:
            A word of the vocabulary, or None.
        """
        word = noun.surface.lower()
        return self._lowered.get(word) or self._lowered.get(lemma(word))

    def candidates(self, objects: Sequence[str]) -> list[tuple[str, int]]:
        """List words that stand for objects: associated words first, then the objects.

        Args:
            objects: Of an image.

        Returns:
            Words, each with the place of its object.
        """
        words = [(w, k) for k, name in enumerate(objects) for w in self.associated.get(name, ())]
        return words + [(name, place) for place, name in enumerate(objects)]

    def judge(self, nouns: Sequence[str], image: Annotation) -> Verdict:
        """Compare nouns with the objects of an image.

        Args:
            nouns: Words of the vocabulary.
            image: Its objects.

        Returns:
            What they are.
        """
        truth, hallu = self.candidates(image.truth), self.candidates(image.hallu)
        covered: set[int] = set()
        invented: set[int] = set()
        hallucinated = []
        for noun in nouns:
            if noun in self.safe:
                hallucinated.append(False)
                continue
            owner = _first(truth, {noun})
            if owner is None:
                like = similar_words(noun)
                named = (_first(hallu, {noun}), _first(hallu, like))
                invented |= {place for place in named if place is not None}
                owner = _first(truth, like)
            if owner is not None:
                covered.add(owner)
            hallucinated.append(owner is None)
        return Verdict(hallucinated, covered, invented)


def columns_of(rule: str, verdict: Verdict, image: Annotation) -> dict[str, float]:
    """Count what one description adds.

    Args:
        rule: Prefix of the columns.
        verdict: Of its nouns.
        image: Objects.

    Returns:
        Columns.
    """
    wrong = sum(verdict.hallucinated)
    return {
        f"{rule}responses": 1.0,
        f"{rule}clean": float(not wrong),
        f"{rule}hallucinated": float(wrong),
        f"{rule}nouns": float(len(verdict.hallucinated)),
        f"{rule}covered": float(len(verdict.covered)),
        f"{rule}truth": float(len(image.truth)),
        f"{rule}invented": float(len(verdict.invented)),
        f"{rule}hallu": float(len(image.hallu)),
    }


def metrics(rule: str, within: Callable[[str], bool] | None) -> list[Metric]:
    """Make CHAIR, Cover, Hal and Cog.

    Args:
        rule: Prefix of columns and names; the official one is empty.
        within: Tells the items of this half.

    Returns:
        Metrics in percent.
    """

    def metric(name: str, above: str, below: str, *, up: bool = False) -> Metric:
        above, below = rule + above, rule + below

        def official(sums: Sums) -> float:
            return round(_sum(sums, above) / (OFFSET + _sum(sums, below)) * 100, 1)

        direction = "higher" if up else "lower"
        printed = None if rule else official
        return Metric(rule + name, direction, share(above, below), printed, within)

    def hal(sums: Sums) -> float:
        return round(100 - _sum(sums, "clean") / (OFFSET + _sum(sums, "responses")) * 100, 1)

    def hallucinating(sums: Sums) -> Array:
        responses = added(sums, [f"{rule}responses"])
        return 100 * ratio(responses - added(sums, [f"{rule}clean"]), responses)

    return [
        metric("CHAIR", "hallucinated", "nouns"),
        metric("Cover", "covered", "truth", up=True),
        Metric(f"{rule}Hal", "lower", hallucinating, None if rule else hal, within),
        metric("Cog", "invented", "hallu"),
    ]


def _first(candidates: Sequence[tuple[str, int]], words: Collection[str]) -> int | None:
    """Find the object of the first candidate that is one of some words."""
    return next((place for word, place in candidates if word in words), None)


def _sum(sums: Sums, column: str) -> float:
    """A sum as a plain number."""
    return float(added(sums, [column]))
