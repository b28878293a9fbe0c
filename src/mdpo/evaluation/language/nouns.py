"""Texts as lists of singular nouns, by WordNet where its data is found.

Words are split by NLTK's tokenizer within sentences, and each is taken as a noun whatever it is
in its sentence: ``leaves`` is ``leaf``, ``us`` is ``u``. WordNet's data (``corpora/wordnet``) is
looked for where NLTK looks, ``NLTK_DATA`` first; nothing is downloaded. Without it, WordNet's
rules for endings are applied only where they lead to a word of the benchmark; results are then
approximate, and say so.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache

from nltk import __version__ as nltk_version
from nltk.tokenize import NLTKWordTokenizer

from mdpo.evaluation.language.wordnet import ENDINGS, load_nouns

SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
IRREGULAR = {
    "brethren": "brother",
    "buffaloes": "buffalo",
    "busses": "bus",  # codespell:ignore busses
    "children": "child",
    "flamingoes": "flamingo",
    "geese": "goose",
    "grandchildren": "grandchild",
    "knives": "knife",
    "mice": "mouse",
    "oxen": "ox",
    "pocketknives": "pocketknife",
    "sports": "sport",
    "taxies": "taxi",
    "vases": "vas",  # codespell:ignore vas
    "women": "woman",
}
"""What WordNet makes of words that name COCO objects, where the endings give something else."""

UNCHANGED = frozenset(
    {
        "bikers",
        "bluejays",
        "brindles",
        "coworkers",
        "firetrucks",
        "glass",
        "hairdryers",
        "longboards",
        "macbooks",
        "men",
        "netbooks",
        "paddleboats",
        "pitbulls",
        "riverboats",
        "sailboards",
        "shortboards",
        "skimboards",
        "smartphones",
        "stovetops",
        "teddybears",
    }
)
"""Words that WordNet leaves as they are: nouns of their own, or plurals of words it lacks."""

TOKENIZER = NLTKWordTokenizer()
PLAIN = re.compile(r"[A-Za-z]+(?:,? [A-Za-z]+)*[.!?]?")
"""Sentences in which only commas and the last mark are split off, unless a word is contracted."""

CONTRACTED = re.compile(r"\b(?:cannot|gimme|gonna|gotta|lemme|wanna)\b", re.IGNORECASE)
WORD_OR_MARK = re.compile(r"[A-Za-z]+|[,.!?]")
QUOTATION = re.compile("``|''|\"")
"""A double quotation mark, however it is written; the tokenizer gives one of the first two."""


def tokens(text: str) -> list[str]:
    """Split a text into words and marks.

    Args:
        text: In the case that is wanted.

    Returns:
        Tokens of all its sentences.
    """
    return [token for part in SENTENCE_END.split(text) for token in _of_sentence(part)]


def spans(text: str, found: Sequence[str]) -> list[tuple[int, int]]:
    """Find tokens in the text that they were made of.

    Args:
        text: As given to ``tokens``.
        found: Its tokens, in order; upper and lower case do not matter.

    Returns:
        Start and end of each; a token that is not found has length 0.
    """
    lowered = text.lower()
    if len(lowered) != len(text):  # a few capitals become two characters and move what follows
        lowered = "".join(low if len(low := each.lower()) == 1 else each for each in text)
    places, position = [], 0
    for token in found:
        start, end = _find(token, text, lowered, position)
        places.append((start, end))
        position = end
    return places


def _find(token: str, text: str, lowered: str, position: int) -> tuple[int, int]:
    """Find one token from a position on."""
    if token in ("``", "''"):  # one may be written otherwise, and the same stand further on
        mark = QUOTATION.search(text, position)
        return mark.span() if mark else (position, position)
    start = lowered.find(token.lower(), position)
    if start < 0:
        start = text.find(token, position)
    return (position, position) if start < 0 else (start, start + len(token))


def _of_sentence(sentence: str) -> list[str]:
    """Split a sentence; most are plain, and thirty substitutions can be saved."""
    if PLAIN.fullmatch(sentence) and not CONTRACTED.search(sentence):
        return WORD_OR_MARK.findall(sentence)
    return TOKENIZER.tokenize(sentence)


def lemma_backend(vocabulary: Iterable[str]) -> tuple[Callable[[str], str], str]:
    """Choose how a word becomes a singular noun.

    Args:
        vocabulary: Words that matter; used only where WordNet's data is missing.

    Returns:
        The function, and the name of the backend.
    """
    try:
        nouns = load_nouns()
    except LookupError:
        known = frozenset(part for word in vocabulary for part in word.split())
        return (
            lambda token: approximate_noun(token, known),
            f"approximate: nltk {nltk_version} tokens, endings of words without WordNet; put "
            "corpora/wordnet where NLTK_DATA points for the official one",
        )
    return (
        cache(nouns.lemma),
        f"nltk {nltk_version} tokens and lemmas of WordNet {nouns.version}",
    )


def approximate_noun(token: str, known: frozenset[str]) -> str:
    """Look up the singular, or take off an ending where that gives a known word.

    Args:
        token: A word.
        known: Words that matter.

    Returns:
        The shortest known form; the word itself if none is known.
    """
    if token in IRREGULAR or token in UNCHANGED:
        return IRREGULAR.get(token, token)
    forms = [token]
    forms += [token[: -len(old)] + new for old, new in ENDINGS if token.endswith(old)]
    return min((form for form in forms if form in known), key=len, default=token)
