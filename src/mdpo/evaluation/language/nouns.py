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
from nltk.corpus import wordnet
from nltk.stem import WordNetLemmatizer
from nltk.tokenize import NLTKWordTokenizer

Nouns = Callable[[str], Sequence[str]]
"""From a text to its words, each as a singular noun."""

SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
ENDINGS = (
    ("s", ""),
    ("ses", "s"),
    ("ves", "f"),
    ("xes", "x"),
    ("zes", "z"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("men", "man"),
    ("ies", "y"),
)
"""WordNet's endings of plurals, and what stands for them in the singular."""

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


def tokens(text: str) -> list[str]:
    """Split a text into words and marks.

    Args:
        text: In the case that is wanted.

    Returns:
        Tokens of all its sentences.
    """
    return [token for part in SENTENCE_END.split(text) for token in TOKENIZER.tokenize(part)]


def noun_backend(vocabulary: Iterable[str]) -> tuple[Nouns, str]:
    """Choose how words become singular nouns.

    Args:
        vocabulary: Words that matter; used only where WordNet's data is missing.

    Returns:
        The function, and the name of the backend.
    """
    try:
        wordnet.ensure_loaded()
    except LookupError:
        known = frozenset(part for word in vocabulary for part in word.split())
        return (
            lambda text: [approximate_noun(token, known) for token in tokens(text)],
            f"approximate: nltk {nltk_version} tokens, endings of words without WordNet; put "
            "corpora/wordnet where NLTK_DATA points for the official one",
        )
    lemma = cache(WordNetLemmatizer().lemmatize)
    return (
        lambda text: [lemma(token) for token in tokens(text)],
        f"nltk {nltk_version} tokens and lemmas of WordNet {wordnet.get_version()}",
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
