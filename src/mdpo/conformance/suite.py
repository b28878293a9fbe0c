"""All checks on one model."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from mdpo.conformance.engine import adapter_off_equals_reference, shared_prefix_equals_plain
from mdpo.conformance.generation import generation_equals_scoring
from mdpo.conformance.invariances import (
    batch_equals_single,
    padding_sides_are_equal,
    response_depends_on_image,
    rows_are_independent,
    tokens_do_not_see_ahead,
)
from mdpo.conformance.persistence import (
    adapters_come_back,
    model_comes_back,
    processor_comes_back,
)
from mdpo.conformance.placeholders import one_placeholder_per_image, wrong_counts_are_refused
from mdpo.conformance.preserving import facts_of, preserving
from mdpo.conformance.report import CheckResult, ConformanceReport
from mdpo.conformance.rows import KINDS, REQUIRED, make_rows, mixed
from mdpo.conformance.subject import CheckFailed, Finding, NotApplicable, Subject, padding
from mdpo.conformance.tokens import image_tokens_equal_features, labels_are_the_response
from mdpo.conformance.tolerances import tolerances_for
from mdpo.conformance.training import (
    a_step_lowers_the_loss,
    adapters_alone_are_trained,
    language_model_alone_is_trained,
)
from mdpo.data.dataset import Example
from mdpo.data.encoding import Encoder

Check = Callable[[Subject], Finding]

CHECKS: dict[str, Check] = {
    "one placeholder per image": one_placeholder_per_image,
    "image tokens = image features": image_tokens_equal_features,
    "labels = response": labels_are_the_response,
    "wrong counts refused": wrong_counts_are_refused,
    "batch = single": batch_equals_single,
    "left = right padding": padding_sides_are_equal,
    "response depends on image": response_depends_on_image,
    "rows independent": rows_are_independent,
    "tokens do not see ahead": tokens_do_not_see_ahead,
    "shared prefix = plain": shared_prefix_equals_plain,
    "adapters off = reference": adapter_off_equals_reference,
    "gradients, LoRA": adapters_alone_are_trained,
    "gradients, full": language_model_alone_is_trained,
    "a step lowers the loss": a_step_lowers_the_loss,
    "generation = scoring": generation_equals_scoring,
    "save and load, model": model_comes_back,
    "save and load, processor": processor_comes_back,
    "save and load, adapters": adapters_come_back,
}
"""Checks by name, in the order in which they run."""

UNCHANGED = "model left as it was"

MAX_REMARK = 300
"""Characters of an error that are shown."""


def check_model(
    model: PreTrainedModel,
    processor: Any,
    *,
    names: Sequence[str] | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> ConformanceReport:
    """Check whether a model behaves as training, scoring and generation assume.

    A processor without tokenizer, image processor or chat template is refused as in training.

    Args:
        model: Without adapters; it is the same afterwards.
        processor: Of the model.
        names: Checks to run, of ``CHECKS``; None runs all.
        seed: Of made pictures and adapters.
        show_progress: Whether to show a bar on standard error.

    Returns:
        One result per kind of rows and per check.

    Raises:
        ValueError: If a name is unknown.
    """
    for name in names or ():
        if name not in CHECKS:
            raise ValueError(f"{name!r} is not a check. Known: {', '.join(CHECKS)}.")
    checks = {name: CHECKS[name] for name in CHECKS if names is None or name in names}
    encoder = Encoder(processor)
    before = facts_of(model, encoder.tokenizer)
    collated: dict[str, list[Example]] = {}
    rows: dict[str, list[Example]] = {}
    subject = Subject(model, encoder, collated, rows, tolerances_for(model.dtype), seed)
    results = []
    with tqdm(
        total=len(KINDS) + len(checks) + 1, desc="checking", disable=not show_progress
    ) as bar:
        made = make_rows(seed)
        for kind in KINDS:
            found = made.get(kind) or mixed(rows)
            take = partial(_take_rows, kind=kind, found=found, collated=collated, rows=rows)
            results.append(_run(f"rows: {kind}", take, subject))
            bar.update()
        for name, check in checks.items():
            bar.set_postfix_str(name)
            results.append(_run(name, check, subject))
            bar.update()
        results.append(_run(UNCHANGED, partial(_unchanged, before=before), subject))
        bar.update()
    return ConformanceReport(type(model).__name__, tuple(results))


def _run(name: str, check: Check, subject: Subject) -> CheckResult:
    """Run a check; whatever it raises is its result."""
    tokenizer = subject.encoder.tokenizer
    try:
        with preserving(subject.model), padding(tokenizer, None):
            finding = check(subject)
    except NotApplicable as reason:
        return CheckResult(name, "not applicable", None, _one_line(str(reason)))
    except CheckFailed as failure:
        return CheckResult(name, "failed", failure.figure, _one_line(str(failure)))
    except Exception as error:  # of a model, processor or template of any make
        return CheckResult(name, "failed", None, _one_line(f"{type(error).__name__}: {error}"))
    return CheckResult(name, "passed", finding.figure, finding.remark)


def _one_line(text: str) -> str:
    """Put an error on one line of bearable length."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_REMARK else line[: MAX_REMARK - 3] + "..."


def _take_rows(
    subject: Subject,
    *,
    kind: str,
    found: list[Example],
    collated: dict[str, list[Example]],
    rows: dict[str, list[Example]],
) -> Finding:
    """Sort rows in: those that the processor takes, and those of them that the model scores."""
    if not found:
        raise NotApplicable("the model takes no two kinds of rows that could be mixed")
    try:
        batch = subject.batch(found)
    except Exception as error:
        if kind in REQUIRED:
            raise
        name = type(subject.processor).__name__
        raise NotApplicable(f"{name} refuses: {type(error).__name__}: {error}") from error
    collated[kind] = found
    # What the processor takes, the model must score.
    logps = subject.logps(batch)
    if not bool(torch.isfinite(logps).all()) or bool((logps > 0).any()):
        raise CheckFailed(f"log-probabilities must be finite and at most 0, got {logps.tolist()}")
    rows[kind] = found
    longest = max(each["attention_mask"].shape[1] for each in batch["prompts"].values())
    return Finding(float(longest), "tokens of the longest prompt")


def _unchanged(subject: Subject, *, before: dict[str, Any]) -> Finding:
    """Compare the model with what it was before all checks."""
    after = facts_of(subject.model, subject.encoder.tokenizer)
    if changed := [name for name, fact in before.items() if after[name] != fact]:
        raise CheckFailed(f"changed by the checks: {', '.join(changed)}")
    return Finding(remark=", ".join(before))
