"""From raw rows to preference rows: their format, their names, and each row when asked for."""

from pathlib import Path

from mdpo.data.formats import Format, recognise_format
from mdpo.data.parsing import parse_row
from mdpo.data.rows import PreferenceRow, RowError
from mdpo.data.sources import RawData


class Rows:
    """The rows of a source, read and checked one at a time.

    Attributes:
        raw: The source.
        format: Which of the known formats it is in.
        ids: Name of each row: its ``id`` if every row has one and no two are equal, else its
            index, as text.
    """

    def __init__(self, raw: RawData) -> None:
        self.raw = raw
        self.format = recognise_format(raw.columns, raw[0], name=raw.name)
        self.ids = row_ids(raw)

    @property
    def format_name(self) -> str:
        """Name of the format, for reports."""
        return self.format.name

    @property
    def root(self) -> Path | None:
        """Folder that relative image paths are relative to, unless the user says otherwise."""
        return self.raw.root

    def __len__(self) -> int:
        return len(self.raw)

    def __getitem__(self, index: int) -> PreferenceRow:
        return read_row(self.raw, index, self.format, row_id=self.ids[index])


def read_row(raw: RawData, index: int, format: Format, *, row_id: str) -> PreferenceRow:
    """Read and check one row.

    Args:
        raw: The source.
        index: 0 to ``len(raw) - 1``.
        format: The format of the source.
        row_id: Name of the row.

    Returns:
        The row.

    Raises:
        RowError: If the row breaks a rule; names the place, and the field as the format does.
        IndexError: If there is no such row.
    """  # noqa: DOC502 - IndexError is raised by `raw`
    place = raw.place(index)
    try:
        return parse_row(format.to_native(raw[index]), row_id=row_id, place=place)
    except RowError as error:
        field = format.field_name(error.field)
        raise RowError(field, error.problem, error.remedy, place) from None


def row_ids(raw: RawData) -> tuple[str, ...]:
    """Name the rows of a source, so that the same row has the same name in every run.

    Args:
        raw: The source.

    Returns:
        The ``id`` column as text if every row has one (text or a whole number) and no two are
        equal, else the index of each row as text.
    """
    if "id" in raw.columns:
        values = raw.records.column("id")
        named = all(isinstance(v, str | int) and not isinstance(v, bool) for v in values)
        ids = tuple(str(value) for value in values)
        if named and "" not in ids and len(set(ids)) == len(ids):
            return ids
    return tuple(str(index) for index in range(len(raw)))
