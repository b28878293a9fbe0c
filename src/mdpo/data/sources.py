"""From a file, a folder, a hub id or objects in memory to rows as they stand there.

``load_raw`` finds the data and says what stands where; ``reading`` makes preference rows of it.
No image is decoded here, and nothing is ever unpickled.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import datasets
import pyarrow
import pyarrow.parquet

from mdpo.data.rows import RawRow, Value, shown

Source = str | Path | datasets.Dataset | datasets.DatasetDict | Sequence[Mapping[str, Any]]
"""What rows can be read from."""

SUFFIXES = (".json", ".jsonl", ".parquet")
_NOT_A_HUB_ID = (*SUFFIXES, ".arrow", ".csv", ".gz", ".pickle", ".pkl", ".tar", ".tsv", ".zip")
_MEDIA = (datasets.Audio, datasets.Image, datasets.Video)


class Records(Protocol):
    """Rows that can be counted, picked, and read by column."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> RawRow: ...

    def column(self, name: str) -> list[Value]:
        """Read one column without the others, which may be heavy with images.

        Args:
            name: Its name.

        Returns:
            Its values; None where a row has none.
        """
        ...


@dataclasses.dataclass(frozen=True)
class RawData:
    """Rows as they stand in the source.

    Attributes:
        name: What the source is called in messages.
        columns: Every column that some row has.
        records: The rows.
        root: Folder that relative image paths are relative to; None if the source has none.
        lines: Line of each row, counted from 1; None if the source has no lines.
    """

    name: str
    columns: tuple[str, ...]
    records: Records
    root: Path | None = None
    lines: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> RawRow:
        self._check(index)
        return self.records[index]

    def place(self, index: int) -> str:
        """Say where a row stands.

        Args:
            index: 0 to ``len(self) - 1``.

        Returns:
            ``train.jsonl:412``, or ``row 412 of hub/name`` where rows count from 0.

        Raises:
            IndexError: If there is no such row.
        """  # noqa: DOC502 - raised by the check
        self._check(index)
        if self.lines is None:
            return f"row {index} of {self.name}"
        return f"{self.name}:{self.lines[index]}"

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self):
            raise IndexError(f"`index` must be 0 to {len(self) - 1}, got {index}.")


def load_raw(
    source: Source, *, split: str = "train", config: str | None = None, revision: str | None = None
) -> RawData:
    """Find the rows of a source.

    Args:
        source: A ``.json`` file (a list of objects), a ``.jsonl`` or ``.parquet`` file, a folder
            made by ``save_to_disk``, a folder with one such file, a hub id, or in Python a
            ``datasets.Dataset``, a ``DatasetDict`` or a list of dicts. What exists on disk wins
            over a hub id of that name.
        split: Which split, for sources that have splits; others refuse all but ``train``.
        config: Which configuration of a hub data set; other sources refuse it.
        revision: Which commit, branch or tag of a hub data set; other sources refuse it.

    Returns:
        The rows, at least one, not yet checked.

    Raises:
        FileNotFoundError: If ``source`` is a path, and nothing is there.
        ValueError: If the source is empty, broken, ambiguous, or has no such split.
        TypeError: If ``source`` is none of the above.
    """  # noqa: DOC502 - raised by the readers of each kind
    raw = _load(source, split, config, revision)
    if len(raw) == 0:
        raise ValueError(f"{raw.name}: must hold at least one row, got none. Check the file.")
    return raw


class _ListRecords:
    """Rows in memory."""

    def __init__(self, rows: Sequence[RawRow]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int, /) -> RawRow:
        return self.rows[index]

    def column(self, name: str) -> list[Value]:
        return [row.get(name) for row in self.rows]


class _ArrowRecords:
    """Rows of a ``datasets.Dataset`` with media left as bytes and paths.

    Rows are taken from the Arrow table, not from ``Dataset.cast``: a cast of a list of images
    writes the whole data set once more.
    """

    def __init__(self, dataset: datasets.Dataset) -> None:
        self.table = dataset.with_format("arrow")
        self.features = datasets.Features(_undecoded(dict(dataset.features)))

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int, /) -> RawRow:
        table: Any = self.table[index]
        (row,) = table.to_pylist()
        return self.features.decode_example(row)

    def column(self, name: str) -> list[Value]:
        table: Any = self.table.select_columns([name])[:]
        return table[name].to_pylist()


def _undecoded(feature: Any) -> Any:
    """Switch decoding of media off, however deep they stand."""
    if isinstance(feature, _MEDIA):
        return dataclasses.replace(feature, decode=False)
    if isinstance(feature, dict):
        return {name: _undecoded(inner) for name, inner in feature.items()}
    if isinstance(feature, datasets.List | datasets.LargeList):
        return dataclasses.replace(feature, feature=_undecoded(feature.feature))
    return feature


def _load(source: Source, split: str, config: str | None, revision: str | None) -> RawData:
    if isinstance(source, str) and not Path(source).expanduser().exists():
        if _looks_like_a_path(source):
            raise FileNotFoundError(f"`{source}` does not exist. Check the path.")
        dataset = datasets.load_dataset(source, name=config, split=split, revision=revision)
        return _from_dataset(dataset, name=_with_split(source, split))
    for setting, value in (("config", config), ("revision", revision)):
        if value is not None:
            raise ValueError(f"`{setting}` is only for hub data sets, got {value!r}. Remove it.")
    if isinstance(source, str | Path):
        return _from_path(Path(source).expanduser(), split)
    if isinstance(source, datasets.DatasetDict):
        return _from_dataset(_pick(source, split, "data"), name=_with_split("data", split))
    if isinstance(source, datasets.Dataset):
        _refuse_split(split, "data")
        return _from_dataset(source, name="data")
    if isinstance(source, list | tuple):
        _refuse_split(split, "data")
        return _from_objects(source, name="data", root=None)
    raise TypeError(
        f"`source` must be a path, a hub id, a datasets.Dataset or a list of dicts, "
        f"got {type(source).__name__}. Convert it."
    )


