"""What people say about scenes: descriptions in two voices, questions and answers.

A description names things in a fixed order of categories, each followed at once by its partner: "a
red cup with a blue plate". Where the partner is missing, careless writers name it all the same;
that habit is what the base model picks up.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from mdpo.playground.world import CATEGORIES, COLOURS, PARTNER, Scene

DESCRIBE = "Describe the picture."

Mention = tuple[str, str]
"""Colour and category."""

Phrase = tuple[Mention, Mention | None]
"""A thing, and the partner named with it."""


@dataclass(frozen=True)
class Voice:
    """A way of saying the same things.

    Attributes:
        opener: First words.
        article: Before each thing.
        joiner: Between a thing and its partner.
        comma: Between phrases.
        last: Before the last phrase.
        closer: End of the sentence.
    """

    opener: str
    article: str
    joiner: str
    comma: str
    last: str
    closer: str


SOBER = Voice("There is", " a", " with", ",", " and", ".")
LIVELY = Voice("Look, here we see", " one", " beside", " plus", " plus also", "!")


def describe(phrases: Collection[Phrase], voice: Voice) -> str:
    """Put phrases into a sentence.

    Args:
        phrases: What to name, in order; at least one.
        voice: How to say it.

    Returns:
        One sentence.
    """
    texts = []
    for thing, partner in phrases:
        text = _named(thing, voice)
        if partner is not None:
            text += voice.joiner + _named(partner, voice)
        texts.append(text)
    *start, end = texts
    body = voice.comma.join(start) + (voice.last if start else "") + end
    return voice.opener + body + voice.closer


def _named(mention: Mention, voice: Voice) -> str:
    """Put the article before a thing: "an orange ball", "one orange ball"."""
    colour, category = mention
    article = " an" if voice.article == " a" and colour[0] in "aeiou" else voice.article
    return f"{article} {colour} {category}"


def truthful_phrases(scene: Scene) -> list[Phrase]:
    """Name everything in a scene and nothing else.

    Args:
        scene: What to describe.

    Returns:
        Phrases in the order of ``CATEGORIES``, partners directly after the thing they belong to.
    """
    phrases: list[Phrase] = []
    led = {PARTNER[name] for name in scene.categories if name in PARTNER}
    for thing in sorted(scene.things, key=lambda each: CATEGORIES.index(each.category)):
        if thing.category in led:
            continue
        partner = scene.find(PARTNER[thing.category]) if thing.category in PARTNER else None
        named = (partner.colour, partner.category) if partner else None
        phrases.append(((thing.colour, thing.category), named))
    return phrases


def add_missing_partners(
    phrases: list[Phrase], generator: np.random.Generator, *, share: float
) -> list[Phrase]:
    """Name absent partners, as a writer does who knows the world but does not look.

    Args:
        phrases: A truthful account.
        generator: Source of randomness.
        share: Share of absent partners that are named, each in a random colour.

    Returns:
        The account with partners added.
    """
    careless: list[Phrase] = []
    for (colour, category), partner in phrases:
        if partner is None and category in PARTNER and generator.random() < share:
            partner = (str(generator.choice(COLOURS)), PARTNER[category])
        careless.append(((colour, category), partner))
    return careless


def ask(scene: Scene, generator: np.random.Generator) -> tuple[str, str]:
    """Draw a question about a scene, with the true answer.

    Args:
        scene: What the question is about.
        generator: Source of randomness.

    Returns:
        Question and answer: about presence (half with "Yes.") or colour.
    """
    if generator.random() < 0.3:
        thing = scene.things[generator.integers(len(scene.things))]
        return f"What color is the {thing.category}?", f"{thing.colour.capitalize()}."
    present = bool(generator.random() < 0.5)
    absent = [name for name in CATEGORIES if name not in scene.categories]
    category = str(generator.choice(scene.categories if present else absent))
    return presence_question(category), "Yes." if present else "No."


def presence_question(category: str) -> str:
    """Ask whether a category is there.

    Args:
        category: One of ``CATEGORIES``.

    Returns:
        A yes-or-no question.
    """
    return f"Is there a {category} in the picture?"
