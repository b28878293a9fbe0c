"""Answers by a model behind an OpenAI-compatible endpoint, such as vLLM's."""

import base64
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mdpo.evaluation.asking import ask_all
from mdpo.evaluation.chat import ChatClient, ChatError, StopError
from mdpo.evaluation.generation.decoding import Decoding, seed_of
from mdpo.evaluation.generation.images import ImageFolder
from mdpo.evaluation.generation.messages import message_of
from mdpo.evaluation.generation.run import Answer, Outcome, Tell
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
        concurrency: Requests at a time.
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
        self.concurrency = concurrency

    def answer_all(self, prompts: Sequence[Prompt], tell: Tell) -> str | None:
        """Ask several prompts at a time.

        Args:
            prompts: In the order in which they are asked.
            tell: Takes each answer or failure as it comes.

        Returns:
            Why nothing further was asked, such as a key that the server refuses; None if all was.
        """

        def told(prompt: Prompt, outcome: Outcome) -> str | None:
            tell(prompt, outcome)
            return outcome if isinstance(outcome, str) else None

        return ask_all(self.client, prompts, self._answer, told, concurrency=self.concurrency)

    def _answer(self, prompt: Prompt) -> Outcome:
        """Ask one prompt; in a thread."""
        started = time.monotonic()
        try:
            message = with_images(prompt, self.images, self.decoding.suffix)
            reply = self.client.complete(
                [message],
                temperature=self.decoding.temperature,
                max_tokens=self.decoding.max_new_tokens,
                seed=seed_of(prompt, self.decoding) if self.decoding.temperature > 0 else None,
            )
        except StopError:
            raise
        except (ChatError, OSError, ValueError) as error:
            return str(error)
        return Answer(
            reply.text.strip(),
            reply.finish_reason,
            reply.usage.get("completion_tokens"),
            reply.usage.get("prompt_tokens"),
            seconds=round(time.monotonic() - started, 3),
            model=reply.model,
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
