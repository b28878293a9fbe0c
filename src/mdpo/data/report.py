"""The report on a data set: what is in it, and what is wrong with which rows.

Training makes the same checks as ``mdpo data inspect``, before the first step.
"""

import hashlib
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm.auto import tqdm

from mdpo.data.dataset import without_images
from mdpo.data.encoding import TokenCounter
from mdpo.data.images import ImageError, open_image
from mdpo.data.reading import Rows
from mdpo.data.rows import PreferenceRow, RowError

MAX_LISTED = 10
"""Bad rows that an error message spells out."""


@dataclass(frozen=True)
class Problem:
    """One reason why a row cannot be trained on.

    Attributes:
        index: Of the row in its source, from 0.
        message: Names row, field, value and remedy.
    """

    index: int
    message: str


@dataclass(frozen=True)
class Spread:
    """Smallest, middle and largest of some counts."""

    low: int
    median: float
    high: int

    @classmethod
    def of(cls, values: Sequence[int]) -> "Spread | None":
        """Summarise counts; None if there are none."""
        return cls(min(values), statistics.median(values), max(values)) if values else None

    def __str__(self) -> str:
        return f"{self.low} / {self.median:g} / {self.high}"


@dataclass(frozen=True)
class DataReport:
    """What the checks of a data set found.

    Attributes:
        source: Where the rows come from.
        format_name: Format that was recognised.
        num_rows: Rows in the source.
        num_images: Images of all good rows.
        num_text_only: Good rows without image.
        num_own_rejected: Good rows that bring their own rejected images.
        widths: Of the images, in pixels.
        heights: Of the images, in pixels.
        prompt_tokens: Per good row, image tokens included.
        chosen_tokens: Per good row.
        rejected_tokens: Per good row.
        image_tokens: That the images of all good rows become; None if not counted.
        num_cut: Good rows with a response that ``max_length`` shortens.
        problems: Reasons against rows; empty if all are good.
        fingerprint: Hash of texts and pixels of the good rows.
        good: Indices of rows that can be trained on.
        with_images: Those of them that have an image.
        digests: Hash of texts and pixels of each good row, 64 bits.
        row_tokens: Tokens of prompt, chosen and rejected response of each good row; empty if not
            counted.
    """

    source: str
    format_name: str
    num_rows: int
    num_images: int
    num_text_only: int
    num_own_rejected: int
    widths: Spread | None
    heights: Spread | None
    prompt_tokens: Spread | None
    chosen_tokens: Spread | None
    rejected_tokens: Spread | None
    image_tokens: int | None
    num_cut: int
    problems: tuple[Problem, ...]
    fingerprint: str
    good: tuple[int, ...] = field(repr=False)
    with_images: tuple[int, ...] = field(repr=False)
    row_tokens: tuple[tuple[int, int, int], ...] = field(repr=False)
    digests: tuple[int, ...] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Write the report as plain values; the lists of good rows are left out.

        Returns:
            What JSON can hold.
        """
        values = asdict(self)
        for name in ("good", "with_images", "row_tokens", "digests"):
            del values[name]
        return values | {"num_good": len(self.good), "dropped": [p.index for p in self.problems]}

    def lines(self) -> list[str]:
        """Write the report for people, aligned.

        Returns:
            Lines of text.
        """
        facts: list[tuple[str, object]] = [
            ("source", self.source),
            ("format", self.format_name),
            ("rows", self.num_rows),
            ("good rows", len(self.good)),
            ("text-only rows", self.num_text_only),
            ("rows with rejected images", self.num_own_rejected),
            ("images", self.num_images),
            ("width  low / median / high", self.widths or "-"),
            ("height low / median / high", self.heights or "-"),
            ("prompt tokens", self.prompt_tokens or "not counted"),
            ("chosen tokens", self.chosen_tokens or "not counted"),
            ("rejected tokens", self.rejected_tokens or "not counted"),
            ("image tokens", "not counted" if self.image_tokens is None else self.image_tokens),
            ("rows with a response cut", self.num_cut),
            ("fingerprint", self.fingerprint),
        ]
        return [f"{name:<28} {value}" for name, value in facts]

    def problem_lines(self, most: int = MAX_LISTED) -> list[str]:
        """Write the first problems for people.

        Args:
            most: How many at most.

        Returns:
            Lines of text, the last saying how many more there are.
        """
        lines = [problem.message for problem in self.problems[:most]]
        more = len(self.problems) - len(lines)
        return [*lines, f"... and {more} more."] if more else lines


@dataclass(frozen=True)
class _Checked:
    """What the check of one row found; ``problem`` is None for a good row."""

    problem: str | None
    sizes: tuple[tuple[int, int], ...] = ()
    tokens: tuple[int, int, int] | None = None
    image_tokens: int = 0
    is_cut: bool = False
    has_own_rejected: bool = False
    digest: bytes = b""


def check_rows(
    rows: Rows,
    *,
    image_root: Path | None,
    counter: TokenCounter | None = None,
    max_length: int | None = None,
    context: int | None = None,
    needs_rejected_images: bool = False,
    with_images: bool = True,
    show_progress: bool = True,
) -> DataReport:
    """Check every row: readable, images whole, responses not cut away.

    Args:
        rows: As read.
        image_root: Folder that image paths are relative to and must stay in.
        counter: Counts tokens; None leaves lengths unchecked.
        max_length: Longest row in tokens; longer responses are cut.
        context: Positions the model has; a row must fit.
        needs_rejected_images: Whether each row with images must bring its own rejected ones.
        with_images: Whether images are used at all.
        show_progress: Whether to show a progress bar.

    Returns:
        The report.
    """

    def check(index: int) -> _Checked:
        try:
            row = rows[index]
            return _check_row(
                row,
                image_root=image_root,
                counter=counter,
                max_length=max_length,
                context=context,
                needs_rejected_images=needs_rejected_images,
                with_images=with_images,
            )
        except (RowError, ImageError) as error:
            message = str(error)
            place = rows.raw.place(index)
            return _Checked(message if message.startswith(place) else f"{place}: {message}")

    # Threads, because decoding lets go of the interpreter lock.
    with ThreadPoolExecutor() as pool:
        bar = tqdm(
            pool.map(check, range(len(rows))),
            total=len(rows),
            desc="checking rows",
            disable=not show_progress,
            delay=1,
        )
        found = list(bar)
    return _summarise(rows, found)


def _check_row(
    row: PreferenceRow,
    *,
    image_root: Path | None,
    counter: TokenCounter | None,
    max_length: int | None,
    context: int | None,
    needs_rejected_images: bool,
    with_images: bool,
) -> _Checked:
    """Check one row; the errors of reading and decoding pass through."""
    if not with_images:
        row = replace(
            row, images=(), rejected_images=None, prompt=tuple(without_images(row.prompt))
        )
    images = _decode(row, "images", row.images, image_root)
    spoilt = _decode(row, "rejected_images", row.rejected_images or (), image_root)
    if needs_rejected_images and images and not spoilt:
        raise RowError(
            place=row.place,
            field="rejected_images",
            problem="must be given with `corruption` 'provided', got none",
            remedy="Fill the column or take another `corruption`.",
        )
    sizes = tuple(image.size for image in images)
    digest = hashlib.blake2b(repr((row.row_id, row.prompt, row.chosen, row.rejected)).encode())
    digest.update(f"{len(images)} {len(spoilt)} ".encode())
    for image in [*images, *spoilt]:
        digest.update(repr(image.size).encode() + image.tobytes())
    if counter is None:
        return _Checked(None, sizes, None, 0, False, bool(spoilt), digest.digest())
    prompt = counter.prompt_length(row.prompt, sizes)
    chosen = counter.response_length(row.prompt, row.chosen)
    rejected = counter.response_length(row.prompt, row.rejected)
    longest = prompt + max(chosen, rejected)
    if max_length is not None and prompt >= max_length:
        raise RowError(
            place=row.place,
            field="prompt",
            problem=f"must leave room for a response, has {prompt} tokens (images included) of "
            f"`max_length` {max_length}",
            remedy="Raise `--max_length`, use smaller images, or drop the row.",
        )
    if context is not None and min(longest, max_length or longest) > context:
        raise RowError(
            place=row.place,
            field="prompt",
            problem=f"and response must fit the model's {context} positions, have {longest} tokens",
            remedy="Set `--max_length` to cut long responses, or drop the row.",
        )
    is_cut = max_length is not None and longest > max_length
    tokens = (prompt, chosen, rejected)
    of_images = counter.image_tokens(sizes) if sizes else 0
    return _Checked(None, sizes, tokens, of_images, is_cut, bool(spoilt), digest.digest())


def _decode(
    row: PreferenceRow, name: str, sources: Sequence[Any], root: Path | None
) -> list[Image.Image]:
    """Decode images whole, so that a broken one shows now; the row is named."""
    images = []
    for source in sources:
        try:
            images.append(open_image(source, root=root))
        except (ImageError, FileNotFoundError) as error:
            raise ImageError(f"{row.place}: `{name}`: {error}") from None
    return images


def _summarise(rows: Rows, found: Sequence[_Checked]) -> DataReport:
    """Put the findings of all rows together."""
    good = [index for index, each in enumerate(found) if each.problem is None]
    sizes = [size for index in good for size in found[index].sizes]
    tokens = [each for index in good if (each := found[index].tokens) is not None]
    whole = hashlib.blake2b(digest_size=16)
    for index in good:
        whole.update(found[index].digest)
    return DataReport(
        source=rows.raw.name,
        format_name=rows.format_name,
        num_rows=len(rows),
        num_images=len(sizes),
        num_text_only=sum(not found[index].sizes for index in good),
        num_own_rejected=sum(found[index].has_own_rejected for index in good),
        widths=Spread.of([width for width, _ in sizes]),
        heights=Spread.of([height for _, height in sizes]),
        prompt_tokens=Spread.of([prompt for prompt, _, _ in tokens]),
        chosen_tokens=Spread.of([chosen for _, chosen, _ in tokens]),
        rejected_tokens=Spread.of([rejected for _, _, rejected in tokens]),
        image_tokens=sum(found[index].image_tokens for index in good) if tokens else None,
        num_cut=sum(found[index].is_cut for index in good),
        problems=tuple(
            Problem(index, each.problem)
            for index, each in enumerate(found)
            if each.problem is not None
        ),
        fingerprint=whole.hexdigest(),
        good=tuple(good),
        with_images=tuple(index for index in good if found[index].sizes),
        row_tokens=tuple(tokens),
        digests=tuple(
            int.from_bytes(found[index].digest[:8], "big", signed=True) for index in good
        ),
    )
