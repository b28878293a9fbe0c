"""Find, check and open the images that prompts name; corrupt them where that is asked."""

import hashlib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from mdpo.corruptions import CORRUPTIONS, make_corruption
from mdpo.data.images import image_size, open_image

ORIGINAL, NONE = "original", "none"
CONDITIONS = (ORIGINAL, NONE, *CORRUPTIONS)
"""What a model is shown: the image, nothing, or the image corrupted."""

NAMED = 5
"""Missing images that a message names."""


class ImageFolder:
    """A folder of images that are found by their path, or by their name at any depth.

    Attributes:
        root: The folder.
    """

    def __init__(self, root: Path, *, condition: str = ORIGINAL) -> None:
        """Look at a folder.

        Args:
            root: The folder.
            condition: ``original`` shows images as they are; the name of a corruption shows them
                corrupted, the same image always in the same way.

        Raises:
            FileNotFoundError: If there is no such folder.
        """
        if not root.is_dir():
            raise FileNotFoundError(f"`--images` {root} must be a folder.")
        self.root = root.resolve()
        self._corrupt = None if condition == ORIGINAL else make_corruption(condition)
        self._by_name: dict[str, list[Path]] | None = None
        self._hashes: dict[Path, str] = {}

    def find(self, name: str) -> Path | None:
        """Find an image.

        Args:
            name: Path below the folder, or a name that occurs once in it.

        Returns:
            Its path; None if it is not there.

        Raises:
            ValueError: If several files have the name, or the path leads out of the folder.
        """
        path = self._inside(self.root / name, name)
        if path.is_file():
            return path
        found = self._index().get(Path(name).name, [])
        if len(found) > 1:
            raise ValueError(
                f"Image {name!r} could be {found[0]} or {found[1]}. Give --images the folder that "
                "its path is relative to."
            )
        return self._inside(found[0], name) if found else None

    def require(self, names: Iterable[str]) -> None:
        """Check that all images are there, before a model is asked anything.

        Args:
            names: Of images.

        Raises:
            FileNotFoundError: If some are missing.
        """
        missing = [name for name in dict.fromkeys(names) if self.find(name) is None]
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} images are missing below {self.root}, for example "
                f"{', '.join(missing[:NAMED])}. Give their folder by --images."
            )

    def content(self, source: str | bytes) -> bytes:
        """Read an image file as it is shown.

        Args:
            source: Name, or the bytes themselves.

        Returns:
            Bytes of the file as they are; of a corrupted image as PNG.
        """
        if self._corrupt is None:
            return self._read(source)
        file = io.BytesIO()
        self.open(source).save(file, "PNG")
        return file.getvalue()

    def sha256(self, source: str | bytes) -> str:
        """Hash an image file, before any corruption.

        Args:
            source: Name, or bytes.

        Returns:
            SHA-256 in hexadecimal; of a file it is worked out once.
        """
        path = self.find(source) if isinstance(source, str) else None
        if path is not None and path in self._hashes:
            return self._hashes[path]
        digest = hashlib.sha256(self._read(source)).hexdigest()
        if path is not None:
            self._hashes[path] = digest
        return digest

    def size(self, source: str | bytes) -> tuple[int, int]:
        """Look up width and height without decoding an image.

        Args:
            source: Name, or bytes.

        Returns:
            In pixels.
        """
        named, root = self._named(source)
        return image_size(named, root=root)

    def open(self, source: str | bytes) -> Image.Image:
        """Decode an image as it is shown.

        Args:
            source: Name, or bytes.

        Returns:
            An upright RGB image.
        """
        named, root = self._named(source)
        image = open_image(named, root=root)
        if self._corrupt is None:
            return image
        return self._corrupt(image, np.random.default_rng(int(self.sha256(source)[:16], 16)))

    def _inside(self, path: Path, name: str) -> Path:
        """Refuse what lies outside the folder, through `..` or a link: data may name anything."""
        path = path.resolve()
        if not path.is_relative_to(self.root):
            raise ValueError(
                f"Image {name!r} lies outside {self.root}. Give --images a folder that holds it."
            )
        return path

    def _index(self) -> Mapping[str, list[Path]]:
        """List all files by name, once."""
        if self._by_name is None:
            by_name: dict[str, list[Path]] = {}
            for each in sorted(self.root.rglob("*")):
                if each.is_file():
                    by_name.setdefault(each.name, []).append(each)
            self._by_name = by_name
        return self._by_name

    def _named(self, source: str | bytes) -> tuple[Path | str | bytes, Path | None]:
        """Say what to open, and below which folder."""
        if isinstance(source, bytes):
            return source, None
        return self.find(source) or source, self.root

    def _read(self, source: str | bytes) -> bytes:
        """Read a file."""
        if isinstance(source, bytes):
            return source
        path = self.find(source)
        if path is None:
            raise FileNotFoundError(f"Image {source!r} is missing below {self.root}.")
        return path.read_bytes()
