"""From messages to token ids, through the processor's own chat template.

The prompt is encoded as it will be at inference, with the image tokens the processor expands. The
response is what the template puts after it, up to and including the end of the turn.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from mdpo.data.batch import Inputs
from mdpo.data.rows import Message


class Encoder:
    """Renders and tokenizes rows with a processor.

    Attributes:
        processor: Of the model.
        tokenizer: The processor's.
        chat_template_kwargs: Extra arguments of the chat template.
    """

    def __init__(
        self, processor: Any, *, chat_template_kwargs: dict[str, Any] | None = None
    ) -> None:
        """Keep the processor.

        Args:
            processor: With tokenizer, image processor and chat template.
            chat_template_kwargs: Extra arguments of the chat template.

        Raises:
            ValueError: If the processor lacks one of the three.
        """
        for part in ("tokenizer", "image_processor"):
            if getattr(processor, part, None) is None:
                raise ValueError(
                    f"`processing_class` must be the processor of a vision-language model, got "
                    f"{type(processor).__name__} without {part}. Load it with AutoProcessor."
                )
        if not getattr(processor, "chat_template", None):
            raise ValueError(
                f"`processing_class` must have a chat template, {type(processor).__name__} has "
                "none. Set `processor.chat_template`, or take the instruction-tuned model."
            )
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.chat_template_kwargs = chat_template_kwargs or {}

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """Render a prompt up to where the assistant begins to speak.

        Args:
            messages: Ending with the user's.

        Returns:
            Text with one image token per image, not yet expanded.
        """
        return self.processor.apply_chat_template(
            list(messages), add_generation_prompt=True, tokenize=False, **self.chat_template_kwargs
        )

    def response_text(self, messages: Sequence[Message], response: str) -> str:
        """Render what follows the prompt when the assistant gives a response.

        Args:
            messages: The prompt.
            response: What the assistant says.

        Returns:
            The response as the template writes it, with exactly one end of turn and nothing
            after it. Where the template writes none, the tokenizer's end-of-sequence token is
            added: a model that never sees it does not learn to stop.

        Raises:
            ValueError: If the template renders the conversation otherwise than the prompt.
        """
        answer = {"role": "assistant", "content": [{"type": "text", "text": response}]}
        prompt = self.prompt_text(messages)
        whole = self.processor.apply_chat_template(
            [*messages, answer], tokenize=False, **self.chat_template_kwargs
        )
        if not whole.startswith(prompt):
            raise ValueError(
                "The chat template renders prompt and response otherwise than the prompt alone: "
                f"{whole!r} does not begin with {prompt!r}. Set `processor.chat_template` to one "
                "that does."
            )
        text = whole[len(prompt) :].rstrip()
        special = self.tokenizer.all_special_tokens
        ended = any(text.endswith(token) for token in special if token)
        return text if ended else text + self.tokenizer.eos_token

    def response_ids(self, messages: Sequence[Message], response: str) -> list[int]:
        """Tokenize a response where it stands, directly after its prompt.

        Args:
            messages: The prompt.
            response: What the assistant says.

        Returns:
            Token ids, the end of the turn included.
        """
        prompt, text = self.prompt_text(messages), self.response_text(messages, response)
        prompt_ids, whole_ids = self.token_ids(prompt), self.token_ids(prompt + text)
        # A tokenizer may join the last character of the prompt with the first of the response. At
        # inference the prompt stands alone, so then the response is tokenized apart as well.
        if whole_ids[: len(prompt_ids)] == prompt_ids:
            return whole_ids[len(prompt_ids) :]
        return self.token_ids(text)

    def prompts(self, texts: Sequence[str], images: Sequence[Sequence[Image.Image]]) -> Inputs:
        """Tokenize rendered prompts and process their images.

        Args:
            texts: From ``prompt_text``.
            images: Of each row; empty for a row without.

        Returns:
            What the model's ``forward`` takes, padded to the longest row.
        """
        for text, shown in zip(texts, images, strict=True):
            self._check_placeholders(text, len(shown))
        bos = self.tokenizer.bos_token
        features = self.processor(
            text=list(texts),
            images=[list(each) for each in images] if any(images) else None,
            padding=True,
            return_tensors="pt",
            # The same rule as the processor's `apply_chat_template(tokenize=True)` at inference.
            add_special_tokens=not (bos and texts[0].startswith(bos)),
        )
        # Some processors make labels of the prompt, which is none.
        return {key: each for key, each in features.items() if key != "labels"}

    def responses(self, ids: Sequence[list[int]]) -> Inputs:
        """Pad tokenized responses.

        Args:
            ids: Of each response, from ``response_ids``.

        Returns:
            ``input_ids`` and ``attention_mask``, padded on the right to the longest; and
            ``token_type_ids`` where the processor tells prompts and responses apart by them.
        """
        longest = max(len(row) for row in ids)
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0
        padded = torch.tensor([row + [pad] * (longest - len(row)) for row in ids])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
        responses = {"input_ids": padded, "attention_mask": mask}
        if "suffix" in inspect.signature(self.processor.__call__).parameters:
            # PaliGemma: type 0 attends in both directions, 1 only to what stands before it.
            responses["token_type_ids"] = torch.ones_like(padded)
        return responses

    def image_units(self, images: Sequence[Image.Image], num_rows: int) -> list[int] | None:
        """Tell how many rows of ``pixel_values`` each image takes.

        Args:
            images: Of a batch.
            num_rows: Rows that they take together.

        Returns:
            Numbers that add up to ``num_rows``; None where the image processor cannot tell.
        """
        count = getattr(self.processor.image_processor, "get_number_of_image_patches", None)
        if count is None:
            return None
        counts = [count(image.height, image.width, {}) for image in images]
        # Some give the numbers of rows and columns of tiles as well.
        units = [int(each[0] if isinstance(each, tuple) else each) for each in counts]
        return units if sum(units) == num_rows else None

    def _check_placeholders(self, text: str, num_images: int) -> None:
        """Refuse a prompt with fewer or more image tokens than images; some models take it."""
        token = getattr(self.processor, "image_token", None)
        # Without any, the processor may place them itself; if not, the model refuses.
        found = text.count(str(token)) if token else 0
        if found not in (0, num_images):
            raise ValueError(
                f"The prompt has {found} image tokens {token!r} and {num_images} images: "
                f"{text[:200]!r}. Take the token out of the text, or mend `chat_template`."
            )

    def token_ids(self, text: str) -> list[int]:
        """Tokenize without adding anything."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


