"""Parts of speech by the averaged perceptron that NLTK uses, on the same weights, but faster.

The features are those of ``nltk.tag.perceptron`` (Honnibal 2013): the word with its neighbours,
and the two tags before it. What depends on words alone is added up for all tokens at once; tags
are then chosen one after the other. Weights have three decimals, so they are kept as whole
thousandths: sums are exact, and where two tags tie, NLTK's own sum of floats decides.
"""

import re
from collections.abc import Sequence
from functools import cache

import numpy as np
from nltk.tag.perceptron import PerceptronTagger

START, END = ("-START-", "-START2-"), ("-END-", "-END2-")
THREE_DECIMALS = 1000


class Tagger:
    """Tags words as ``nltk.pos_tag`` does.

    Attributes:
        tags: All tags, in reverse alphabetical order: the first of equals is NLTK's choice.
    """

    def __init__(self, model: PerceptronTagger) -> None:
        self._nltk = model
        self.tags = sorted(model.classes, reverse=True)
        places = {tag: place for place, tag in enumerate(self.tags)}
        # By kind of feature and value: "i suffix ing" is the kind "i suffix" with value "ing".
        self._weights: dict[str, dict[str, np.ndarray]] = {}
        for feature, weights in model.model.weights.items():
            row = np.zeros(len(self.tags), dtype=np.int64)
            for tag, weight in weights.items():
                row[places[tag]] = round(weight * THREE_DECIMALS)
            kind, value = _kind_and_value(feature)
            self._weights.setdefault(kind, {})[value] = row
        self._nothing = np.zeros(len(self.tags), dtype=np.int64)
        self._known: dict[tuple[str, str], np.ndarray] = {}
        self._of_tags: dict[tuple[str, str], np.ndarray] = {}

    def tag(self, words: Sequence[str]) -> list[str]:
        """Tag words.

        Args:
            words: Of one text, in order.

        Returns:
            A tag for each.
        """
        if not words:
            return []
        context = [*START, *(self._nltk.normalize(word) for word in words), *END]
        before2, before, tags = *reversed(START), list[str]()
        scores = self._word_scores(words, context)
        dictionary = self._nltk.tagdict
        after_tag = self._weights.get("i-1 tag+i word", {})
        for place, word in enumerate(words):
            tag = dictionary.get(word)
            if not tag:
                score = scores[place] + self._tag_scores(before, before2)
                pair = after_tag.get(f"{before} {context[place + 2]}")
                if pair is not None:
                    score = score + pair
                best = int(score.argmax())
                tag = self.tags[best]
                if np.count_nonzero(score == score[best]) > 1:
                    tag = self._by_floats(place, word, context, before, before2)
            tags.append(tag)
            before2, before = before, tag
        return tags

    def _by_floats(
        self, place: int, word: str, context: list[str], before: str, before2: str
    ) -> str:
        """Choose between equals by NLTK's own sum."""
        features = self._nltk._get_features(place, word, context, before, before2)
        return str(self._nltk.model.predict(features)[0])

    def _word_scores(self, words: Sequence[str], context: Sequence[str]) -> np.ndarray:
        """Add up what depends on words alone, for all places at once."""
        scores = np.stack([self._at("i", word) for word in words])
        scores += np.stack([self._at("i word", word) for word in context[2:-2]])
        scores += np.stack([self._at("i-1", word) for word in context[1:-3]])
        scores += np.stack([self._at("i-2", word) for word in context[:-4]])
        scores += np.stack([self._at("i+1", word) for word in context[3:-1]])
        return scores + np.stack([self._at("i+2", word) for word in context[4:]])

    def _at(self, where: str, word: str) -> np.ndarray:
        """Weights of a word at a place relative to the one that is tagged."""
        found = self._known.get((where, word))
        if found is None:
            suffix = word[-3:]
            if where == "i":
                found = self._of("bias", "") + self._of("i suffix", suffix)
                found = found + self._of("i pref1", word[:1])
            elif where == "i word":
                found = self._of("i word", word)
            else:
                found = self._of(f"{where} word", word) + self._of(f"{where} suffix", suffix)
            self._known[where, word] = found
        return found

    def _of(self, kind: str, value: str) -> np.ndarray:
        """Weights of one feature; those of unknown ones are 0."""
        return self._weights.get(kind, {}).get(value, self._nothing)

    def _tag_scores(self, before: str, before2: str) -> np.ndarray:
        """Weights of the two tags before."""
        found = self._of_tags.get((before, before2))
        if found is None:
            found = self._of("i-1 tag", before) + self._of("i-2 tag", before2)
            found = found + self._of("i tag+i-2 tag", f"{before} {before2}")
            self._of_tags[before, before2] = found
        return found


KINDS = re.compile(
    r"(i-1 tag\+i word|i tag\+i-2 tag|i suffix|i pref1|i word|i[-+]\d (?:word|suffix|tag)|bias)"
    r"(?: (.*))?",
    re.DOTALL,
)


@cache
def load_tagger() -> Tagger:
    """Load NLTK's weights for English; nothing is downloaded.

    Returns:
        The tagger; NLTK's own ``LookupError`` says where its data is looked for.
    """
    return Tagger(PerceptronTagger())


def _kind_and_value(feature: str) -> tuple[str, str]:
    """Take the name of a feature apart."""
    match = KINDS.fullmatch(feature)
    if match is None:
        raise ValueError(f"Feature {feature!r} is not one of NLTK's perceptron tagger.")
    return match[1], match[2] or ""
