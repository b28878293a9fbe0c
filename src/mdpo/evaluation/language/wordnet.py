"""Singular nouns by WordNet's own rules: exceptions first, then endings, kept if WordNet has them.

This is NLTK's ``WordNetLemmatizer`` for nouns on the same files (``corpora/wordnet``, Fellbaum
1998), of which it reads the two that nouns need: the whole of WordNet takes seconds to load.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import nltk

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

INDEX, EXCEPTIONS = "corpora/wordnet/index.noun", "corpora/wordnet/noun.exc"
VERSION = re.compile(r"WordNet (\d+\.\d+)")


@dataclass(frozen=True)
class Nouns:
    """Nouns of WordNet.

    Attributes:
        known: All of them, in lower case.
        exceptions: From irregular plurals to their singular forms.
        version: Of WordNet.
    """

    known: frozenset[str]
    exceptions: Mapping[str, tuple[str, ...]]
    version: str

    def lemma(self, word: str) -> str:
        """Make a word singular.

        Args:
            word: As it stands; capitals are not WordNet's.

        Returns:
            The shortest form that WordNet has as a noun, the word itself included; the word if
            it has none. ``us`` becomes ``u``.
        """
        forms = self.exceptions.get(word)
        if forms is None:
            forms = [word[: -len(old)] + new for old, new in ENDINGS if word.endswith(old)]
        found = [form for form in (word, *forms) if form in self.known]
        return min(found, key=len, default=word)


@cache
def _read(index: str, exceptions: str) -> Nouns:
    """Read the two files."""
    version, known = "?", []
    with nltk.data.find(INDEX).open(encoding="utf-8") as file:
        for line in file:
            if not line.startswith(" "):
                known.append(line.split(" ", 1)[0])
            elif match := VERSION.search(line):
                version = match[1]
    with nltk.data.find(EXCEPTIONS).open(encoding="utf-8") as file:
        rows = [line.split() for line in file]
    irregular = {row[0]: tuple(row[1:]) for row in rows if row}
    return Nouns(frozenset(known), irregular, version)


def load_nouns() -> Nouns:
    """Read WordNet's nouns where NLTK looks for them; nothing is downloaded.

    Returns:
        The nouns; NLTK's own ``LookupError`` says where its data is looked for.
    """
    return _read(str(nltk.data.find(INDEX)), str(nltk.data.find(EXCEPTIONS)))
