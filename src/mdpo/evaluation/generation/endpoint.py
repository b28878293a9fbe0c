"""Answers by a model behind an OpenAI-compatible endpoint, such as vLLM's."""

import base64
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mdpo.evaluation.chat import BudgetError, ChatClient, ChatError
from mdpo.evaluation.generation.decoding import Decoding
from mdpo.evaluation.generation.images import ImageFolder
from mdpo.evaluation.generation.messages import message_of
from mdpo.evaluation.generation.run import Answer, Outcome
from mdpo.evaluation.suite import Prompt

KINDS = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG": "image/png",
    b"RIFF": "image/webp",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
}
"""First bytes of image files."""


class Endpoint:
    """A model that is asked over HTTP.

    Attributes:
        client: Of the server.
        images: Where images lie; files are sent as they are.
        decoding: How answers are drawn.
    """

    def __init__(
        self, client: ChatClient, images: ImageFolder, decoding: Decoding, concurrency: int
    ) -> None:
        if decoding.num_beams > 1:
            raise ValueError(
                f"`--num-beams` must be 1 at an endpoint, got {decoding.num_beams}: the protocol "
                "has no beams. Load the model here instead."
            )
        self.client, self.images, self.decoding = client, images, decoding
        self._pool = ThreadPoolExecutor(concurrency)

    def answer(self, prompts: Sequence[Prompt]) -> list[Outcome]:
        """Ask several prompts at a time.

        Args:
            prompts: At least one.

        Returns:
            An answer for each, or the message of its failure.
        """
        return list(self._pool.map(self._answer, prompts))

    def _answer(self, prompt: Prompt) -> Outcome:
        """Ask one prompt."""
        try:
            message = with_images(prompt, self.images, self.decoding.suffix)
            reply = self.client.complete(
                [message],
                temperature=self.decoding.temperature,
                max_tokens=self.decoding.max_new_tokens,
                seed=self.decoding.seed if self.decoding.temperature > 0 else None,
            )
        except BudgetError:
            raise
        except (ChatError, OSError, ValueError) as error:
            return str(error)
        counts = reply.usage
        return Answer(
            reply.text.strip(),
            reply.finish_reason,
            counts.get("completion_tokens"),
            counts.get("prompt_tokens"),
        )


def with_images(prompt: Prompt, images: ImageFolder, suffix: str = "") -> Mapping[str, Any]:
    """Put a prompt into a message of the protocol, images inside.

    Args:
        prompt: Of a benchmark.
        images: Where images lie.
        suffix: Appended to its text.

    Returns:
        A user's turn.
    """
    waiting = iter(prompt.images)
    parts = [
        {"type": "image_url", "image_url": {"url": _data_uri(images.content(next(waiting)))}}
        if part["type"] == "image"
        else part
        for part in message_of(prompt, suffix)["content"]
    ]
    return {"role": "user", "content": parts}


def _data_uri(data: bytes) -> str:
    """Write an image file as text."""
    kind = next((kind for start, kind in KINDS.items() if data.startswith(start)), None)
    if kind is None:
        raise ValueError("The image must be JPEG, PNG, WebP, GIF or BMP.")
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
