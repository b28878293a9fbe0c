"""``mdpo judge``: let a language model judge the answers of a run."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mdpo.evaluation.judging.judges import JUDGES, comparability
from mdpo.evaluation.suites import SUITES, suite_name

EPILOG = """\
Asks any OpenAI-compatible server. What has been judged is not asked again: the same command takes
up a run that was cut off, and --retry-failed asks again for what failed.

judges of published numbers (--judge):
{judges}
Numbers by another judge, or in other words than the official script's (--prompt reads the user's
copy of them), are marked as not comparable.

examples:
  mdpo judge runs/mdpo/mmhal --data data/mmhal --judge gpt-4-1106-preview \\
      --prompt LLaVA-RLHF/Eval/eval_gpt_mmhal.py
  mdpo judge runs/mdpo/mmhal --data data/mmhal --endpoint http://127.0.0.1:8000/v1 --model my-judge
  mdpo judge runs/other/mmhal --data data/mmhal --suite mmhal --responses answers.json \\
      --judge gpt-4-1106-preview --max-calls 100
"""


def build_parser() -> argparse.ArgumentParser:
    """Make the parser of the verb.

    Returns:
        The parser.
    """
    width = max(map(len, JUDGES))
    judges = "".join(
        f"  {name:<{width}}  {', '.join(each.suites)}: {each.papers}"
        f"{' (retired)' if each.retired else ''}\n"
        for name, each in JUDGES.items()
    )
    parser = argparse.ArgumentParser(
        prog="mdpo judge",
        allow_abbrev=False,
        description="Let a language model judge the answers of a run.",
        epilog=EPILOG.format(judges=judges),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("run", type=Path, help="folder that `mdpo generate` wrote, or that --responses go to")
    add("--data", type=Path, required=True, help="folder of the benchmark's data")
    add("--suite", type=suite_name, choices=SUITES, metavar="SUITE", help="default: the run's")
    add("--responses", type=Path, help="answers of another program, in the official format")
    add("--judge", choices=JUDGES, help="a judge of published numbers, see below")
    add("--endpoint", help="base URL of the server (default: that of the judge)")
    add("--model", help="name of the model there (default: the judge)")
    add("--key-env", default="OPENAI_API_KEY", help="environment variable with the server's key")
    add("--prompt", type=Path, help="the user's copy of the official script, or a text file")
    add("--repeats", type=int, default=1, help="replies per item, to measure the judge's noise")
    add("--max-calls", type=int, help="budget: most calls, repeated ones included")
    add("--concurrency", type=int, default=8, help="requests at a time (default: 8)")
    add("--timeout", type=float, default=120.0, help="seconds for a reply (default: 120)")
    add("--attempts", type=int, default=6, help="most calls for one reply (default: 6)")
    add("--retry-failed", action="store_true", help="ask again for what failed before")
    add("--allow-model-mismatch", action="store_true", help="take replies of another model")
    add("--price-in", type=float, help="per million tokens of prompts, for the cost")
    add("--price-out", type=float, help="per million tokens of replies")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Judge what has not been judged.

    Args:
        arguments: Command line after the verb.

    Returns:
        Exit status: 1 if a request failed or judging stopped early.

    Raises:
        ValueError: If the benchmark is scored without a judge.
    """
    parser = build_parser()
    values = parser.parse_args(arguments)
    preset = JUDGES[values.judge] if values.judge else None
    endpoint = values.endpoint or (preset and preset.endpoint)
    model = values.model or (preset and preset.model)
    if not endpoint or not model:
        parser.error("give --judge NAME, or --endpoint URL and --model NAME")
    if min(values.repeats, values.concurrency, values.attempts) < 1:
        parser.error("--repeats, --concurrency and --attempts must be 1 or more")
    if values.timeout <= 0 or (values.max_calls or 0) < 0:
        parser.error("--timeout must be over 0 and --max-calls 0 or more")
    from mdpo.evaluation.chat import Budget, ChatClient, key_from
    from mdpo.evaluation.judging.run import calls_ahead, judge, tasks_of
    from mdpo.evaluation.judging.wording import read_wording
    from mdpo.evaluation.results import load_suite
    from mdpo.evaluation.runs import read_run
    from mdpo.evaluation.suite import Judged

    name = values.suite or _suite_of(values.run, values.responses)
    suite: Any = load_suite(name, values.data)
    if not isinstance(suite, Judged):
        raise ValueError(f"{name} is scored without a judge; run `mdpo score {name}` instead.")
    if values.prompt is not None:
        suite.wording = read_wording(values.prompt, suite.wording.text.count("{}"))
    if values.responses is not None:
        _take_over(values.run, suite, values.responses, name)
    tasks = tasks_of(suite, read_run(values.run).responses(), model, values.repeats)
    comparable, why = comparability(name, model, official_prompt=suite.wording.official)
    ahead = calls_ahead(tasks, values.run, retry_failed=values.retry_failed)
    if preset and preset.retired and not values.endpoint:
        _say(f"{model} answers no longer at {endpoint}, says its maker; --endpoint names another")
    _say(f"{ahead} calls ahead; {'comparable' if comparable else 'not comparable'}: {why}")
    with ChatClient(
        endpoint,
        model,
        key=key_from(values.key_env),
        budget=Budget(values.max_calls),
        allow_other_model=values.allow_model_mismatch,
        attempts=values.attempts,
        timeout=values.timeout,
    ) as client:
        verdicts = judge(
            client,
            tasks,
            values.run,
            settings={
                "suite": name,
                "model": model,
                "prompt_sha256": suite.wording.sha256,
            },
            about={
                "prompt": suite.wording.origin,
                "endpoint": endpoint,
                "repeats": values.repeats,
                "comparable": comparable,
                "why": why,
            },
            concurrency=values.concurrency,
            retry_failed=values.retry_failed,
        )
    return _tell(verdicts, values)


