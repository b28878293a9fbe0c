"""Where the data of benchmarks comes from: the table ``sources.yaml``, read and checked."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import yaml

PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
"""Paths that lie below their folder whatever the system."""


@dataclass(frozen=True)
class Remote:
    """One file on a server.

    Attributes:
        url: Its address, which names a revision where there are several.
        path: Where it lands, below the folder of the data.
        sha256: Its hash in hexadecimal; None if it is not known.
        size: In bytes; None if it is not known.
        members: Of an archive, which is not kept: names in it, and where these land.
    """

    url: str
    path: str
    sha256: str | None
    size: int | None = None
    members: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what could land elsewhere, or be changed on its way.

        Raises:
            ValueError: If the address, the hash or a path is not of the right form.
        """
        if urlsplit(self.url).scheme != "https":
            raise ValueError(f"{self.url!r} must begin with https://.")
        if self.members and self.sha256 is None:
            raise ValueError(f"{self.url}: an archive must have a hash.")
        if self.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"{self.url}: {self.sha256!r} is not a SHA-256 in hexadecimal.")
        if self.sha256 is None and not self.path.endswith((".json", ".jsonl")):
            raise ValueError(f"{self.url}: only JSON files may be without a hash.")
        for path in (self.path, *self.members.values()):
            if not PLAIN.fullmatch(path):
                raise ValueError(f"{self.url}: {path!r} must be a plain path below a folder.")

    @property
    def lands(self) -> Sequence[str]:
        """Paths of what is kept."""
        return list(self.members.values()) or [self.path]


@dataclass(frozen=True)
class Source:
    """The data of one benchmark.

    Attributes:
        folder: Its usual name.
        files: What is fetched.
        licence: Under which the data is given.
        citation: BibTeX.
        needs: Other sources, each in its own folder beside this one.
        by_hand: What must be had otherwise; ``{out}`` stands for the folder.
    """

    folder: str
    files: Sequence[Remote]
    licence: str
    citation: str
    needs: Sequence[str] = ()
    by_hand: Sequence[str] = ()

    def missing(self, out: str) -> list[str]:
        """Say what is not fetched.

        Args:
            out: Folder of the data.

        Returns:
            A sentence or two for each thing.
        """
        return [text.replace("{out}", out) for text in self.by_hand]


@cache
def sources() -> Mapping[str, Source]:
    """Read the table.

    Returns:
        Sources by name on the command line.
    """
    text = files("mdpo.evaluation").joinpath("sources.yaml").read_text(encoding="utf-8")
    table: Mapping[str, dict[str, Any]] = yaml.safe_load(text)
    return {
        name: Source(**{**row, "files": [Remote(**each) for each in row["files"]]})
        for name, row in table.items()
    }
