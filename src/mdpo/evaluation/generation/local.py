"""Answers by a model that is loaded here, in batches."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from mdpo.data.encoding import Encoder
from mdpo.evaluation.generation.decoding import Decoding
from mdpo.evaluation.generation.images import ImageFolder
from mdpo.evaluation.generation.messages import message_of
from mdpo.evaluation.generation.run import Answer, Outcome
from mdpo.evaluation.journal import content_key
from mdpo.evaluation.suite import Prompt


class LocalModel:
    """A model with its processor.

    Attributes:
        model: In evaluation mode.
        encoder: Of its processor.
        images: Where images lie.
        decoding: How answers are drawn.
    """

    def __init__(
        self, model: nn.Module, processor: Any, images: ImageFolder, decoding: Decoding
    ) -> None:
        self.model, self.encoder = model, Encoder(processor)
        self.images, self.decoding = images, decoding

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

    def _in_halves(self, prompts: Sequence[Prompt], images: Sequence[Any]) -> list[Answer]:
        """Answer a batch, or its halves if it does not fit."""
        try:
            return self._answer(prompts, images)
        except torch.OutOfMemoryError:
            if len(prompts) == 1:
                raise
        torch.cuda.empty_cache()
        half = len(prompts) // 2
        first = self._in_halves(prompts[:half], images[:half])
        return first + self._in_halves(prompts[half:], images[half:])

    @torch.no_grad()
    def _answer(self, prompts: Sequence[Prompt], images: Sequence[Any]) -> list[Answer]:
        """Answer a batch."""
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
            torch.manual_seed(_seed(prompts[0], decoding.seed))
            ids = generate(
                **inputs,
                max_new_tokens=decoding.max_new_tokens,
                num_beams=decoding.num_beams,
                do_sample=decoding.temperature > 0,
                # Models bring sampling settings of their own: none of them counts here.
                temperature=decoding.temperature or None,
                top_p=None,
                top_k=None,
                pad_token_id=tokenizer.pad_token_id,
            )[:, inputs["input_ids"].shape[1] :]
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        return [
            self._read(row, int(length)) for row, length in zip(ids.tolist(), lengths, strict=True)
        ]

    def _read(self, row: list[int], num_prompt_tokens: int) -> Answer:
        """Turn tokens into an answer."""
        settings: Any = self.model.generation_config
        ends = settings.eos_token_id
        ends = {ends} if isinstance(ends, int) else set(ends or ())
        end = next((k for k, token in enumerate(row) if token in ends), None)
        length = len(row) if end is None else end + 1
        text = self.encoder.tokenizer.decode(row[:length], skip_special_tokens=True).strip()
        return Answer(text, "length" if end is None else "stop", length, num_prompt_tokens)


def _seed(prompt: Prompt, seed: int) -> int:
    """Seed the drawing of one item's tokens."""
    return int(content_key([seed, prompt.item])[:15], 16)
