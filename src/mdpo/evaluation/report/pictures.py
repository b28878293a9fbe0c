"""Small copies of images, to be kept inside a page."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from mdpo.data.images import ImageError, open_image

SIDE = 320
"""Longest side of a copy, in pixels."""

QUALITY = 80
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")


class Pictures:
    """Images that are in a page, each once.

    Attributes:
        urls: Copies as data URLs.
        missing: Names that were asked for and not found, or not readable.
    """

    def __init__(self, root: Path | None, *, side: int = SIDE) -> None:
        """Look at what is there.

        Args:
            root: Folder of images; None takes none.
            side: Longest side of a copy, in pixels.
        """
        self._side = side
        self.urls: list[str] = []
        self.missing: set[str] = set()
        self._root = root
        self._places: dict[str, int | None] = {}
        self._copies: dict[Path, int] = {}
        self._paths: set[Path] = set()
        self._files: dict[str, Path | None] = {}
        for path in sorted(root.rglob("*")) if root is not None else ():
            if path.suffix.lower() in ENDINGS:
                self._paths.add(path)
                for name in (path.name, path.stem):
                    # A name that two files have is nobody's.
                    self._files[name] = None if name in self._files else path

    def take(self, names: Sequence[str]) -> list[int]:
        """Copy images into the page.

        Args:
            names: Paths below the folder, names of files in it, or such names without ending.

        Returns:
            Places in ``urls`` of those that were found.
        """
        if self._root is None:
            return []
        for name in names:
            if name not in self._places:
                self._places[name] = self._copy(name, self._root)
        return [place for name in names if (place := self._places[name]) is not None]

    def _copy(self, name: str, root: Path) -> int | None:
        """Copy one image, if there is one of this name that can be read."""
        path = self._find(name, root)
        if path is not None and path not in self._copies:
            try:
                image = open_image(path.relative_to(root), root=root)
                self.urls.append(_as_url(image, self._side))
            except ImageError:
                path = None
            else:
                self._copies[path] = len(self.urls) - 1
        if path is None:
            self.missing.add(name)
            return None
        return self._copies[path]

    def _find(self, name: str, root: Path) -> Path | None:
        """Find an image: at its path, or else by the name of its file anywhere."""
        if (root / name) in self._paths:
            return root / name
        return self._files.get(Path(name).name)


def _as_url(image: Image.Image, side: int) -> str:
    """Write a small copy as a data URL."""
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