def _suite_of(folder: Path, responses: Path | None) -> str:
    """Take the benchmark from the run."""
    from mdpo.evaluation.runs import read_run

    if responses is not None:
        raise ValueError(
            "`--responses` needs --suite: answers do not say what they are answers to."
        )
    suite = read_run(folder).settings.get("suite")
    judged = f"{suite}-judge" if f"{suite}-judge" in SUITES else f"{suite}-llm"
    found = judged if judged in SUITES else suite
    if found not in SUITES:
        raise ValueError(f"{folder} does not say which benchmark it is of. Give --suite.")
    return found


def _take_over(folder: Path, suite: Any, responses: Path, name: str) -> None:
    """Make a run of answers that another program gave."""
    from mdpo.evaluation.journal import Journal, content_key
    from mdpo.evaluation.runs import GENERATION, GENERATIONS, claim

    answers = suite.read_answers(responses)
    with Journal(folder / GENERATIONS) as journal:
        claim(folder / GENERATION, {"suite": name, "responses": responses.name})
        known = {each["item"]: each.get("response") for each in journal.records}
        for item, text in answers.items():
            if known.get(item, text) != text:
                raise ValueError(f"{folder} holds another answer to {item!r}. Take another folder.")
            if item not in known:
                journal.append({"key": content_key(text), "item": item, "response": text})


def _tell(verdicts: Any, values: argparse.Namespace) -> int:
    """Print counts and what to do next."""
    tokens = verdicts.tokens
    print(
        f"{verdicts.judged} replies, {verdicts.calls} calls; {tokens['prompt_tokens']} tokens of "
        f"prompts and {tokens['completion_tokens']} of replies in this run"
    )
    if values.price_in is not None or values.price_out is not None:
        cost = tokens["prompt_tokens"] * (values.price_in or 0)
        cost += tokens["completion_tokens"] * (values.price_out or 0)
        print(f"cost of the run: {cost / 1e6:.4f}")
    if verdicts.failed:
        item, message = next(iter(verdicts.failed.items()))
        _say(
            f"{len(verdicts.failed)} items failed, {item!r} for example: {message}\n"
            f"Failed: {', '.join(verdicts.failed)}. They stay unscored; the same command with "
            "--retry-failed asks again."
        )
    if verdicts.others:
        _say(f"not comparable: {', '.join(verdicts.others)} replied instead")
    if verdicts.stopped:
        _say(
            f"{verdicts.stopped}\n{verdicts.waiting} replies are missing. The same command goes on."
        )
    return 1 if verdicts.failed or verdicts.waiting else 0


def _say(text: str) -> None:
    """Write a message for people."""
    print(f"mdpo judge: {text}", file=sys.stderr)
