"""The data of a benchmark, fetched into a folder and checked.

``SOURCES.json`` beside the data says of each file where it is from, its hash, and whether that was
checked against our table. A file without a hash in the table is taken as it comes, once: from then
on it must have the hash that was recorded. What is there already is hashed, and never replaced.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mdpo.evaluation.archives import unpack
from mdpo.evaluation.download import Web, download
from mdpo.evaluation.sources import Remote, Source, sources

RECORDS = "SOURCES.json"


@dataclass(frozen=True)
class Kept:
    """A file of the data.

    Attributes:
        path: Of the file.
        size: In bytes.
        fetched: Whether it was fetched now; else it was there.
        checked: Whether it is what our table says.
    """

    path: Path
    size: int
    fetched: bool
    checked: bool


def fetch(name: str, out: Path, web: Web) -> list[Kept]:
    """Fetch the data of a benchmark, and what it needs into folders beside it.

    Args:
        name: Of the source.
        out: Folder of the data.
        web: How servers are reached.

    Returns:
        All files.

    Raises:
        OSError: If files could not be had, or are not the right ones; all others are there.
    """
    kept: list[Kept] = []
    failures: list[str] = []
    for each, folder in folders(name, out).items():
        with _locked(folder):
            data = _Folder(folder, each, sources()[each])
            for remote in data.source.files:
                try:
                    kept += data.keep(remote, web)
                except (OSError, ValueError) as error:
                    failures.append(str(error))
    if failures:
        raise OSError(
            "\n".join([f"not all could be had ({len(kept)} files are there):", *failures])
        )
    return kept


def folders(name: str, out: Path) -> dict[str, Path]:
    """Say where data lands.

    Args:
        name: Of a source.
        out: Its folder.

    Returns:
        Folders by source, those of what it needs included; none for a source without files.
    """
    needed = {each: out.parent / sources()[each].folder for each in sources()[name].needs}
    return ({name: out} if sources()[name].files else {}) | needed


def sha256_of(path: Path) -> str:
    """Hash a file.

    Args:
        path: Of the file.

    Returns:
        SHA-256 in hexadecimal.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class _Folder:
    """A folder of data with its records."""

    def __init__(self, root: Path, name: str, source: Source) -> None:
        self.root, self.name, self.source = root, name, source
        self._path = root / RECORDS
        self._all = _read_records(self._path)
        self._records: dict[str, Any] = dict(self._all.get(name, {}).get("files", {}))

    def keep(self, remote: Remote, web: Web) -> list[Kept]:
        """See to it that a file is there, or the members of an archive."""
        targets = {path: self._inside(path) for path in remote.lands}
        missing = {path: target for path, target in targets.items() if not target.exists()}
        kept = []
        for path in targets.keys() - missing.keys():
            self._records[path] = record = self._found(remote, path)
            kept.append(Kept(targets[path], record["bytes"], False, record["checked"]))
        if missing:
            self._bring(remote, missing, web)
        for path, target in missing.items():
            checked = remote.sha256 is not None
            origin = _origin(remote, path, str(web.address(remote.url)))
            self._records[path] = record = origin | _facts(target, checked=checked)
            kept.append(Kept(target, record["bytes"], True, checked))
        self._write_records()
        return sorted(kept, key=lambda each: each.path)

    def _found(self, remote: Remote, path: str) -> dict[str, Any]:
        """Describe a file that is there, and refuse it if it is not the right one."""
        record = self._records.get(path)
        in_table = None if remote.members else remote.sha256
        wanted = in_table or (record and record["sha256"])
        facts = _facts(self.root / path, checked=in_table is not None)
        if wanted is not None and facts["sha256"] != wanted:
            raise ValueError(
                f"{self.root / path} has the SHA-256 {facts['sha256']}, and should have {wanted}: "
                "it is damaged or another version. It was left as it is; move it away and fetch "
                "again."
            )
        if record:
            return record
        # Of what lay there without a hash in the table nobody knows where it is from.
        return (_origin(remote, path, remote.url) if in_table else {"found": True}) | facts

    def _bring(self, remote: Remote, missing: Mapping[str, Path], web: Web) -> None:
        """Put missing files in their places: from a file put there by hand, or a download."""
        for target in missing.values():
            target.parent.mkdir(parents=True, exist_ok=True)
        whole = self._inside(remote.path)
        by_hand = bool(remote.members) and whole.exists()
        arrived = whole if by_hand else self._download(remote, whole, web)
        recorded = self._records.get(remote.path, {}).get("sha256")
        wanted, sha256 = remote.sha256 or recorded, sha256_of(arrived)
        wrong = None
        if wanted is not None and sha256 != wanted:
            wrong = f"has the SHA-256 {sha256}, and should have {wanted}"
        elif wanted is None and not _looks_right(arrived):
            wrong = "begins like no JSON file; it may be a page that asks to log in"
        if wrong:
            if not by_hand:
                arrived.unlink()
            kept = "It was left as it is" if by_hand else "Nothing of it was kept"
            raise ValueError(f"{whole if by_hand else web.address(remote.url)} {wrong}. {kept}.")
        if not remote.members:
            arrived.replace(whole)
            return
        names = {place: name for name, place in remote.members.items()}
        unpack(arrived, {names[path]: target for path, target in missing.items()})
        if not by_hand:
            arrived.unlink()

    def _download(self, remote: Remote, whole: Path, web: Web) -> Path:
        """Download, or say what to do where that does not go."""
        whole.parent.mkdir(parents=True, exist_ok=True)
        try:
            return download(remote.url, whole, size=remote.size, web=web)
        except OSError as error:
            raise OSError(
                f"{error} If you can get {whole.name} elsewhere, put it at {whole}: the same "
                "command then checks it and goes on."
            ) from error

    def _inside(self, path: str) -> Path:
        """Find the place of a file, which links may not lead out of the folder."""
        target = self.root / path
        if not target.resolve().is_relative_to(self.root.resolve()):
            raise ValueError(f"{target} leads out of {self.root}, and is not written.")
        return target

    def _write_records(self) -> None:
        """Write the records, whole or not at all."""
        self._all[self.name] = {
            "licence": self.source.licence,
            "citation": self.source.citation,
            "files": dict(sorted(self._records.items())),
        }
        part = self._path.with_name(RECORDS + ".part")
        written = json.dumps(self._all, indent=2, ensure_ascii=False)
        part.write_text(written + "\n", encoding="utf-8")
        part.replace(self._path)


def _origin(remote: Remote, path: str, url: str) -> dict[str, Any]:
    """Say where a file is from."""
    for member, place in remote.members.items():
        if place == path:
            return {"url": url, "member": member, "archive_sha256": remote.sha256}
    return {"url": url}


def _facts(target: Path, *, checked: bool) -> dict[str, Any]:
    """Say what a file is."""
    return {"sha256": sha256_of(target), "bytes": target.stat().st_size, "checked": checked}


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep a second process from writing the same parts."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / f"{RECORDS}.lock", timeout=0):
            yield
    except Timeout:
        raise OSError(f"another process is fetching into {folder}.") from None


def _read_records(path: Path) -> dict[str, Any]:
    """Read what was recorded of all sources in a folder."""
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is not JSON: {error}. Restore it, or move it away: files without a hash in "
            "the table are then taken as they are."
        ) from None


def _looks_right(path: Path) -> bool:
    """Tell a JSON file from a page of a web site, or from a pointer of Git LFS."""
    with path.open("rb") as file:
        return file.read(64).lstrip()[:1] in (b"{", b"[")
