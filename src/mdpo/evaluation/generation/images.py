"""Find, check and open the images that prompts name."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from mdpo.data.images import open_image

NAMED = 5
"""Missing images that a message names."""


class ImageFolder:
    """A folder of images that are found by their path, or by their name at any depth.

    Attributes:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise FileNotFoundError(f"`--images` {root} must be a folder.")
        self.root = root.resolve()
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
        path = (self.root / name).resolve()
        if not path.is_relative_to(self.root):
            raise ValueError(f"Image {name!r} lies outside {self.root}.")
        if path.is_file():
            return path
        if self._by_name is None:
            self._by_name = defaultdict(list)
            for each in self.root.rglob("*"):
                if each.is_file():
                    self._by_name[each.name].append(each)
        found = self._by_name.get(Path(name).name, [])
        if len(found) > 1:
            raise ValueError(
                f"Image {name!r} could be {found[0]} or {found[1]}. Give --images the folder that "
                "its path is relative to."
            )
        return found[0] if found else None

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
        """Read an image file as it is.

        Args:
            source: Name, or the bytes themselves.

        Returns:
            Bytes.

        Raises:
            FileNotFoundError: If there is no such file.
        """
        if isinstance(source, bytes):
            return source
        path = self.find(source)
        if path is None:
            raise FileNotFoundError(f"Image {source!r} is missing below {self.root}.")
        return path.read_bytes()

    def sha256(self, source: str | bytes) -> str:
        """Hash an image file.

        Args:
            source: Name, or bytes.

        Returns:
            SHA-256 in hexadecimal; of a file it is worked out once.
        """
        path = self.find(source) if isinstance(source, str) else None
        if path is not None and path in self._hashes:
            return self._hashes[path]
        digest = hashlib.sha256(self.content(source)).hexdigest()
        if path is not None:
            self._hashes[path] = digest
        return digest

    def open(self, source: str | bytes) -> Image.Image:
        """Decode an image.

        Args:
            source: Name, or bytes.

        Returns:
            An upright RGB image.
        """
        if isinstance(source, bytes):
            return open_image(source, root=None)
        return open_image(self.find(source) or source, root=self.root)