def _looks_like_a_path(source: str) -> bool:
    """Hub ids are ``name`` or ``owner/name``, and names may hold dots: ``owner/data-v1.5``."""
    suffix = Path(source).suffix.lower()
    return (
        re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", source) is None
        or suffix in _NOT_A_HUB_ID
        or (bool(suffix) and "/" not in source)
    )


def _from_path(path: Path, split: str) -> RawData:
    if not path.exists():
        raise FileNotFoundError(f"`{path}` does not exist. Check the path.")
    if path.is_dir():
        return _from_folder(path, split)
    _refuse_split(split, path.name)
    if path.suffix.lower() == ".jsonl":
        return _from_jsonl(path)
    if path.suffix.lower() == ".json":
        return _from_json(path)
    if path.suffix.lower() == ".parquet":
        return _from_parquet(path)
    raise ValueError(f"`{path}` must be one of {', '.join(SUFFIXES)}, or a folder. Convert it.")


def _from_folder(folder: Path, split: str) -> RawData:
    if (folder / "dataset_dict.json").is_file():
        saved = datasets.load_from_disk(str(folder))
        assert isinstance(saved, datasets.DatasetDict)
        name = _with_split(folder.name, split)
        return _from_dataset(_pick(saved, split, folder.name), name=name, root=folder)
    if (folder / "state.json").is_file():
        _refuse_split(split, folder.name)
        return _from_dataset(datasets.load_from_disk(str(folder)), name=folder.name, root=folder)
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if len(files) != 1:
        found = ", ".join(path.name for path in files[:5]) or "none"
        raise ValueError(
            f"`{folder}` must be made by `save_to_disk` or hold one {', '.join(SUFFIXES)} file, "
            f"got {found}{', ...' if len(files) > 5 else ''}. Name the file."
        )
    return _from_path(files[0], split)


def _from_jsonl(path: Path) -> RawData:
    rows: list[Value] = []
    lines: list[int] = []
    with path.open("rb") as file:  # as bytes: text mode would also break lines at other characters
        for number, line in enumerate(file, start=1):
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if line.strip():
                rows.append(_parse_json(line, f"{path.name}:{number}"))
                lines.append(number)
    return _from_objects(rows, name=path.name, root=path.parent, lines=tuple(lines))


def _from_json(path: Path) -> RawData:
    value = _parse_json(path.read_bytes().removeprefix(b"\xef\xbb\xbf"), path.name)
    if not isinstance(value, list):
        raise ValueError(f"{path.name}: must be a list of objects, got {shown(value)}. Wrap it.")
    return _from_objects(value, name=path.name, root=path.parent)


def _parse_json(text: bytes, place: str) -> Value:
    try:
        return json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        hint = " One object per line is `.jsonl`." if place.endswith(".json") else ""
        raise ValueError(
            f"{place}: must be whole JSON in UTF-8, got {error}. Correct or remove it.{hint}"
        ) from error


def _from_objects(
    rows: Sequence[Value], *, name: str, root: Path | None, lines: tuple[int, ...] | None = None
) -> RawData:
    columns: dict[str, None] = {}
    checked: list[RawRow] = []
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            place = f"row {index} of {name}" if lines is None else f"{name}:{lines[index]}"
            raise ValueError(f"{place}: must be an object, got {shown(row)}. Correct or remove it.")
        checked.append(row)
        columns.update(dict.fromkeys(row))
    return RawData(name, tuple(columns), _ListRecords(checked), root, lines)


def _from_parquet(path: Path) -> RawData:
    try:
        num_rows = pyarrow.parquet.read_metadata(path).num_rows
    except pyarrow.ArrowInvalid as error:
        raise ValueError(
            f"{path.name}: must be a whole Parquet file, got {error}. Download or write it again."
        ) from error
    if num_rows == 0:
        return _from_objects([], name=path.name, root=path.parent)
    dataset = datasets.Dataset.from_parquet(str(path))
    return _from_dataset(dataset, name=path.name, root=path.parent)


def _from_dataset(dataset: Any, *, name: str, root: Path | None = None) -> RawData:
    if not isinstance(dataset, datasets.Dataset):
        raise TypeError(f"{name}: must be a datasets.Dataset, got {type(dataset).__name__}.")
    if dataset.format["type"] == "custom":
        raise ValueError(f"{name}: must have no transform set on it. Apply it with `map`.")
    return RawData(name, tuple(dataset.column_names), _ArrowRecords(dataset), root)


def _pick(splits: datasets.DatasetDict, split: str, name: str) -> datasets.Dataset:
    if split not in splits:
        known = ", ".join(map(str, splits))
        raise ValueError(f"{name}: `split` {split!r} is unknown. Known: {known}.")
    return splits[split]


def _refuse_split(split: str, name: str) -> None:
    if split != "train":
        raise ValueError(f"{name}: has no splits, got `split` {split!r}. Leave `split` out.")


def _with_split(name: str, split: str) -> str:
    return name if split == "train" else f"{name}[{split}]"
