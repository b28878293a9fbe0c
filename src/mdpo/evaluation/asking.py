"""Ask a server many things, a few at a time, and lose no reply that is paid for."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from mdpo.evaluation.chat import ChatClient, StopError

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")

HOPELESS = 8
"""Requests that fail one after the other before nothing further is asked."""


def ask_all(
    client: ChatClient,
    tasks: Sequence[Task],
    ask: Callable[[Task], Outcome],
    tell: Callable[[Task, Outcome], str | None],
    *,
    concurrency: int,
) -> str | None:
    """Ask, and tell outcomes as they come.

    An interrupt, a refusal or a spent budget ends it; replies that are under way are waited for
    and told.

    Args:
        client: Of the server; it is stopped where nothing further is asked.
        tasks: What to ask, in order.
        ask: Asks one; runs in threads, and may raise ``StopError``.
        tell: Takes each outcome, in this thread; returns the message of a failure, None of a
            success.
        concurrency: Requests at a time.

    Returns:
        Why it stopped early; None if it did not.
    """
    queue, running = deque(tasks), dict[Future, Task]()
    stopped, in_a_row = None, 0

    def take(future: Future) -> None:
        nonlocal stopped, in_a_row
        task = running.pop(future)
        try:
            outcome = future.result()
        except StopError as error:
            stopped = stopped or str(error)
            client.stop()
            return
        error = tell(task, outcome)
        in_a_row = 0 if error is None else in_a_row + 1
        if in_a_row == HOPELESS:
            stopped = stopped or f"{HOPELESS} requests in a row failed, at last: {error}"
            client.stop()

    with ThreadPoolExecutor(concurrency) as pool:
        try:
            while running or (queue and stopped is None):
                while queue and stopped is None and len(running) < concurrency:
                    task = queue.popleft()
                    running[pool.submit(ask, task)] = task
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    take(future)
        except BaseException:
            # An interrupt, for one. What is under way is paid for.
            client.stop()
            for future in list(running):
                take(future)
            raise
    return stopped
