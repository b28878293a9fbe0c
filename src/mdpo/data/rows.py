"""One preference row: the schema every data format ends in, and the error of a bad row.

Not here: how a row is checked (``parsing``), other formats (``formats``), files (``sources``),
pixels (``images``).
"""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

Message = dict[str, Any]
"""``{"role": ..., "content": [{"type": "image"} | {"type": "text", "text": str}, ...]}``."""

ImageSource = Image.Image | bytes | str | Path
"""An image, the bytes of an image file, or the path of one."""

Value = object
"""What stands in a field before it is checked."""

RawRow = Mapping[str, Value]
"""A row as it stands in the source: values by column."""


@dataclass(frozen=True)
class PreferenceRow:
    """A prompt with two answers, in the one form the rest of mdpo knows.

    Attributes:
        row_id: Stable name: the ``id`` column, or the index in the source as text.
        place: Where the row stands, for messages: ``train.jsonl:412`` (lines count from 1) or
            ``row 412 of hub/name`` (rows count from 0).
        images: In the order of the image parts of ``prompt``; empty for a text-only row.
        prompt: Messages whose content is a list of parts; the last one is the user's.
        chosen: Text of the preferred answer.
        rejected: Text of the dispreferred answer; never equal to ``chosen``.
        rejected_images: The user's own losing images, one for each of ``images``; None if the
            row has none and a corruption is to make them.
    """

    row_id: str
    place: str
    images: tuple[ImageSource, ...]
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    rejected_images: tuple[ImageSource, ...] | None


class RowError(ValueError):
    """A row that cannot be used; ``str`` is one line with place, field, problem and remedy.

    Attributes:
        field: Name of the field, without backticks: ``prompt[0].role``.
        problem: The rule and what was got, without full stop.
        remedy: What to do, as a sentence.
        place: As in ``PreferenceRow``; empty until the reader, which knows it, adds it.
    """

    def __init__(self, field: str, problem: str, remedy: str, place: str = "") -> None:
        super().__init__(field, problem, remedy, place)  # all of them, so that it can be pickled
        self.field = field
        self.problem = problem
        self.remedy = remedy
        self.place = place

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        return f"{where}`{self.field}` {self.problem}. {self.remedy}"


def shown(value: Value) -> str:
    """Abbreviate a value for a message.

    Args:
        value: Anything a field may hold.

    Returns:
        Its ``repr`` on one line, cut in the middle if it is long.
    """
    if isinstance(value, bytes | bytearray):
        return f"<{len(value)} bytes>"
    short = reprlib.Repr()
    short.maxstring = short.maxother = 80
    short.maxlist = short.maxtuple = short.maxdict = 4
    return " ".join(short.repr(value).split())
