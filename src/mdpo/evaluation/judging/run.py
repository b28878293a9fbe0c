"""Judge the answers of a run: what is missing, and nothing twice.

Records are appended to ``judgments.jsonl`` as replies come, under a key that is the hash of the
request. A reply that is recorded is never asked for again; a request that was under way when the
process was killed is, as nothing is known of it.
"""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from mdpo.evaluation.chat import BudgetError, ChatClient, ChatError
from mdpo.evaluation.journal import Journal, Record, content_key
from mdpo.evaluation.runs import JUDGE, JUDGMENTS, claim, read_run
from mdpo.evaluation.suite import Judged, Request


@dataclass(frozen=True)
class Task:
    """One reply that is wanted.

    Attributes:
        item: Of the benchmark.
        repeat: Which of several replies to the same request.
        request: What to ask; or the reply, where nothing needs asking.
        key: Hash of what the reply depends on.
    """

    item: str
    repeat: int
    request: Request | str
    key: str


@dataclass(frozen=True)
class Verdicts:
    """How judging ended.

    Attributes:
        judged: Replies, those from before included.
        failed: Requests that failed, by item, with a message.
        waiting: Replies that are still missing because the budget is spent.
        calls: Made this time.
        tokens: Of prompts and completions, over the whole run.
    """

    judged: int
    failed: Mapping[str, str]
    waiting: int
    calls: int
    tokens: Mapping[str, int]


def tasks_of(
    suite: Judged, responses: Mapping[str, str], model: str, repeats: int = 1
) -> list[Task]:
    """List the replies that are wanted.

    Args:
        suite: The benchmark.
        responses: The model's answers by item.
        model: Name of the judge.
        repeats: Replies per item.

    Returns:
        Tasks in the order of responses, repeat by repeat.
    """
    requests = {item: suite.request(item, text) for item, text in responses.items()}
    return [
        Task(item, repeat, request, _key(request, model, repeat))
        for repeat in range(repeats)
        for item, request in requests.items()
    ]


def judge(
    client: ChatClient,
    tasks: Sequence[Task],
    out: Path,
    *,
    settings: Mapping[str, Any],
    about: Mapping[str, Any] | None = None,
    concurrency: int = 8,
    retry_failed: bool = False,
) -> Verdicts:
    """Ask for the replies that are missing.

    Args:
        client: Of the judge.
        tasks: All that are wanted.
        out: Folder of the run.
        settings: What replies depend on besides requests; a run is resumed only with the same.
        about: What else is written down and may differ.
        concurrency: Requests at a time.
        retry_failed: Whether to ask again what failed before.

    Returns:
        Counts.

    Raises:
        ValueError: If the run has a reply to another request of the same item.
    """
    with Journal(out / JUDGMENTS) as journal:
        claim(out / JUDGE, settings, about=about)
        latest = {(each["item"], each["repeat"]): each for each in journal.records}
        for task in tasks:
            before = latest.get((task.item, task.repeat))
            if before is not None and "reply" in before and before["key"] != task.key:
                raise ValueError(
                    f"{out} holds a judgment of another answer or prompt of item {task.item!r}. "
                    "Take another folder."
                )
        done = {k for k, each in latest.items() if "reply" in each or not retry_failed}
        waiting = [each for each in tasks if (each.item, each.repeat) not in done]
        before_calls = client.budget.spent
        with tqdm(total=len(tasks), initial=len(tasks) - len(waiting), desc="judging") as bar:
            left = _ask_all(client, waiting, journal, bar, concurrency)
        return _verdicts(journal.records, left, client.budget.spent - before_calls)


def calls_ahead(tasks: Sequence[Task], out: Path, *, retry_failed: bool = False) -> int:
    """Count the requests that a run still needs.

    Args:
        tasks: All that are wanted.
        out: Folder of the run.
        retry_failed: Whether what failed is asked again.

    Returns:
        Their number, without any that are repeated because they fail.
    """
    latest = {(each["item"], each["repeat"]): each for each in read_run(out).judgments}
    done = {k for k, each in latest.items() if "reply" in each or not retry_failed}
    asked = (each for each in tasks if isinstance(each.request, Request))
    return sum((each.item, each.repeat) not in done for each in asked)


def _ask_all(
    client: ChatClient, tasks: Sequence[Task], journal: Journal, bar: Any, concurrency: int
) -> int:
    """Ask, a few at a time, and record replies as they come; count what the budget left out."""
    stop = threading.Event()
    left, queue = 0, list(reversed(tasks))
    running: dict[Future, Task] = {}
    with ThreadPoolExecutor(concurrency) as pool:
        while queue or running:
            while queue and len(running) < concurrency and not stop.is_set():
                task = queue.pop()
                running[pool.submit(_ask, client, task)] = task
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task = running.pop(future)
                try:
                    journal.append(_base(task, client.model) | future.result())
                    bar.update()
                except BudgetError:
                    stop.set()
                    left += 1
    return left + len(queue)


def _ask(client: ChatClient, task: Task) -> Record:
    """Ask once; in a thread."""
    if isinstance(task.request, str):
        return {"reply": task.request, "model": None, "usage": {}, "attempts": 0}
    request = task.request
    try:
        reply = client.complete(
            request.messages, temperature=request.temperature, max_tokens=request.max_tokens
        )
    except BudgetError:
        raise
    except ChatError as error:
        return {"error": str(error), "attempts": error.attempts}
    return {
        "reply": reply.text,
        "model": reply.model,
        "finish_reason": reply.finish_reason,
        "usage": dict(reply.usage),
        "attempts": reply.attempts,
    }


def _base(task: Task, model: str) -> Record:
    """What every record has."""
    return {
        "key": task.key,
        "item": task.item,
        "repeat": task.repeat,
        "requested_model": model,
    }


def _key(request: Request | str, model: str, repeat: int) -> str:
    """Hash what a reply depends on; not where the server is."""
    if isinstance(request, str):
        return content_key(["known", request, repeat])
    messages = [dict(each) for each in request.messages]
    return content_key([model, messages, request.temperature, request.max_tokens, repeat])


def _verdicts(records: Sequence[Record], left: int, calls: int) -> Verdicts:
    """Count."""
    latest = {(each["item"], each["repeat"]): each for each in records}
    failed = {item: str(e["error"]) for (item, _), e in latest.items() if "error" in e}
    number = sum("error" in each for each in latest.values())
    tokens = {
        name: sum(each.get("usage", {}).get(name, 0) for each in records)
        for name in ("prompt_tokens", "completion_tokens")
    }
    return Verdicts(len(latest) - number, failed, left, calls, tokens)
