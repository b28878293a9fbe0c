"""One file over HTTP: resumed where it was cut, tried again where that may help.

What has arrived is kept in ``NAME.part``. Only https is spoken, redirects included, but for a
mirror on this machine.
"""

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

import httpx2
from tqdm import tqdm

from mdpo.evaluation.retrying import PASSING, retry_after

ATTEMPTS = 5
"""In a row that bring nothing new."""

REDIRECTS = 5
LONGEST_WAIT = 120.0
LARGEST = 1 << 30
"""Bytes of a file whose size is not known."""

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


def _say(text: str) -> None:
    """Write a line above the bar."""
    tqdm.write(text, file=sys.stderr)


class TryAgainError(Exception):
    """A failure that may pass.

    Attributes:
        wait: Seconds that the server asks to wait; None if it asks for nothing.
    """

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


@dataclass(frozen=True)
class Web:
    """How servers are reached.

    Attributes:
        mirror: What stands for scheme and host of all addresses; None for the servers themselves.
        sleep: Waits a number of seconds.
        say: Tells people what happens.
    """

    mirror: str | None = None
    sleep: Callable[[float], None] = time.sleep
    say: Callable[[str], None] = _say

    def __post_init__(self) -> None:
        """Check the mirror.

        Raises:
            ValueError: If it is not an address, or could be read on the way.
        """
        if self.mirror is None:
            return
        form = f"The mirror must be an address such as https://host/path, got {self.mirror!r}."
        try:
            url = httpx2.URL(self.mirror)
        except httpx2.InvalidURL:
            raise ValueError(form) from None
        if not url.host or url.query or url.fragment:
            raise ValueError(form)
        self.check(url)

    def address(self, url: str) -> httpx2.URL:
        """Find the address to ask.

        Args:
            url: In the table of sources.

        Returns:
            The same, or that on the mirror.
        """
        official = httpx2.URL(url)
        if self.mirror is None:
            return official
        return httpx2.URL(self.mirror.rstrip("/") + official.raw_path.decode())

    def check(self, url: httpx2.URL) -> None:
        """Refuse addresses whose answers could be changed on the way.

        Args:
            url: An address.

        Raises:
            ValueError: If it is neither https nor, for such a mirror, on this machine.
        """
        local = self.mirror is not None and httpx2.URL(self.mirror).host in LOOPBACK
        to_itself = local and url.scheme == "http" and url.host in LOOPBACK
        if url.scheme != "https" and not to_itself:
            raise ValueError(f"{url} is refused: only https is spoken with other machines.")


def download(url: str, to: Path, *, size: int | None, web: Web) -> Path:
    """Fetch a file as far as its last byte; nothing is said of what the bytes are.

    Args:
        url: In the table of sources.
        to: Path of the file; what arrives is kept beside it.
        size: Of the file in bytes; None if it is not known.
        web: How servers are reached.

    Returns:
        Path of what arrived, ``to`` with ``.part`` added.

    Raises:
        OSError: If the server does not have it, or cannot be reached again and again.
    """
    part = to.with_name(to.name + ".part")
    address = web.address(url)
    failures, best = 0, _size_of(part)
    agent = {"User-Agent": f"mdpo/{version('multimodal-dpo')}"}
    with httpx2.Client(timeout=30.0, headers=agent) as client:
        while True:
            try:
                _receive(client, address, part, size, web)
                return part
            except (TryAgainError, httpx2.TransportError) as error:
                arrived = _size_of(part)
                failures = 1 if arrived > best else failures + 1
                best = max(best, arrived)
                reason = str(error).rstrip(".") or type(error).__name__
                if failures == ATTEMPTS:
                    raise OSError(
                        f"{address} failed {ATTEMPTS} times in a row: {reason}. What has arrived "
                        "is kept; the same command goes on from there."
                    ) from error
                wait = getattr(error, "wait", None)
                wait = 2.0 ** (failures - 1) if wait is None else wait
                web.say(f"{to.name}: {reason}; trying again in {wait:.0f} s.")
                web.sleep(wait)


