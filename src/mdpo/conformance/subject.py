"""What checks look at: a model with its processor, and made rows that it can take."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from transformers import PreTrainedModel

from mdpo.conformance.rows import ONE_IMAGE
from mdpo.conformance.tolerances import Tolerances
from mdpo.data.batch import Batch, Inputs
from mdpo.data.collation import PreferenceCollator
from mdpo.data.dataset import Example
from mdpo.data.encoding import Encoder
from mdpo.models.compatibility import image_token_of
from mdpo.objectives import CHOSEN, REJECTED, REJECTED_IMAGE, Candidate
from mdpo.scoring import PlainScorer
from mdpo.scoring.reference import evaluating

CANDIDATES = (CHOSEN, REJECTED, REJECTED_IMAGE)


class CheckFailed(Exception):
    """A model does not behave as it must.

    Attributes:
        figure: What was measured; None if nothing was.
    """

    def __init__(self, message: str, figure: float | None = None) -> None:
        super().__init__(message)
        self.figure = figure


class NotApplicable(Exception):
    """A model cannot do what a check is about; the message says why."""


@dataclass(frozen=True)
class Finding:
    """What a check that passed found.

    Attributes:
        figure: What was measured; None if nothing was.
        remark: What the figure is, or what was left out.
    """

    figure: float | None = None
    remark: str = ""


@dataclass(frozen=True)
class Subject:
    """A model under test.

    Attributes:
        model: Without adapters or wrappers.
        encoder: With the model's processor.
        collated: Made rows by kind; only kinds that the processor takes.
        rows: The kinds of these that the model scores.
        tolerances: Of its type.
        seed: Of adapters and further pictures.
    """

    model: PreTrainedModel
    encoder: Encoder
    collated: Mapping[str, Sequence[Example]]
    rows: Mapping[str, Sequence[Example]]
    tolerances: Tolerances
    seed: int

    @property
    def processor(self) -> Any:
        """The model's."""
        return self.encoder.processor

    @property
    def takes_features(self) -> bool:
        """Whether features of images go in the places of image tokens."""
        owners = (self.model, self.model.base_model)
        return any(hasattr(each, "get_image_features") for each in owners)

    def examples(self, kind: str = ONE_IMAGE) -> list[Example]:
        """Look up rows that a check cannot do without.

        Args:
            kind: Of rows.

        Returns:
            The rows.

        Raises:
            CheckFailed: If the processor does not take them.
        """
        if kind not in self.collated:
            raise CheckFailed(f"needs rows of kind {kind!r}, see above")
        return list(self.collated[kind])

    def batch(self, examples: Sequence[Example], *, side: str | None = None) -> Batch:
        """Collate rows, on the model's device.

        Args:
            examples: The rows.
            side: Of the padding; None takes the tokenizer's.

        Returns:
            A batch.
        """
        with padding(self.encoder.tokenizer, side):
            batch = PreferenceCollator(self.encoder)(examples)
        prompts = {slot: self.placed(each) for slot, each in batch["prompts"].items()}
        moved: Any = send_to_device(dict(batch), self.model.device)
        return moved | {"prompts": prompts}

    def placed(self, inputs: Inputs) -> Inputs:
        """Move inputs to the model's device, and pixels to its type where that is a half one.

        Args:
            inputs: Of a processor.

        Returns:
            What ``forward`` takes.
        """
        moved: Inputs = send_to_device(dict(inputs), self.model.device)
        if self.model.dtype in (torch.float16, torch.bfloat16):
            return {
                name: each.to(self.model.dtype) if each.is_floating_point() else each
                for name, each in moved.items()
            }
        return moved

    def logps(
        self,
        batch: Batch,
        candidates: Iterable[Candidate] = CANDIDATES,
        *,
        model: nn.Module | None = None,
    ) -> Tensor:
        """Score a batch by plain rows, without gradient, in evaluation mode.

        Args:
            batch: From ``batch``.
            candidates: What to score.
            model: To score with; None takes the subject's.

        Returns:
            Log-probabilities, one line per candidate, one column per row.
        """
        model = self.model if model is None else model
        with torch.no_grad(), evaluating(model):
            found = PlainScorer(model)(model, batch, candidates)
        return torch.stack(list(found.values()))

    def prompt(self, example: Example, *, side: str | None = None) -> Inputs:
        """Process the prompt of one row.

        Args:
            example: The row.
            side: Of the padding; None takes the tokenizer's.

        Returns:
            What ``forward`` takes.
        """
        return self.prompts([example], side=side)

    def prompts(self, examples: Sequence[Example], *, side: str | None = None) -> Inputs:
        """Process prompts.

        Args:
            examples: The rows.
            side: Of the padding; None takes the tokenizer's.

        Returns:
            What ``forward`` takes.
        """
        texts = [self.encoder.prompt_text(each["prompt"]) for each in examples]
        with padding(self.encoder.tokenizer, side):
            inputs = self.encoder.prompts(texts, [each["images"]["chosen"] for each in examples])
        return self.placed(inputs)


@contextmanager
def padding(tokenizer: Any, side: str | None) -> Iterator[None]:
    """Pad on one side.

    Args:
        tokenizer: Changed for the while.
        side: ``left`` or ``right``; None changes nothing.

    Yields:
        Nothing.
    """
    before = tokenizer.padding_side
    tokenizer.padding_side = side or before
    try:
        yield
    finally:
        tokenizer.padding_side = before


def image_token_id(subject: Subject) -> int:
    """Look up the token in whose place image features go.

    Args:
        subject: Model and processor.

    Returns:
        Its id.

    Raises:
        CheckFailed: If neither config nor processor names one.
    """
    found = image_token_of(subject.model)
    if found is None:
        found = getattr(subject.processor, "image_token_id", None)
    if isinstance(found, int):
        return found
    raise CheckFailed("neither the config nor the processor names an image token")


def shown_names(names: Sequence[str], limit: int = 4) -> str:
    """List names.

    Args:
        names: Any number.
        limit: How many are written out.

    Returns:
        The first ones, and how many more there are.
    """
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
