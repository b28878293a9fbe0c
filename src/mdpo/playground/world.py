"""The made world: scenes of coloured things, some of which usually come in pairs.

A scene is pure data; ``drawing`` turns it into pixels and ``language`` into words. Eight
*partner* pairs (cup and plate, tree and bird, ...) carry the co-occurrence: the second of a pair
usually stands where the first does, but not always. Two pairs share a theme, and a scene keeps
mostly to one theme.
"""

from dataclasses import dataclass

import numpy as np

THEMES: dict[str, tuple[tuple[str, str], ...]] = {
    "kitchen": (("cup", "plate"), ("apple", "spoon")),
    "garden": (("tree", "bird"), ("house", "flower")),
    "sea": (("boat", "fish"), ("sun", "cloud")),
    "street": (("car", "lamp"), ("ball", "sign")),
}
PARTNER: dict[str, str] = {first: second for pairs in THEMES.values() for first, second in pairs}
CATEGORIES: tuple[str, ...] = tuple(name for pair in PARTNER.items() for name in pair)
COLOURS: tuple[str, ...] = ("red", "orange", "yellow", "green", "blue", "purple")
BACKGROUNDS: tuple[str, ...] = ("plain", "stripes", "checks", "gradient", "speckles")

PARTNER_PRESENT = 0.6
"""Share of scenes with the first of a pair in which its partner stands too."""

MAX_THINGS = 6


@dataclass(frozen=True)
class Thing:
    """One thing of a scene.

    Attributes:
        category: One of ``CATEGORIES``; a scene never holds two things of one category.
        colour: One of ``COLOURS``.
        cell: Place on the 3 by 3 grid, 0 (top left) to 8 (bottom right), row by row.
        big: Whether it fills its cell; otherwise it is about two thirds of that size.
    """

    category: str
    colour: str
    cell: int
    big: bool


@dataclass(frozen=True)
class Scene:
    """What a picture shows.

    Attributes:
        things: In reading order of their cells.
        background: One of ``BACKGROUNDS``.
        texture_seed: Seed of everything about the picture that no caption mentions.
    """

    things: tuple[Thing, ...]
    background: str
    texture_seed: int

    def find(self, category: str) -> Thing | None:
        """Look up the thing of a category.

        Args:
            category: One of ``CATEGORIES``.

        Returns:
            The thing, or None if the scene has none.
        """
        return next((thing for thing in self.things if thing.category == category), None)

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories of its things, in reading order."""
        return tuple(thing.category for thing in self.things)


def draw_scene(generator: np.random.Generator) -> Scene:
    """Draw a scene: one or two pairs of a theme, each partner with some luck, and a few strays.

    Args:
        generator: Source of randomness.

    Returns:
        A scene of two to ``MAX_THINGS`` things.
    """
    theme = THEMES[str(generator.choice(list(THEMES)))]
    chosen: list[str] = []
    for index in generator.permutation(len(theme))[: generator.integers(1, 3)]:
        first, partner = theme[index]
        chosen.append(first)
        if generator.random() < PARTNER_PRESENT:
            chosen.append(partner)
    # Strays are firsts or partners of other themes, alone: a partner without its first is normal,
    # a first without its partner is what tempts a language model.
    others = [name for name in CATEGORIES if all(name not in pair for pair in theme)]
    num_strays = int(generator.integers(1, 3))
    chosen += [str(name) for name in generator.choice(others, num_strays, replace=False)]
    chosen = chosen[:MAX_THINGS]
    cells = sorted(int(cell) for cell in generator.permutation(9)[: len(chosen)])
    generator.shuffle(chosen)
    things = tuple(
        Thing(
            category=category,
            colour=str(generator.choice(COLOURS)),
            cell=cell,
            big=bool(generator.random() < 0.6),
        )
        for category, cell in zip(chosen, cells, strict=True)
    )
    background = str(generator.choice(BACKGROUNDS))
    return Scene(things, background, texture_seed=int(generator.integers(2**31)))