def _receive(
    client: httpx2.Client, address: httpx2.URL, part: Path, size: int | None, web: Web
) -> None:
    """Ask once, and add to the part what arrives."""
    start = _size_of(part)
    if size is not None and start >= size:
        if start == size:
            return
        start = 0
    # Compressed, the bytes that are still missing could not be asked for.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with _answer(client, address, headers, web) as response:
        if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            whole = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if whole and whole[2] == str(start):
                return
            part.unlink()
            raise TryAgainError("what had arrived does not fit the server's file")
        start = _start(response, start, part)
        whole = _length(response, start, size)
        with part.open("ab" if start else "wb") as file:
            _write(response, file, part.name.removesuffix(".part"), start, whole)
    limit = LARGEST if whole is None else whole
    arrived = _size_of(part)
    if arrived > limit:
        part.unlink()
        raise OSError(f"{address} gives more than {limit:,} bytes, and is refused.")
    if whole is not None and arrived < whole:
        raise TryAgainError(f"{arrived:,} of {whole:,} bytes arrived")


@contextmanager
def _answer(
    client: httpx2.Client, address: httpx2.URL, headers: dict[str, str], web: Web
) -> Iterator[httpx2.Response]:
    """Follow redirects to an answer, and turn refusals into errors."""
    request = client.build_request("GET", address, headers=headers)
    for _ in range(REDIRECTS + 1):
        web.check(request.url)
        response = client.send(request, stream=True)
        try:
            if response.next_request is None:
                _check_status(response)
                yield response
                return
            request = response.next_request
        finally:
            response.close()
    raise OSError(f"{address} redirects more than {REDIRECTS} times.")


def _check_status(response: httpx2.Response) -> None:
    """Tell failures that may pass from those that do not."""
    status = response.status_code
    if status in (200, 206, 416):
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise OSError(f"{response.url} answers in an encoding that was not asked for.")
        return
    said = f"{response.url} answers {status} {response.reason_phrase}".strip()
    if status not in PASSING:
        raise OSError(f"{said}.")
    wait = retry_after(response.headers.get("Retry-After"))
    if wait is not None and wait > LONGEST_WAIT:
        raise OSError(f"{said} and asks to wait {wait:.0f} s. Try again then.")
    raise TryAgainError(said, wait)


def _start(response: httpx2.Response, asked: int, part: Path) -> int:
    """Find the byte at which an answer begins: the one asked for, or 0 for the whole file."""
    if response.status_code != HTTPStatus.PARTIAL_CONTENT:
        return 0
    said = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if not asked or said is None or said[1] != str(asked):
        part.unlink(missing_ok=True)
        raise TryAgainError("the server answered with another part of the file")
    return asked


def _length(response: httpx2.Response, start: int, size: int | None) -> int | None:
    """Find how many bytes there are in all; None if chunks tell where the file ends."""
    if size is not None:
        return size
    length = response.headers.get("Content-Length")
    if length is None and "chunked" not in response.headers.get("Transfer-Encoding", ""):
        raise OSError(
            f"{response.url} does not say how long the file is, so that a cut one would not be "
            "noticed. Use another mirror."
        )
    return None if length is None else start + int(length)


def _write(
    response: httpx2.Response, file: BinaryIO, name: str, start: int, whole: int | None
) -> None:
    """Write what arrives, one block after the other, no more than one too many."""
    limit = LARGEST if whole is None else whole
    with tqdm(
        desc=name, total=whole, initial=start, unit="B", unit_scale=True, disable=None
    ) as bar:
        # As they come: what is collected to blocks of a size is lost when the connection is cut.
        for block in response.iter_raw():
            file.write(block)
            bar.update(len(block))
            start += len(block)
            if start > limit:
                return


def _size_of(path: Path) -> int:
    """Bytes of a file; 0 if there is none."""
    return path.stat().st_size if path.exists() else 0
