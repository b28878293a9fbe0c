"""Named files out of a zip archive that nobody has vouched for."""

import shutil
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

LARGEST = 1 << 30
"""Bytes of one file, unpacked; COCO's largest has a third of it."""


def unpack(archive: Path, members: Mapping[str, Path]) -> None:
    """Take some files out of an archive, all or none.

    Args:
        archive: A zip file.
        members: Names in the archive, and the files that they become.

    Raises:
        ValueError: If it is no sound archive, lacks a member, or has one that is too large or
            that would land elsewhere.
    """
    parts = {name: path.with_name(path.name + ".part") for name, path in members.items()}
    try:
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                _check(info, archive)
            for name, part in parts.items():
                part.parent.mkdir(parents=True, exist_ok=True)
                _unpack(packed, name, part, archive)
        for name, part in parts.items():
            part.replace(members[name])
    # zipfile speaks of encryption by RuntimeError, of unknown methods by NotImplementedError
    except (zipfile.BadZipFile, EOFError, RuntimeError) as error:
        raise ValueError(f"{archive.name} cannot be unpacked: {error}.") from error
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def _check(info: zipfile.ZipInfo, archive: Path) -> None:
    """Refuse an archive that is made to write elsewhere, whether or not the member is wanted."""
    path = PurePosixPath(info.filename)
    leads_out = path.is_absolute() or ".." in path.parts or set(info.filename) & set("\\:\0")
    if leads_out or stat.S_ISLNK(info.external_attr >> 16):
        raise ValueError(
            f"{archive.name} is refused: its member {info.filename!r} leads out of the folder."
        )


def _unpack(packed: zipfile.ZipFile, name: str, part: Path, archive: Path) -> None:
    """Write one member; zipfile checks it, and gives no more bytes than the archive says."""
    try:
        info = packed.getinfo(name)
    except KeyError:
        raise ValueError(f"{archive.name} has no member {name!r}.") from None
    if info.file_size > LARGEST:
        raise ValueError(
            f"{archive.name}: {name!r} has {info.file_size:,} bytes, more than {LARGEST:,}."
        )
    with packed.open(info) as source, part.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
