"""Preference data: formats in, one row schema out.

Names are imported when first used, so that to read rows does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mdpo.data.formats import FORMATS, Format, recognise_format
    from mdpo.data.images import ImageError, image_size, open_image
    from mdpo.data.parsing import parse_row
    from mdpo.data.reading import Rows, read_row, row_ids
    from mdpo.data.rows import ImageSource, Message, PreferenceRow, RowError
    from mdpo.data.sources import RawData, Source, load_raw

_HOMES = {
    "formats": ("FORMATS", "Format", "recognise_format"),
    "images": ("ImageError", "image_size", "open_image"),
    "parsing": ("parse_row",),
    "reading": ("Rows", "read_row", "row_ids"),
    "rows": ("ImageSource", "Message", "PreferenceRow", "RowError"),
    "sources": ("RawData", "Source", "load_raw"),
}

__all__ = [
    "FORMATS",
    "Format",
    "ImageError",
    "ImageSource",
    "Message",
    "PreferenceRow",
    "RawData",
    "RowError",
    "Rows",
    "Source",
    "image_size",
    "load_raw",
    "open_image",
    "parse_row",
    "read_row",
    "recognise_format",
    "row_ids",
]


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"mdpo.data.{module}"), name)
    raise AttributeError(f"module 'mdpo.data' has no attribute {name!r}")
