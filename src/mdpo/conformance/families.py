"""Prove the table of families: every check on a tiny model of each, and the page that says so."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedModel

from mdpo.conformance.report import ConformanceReport
from mdpo.conformance.rows import SEVERAL_SIZES, make_rows
from mdpo.conformance.suite import check_model
from mdpo.conformance.tiny import TINY_MODELS
from mdpo.data.collation import PreferenceCollator
from mdpo.data.encoding import Encoder
from mdpo.models.families import FAMILIES, IMAGE_TOKENS, UNPROVEN
from mdpo.models.parts import find_parts, linear_targets
from mdpo.models.sharing import reason_against_sharing
from mdpo.scoring.images import ImageEncoder

HEAD = """\
# Models

Written by `mdpo check-model --family all --page docs/models.md`; do not edit. What is said here was
found on a tiny random model of each family, in float32 on a CPU, with every check of
[check-model.md](check-model.md). Real checkpoints of full size have not been run here: put yours
through `mdpo check-model DIR` before you train on it.

Found with transformers {version}, without torchvision. Where torchvision is installed,
transformers takes its image processors, whose pixels differ by rounding.

| family | example | checks | prompts | image tokens | remarks |
|---|---|---|---|---|---|
"""

PARTS_HEAD = """
## Parts and adapters

By default vision tower and projector are frozen, and adapters go on the linear layers of the
language model that are named here.

| family | vision tower | projector | language model | LoRA |
|---|---|---|---|---|
"""

UNPROVEN_HEAD = """
## Not proven here

| family | why |
|---|---|
"""

TAIL = """
Any other model that `AutoModelForImageTextToText` loads can be trained: what speaks against sharing
prompts is read off its config and classes, the first batch of the run compares shared prompts with
plain rows, and the run goes on with plain rows if they differ.
"""


@dataclass(frozen=True)
class Proof:
    """What was found on the tiny model of a family.

    Attributes:
        name: Of the family.
        report: Of all checks.
        row: Of the table of families.
        parts: Row of the table of parts.
    """

    name: str
    report: ConformanceReport
    row: str
    parts: str


def prove(name: str, *, show_progress: bool = False) -> Proof:
    """Put the tiny model of a family through every check.

    Args:
        name: Of the family.
        show_progress: Whether to show a bar on standard error.

    Returns:
        What was found.

    Raises:
        ValueError: If there is no such family.
    """
    if name not in TINY_MODELS:
        raise ValueError(
            f"`--family` must be all or one of {', '.join(TINY_MODELS)}, got {name!r}."
        )
    tiny = TINY_MODELS[name]()
    model = tiny.model()
    report = check_model(model, tiny.processor, show_progress=show_progress)
    return Proof(name, report, _row(name, model, tiny.processor, report), _parts_row(name, model))


def page(proofs: Sequence[Proof]) -> str:
    """Write the page on models.

    Args:
        proofs: Of all families.

    Returns:
        Markdown.
    """
    lines = [HEAD.format(version=transformers.__version__).rstrip()]
    lines += [each.row for each in proofs]
    lines += [PARTS_HEAD.rstrip(), *(each.parts for each in proofs)]
    lines += [UNPROVEN_HEAD.rstrip(), *(f"| {name} | {why} |" for name, why in UNPROVEN.items())]
    return "\n".join([*lines, TAIL])


def write_page(path: Path, proofs: Sequence[Proof]) -> None:
    """Write the page to a file.

    Args:
        path: Of the file.
        proofs: Of all families.
    """
    path.write_text(page(proofs), encoding="utf-8")


def _row(name: str, model: PreTrainedModel, processor: Any, report: ConformanceReport) -> str:
    """Write what a family's model can do."""
    family = FAMILIES[name]
    prompts = _prompts(model, processor)
    counts = {each: 0 for each in ("passed", "failed", "not applicable")}
    for result in report.results:
        counts[result.status] += 1
    checks = f"{counts['passed']} passed"
    failed = [each.name for each in report.results if each.status == "failed"]
    checks += f", **{len(failed)} failed: {', '.join(failed)}**" if failed else ""
    missing = [each.name for each in report.results if each.status == "not applicable"]
    checks += f"; not applicable: {', '.join(missing)}" if missing else ""
    needs = f"needs {', '.join(family.needs)}" if family.needs else ""
    remarks = "; ".join(each for each in (needs, family.note) if each)
    tokens = IMAGE_TOKENS[family.image_tokens]
    return (
        f"| {family.title} | `{family.checkpoint}` | {checks} | {prompts} | {tokens} | {remarks} |"
    )


def _prompts(model: PreTrainedModel, processor: Any) -> str:
    """Say what is shared between the candidates of a pair."""
    if reason := reason_against_sharing(model):
        # The row says which model it is.
        return "plain rows: " + reason.removeprefix(type(model).__name__).strip()
    batch = PreferenceCollator(Encoder(processor))(make_rows(0)[SEVERAL_SIZES])
    if ImageEncoder(model).separates(batch, "chosen"):
        return "shared, each distinct image encoded once"
    return "shared, images encoded once per batch (no feature cache)"


def _parts_row(name: str, model: PreTrainedModel) -> str:
    """Write where a family keeps its parts."""
    parts = find_parts(model)
    pattern = linear_targets(model, parts, {"language_model"})
    leaves = sorted({each.rsplit(".", 1)[-1] for each in pattern.strip("()").split("|")})
    projector = ", ".join(f"`{each}`" for each in parts.projector) or "in the tower"
    cells = (f"`{parts.vision_tower}`", projector, f"`{parts.language_model}`", ", ".join(leaves))
    return f"| {FAMILIES[name].title} | " + " | ".join(cells) + " |"
