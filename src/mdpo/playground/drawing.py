"""Pictures of scenes, 48 by 48 pixels.

Every category is a short list of strokes in a unit square; scenes are drawn at four times their
size and scaled down, so that edges are smooth.
"""

import numpy as np
from PIL import Image, ImageDraw

from mdpo.playground.world import Scene, Thing

IMAGE_SIZE = 48
"""Side of a picture, in pixels."""

OVERSAMPLING = 4

PAINT: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "orange": (247, 127, 0),
    "yellow": (250, 214, 40),
    "green": (42, 157, 60),
    "blue": (40, 90, 214),
    "purple": (140, 50, 170),
}

Stroke = tuple[str, str, tuple[float, ...]]
"""Kind of stroke, paint (``main``, ``dark`` or ``light``), coordinates x, y, x, y ... in 0..1."""

STROKES: dict[str, tuple[Stroke, ...]] = {
    "cup": (
        ("ring", "dark", (0.60, 0.30, 0.98, 0.72)),
        ("polygon", "main", (0.10, 0.15, 0.75, 0.15, 0.65, 0.92, 0.20, 0.92)),
    ),
    "plate": (
        ("ellipse", "main", (0.0, 0.25, 1.0, 0.80)),
        ("ellipse", "light", (0.25, 0.39, 0.75, 0.64)),
    ),
    "apple": (
        ("ellipse", "main", (0.10, 0.28, 0.90, 0.98)),
        ("polygon", "dark", (0.45, 0.35, 0.55, 0.35, 0.66, 0.02, 0.54, 0.02)),
    ),
    "spoon": (
        ("ellipse", "main", (0.30, 0.0, 0.70, 0.42)),
        ("polygon", "main", (0.44, 0.38, 0.56, 0.38, 0.60, 1.0, 0.40, 1.0)),
    ),
    "tree": (
        ("polygon", "dark", (0.40, 0.65, 0.60, 0.65, 0.60, 1.0, 0.40, 1.0)),
        ("polygon", "main", (0.50, 0.0, 0.95, 0.70, 0.05, 0.70)),
    ),
    "bird": (
        ("ellipse", "main", (0.15, 0.35, 0.75, 0.80)),
        ("ellipse", "main", (0.55, 0.15, 0.88, 0.48)),
        ("polygon", "dark", (0.86, 0.26, 1.0, 0.34, 0.86, 0.40)),
        ("polygon", "dark", (0.20, 0.50, 0.0, 0.25, 0.05, 0.62)),
    ),
    "house": (
        ("polygon", "main", (0.15, 0.45, 0.85, 0.45, 0.85, 1.0, 0.15, 1.0)),
        ("polygon", "dark", (0.0, 0.48, 0.5, 0.02, 1.0, 0.48)),
        ("polygon", "light", (0.40, 0.65, 0.60, 0.65, 0.60, 1.0, 0.40, 1.0)),
    ),
    "flower": (
        ("ellipse", "main", (0.32, 0.0, 0.68, 0.36)),
        ("ellipse", "main", (0.32, 0.40, 0.68, 0.76)),
        ("ellipse", "main", (0.10, 0.20, 0.46, 0.56)),
        ("ellipse", "main", (0.54, 0.20, 0.90, 0.56)),
        ("ellipse", "light", (0.38, 0.26, 0.62, 0.50)),
        ("polygon", "dark", (0.46, 0.72, 0.54, 0.72, 0.54, 1.0, 0.46, 1.0)),
    ),
    "boat": (
        ("polygon", "dark", (0.0, 0.65, 1.0, 0.65, 0.80, 0.98, 0.20, 0.98)),
        ("polygon", "main", (0.48, 0.0, 0.48, 0.60, 0.05, 0.60)),
        ("polygon", "main", (0.56, 0.10, 0.56, 0.60, 0.90, 0.60)),
    ),
    "fish": (
        ("ellipse", "main", (0.0, 0.25, 0.75, 0.75)),
        ("polygon", "main", (0.65, 0.50, 1.0, 0.20, 1.0, 0.80)),
        ("ellipse", "light", (0.14, 0.38, 0.28, 0.52)),
    ),
    "sun": (
        ("polygon", "main", (0.5, 0.0, 0.62, 0.5, 0.5, 1.0, 0.38, 0.5)),
        ("polygon", "main", (0.0, 0.5, 0.5, 0.38, 1.0, 0.5, 0.5, 0.62)),
        ("polygon", "main", (0.12, 0.12, 0.58, 0.42, 0.88, 0.88, 0.42, 0.58)),
        ("polygon", "main", (0.88, 0.12, 0.58, 0.58, 0.12, 0.88, 0.42, 0.42)),
        ("ellipse", "light", (0.30, 0.30, 0.70, 0.70)),
    ),
    "cloud": (
        ("ellipse", "main", (0.0, 0.40, 0.45, 0.85)),
        ("ellipse", "main", (0.22, 0.18, 0.75, 0.78)),
        ("ellipse", "main", (0.55, 0.40, 1.0, 0.85)),
    ),
    "car": (
        ("polygon", "dark", (0.25, 0.25, 0.70, 0.25, 0.85, 0.55, 0.12, 0.55)),
        ("polygon", "main", (0.0, 0.50, 1.0, 0.50, 1.0, 0.80, 0.0, 0.80)),
        ("ellipse", "black", (0.12, 0.66, 0.38, 0.92)),
        ("ellipse", "black", (0.62, 0.66, 0.88, 0.92)),
    ),
    "lamp": (
        ("polygon", "dark", (0.45, 0.30, 0.55, 0.30, 0.55, 0.95, 0.45, 0.95)),
        ("polygon", "dark", (0.28, 0.92, 0.72, 0.92, 0.72, 1.0, 0.28, 1.0)),
        ("polygon", "main", (0.32, 0.0, 0.68, 0.0, 0.90, 0.38, 0.10, 0.38)),
    ),
    "ball": (
        ("ellipse", "main", (0.08, 0.08, 0.92, 0.92)),
        ("polygon", "light", (0.08, 0.42, 0.92, 0.42, 0.92, 0.58, 0.08, 0.58)),
    ),
    "sign": (
        ("polygon", "dark", (0.45, 0.55, 0.55, 0.55, 0.55, 1.0, 0.45, 1.0)),
        ("polygon", "main", (0.5, 0.0, 0.85, 0.32, 0.5, 0.64, 0.15, 0.32)),
        ("polygon", "light", (0.5, 0.18, 0.65, 0.32, 0.5, 0.46, 0.35, 0.32)),
    ),
}


