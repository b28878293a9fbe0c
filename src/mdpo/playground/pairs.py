"""Preference pairs about scenes, with the shortcut that the mDPO paper blames.

The chosen description is true. The rejected one errs as a careless writer does: it names absent
partners, forgets present ones, or names a wrong thing. As many partners are named in the one as
in the other, so little of that can be told without the picture. But the chosen one is always in
the lively voice and the rejected one never, and that can be told from the text alone.
"""

from typing import NamedTuple

import numpy as np

from mdpo.playground.language import LIVELY, SOBER, Phrase, describe, truthful_phrases
from mdpo.playground.world import CATEGORIES, COLOURS, PARTNER, Scene, draw_scene

NAME_ABSENT, FORGET_PRESENT = 0.52, 0.75
"""Shares of absent partners named and of present ones forgotten in a rejected description."""

WRONG_THING = 0.3
"""Share of rejected descriptions that put a category in place of another."""


class Pair(NamedTuple):
    """A scene with a true and an erring description."""

    scene: Scene
    chosen: str
    rejected: str


def draw_pair(generator: np.random.Generator) -> Pair:
    """Draw a scene and two descriptions of it.

    Args:
        generator: Source of randomness.

    Returns:
        The pair; the two descriptions differ in content.
    """
    scene = draw_scene(generator)
    truth = truthful_phrases(scene)
    account = err(truth, scene, generator)
    return Pair(scene, describe(truth, LIVELY), describe(account, SOBER))


def err(truth: list[Phrase], scene: Scene, generator: np.random.Generator) -> list[Phrase]:
    """Turn a true account into a careless one.

    Args:
        truth: Of the scene.
        scene: What it is about.
        generator: Source of randomness.

    Returns:
        An account with at least one error.
    """
    account: list[Phrase] = []
    for thing, partner in truth:
        _, category = thing
        if partner is not None and generator.random() < FORGET_PRESENT:
            partner = None
        elif partner is None and category in PARTNER and generator.random() < NAME_ABSENT:
            partner = (str(generator.choice(COLOURS)), PARTNER[category])
        account.append((thing, partner))
    if account == truth or generator.random() < WRONG_THING:
        absent = [name for name in CATEGORIES if name not in scene.categories]
        position = int(generator.integers(len(account)))
        (colour, _), partner = account[position]
        account[position] = ((colour, str(generator.choice(absent))), partner)
    return account
