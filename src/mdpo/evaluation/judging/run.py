"""Judge the answers of a run: what is missing, and nothing twice.

Records are appended to ``judgments.jsonl`` as replies come, under a key that is the hash of the
request. A reply that is recorded is never asked for again; a request that was under way when the
process was killed is, as nothing is known of it. An interrupt or a spent budget loses no reply:
those that are under way are waited for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from mdpo.evaluation.asking import ask_all
from mdpo.evaluation.chat import ChatClient, ChatError, StopError
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
        waiting: Replies that are still missing because judging stopped early.
        stopped: Why it did; None if it did not.
        calls: Made this time.
        tokens: Of prompts and completions, over the whole run, those of failures included.
        others: Models that replied instead of the one that was asked.
    """

    judged: int
    failed: Mapping[str, str]
    waiting: int
    stopped: str | None
    calls: int
    tokens: Mapping[str, int]
    others: Sequence[str]


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

    Raises:
        ValueError: If an answer is to an item that the benchmark's data do not have.
    """
    known = set(suite.items)
    if known and (foreign := [item for item in responses if item not in known]):
        raise ValueError(
            f"Item {foreign[0]!r} is not in the data ({len(foreign)} such items). Give the --data "
            "that the answers were generated with."
        )
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
        about: What else is written down and may differ; counts are added, and if another model
            replied, that numbers are not comparable.
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
        waiting = _missing(tasks, latest, retry_failed=retry_failed)
        before_calls = client.budget.spent
        with tqdm(total=len(tasks), initial=len(tasks) - len(waiting), desc="judging") as bar:

            def tell(task: Task, outcome: Record) -> str | None:
                journal.append(_base(task, client.model) | outcome)
                bar.update()
                return outcome.get("error")

            stopped = ask_all(client, waiting, partial(_ask, client), tell, concurrency=concurrency)
        calls = client.budget.spent - before_calls
        verdicts = _verdicts(journal.records, tasks, client.model, stopped, calls)
        claim(out / JUDGE, settings, about=_told(about or {}, verdicts, client.model))
        return verdicts


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
    missing = _missing(tasks, latest, retry_failed=retry_failed)
    return sum(isinstance(each.request, Request) for each in missing)


def _missing(
    tasks: Sequence[Task], latest: Mapping[tuple[str, int], Record], *, retry_failed: bool
) -> list[Task]:
    """List the tasks without a reply; those that failed, to the same request, only if wanted."""
    return [
        task
        for task in tasks
        if (before := latest.get((task.item, task.repeat))) is None
        or ("reply" not in before and (retry_failed or before["key"] != task.key))
    ]


def _ask(client: ChatClient, task: Task) -> Record:
    """Ask once; in a thread."""
    if isinstance(task.request, str):
        return {"reply": task.request, "model": None, "usage": {}, "attempts": 0}
    request = task.request
    try:
        reply = client.complete(
            request.messages, temperature=request.temperature, max_tokens=request.max_tokens
        )
    except StopError:
        raise
    except ChatError as error:
        return {"error": str(error), "attempts": error.attempts, "usage": error.usage}
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


def _verdicts(
    records: Sequence[Record], tasks: Sequence[Task], model: str, stopped: str | None, calls: int
) -> Verdicts:
    """Count."""
    latest = {(each["item"], each["repeat"]): each for each in records}
    failed = {item: str(e["error"]) for (item, _), e in latest.items() if "error" in e}
    number = sum("error" in each for each in latest.values())
    tokens = {
        name: sum(each.get("usage", {}).get(name, 0) for each in records)
        for name in ("prompt_tokens", "completion_tokens")
    }
    return Verdicts(
        judged=len(latest) - number,
        failed=failed,
        waiting=sum((each.item, each.repeat) not in latest for each in tasks),
        stopped=stopped,
        calls=calls,
        tokens=tokens,
        others=sorted({each["model"] for each in records if each.get("model")} - {model}),
    )


def _told(about: Mapping[str, Any], verdicts: Verdicts, model: str) -> Mapping[str, Any]:
    """What ``judge.json`` says besides settings when judging ends."""
    told = {**about, "judged": verdicts.judged, "failed": len(verdicts.failed), **verdicts.tokens}
    if verdicts.others:
        why = f"{model} was asked and {', '.join(verdicts.others)} replied"
        told |= {"comparable": False, "why": why}
    return told
