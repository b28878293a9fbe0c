"""A contact sheet of preference pairs: look at the data before training on it."""

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from mdpo.data.dataset import Example
from mdpo.data.rows import Message

THUMBNAIL = 224
"""Side of the square that an image is fitted into, in pixels."""

TEXT_WIDTH, MARGIN, LINE = 620, 14, 20

INK, FAINT = (25, 25, 25), (130, 130, 130)
GOOD, BAD = (0, 105, 60), (170, 30, 30)

FONT_SIZE = 14

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

Line = tuple[str, tuple[int, int, int]]


def contact_sheet(
    examples: Sequence[Example], rejected_name: str, *, font_file: Path | None = None
) -> Image.Image:
    """Draw rows one below the other: true image, rejected image, prompt and responses.

    Args:
        examples: With the image slots ``chosen`` and ``rejected``.
        rejected_name: How the rejected images were made, for the heading.
        font_file: TrueType font; None takes Pillow's own, which has Latin letters only.

    Returns:
        The sheet.
    """
    font = (
        ImageFont.truetype(font_file, FONT_SIZE)
        if font_file is not None
        else ImageFont.load_default(size=FONT_SIZE)
    )
    rows = [_row(example, font) for example in examples]
    width = max(row.width for row in rows)
    heading = 3 * LINE
    sheet = Image.new("RGB", (width, heading + sum(row.height for row in rows)), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), "true image", INK, font)
    pen.text((2 * MARGIN + THUMBNAIL, MARGIN), f"rejected image: {rejected_name}", INK, font)
    pen.text(
        (3 * MARGIN + 2 * THUMBNAIL, MARGIN), "prompt, chosen and rejected response", INK, font
    )
    top = heading
    for row in rows:
        sheet.paste(row, (0, top))
        pen.line([(0, top), (width, top)], fill=(220, 220, 220))
        top += row.height
    return sheet


def _row(example: Example, font: Font) -> Image.Image:
    """Draw one pair; several images of a row stand below each other."""
    lines: list[Line] = [(f"row {example['index']}", FAINT)]
    for message in example["prompt"]:
        lines += [(text, INK) for text in _wrap(_as_text(message), font)]
    lines += [(text, GOOD) for text in _wrap("+ " + example["chosen"], font)]
    lines += [(text, BAD) for text in _wrap("- " + example["rejected"], font)]
    num_images = max(len(images) for images in example["images"].values())
    height = max(num_images * (THUMBNAIL + MARGIN), len(lines) * LINE) + 2 * MARGIN
    row = Image.new("RGB", (TEXT_WIDTH + 2 * THUMBNAIL + 4 * MARGIN, height), "white")
    pen = ImageDraw.Draw(row)
    for column, slot in enumerate(("chosen", "rejected")):
        left = MARGIN + column * (THUMBNAIL + MARGIN)
        for number, image in enumerate(example["images"][slot]):
            row.paste(_thumbnail(image), (left, MARGIN + number * (THUMBNAIL + MARGIN)))
        if not example["images"][slot]:
            pen.text((left, MARGIN), "no image", FAINT, font)
    for number, (text, colour) in enumerate(lines):
        place = (3 * MARGIN + 2 * THUMBNAIL, MARGIN + number * LINE)
        pen.text(place, text, colour, font)
    return row


def _thumbnail(image: Image.Image) -> Image.Image:
    """Fit an image into the square; small ones are enlarged without smoothing."""
    scale = THUMBNAIL / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    smooth = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
    return image.resize(size, smooth)


def _as_text(message: Message) -> str:
    """Write a message on one line."""
    parts = ["<image>" if p["type"] == "image" else p["text"] for p in message["content"]]
    return f"{message['role']}: {' '.join(parts)}"


def _wrap(text: str, font: Font) -> list[str]:
    """Break a text into lines that fit, at blanks where there are any."""
    lines = [""]
    for word in text.split():
        candidate = f"{lines[-1]} {word}".strip()
        if font.getlength(candidate) <= TEXT_WIDTH:
            lines[-1] = candidate
            continue
        while font.getlength(word) > TEXT_WIDTH:
            # The longest beginning of the word that fits; at least one letter, so that it ends.
            lengths = range(1, len(word) + 1)
            fitting = bisect_right(lengths, TEXT_WIDTH, key=lambda n: font.getlength(word[:n])) or 1
            lines.append(word[:fitting])
            word = word[fitting:]
        lines.append(word)
    return [line for line in lines if line]
