"""From messages to token ids, through the processor's own chat template.

The prompt is encoded as it will be at inference, with the image tokens the processor expands. The
response is what the template puts after it, up to and including the end of the turn.
"""

from collections.abc import Sequence
from typing import Any

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
        bos = self.tokenizer.bos_token
        features = self.processor(
            text=list(texts),
            images=[list(each) for each in images] if any(images) else None,
            padding=True,
            return_tensors="pt",
            # The same rule as the processor's `apply_chat_template(tokenize=True)` at inference.
            add_special_tokens=not (bos and texts[0].startswith(bos)),
        )
        return dict(features)

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
