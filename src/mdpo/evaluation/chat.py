"""A client of OpenAI-compatible servers: one request, tried again where that may help.

Nothing is hidden: a reply says which model gave it, what it cost and how often it was asked for.
The key is sent in one header and stands nowhere else.
"""

import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from mdpo.evaluation.retrying import PASSING, retry_after

LONGEST_WAIT = 60.0
"""Seconds; a server that asks for more is waited for so long."""


class ChatError(Exception):
    """A request that failed for good; the message says why and what to do.

    Attributes:
        attempts: How often the server was asked.
    """

    def __init__(self, message: str, attempts: int = 0) -> None:
        super().__init__(message)
        self.attempts = attempts


class BudgetError(ChatError):
    """The calls that were allowed are spent."""


class _PassingError(Exception):
    """A failure that may pass; with the seconds that the server asks to wait."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


@dataclass(frozen=True)
class Reply:
    """What a server answered.

    Attributes:
        text: Of the first choice.
        model: That the server says it asked.
        finish_reason: Such as ``stop`` or ``length``.
        usage: Counts of tokens, as far as the server gives them.
        attempts: How often it was asked.
    """

    text: str
    model: str
    finish_reason: str | None
    usage: Mapping[str, int]
    attempts: int


@dataclass
class Budget:
    """Calls that may be made, shared by threads.

    Attributes:
        limit: Most calls, those that are repeated included; None for any number.
        spent: Calls made.
    """

    limit: int | None = None
    spent: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def spend(self) -> None:
        """Count one call.

        Raises:
            BudgetError: If the limit is reached.
        """
        with self._lock:
            if self.limit is not None and self.spent >= self.limit:
                raise BudgetError(f"The budget of {self.limit} calls is spent.")
            self.spent += 1


def key_from(variable: str) -> str | None:
    """Take a key from the environment.

    Args:
        variable: Its name.

    Returns:
        The key; None if it is not set, which local servers do not mind.
    """
    return os.environ.get(variable) or None


class ChatClient:
    """Asks one model of one server; may be used by several threads.

    Attributes:
        url: Where requests go.
        model: Name of the model.
        budget: Of calls.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        key: str | None = None,
        budget: Budget | None = None,
        allow_other_model: bool = False,
        attempts: int = 6,
        timeout: float = 120.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Reach for a server; nothing is sent yet.

        Args:
            base_url: Such as ``http://127.0.0.1:8000/v1``.
            model: Name of the model there.
            key: Sent as a bearer token; None sends none.
            budget: Of calls; None for any number.
            allow_other_model: Whether a reply of another model than asked for is taken.
            attempts: Most calls for one request.
            timeout: Seconds until a call counts as failed.
            sleep: Waits a number of seconds.

        Raises:
            ValueError: If the address is not one of HTTP.
        """
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"`--endpoint` must begin with http:// or https://, got {base_url!r}.")
        self.url = base_url.rstrip("/") + "/chat/completions"
        self.model, self.budget = model, budget or Budget()
        self._allow_other_model, self._attempts, self._sleep = allow_other_model, attempts, sleep
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # A redirect would carry the key elsewhere.
        self._http = httpx2.Client(headers=headers, timeout=timeout, follow_redirects=False)
        self._jitter = random.Random(0)

    def __enter__(self) -> "ChatClient":
        """Use it and close its connections afterwards."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close connections."""
        self._http.close()

    def complete(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        temperature: float,
        max_tokens: int | None,
        seed: int | None = None,
    ) -> Reply:
        """Ask for one completion.

        Args:
            messages: Of the chat.
            temperature: Of sampling.
            max_tokens: Longest reply; None leaves it to the server.
            seed: Of drawn tokens, for servers that take one.

        Returns:
            The reply.

        Raises:
            ChatError: If it failed for good, another model replied, or (``BudgetError``) no
                further call may be made.
        """
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [dict(each) for each in messages],
            "temperature": temperature,
        }
        if max_tokens is not None:
            body["max_tokens"] = max_tokens
        if seed is not None:
            body["seed"] = seed
        last = _PassingError("nothing was tried")
        for attempt in range(1, self._attempts + 1):
            self.budget.spend()
            try:
                return self._checked(self._call(body), attempt)
            except _PassingError as error:
                last = error
            if attempt < self._attempts:
                self._sleep(self._pause(attempt, last.wait))
        raise ChatError(f"{last} ({self._attempts} attempts at {self.url}).", self._attempts)

    def _call(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send one request and parse what comes."""
        try:
            response = self._http.post(self.url, json=body)
        except httpx2.TimeoutException:
            raise _PassingError("The server did not answer in time") from None
        except httpx2.TransportError as error:
            raise _PassingError(f"The connection failed: {type(error).__name__}") from None
        if response.status_code in PASSING:
            wait = retry_after(response.headers.get("Retry-After"))
            raise _PassingError(f"The server answered {response.status_code}", wait)
        if response.status_code != 200:
            raise ChatError(
                f"The server answered {response.status_code} at {self.url}: "
                f"{response.text[:200]!r}. {_remedy(response.status_code)}",
                1,
            )
        try:
            written = response.json()
        except ValueError:
            raise _PassingError("The server answered what is not JSON") from None
        if not isinstance(written, dict):
            raise _PassingError("The server answered no JSON object")
        return written

    def _checked(self, written: Mapping[str, Any], attempt: int) -> Reply:
        """Take the reply out of a body."""
        try:
            choice = written["choices"][0]
            text = choice["message"]["content"]
        except (KeyError, IndexError, TypeError):
            raise _PassingError("The server answered without a choice") from None
        if not isinstance(text, str) or not text.strip():
            raise _PassingError("The server answered with no text")
        model = str(written.get("model", self.model))
        if model != self.model and not self._allow_other_model:
            raise ChatError(
                f"Model {self.model!r} was asked and {model!r} answered. Name that one, or allow "
                "it by --allow-model-mismatch.",
                attempt,
            )
        usage = written.get("usage")
        counts = {} if not isinstance(usage, dict) else usage
        whole = {name: n for name, n in counts.items() if isinstance(n, int)}
        return Reply(text, model, choice.get("finish_reason"), whole, attempt)

    def _pause(self, attempt: int, asked: float | None) -> float:
        """Say how long to wait: what the server asks, or twice as long each time."""
        if asked is not None:
            return min(asked, LONGEST_WAIT)
        return min(2.0 ** (attempt - 1), LONGEST_WAIT) * (0.5 + self._jitter.random())


def _remedy(status: int) -> str:
    """Say what may help."""
    if status in (401, 403):
        return "Set the server's key in the environment variable named by --key-env."
    if status == 404:
        return "Look at --endpoint (it ends in /v1 at most servers) and at the model's name."
    if 300 <= status < 400:
        return "Give --endpoint the address that the server redirects to."
    return "The request is not tried again."
