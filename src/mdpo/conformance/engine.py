"""Checks of the scoring engine on a model: shared prefix, and adapters switched off."""

import torch
from peft import PeftModel
from torch import Tensor

from mdpo.conformance.invariances import judge
from mdpo.conformance.preserving import adapted
from mdpo.conformance.rows import MIX, ONE_IMAGE, SEVERAL_SIZES, TEXT_ONLY
from mdpo.conformance.subject import CANDIDATES, CheckFailed, Finding, NotApplicable, Subject
from mdpo.conformance.tolerances import relative_difference
from mdpo.data.batch import Batch
from mdpo.models.sharing import reason_against_sharing
from mdpo.objectives import Candidate, Logps, make_objective
from mdpo.scoring import AdapterOff, PlainScorer, Scorer
from mdpo.scoring.choice import choose_scorer

LEAST_ADAPTER_EFFECT = 1e-3
"""Smallest relative change of a log-probability by adapters that are drawn as large as weights."""


def mdpo_loss(
    policy_logps: dict[Candidate, Tensor], reference_logps: dict[Candidate, Tensor], batch: Batch
) -> Tensor:
    """Compute the loss of mDPO with the paper's weights.

    Args:
        policy_logps: With gradient.
        reference_logps: Without.
        batch: That was scored.

    Returns:
        A scalar.
    """
    objective = make_objective("mdpo")
    lengths = {slot: each["attention_mask"].sum(1) for slot, each in batch["responses"].items()}
    logps = Logps(policy_logps, reference_logps, lengths, batch["has_image"])
    return objective.total(objective.losses(logps), batch["has_image"])


def reference_of(policy: PeftModel, scorer: Scorer, batch: Batch) -> dict[Candidate, Tensor]:
    """Score the candidates of mDPO with adapters off.

    Args:
        policy: With adapters.
        scorer: Of policy and reference.
        batch: What to score.

    Returns:
        Log-probabilities by candidate.
    """
    return AdapterOff(policy, unwrap=lambda model: model)(scorer, batch, CANDIDATES)


def shared_prefix_equals_plain(subject: Subject) -> Finding:
    """Sharing prompts and encodings changes neither log-probabilities nor gradients.

    Args:
        subject: Model and processor.

    Returns:
        Largest relative difference of a log-probability.

    Raises:
        NotApplicable: If runs of this model use plain rows.
        CheckFailed: If a gradient differs.
    """
    if reason := reason_against_sharing(subject.model):
        raise NotApplicable(f"plain rows: {reason}")
    differences, worst = {}, 0.0
    with adapted(subject, strong=True) as policy:
        policy.train()
        for kind in (MIX, SEVERAL_SIZES, ONE_IMAGE, TEXT_ONLY):
            if kind not in subject.rows:
                continue
            batch = subject.batch(subject.rows[kind])
            plain = PlainScorer(policy)
            reference = reference_of(policy, plain, batch)
            expected = _scored(policy, plain, batch, reference)
            found = _scored(policy, choose_scorer(policy), batch, reference)
            differences[kind] = relative_difference(found[0], expected[0])
            name, error = _gradient_error(found[1], expected[1])
            worst = max(worst, error)
            if not error <= subject.tolerances.gradients:
                limit = subject.tolerances.gradients
                raise CheckFailed(
                    f"gradients differ, most that of {name} for {kind} (limit {limit:g})", error
                )
    finding = judge(differences, subject.tolerances.logps, "shared and plain log-probabilities")
    return Finding(finding.figure, f"{finding.remark}; of gradients {worst:.2g}")


def _scored(
    policy: PeftModel, scorer: Scorer, batch: Batch, reference: dict[Candidate, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probabilities, and the gradient of mDPO by parameter."""
    trained = {name: each for name, each in policy.named_parameters() if each.requires_grad}
    logps = scorer(policy, batch, CANDIDATES)
    gradients = torch.autograd.grad(
        mdpo_loss(logps, reference, batch),
        list(trained.values()),
        allow_unused=True,
        materialize_grads=True,
    )
    together = torch.stack([logps[each].detach() for each in CANDIDATES])
    return together, dict(zip(trained, gradients, strict=True))


def _gradient_error(found: dict[str, Tensor], expected: dict[str, Tensor]) -> tuple[str, float]:
    """Name of the parameter whose gradient differs most, and by how much; see ``Tolerances``."""
    norm = torch.stack([each.float().norm() for each in expected.values()]).norm()
    if not norm > 0:
        raise CheckFailed("no adapter has a gradient", float(norm))
    errors = {}
    for name, gradient in expected.items():
        error = (found[name] - gradient).float().norm()
        errors[name] = float(error / (gradient.float().norm() + 0.1 * norm))
    worst = max(errors, key=lambda each: errors[each])
    return worst, errors[worst]


def adapter_off_equals_reference(subject: Subject) -> Finding:
    """With adapters off the policy is the model it began as; with adapters on it is not.

    Args:
        subject: Model and processor.

    Returns:
        Largest relative difference with adapters off.

    Raises:
        CheckFailed: If adapters on make no difference.
    """
    batches = {kind: subject.batch(rows) for kind, rows in subject.rows.items()}
    untouched = {kind: subject.logps(batch) for kind, batch in batches.items()}
    differences, effects = {}, []
    with adapted(subject, strong=True) as policy:
        scorer = PlainScorer(policy)
        for kind, batch in batches.items():
            reference = reference_of(policy, scorer, batch)
            off = torch.stack([reference[each] for each in CANDIDATES])
            differences[kind] = relative_difference(off, untouched[kind])
            effects.append(relative_difference(subject.logps(batch, model=policy), off))
    finding = judge(differences, subject.tolerances.logps, "adapters off and the untouched model")
    if not min(effects) > LEAST_ADAPTER_EFFECT:
        raise CheckFailed("adapters do not change log-probabilities", min(effects))
    return finding
