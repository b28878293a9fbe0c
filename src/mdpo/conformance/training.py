"""Checks of training: where gradients go, and whether a step lowers the loss."""

import math
from collections.abc import Container, Iterable

import torch
from peft import PeftModel
from torch import Tensor, nn

from mdpo.conformance.engine import mdpo_loss, reference_of
from mdpo.conformance.features import features_of
from mdpo.conformance.preserving import FROZEN, adapted, preserving
from mdpo.conformance.rows import MIX, SEVERAL_SIZES
from mdpo.conformance.subject import (
    CANDIDATES,
    CheckFailed,
    Finding,
    NotApplicable,
    Subject,
    shown_names,
)
from mdpo.data.batch import Batch
from mdpo.models.parts import find_parts
from mdpo.models.policy import disable_dropout, prepare_policy
from mdpo.scoring import PlainScorer

START = 3 * math.log(2)
"""Loss of mDPO where policy and reference are equal: each of its three terms is -log sigmoid(0)."""

DECREASES = (0.1, 0.03, 0.01, 0.003)
"""How much a step along the gradient is to lower the loss if it were a straight line: tried from
the largest on, because a loss is one only over short steps."""


def adapters_alone_are_trained(subject: Subject) -> Finding:
    """With LoRA, adapters have gradients and nothing else has; image features have none.

    Args:
        subject: Model and processor.

    Returns:
        Number of adapter matrices.

    Raises:
        CheckFailed: If a gradient is missing, or is where none should be.
    """  # noqa: DOC502 - raised where gradients are looked at
    with adapted(subject, strong=False) as policy:
        policy.train()
        _forget_gradients(policy)
        _refuse_trained_features(subject, policy)
        batch = subject.batch(subject.examples(_kind(subject)))
        _loss(policy, batch).backward()
        adapters = {name: each for name, each in policy.named_parameters() if "lora_" in name}
        # The second matrix begins at 0, so the first has a gradient of 0 until it has moved.
        _refuse_missing(adapters.items(), nonzero=[name for name in adapters if "lora_B" in name])
        _refuse_others(policy, adapters)
    return Finding(float(len(adapters)), "adapter matrices, each with a gradient, nothing else")


def language_model_alone_is_trained(subject: Subject) -> Finding:
    """With full fine-tuning the language model has gradients, tower and projector have none.

    Args:
        subject: Model and processor.

    Returns:
        Number of trained parameters.

    Raises:
        CheckFailed: If a gradient is missing, or is where none should be.
    """  # noqa: DOC502 - raised where gradients are looked at
    with preserving(subject.model):
        subject.model.requires_grad_(True)
        policy = prepare_policy(subject.model, None, frozen=FROZEN)
        disable_dropout(policy)
        policy.train()
        _forget_gradients(policy)
        _refuse_trained_features(subject, policy)
        parts = find_parts(subject.model)
        batch = subject.batch(subject.examples(_kind(subject)))
        # The policy is its own reference here: the same numbers, without gradient.
        _loss(policy, batch).backward()
        trained = {
            name: each
            for name, each in policy.named_parameters()
            if parts.part_of(name) == "language_model"
        }
        _refuse_missing(trained.items(), nonzero=list(trained))
        _refuse_others(policy, trained)
    return Finding(float(len(trained)), "parameters, each with a gradient, nothing else")


def a_step_lowers_the_loss(subject: Subject) -> Finding:
    """The loss begins at 3 log 2 and falls with a step of the adapters along its gradient.

    Args:
        subject: Model and processor.

    Returns:
        How much the step lowered the loss.

    Raises:
        CheckFailed: If the loss begins elsewhere or no step lowers it.
    """
    with adapted(subject, strong=False) as policy:
        policy.train()
        batch = subject.batch(subject.examples(SEVERAL_SIZES))
        trained = [each for each in policy.parameters() if each.requires_grad]
        loss = _loss(policy, batch)
        start = float(loss.detach())
        if not abs(start - START) <= subject.tolerances.logps * START:
            raise CheckFailed(
                f"the loss begins at {start:.6g}, not at 3 log 2 = {START:.6g}", start
            )
        gradients = torch.autograd.grad(loss, trained)
        squared = sum(float(each.float().square().sum()) for each in gradients)
        if not (squared > 0 and math.isfinite(squared)):
            raise CheckFailed("the loss has no finite gradient", squared)
        lowered = -math.inf
        for decrease in DECREASES:
            with torch.no_grad():
                for each, gradient in zip(trained, gradients, strict=True):
                    each.sub_(gradient, alpha=decrease / squared)
                lowered = start - float(_loss(policy, batch))
                for each, gradient in zip(trained, gradients, strict=True):
                    each.add_(gradient, alpha=decrease / squared)
            if lowered > decrease / 4:
                return Finding(lowered, f"fall of the loss from 3 log 2, {decrease:g} predicted")
    raise CheckFailed("no step along the gradient lowered the loss", lowered)


def _kind(subject: Subject) -> str:
    """Rows that take all ways through a model, if it takes them."""
    return MIX if MIX in subject.rows else SEVERAL_SIZES


def _loss(policy: nn.Module, batch: Batch) -> Tensor:
    """MDPO by plain rows; the reference is the policy with adapters off, or as it is."""
    scorer = PlainScorer(policy)
    logps = scorer(policy, batch, CANDIDATES)
    if isinstance(policy, PeftModel):
        reference = reference_of(policy, scorer, batch)
    else:
        reference = {name: each.detach() for name, each in logps.items()}
    return mdpo_loss(logps, reference, batch)


def _forget_gradients(policy: nn.Module) -> None:
    """Begin without gradients; what there was is put back afterwards."""
    for each in policy.parameters():
        each.grad = None


def _refuse_trained_features(subject: Subject, policy: nn.Module) -> None:
    """Tower and projector are frozen if their output does not depend on trained weights."""
    try:
        features = features_of(subject, subject.prompts(subject.examples()[:1]))
    except NotApplicable:
        return
    features = [each for each in features if each.requires_grad]
    if not features:
        return
    trained = {name: each for name, each in policy.named_parameters() if each.requires_grad}
    total = torch.stack([each.float().sum() for each in features]).sum()
    gradients = torch.autograd.grad(total, list(trained.values()), allow_unused=True)
    names = [name for name, each in zip(trained, gradients, strict=True) if each is not None]
    raise CheckFailed(f"image features depend on trained weights: {shown_names(names)}")


def _refuse_others(policy: nn.Module, trained: Container[str]) -> None:
    """Name the parameters with a gradient that are not to be trained."""
    others = [
        name
        for name, each in policy.named_parameters()
        if each.grad is not None and name not in trained
    ]
    if others:
        raise CheckFailed(f"not to be trained, but with gradient: {shown_names(others)}")


def _refuse_missing(named: Iterable[tuple[str, nn.Parameter]], *, nonzero: list[str]) -> None:
    """Name the parameters without a gradient, or with one that is 0 or no number."""
    named = list(named)
    missing = [name for name, each in named if each.grad is None]
    if missing:
        raise CheckFailed(f"without gradient: {shown_names(missing)}", float(len(missing)))
    gradients = {name: each.grad for name, each in named if each.grad is not None}
    wrong = [name for name, each in gradients.items() if not each.isfinite().all()]
    if wrong:
        raise CheckFailed(f"gradient not finite: {shown_names(wrong)}", float(len(wrong)))
    zero = [name for name in nonzero if not gradients[name].any()]
    if zero:
        raise CheckFailed(f"gradient is 0: {shown_names(zero)}", float(len(zero)))
