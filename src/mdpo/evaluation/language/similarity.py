"""Words that stand for one another in AMBER, as a table in place of word vectors.

AMBER takes two words for the same if the cosine of their vectors in spaCy's ``en_core_web_lg`` is
above 0.8. That model cannot be had from a package index. Of the words of AMBER's vocabulary these
pairs are certain to exceed 0.8 in it: both words own their vectors in the medium model of the
same version (3.7.1), where the cosine is above 0.8 too, and vectors that are owned are the same in
both. On 1,004 made-up responses the table and the medium model differ by at most 0.2 points.
"""

PAIRS: tuple[tuple[str, str], ...] = (
    ("baggage", "luggage"),
    ("banana", "pineapple"),
    ("basketball", "football"),
    ("basketball", "soccer"),
    ("basketball", "volleyball"),
    ("bath", "bathtub"),
    ("bathtub", "tub"),
    ("bicycle", "bike"),
    ("bicycle", "motorcycle"),
    ("boy", "girl"),
    ("bracelet", "necklace"),
    ("broccoli", "cabbage"),
    ("cat", "dog"),
    ("couch", "sofa"),
    ("fridge", "refrigerator"),
    ("man", "woman"),
    ("phone", "telephone"),
    ("pineapple", "strawberry"),
    ("ship", "vessel"),
    ("soccer", "volleyball"),
)
"""Not transitive: a banana is like a pineapple, and that like a strawberry."""

_PARTNERS = {
    word: frozenset({word, *(other for pair in PAIRS if word in pair for other in pair)})
    for word in {word for pair in PAIRS for word in pair}
}


def similar_words(word: str) -> frozenset[str]:
    """List the words that AMBER takes for the same as a word.

    Args:
        word: A noun.

    Returns:
        The word itself and those that it stands with in the table.
    """
    return _PARTNERS.get(word) or frozenset({word})