class TokenCounter:
    """Counts tokens of rows without decoding a pixel.

    How many tokens an image becomes depends on its size alone, so blank images stand in for the
    real ones, and each combination of sizes is processed once.
    """

    def __init__(self, encoder: Encoder) -> None:
        """Count with ``encoder``."""
        self.encoder = encoder
        self._expansion: dict[tuple[tuple[int, int], ...], int] = {}

    def prompt_length(self, prompt: Sequence[Message], sizes: Sequence[tuple[int, int]]) -> int:
        """Count the prompt's tokens, image tokens included.

        Args:
            prompt: Messages, ending with the user's.
            sizes: Width and height of each image, in pixels.

        Returns:
            Number of tokens.
        """
        text = self.encoder.prompt_text(prompt)
        num_unexpanded = len(self.encoder.token_ids(text))
        key = tuple(sizes)
        if key not in self._expansion:
            blanks = [Image.new("RGB", size) for size in sizes]
            expanded = self.encoder.prompts([text], [blanks])["input_ids"].shape[1]
            self._expansion[key] = expanded - num_unexpanded
        return num_unexpanded + self._expansion[key]

    def image_tokens(self, sizes: Sequence[tuple[int, int]]) -> int:
        """Tell how many tokens images become whose prompt has been counted.

        Args:
            sizes: Width and height of each image, in pixels.

        Returns:
            Tokens beyond the one placeholder that stands for each in the prompt's text, and that
            one.
        """
        return self._expansion[tuple(sizes)] + len(sizes)

    def response_length(self, prompt: Sequence[Message], response: str) -> int:
        """Count the tokens of a response, the end of the turn included.

        Args:
            prompt: Messages that it follows.
            response: What the assistant says.

        Returns:
            Number of tokens.
        """
        return len(self.encoder.response_ids(prompt, response))