def draw_picture(scene: Scene) -> Image.Image:
    """Draw a scene.

    Args:
        scene: What to show.

    Returns:
        An RGB picture of ``IMAGE_SIZE`` squared; the same scene gives the same pixels.
    """
    generator = np.random.default_rng(scene.texture_seed)
    ground = Image.fromarray(_background(scene.background, generator))
    side = IMAGE_SIZE * OVERSAMPLING
    canvas = ground.resize((side, side), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(canvas)
    for thing in scene.things:
        _draw_thing(pen, thing, generator)
    return canvas.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX)


def _draw_thing(pen: ImageDraw.ImageDraw, thing: Thing, generator: np.random.Generator) -> None:
    """Draw one thing somewhere in its cell."""
    cell = IMAGE_SIZE * OVERSAMPLING / 3
    side = cell * (generator.uniform(0.85, 0.97) if thing.big else generator.uniform(0.60, 0.72))
    left = thing.cell % 3 * cell + generator.uniform(0, cell - side)
    top = thing.cell // 3 * cell + generator.uniform(0, cell - side)
    paints = _paints(PAINT[thing.colour], generator)
    for kind, paint, numbers in STROKES[thing.category]:
        points = [
            (left + x * side, top + y * side)
            for x, y in zip(numbers[::2], numbers[1::2], strict=True)
        ]
        if kind == "polygon":
            pen.polygon(points, fill=paints[paint])
        elif kind == "ellipse":
            pen.ellipse([*points[0], *points[1]], fill=paints[paint])
        else:
            pen.ellipse([*points[0], *points[1]], outline=paints[paint], width=round(side / 9))


def _paints(
    colour: tuple[int, int, int], generator: np.random.Generator
) -> dict[str, tuple[int, int, int]]:
    """Mix the main paint with a little jitter, and its darker and lighter shades."""
    main = np.clip(np.array(colour) + generator.integers(-12, 13, 3), 0, 255)

    def mixed(towards: int, share: float) -> tuple[int, int, int]:
        red, green, blue = (main * (1 - share) + towards * share).astype(int).tolist()
        return red, green, blue

    return {
        "main": mixed(0, 0),
        "dark": mixed(0, 0.45),
        "light": mixed(255, 0.7),
        "black": (25, 25, 25),
    }


def _background(kind: str, generator: np.random.Generator) -> np.ndarray:
    """Paint a textured ground of pale or dark grey-ish colours, ``(side, side, 3)`` bytes."""
    rows, columns = np.mgrid[0:IMAGE_SIZE, 0:IMAGE_SIZE]
    first, second = generator.integers(150, 235, 3), generator.integers(150, 235, 3)
    period = int(generator.integers(4, 12))
    if kind == "stripes":
        share = ((rows * int(generator.integers(0, 2)) + columns) // period % 2).astype(float)
    elif kind == "checks":
        share = ((rows // period + columns // period) % 2).astype(float)
    elif kind == "gradient":
        share = (rows + columns) / (2 * IMAGE_SIZE)
    elif kind == "speckles":
        share = generator.random((IMAGE_SIZE, IMAGE_SIZE))
    else:
        share = np.zeros((IMAGE_SIZE, IMAGE_SIZE))
    # Neighbouring tones stay close, so that texture does not hide the things.
    share = share[..., None] * 0.5
    ground = first * (1 - share) + second * share + generator.normal(0, 4, (*rows.shape, 3))
    return np.clip(ground, 0, 255).astype(np.uint8)
