"""A client of OpenAI-compatible servers: one request, tried again where that may help.

Nothing is hidden: a reply says which model gave it, what it cost and how often it was asked for.
The key is sent in one header and stands nowhere else.
"""

import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from mdpo.evaluation.retrying import PASSING, retry_after

LONGEST_WAIT = 60.0
"""Seconds; a server that asks for more is waited for so long."""

EMPTY = 3
"""Replies without text that are paid for before a request counts as failed."""

REFUSALS = frozenset({401, 402, 404})
"""States that any other request would meet too, and redirects besides."""


class ChatError(RuntimeError):
    """A request that failed for good; the message says why and what to do.

    Attributes:
        attempts: How often the server was asked.
        usage: Tokens that were spent all the same.
    """

    def __init__(
        self, message: str, attempts: int = 0, usage: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(message)
        self.attempts, self.usage = attempts, dict(usage or {})


class StopError(ChatError):
    """Nothing further can be asked; the item of the request is not to blame."""


class BudgetError(StopError):
    """The calls that were allowed are spent."""


class RefusedError(StopError):
    """The server takes no request: the key, the address or the name of the model is wrong."""


class _PassingError(Exception):
    """A failure that may pass; with the seconds that the server asks to wait."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class _EmptyError(_PassingError):
    """A reply without text, which costs as much as one with."""


@dataclass(frozen=True)
class Reply:
    """What a server answered.

    Attributes:
        text: Of the first choice.
        model: That the server says it asked.
        finish_reason: Such as ``stop`` or ``length``.
        usage: Counts of tokens over all attempts, as far as the server gives them.
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

    Raises:
        ValueError: If it cannot be sent in a header; the message does not repeat it.
    """
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError(f"The key in {variable} must be one line of printable ASCII characters.")
    return key or None


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
        sleep: Callable[[float], object] | None = None,
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
            sleep: Waits a number of seconds; None waits until then or until ``stop``.

        Raises:
            ValueError: If the address is not one of HTTP, or holds more than an address.
        """
        if problem := _problem_of(base_url):
            raise ValueError(f"`--endpoint` must {problem}.")
        self.url = base_url.rstrip("/") + "/chat/completions"
        self.model, self.budget = model, budget or Budget()
        self._allow_other_model, self._attempts = allow_other_model, attempts
        self._stopped = threading.Event()
        self._sleep = sleep or self._stopped.wait
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx2.Client(
            headers=headers,
            timeout=timeout,
            limits=httpx2.Limits(max_connections=None),  # waiting for a connection is no failure
            follow_redirects=False,  # a redirect would carry the key elsewhere
        )
        self._jitter = random.Random(0)

    def __enter__(self) -> "ChatClient":
        """Use it and close its connections afterwards."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close connections."""
        self._http.close()

    def stop(self) -> None:
        """Try nothing again: requests that wait end with ``StopError``, as do further ones."""
        self._stopped.set()

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
            ChatError: If it failed for good, or another model replied.
            StopError: If nothing further can be asked: the budget is spent (``BudgetError``), the
                server takes no request (``RefusedError``), or the client was stopped.
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
        usage: Counter[str] = Counter()
        empty = attempt = 0
        while True:
            if self._stopped.is_set():
                raise StopError("Nothing further is asked.", attempt, usage)
            self.budget.spend()
            attempt += 1
            try:
                written = self._call(body, attempt, usage)
                usage.update(_tokens(written))
                return self._checked(written, attempt, usage)
            except _PassingError as error:
                empty += isinstance(error, _EmptyError)
                if attempt >= self._attempts or empty >= EMPTY:
                    message = f"{error} ({attempt} attempts at {self.url})."
                    raise ChatError(message, attempt, usage) from None
                wait = self._pause(attempt, error.wait)
            self._sleep(wait)

    def _call(
        self, body: Mapping[str, Any], attempt: int, usage: Mapping[str, int]
    ) -> Mapping[str, Any]:
        """Send one request and parse what comes."""
        try:
            response = self._http.post(self.url, json=body)
        except httpx2.TimeoutException:
            raise _PassingError("The server did not answer in time") from None
        except httpx2.RequestError as error:
            raise _PassingError(f"The connection failed: {type(error).__name__}") from None
        status = response.status_code
        if status in PASSING or status >= 500:
            wait = retry_after(response.headers.get("Retry-After"))
            raise _PassingError(f"The server answered {status}", wait)
        if status != 200:
            refused = status in REFUSALS or 300 <= status < 400
            raise (RefusedError if refused else ChatError)(
                f"The server answered {status} at {self.url}: "
                f"{self._without_key(response.text)[:200]!r}. {_remedy(status)}",
                attempt,
                usage,
            )
        try:
            written = response.json()
        except ValueError:
            raise _PassingError("The server answered what is not JSON") from None
        if not isinstance(written, dict):
            raise _PassingError("The server answered no JSON object")
        return written

    def _without_key(self, text: str) -> str:
        """Blot out the key, which some servers repeat."""
        key = self._http.headers.get("Authorization", "").removeprefix("Bearer ")
        return text.replace(key, "[key]") if key else text

    def _checked(self, written: Mapping[str, Any], attempt: int, usage: Mapping[str, int]) -> Reply:
        """Take the reply out of a body."""
        try:
            choice = written["choices"][0]
            text = choice["message"]["content"]
        except (KeyError, IndexError, TypeError):
            raise _PassingError("The server answered without a choice") from None
        if not isinstance(text, str) or not text.strip():
            raise _EmptyError("The server answered with no text")
        model = str(written.get("model", self.model))
        if model != self.model and not self._allow_other_model:
            raise ChatError(
                f"Model {self.model!r} was asked and {model!r} answered. Name that one, or allow "
                "it by --allow-model-mismatch.",
                attempt,
                usage,
            )
        return Reply(text, model, choice.get("finish_reason"), dict(usage), attempt)

    def _pause(self, attempt: int, asked: float | None) -> float:
        """Say how long to wait: twice as long each time, or longer if the server asks for it."""
        wait = min(2.0 ** (attempt - 1), LONGEST_WAIT) * (0.5 + self._jitter.random())
        return max(wait, min(asked or 0.0, LONGEST_WAIT))


def _problem_of(base_url: str) -> str | None:
    """Say what is wrong with an address; keys in it would stand in records and messages."""
    try:
        url = httpx2.URL(base_url)
    except httpx2.InvalidURL:
        return "be an address such as http://host:8000/v1"
    if url.userinfo or url.query or url.fragment:
        return (
            "be a plain address, without user, password or anything after `?` or `#`; keys are "
            "taken from the environment variable named by --key-env"
        )
    if url.scheme not in ("http", "https") or not url.host:
        return f"begin with http:// or https:// and a host, got {base_url!r}"
    return None


def _tokens(written: Mapping[str, Any]) -> dict[str, int]:
    """Take the counts of tokens that a server gives."""
    usage = written.get("usage")
    counts = usage.items() if isinstance(usage, dict) else ()
    return {name: n for name, n in counts if isinstance(n, int) and not isinstance(n, bool)}


def _remedy(status: int) -> str:
    """Say what may help."""
    if status in (401, 403):
        return "Set the server's key in the environment variable named by --key-env."
    if status == 404:
        return "Look at --endpoint (it ends in /v1 at most servers) and at the model's name."
    if status == 402:
        return "The account of the key has no funds left."
    if 300 <= status < 400:
        return "Give --endpoint the address that the server redirects to."
    return "The request is not tried again."
