"""Tokens, images and steps of a run, counted before it: no weights, no pixels decoded.

A row's length follows from its texts and from the sizes of its images, which stand in the headers
of their files.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tqdm.auto import tqdm

from mdpo.data.dataset import NO_IMAGE, without_images
from mdpo.data.encoding import TokenCounter
from mdpo.data.images import ImageError, image_size
from mdpo.data.reading import Rows
from mdpo.data.rows import ImageSource, PreferenceRow, RowError
from mdpo.objectives import Candidate

Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True)
class RowLengths:
    """What one pair asks of the model.

    Attributes:
        prompts: Tokens of the prompt by image slot, image tokens included.
        responses: Tokens of the responses by slot, after the cut at ``max_length``.
        images: Number of images by image slot.
        image_tokens: Tokens of these images by image slot.
    """

    prompts: dict[str, int]
    responses: dict[str, int]
    images: dict[str, int]
    image_tokens: dict[str, int]

    def shared(self, candidates: Iterable[Candidate]) -> int:
        """Count tokens where candidates of one image slot share its prompt.

        Args:
            candidates: What is scored.

        Returns:
            Tokens of all packed rows of the pair.
        """
        rows = self._packed(candidates)
        return sum(prompt + sum(responses) for prompt, responses in rows)

    def plain(self, candidates: Iterable[Candidate]) -> list[int]:
        """Count tokens where each candidate has a row of its own.

        Args:
            candidates: What is scored.

        Returns:
            Tokens of each row, padding not included.
        """
        return [self.prompts[each.image] + self.responses[each.response] for each in candidates]

    def scored(self, candidates: Iterable[Candidate]) -> int:
        """Count the response tokens whose log-probabilities are taken.

        Args:
            candidates: What is scored.

        Returns:
            Tokens of the responses of all candidates.
        """
        return sum(self.responses[each.response] for each in candidates)

    def attending(self, candidates: Iterable[Candidate], *, sharing: bool) -> int:
        """Count the pairs of positions of which one attends to the other.

        Args:
            candidates: What is scored.
            sharing: Whether candidates of one image slot share its prompt.

        Returns:
            Number of pairs, a position and itself included.
        """
        if not sharing:
            return sum(_triangle(length) for length in self.plain(candidates))
        return sum(
            _triangle(prompt) + sum(prompt * each + _triangle(each) for each in responses)
            for prompt, responses in self._packed(candidates)
        )

    def _packed(self, candidates: Iterable[Candidate]) -> list[tuple[int, list[int]]]:
        """Prompt and responses of each packed row."""
        rows: dict[str, list[int]] = {}
        for each in candidates:
            rows.setdefault(each.image, []).append(self.responses[each.response])
        return [(self.prompts[slot], responses) for slot, responses in rows.items()]


@dataclass(frozen=True)
class Counted:
    """Lengths of all rows that can be trained on.

    Attributes:
        lengths: Of the good rows, in their order.
        sizes: How often each image size occurs among the true images of the good rows.
        problems: What is wrong with the others; each message names row, field and remedy.
    """

    lengths: tuple[RowLengths, ...]
    sizes: dict[Size, int]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Schedule:
    """Batches and steps as the trainer counts them.

    Attributes:
        pairs: In the data set.
        pairs_per_batch: Of one device.
        batches_per_step: Of one device.
        devices: That train together.
        steps_per_epoch: Optimizer steps of one pass over the data.
        steps: Optimizer steps of the run.
        pairs_trained: Pairs of the run, a pair counted each time it is seen.
    """

    pairs: int
    pairs_per_batch: int
    batches_per_step: int
    devices: int
    steps_per_epoch: int
    steps: int
    pairs_trained: int

    @property
    def epochs(self) -> float:
        """Passes over the data."""
        return self.pairs_trained / self.pairs


def count_rows(
    rows: Rows,
    counter: TokenCounter,
    *,
    image_root: Path | None,
    slots: Sequence[str],
    max_length: int | None = None,
    context: int | None = None,
    needs_rejected_images: bool = False,
    with_images: bool = True,
    show_progress: bool = True,
) -> Counted:
    """Count the tokens of all rows; of images only the headers are read.

    A rejected image that another row lends has the size of the true one here: which row lends it
    is drawn in training.

    Args:
        rows: As read.
        counter: Of the model's processor.
        image_root: Folder that image paths are relative to and must stay in.
        slots: Image slots of the objective's candidates.
        max_length: Longest row in tokens; longer responses are cut.
        context: Positions the model has; a row must fit.
        needs_rejected_images: Whether each row with images must bring its own rejected ones.
        with_images: Whether images are used at all.
        show_progress: Whether to show a progress bar.

    Returns:
        Lengths of the good rows, and what is wrong with the others.
    """
    lengths: list[RowLengths] = []
    sizes: dict[Size, int] = {}
    problems: list[str] = []
    hidden = not show_progress
    for index in tqdm(range(len(rows)), desc="counting tokens", disable=hidden, delay=1):
        try:
            row = _seen(rows[index], with_images=with_images)
            if needs_rejected_images:
                _check_rejected_images(row)
            true = _sizes(row, "images", row.images, image_root)
            by_slot = {slot: _slot_sizes(row, slot, true, image_root) for slot in slots}
            lengths.append(_lengths(row, by_slot, counter, max_length, context))
            for size in true:
                sizes[size] = sizes.get(size, 0) + 1
        except (RowError, ImageError) as error:
            place, message = rows.raw.place(index), str(error)
            problems.append(message if message.startswith(place) else f"{place}: {message}")
    return Counted(tuple(lengths), sizes, tuple(problems))


def make_schedule(
    num_pairs: int,
    *,
    pairs_per_batch: int,
    batches_per_step: int,
    epochs: float,
    max_steps: int = -1,
    drop_last: bool = False,
    devices: int = 1,
) -> Schedule:
    """Count batches and steps as ``transformers.Trainer`` does.

    Args:
        num_pairs: In the data set.
        pairs_per_batch: Of one device.
        batches_per_step: Of one device: ``gradient_accumulation_steps``.
        epochs: Passes over the data, unless ``max_steps`` is positive.
        max_steps: Optimizer steps of the run; -1 goes by ``epochs``.
        drop_last: Whether a last batch that is not full is left out.
        devices: That train together.

    Returns:
        The schedule.

    Raises:
        ValueError: If there are too few pairs for one batch and ``drop_last`` is set.
    """
    batches = num_pairs // pairs_per_batch if drop_last else math.ceil(num_pairs / pairs_per_batch)
    batches = batches // devices if drop_last else math.ceil(batches / devices)
    if batches == 0:
        raise ValueError(
            f"`dataloader_drop_last` leaves no batch of {pairs_per_batch} x {devices} pairs, got "
            f"{num_pairs} pairs. Lower `per_device_train_batch_size`."
        )
    steps_per_epoch = math.ceil(batches / batches_per_step)
    steps = max_steps if max_steps > 0 else math.ceil(epochs * steps_per_epoch)
    pairs_per_epoch = min(num_pairs, batches * devices * pairs_per_batch)
    whole, rest = divmod(steps, steps_per_epoch)
    of_rest = min(rest * batches_per_step * devices * pairs_per_batch, pairs_per_epoch)
    return Schedule(
        pairs=num_pairs,
        pairs_per_batch=pairs_per_batch,
        batches_per_step=batches_per_step,
        devices=devices,
        steps_per_epoch=steps_per_epoch,
        steps=steps,
        pairs_trained=whole * pairs_per_epoch + of_rest,
    )


def padded_tokens(
    lengths: Sequence[RowLengths],
    candidates: Sequence[Candidate],
    *,
    pairs_per_batch: int,
    seed: int,
) -> int:
    """Count tokens with padding for one shuffled pass over the data, each candidate on its own.

    Args:
        lengths: Of the rows.
        candidates: What is scored.
        pairs_per_batch: Of one device.
        seed: Of the shuffle; another one gives a slightly different number.

    Returns:
        Tokens, padding included.
    """
    order = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed)).tolist()
    total = 0
    for begin in range(0, len(order), pairs_per_batch):
        batch = [lengths[k].plain(candidates) for k in order[begin : begin + pairs_per_batch]]
        total += len(batch) * sum(map(max, zip(*batch, strict=True)))
    return total


def largest_sum(lengths: Sequence[RowLengths], of: Callable[[RowLengths], int], number: int) -> int:
    """Add up the largest values that any rows can bring together.

    Args:
        lengths: Of the rows.
        of: From a row to its value.
        number: Rows that come together.

    Returns:
        Sum of the ``number`` largest values.
    """
    return sum(sorted(map(of, lengths), reverse=True)[:number])


def _seen(row: PreferenceRow, *, with_images: bool) -> PreferenceRow:
    """The row as the model sees it: without images if none are used."""
    if with_images:
        return row
    return replace(row, images=(), rejected_images=None, prompt=tuple(without_images(row.prompt)))


def _check_rejected_images(row: PreferenceRow) -> None:
    """Refuse a row with images that brings no rejected ones."""
    if row.images and row.rejected_images is None:
        raise RowError(
            place=row.place,
            field="rejected_images",
            problem="must be given with `corruption` 'provided', got none",
            remedy="Fill the column or take another `corruption`.",
        )


def _sizes(
    row: PreferenceRow, field: str, sources: Sequence[ImageSource], root: Path | None
) -> tuple[Size, ...]:
    """Read sizes off the headers of image files; errors name the row."""
    try:
        return tuple(image_size(each, root=root) for each in sources)
    except ImageError as error:
        raise ImageError(f"{row.place}: `{field}`: {error}") from None


def _slot_sizes(
    row: PreferenceRow, slot: str, true: tuple[Size, ...], root: Path | None
) -> tuple[Size, ...]:
    """Sizes of the images of one slot; corruptions keep the size."""
    if slot == NO_IMAGE:
        return ()
    if slot == "rejected" and true and row.rejected_images is not None:
        return _sizes(row, "rejected_images", row.rejected_images, root)
    return true


def _lengths(
    row: PreferenceRow,
    sizes: dict[str, tuple[Size, ...]],
    counter: TokenCounter,
    max_length: int | None,
    context: int | None,
) -> RowLengths:
    """Count the tokens of a row, cut as collation cuts them."""
    prompts, image_tokens = {}, {}
    for slot, of_slot in sizes.items():
        shown = row if slot != NO_IMAGE else _seen(row, with_images=False)
        prompts[slot] = counter.prompt_length(shown.prompt, of_slot)
        text = counter.encoder.token_ids(counter.encoder.prompt_text(shown.prompt))
        # One placeholder per image stands in the text.
        image_tokens[slot] = prompts[slot] - len(text) + len(of_slot) if of_slot else 0
    longest = max(prompts.values())
    responses = {
        "chosen": counter.response_length(row.prompt, row.chosen),
        "rejected": counter.response_length(row.prompt, row.rejected),
    }
    if max_length is not None:
        if longest >= max_length:
            raise RowError(
                place=row.place,
                field="prompt",
                problem=f"must leave room for a response, has {longest} tokens (images included) "
                f"of `max_length` {max_length}",
                remedy="Raise `--max_length`, use smaller images, or drop the row.",
            )
        responses = {slot: min(each, max_length - longest) for slot, each in responses.items()}
    whole = longest + max(responses.values())
    if context is not None and whole > context:
        raise RowError(
            place=row.place,
            field="prompt",
            problem=f"and response must fit the model's {context} positions, have {whole} tokens",
            remedy="Set `--max_length` to cut long responses, or drop the row.",
        )
    images = {slot: len(of_slot) for slot, of_slot in sizes.items()}
    return RowLengths(prompts, responses, images, image_tokens)


def _triangle(length: int) -> int:
    """Pairs of positions of a causal sequence."""
    return length * (length + 1) // 2
