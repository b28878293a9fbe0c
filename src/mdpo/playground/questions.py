"""Yes-no questions about scenes, drawn as POPE draws them (Li et al. 2023, arXiv:2305.10355).

Of each scene two things that it shows are asked for, and as many that it lacks. What it lacks is
drawn at random, or is of the categories that stand in most scenes (those that lead a pair: partners
stand in fewer), or is what usually comes with things that stand in this one. The last tempts a
model that knows the world and does not look.
"""

import numpy as np

from mdpo.playground.language import presence_question
from mdpo.playground.world import CATEGORIES, PARTNER, Scene

SPLITS = ("random", "popular", "adversarial")

PER_SCENE = 2
"""Things asked for that are there, and things asked for that are not."""

Question = tuple[str, str]
"""What is asked, and ``yes`` or ``no``."""


def draw_questions(scene: Scene, generator: np.random.Generator) -> dict[str, list[Question]]:
    """Draw questions about a scene.

    Args:
        scene: What they are about; it shows at least ``PER_SCENE`` things.
        generator: Source of randomness.

    Returns:
        By split: things that are there, the same in each split, and things that are not.
    """
    there = [str(name) for name in generator.permutation(scene.categories)[:PER_SCENE]]
    absent = [str(name) for name in generator.permutation(CATEGORIES)]
    absent = [name for name in absent if name not in scene.categories]
    tempting = [PARTNER[name] for name in scene.categories if name in PARTNER]
    orders = {
        "random": absent,
        "popular": sorted(absent, key=lambda name: name not in PARTNER),
        "adversarial": sorted(absent, key=lambda name: name not in tempting),
    }
    return {
        split: [(presence_question(name), "yes") for name in there]
        + [(presence_question(name), "no") for name in orders[split][:PER_SCENE]]
        for split in SPLITS
    }
