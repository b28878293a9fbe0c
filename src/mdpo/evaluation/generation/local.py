"""Answers by a model that is loaded here, in batches."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from mdpo.data.encoding import Encoder
from mdpo.data.images import ImageError
from mdpo.evaluation.generation.decoding import Decoding, seed_of
from mdpo.evaluation.generation.images import ImageFolder
from mdpo.evaluation.generation.messages import message_of
from mdpo.evaluation.generation.run import Answer, Outcome, Tell
from mdpo.evaluation.suite import Prompt

PLAIN: Mapping[str, Any] = {
    "top_p": None,
    "top_k": None,
    "min_p": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "length_penalty": 1.0,
    "early_stopping": False,
    "min_length": 0,
    "min_new_tokens": None,
    "num_return_sequences": 1,
}
"""Models bring settings of their own, Qwen2.5-VL a repetition penalty of 1.05: none counts here, so
that all models of a table are decoded alike."""


class LocalModel:
    """A model with its processor.

    Attributes:
        model: In evaluation mode.
        encoder: Of its processor.
        images: Where images lie.
        decoding: How answers are drawn.
        batch_size: Prompts at a time.
    """

    def __init__(
        self,
        model: nn.Module,
        processor: Any,
        images: ImageFolder,
        decoding: Decoding,
        *,
        batch_size: int = 16,
    ) -> None:
        self.model, self.encoder = model, Encoder(processor)
        self.images, self.decoding, self.batch_size = images, decoding, batch_size

    def answer_all(self, prompts: Sequence[Prompt], tell: Tell) -> None:
        """Answer in batches, the longest prompts first: what does not fit shows at once.

        Args:
            prompts: In any order.
            tell: Takes each answer or failure.
        """
        lengths = {each.item: self._length(each) for each in prompts}
        for batch in batches(prompts, self.batch_size, lengths):
            for prompt, outcome in zip(batch, self.answer(batch), strict=True):
                tell(prompt, outcome)

    def answer(self, prompts: Sequence[Prompt]) -> list[Outcome]:
        """Answer one batch; where memory does not suffice, by halves.

        Args:
            prompts: At least one.

        Returns:
            An answer for each, or the message of its failure.
        """
        opened: dict[int, list[Any]] = {}
        outcomes: list[Outcome] = [""] * len(prompts)
        for place, prompt in enumerate(prompts):
            try:
                opened[place] = [self.images.open(source) for source in prompt.images]
            except (OSError, ValueError) as error:
                outcomes[place] = str(error)
        # Sampling has a generator per item, so that batches and resuming change nothing.
        size = 1 if self.decoding.temperature > 0 else len(prompts)
        places = list(opened)
        for start in range(0, len(places), size):
            group = places[start : start + size]
            answers = self._in_halves([prompts[k] for k in group], [opened[k] for k in group])
            for place, answer in zip(group, answers, strict=True):
                outcomes[place] = answer
        return outcomes

    def _in_halves(self, prompts: Sequence[Prompt], images: Sequence[Any]) -> list[Outcome]:
        """Answer a batch, or its halves if it does not fit or a prompt in it cannot be encoded."""
        try:
            return [*self._answer(prompts, images)]
        except (torch.OutOfMemoryError, ValueError) as error:
            if len(prompts) == 1:
                return [_failure(error)]
        # Not while the error is handled: it holds on to the memory of the batch.
        torch.cuda.empty_cache()
        half = len(prompts) // 2
        first = self._in_halves(prompts[:half], images[:half])
        return first + self._in_halves(prompts[half:], images[half:])

    @torch.no_grad()
    def _answer(self, prompts: Sequence[Prompt], images: Sequence[Any]) -> list[Answer]:
        """Answer a batch."""
        started = time.monotonic()
        tokenizer, decoding = self.encoder.tokenizer, self.decoding
        texts = [self.encoder.prompt_text([message_of(each, decoding.suffix)]) for each in prompts]
        # Padding stands on the left, so that each answer begins where its prompt ends.
        side, tokenizer.padding_side = tokenizer.padding_side, "left"
        try:
            inputs = self.encoder.prompts(texts, images)
        finally:
            tokenizer.padding_side = side
        device = next(self.model.parameters()).device
        inputs = {name: value.to(device) for name, value in inputs.items()}
        generate: Any = self.model.generate
        with torch.random.fork_rng():
            torch.manual_seed(seed_of(prompts[0], decoding))
            ids = generate(
                **inputs,
                **PLAIN,
                max_new_tokens=decoding.max_new_tokens,
                num_beams=decoding.num_beams,
                do_sample=decoding.temperature > 0,
                temperature=decoding.temperature or None,
                pad_token_id=tokenizer.pad_token_id,
            )[:, inputs["input_ids"].shape[1] :]
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        seconds = round((time.monotonic() - started) / len(prompts), 3)
        return [
            self._read(row, int(length), seconds)
            for row, length in zip(ids.tolist(), lengths, strict=True)
        ]

    def _read(self, row: list[int], num_prompt_tokens: int, seconds: float) -> Answer:
        """Turn tokens into an answer."""
        settings: Any = self.model.generation_config
        ends = settings.eos_token_id
        ends = {ends} if isinstance(ends, int) else set(ends or ())
        end = next((k for k, token in enumerate(row) if token in ends), None)
        length = len(row) if end is None else end + 1
        text = self.encoder.tokenizer.decode(row[:length], skip_special_tokens=True).strip()
        reason = "length" if end is None else "stop"
        return Answer(text, reason, length, num_prompt_tokens, seconds=seconds)

    def _length(self, prompt: Prompt) -> tuple[int, int]:
        """Tell how long a prompt will be, roughly: parts of images, then letters."""
        count = getattr(self.encoder.processor.image_processor, "get_number_of_image_patches", None)
        units = 0
        for source in prompt.images:
            try:
                width, height = self.images.size(source)
                number: Any = count(height, width, {}) if count else 1
            except ImageError:  # it fails when it is opened
                number = 1
            # Some give the numbers of rows and columns of tiles as well.
            units += int(number[0] if isinstance(number, tuple) else number)
        return units, len(prompt.text)


def batches(
    prompts: Sequence[Prompt], size: int, lengths: Mapping[str, Any]
) -> Iterator[list[Prompt]]:
    """Put prompts of like length together, the longest first.

    Args:
        prompts: In any order.
        size: Prompts per batch.
        lengths: By item; whatever can be ordered.

    Yields:
        Batches; prompts with and without images do not mix.
    """
    for shown in (True, False):
        ordered = sorted(
            (each for each in prompts if bool(each.images) == shown),
            key=lambda each: lengths[each.item],
            reverse=True,
        )
        for start in range(0, len(ordered), size):
            yield ordered[start : start + size]


def _failure(error: Exception) -> str:
    """Say in one line why a single prompt failed."""
    if isinstance(error, torch.OutOfMemoryError):
        return "It does not fit into the memory of the device, even alone."
    return str(error)
