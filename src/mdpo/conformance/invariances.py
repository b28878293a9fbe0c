"""Checks of what log-probabilities must and must not depend on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mdpo.conformance.features import features_of
from mdpo.conformance.rows import (
    MIX,
    ONE_IMAGE,
    SEVERAL_IMAGES,
    SEVERAL_SIZES,
    picture,
    quarters,
    repaint,
    with_images,
)
from mdpo.conformance.subject import CheckFailed, Finding, NotApplicable, Subject
from mdpo.conformance.tolerances import relative_difference
from mdpo.data.batch import Inputs
from mdpo.data.dataset import Example
from mdpo.objectives import CHOSEN, REJECTED
from mdpo.scoring import PlainScorer
from mdpo.scoring.layout import lay_out
from mdpo.scoring.reference import evaluating


def judge(differences: dict[str, float], limit: float, what: str) -> Finding:
    """Compare the largest of several differences with a limit.

    Args:
        differences: By what they are of.
        limit: Largest that is rounding.
        what: Two things that should be equal.

    Returns:
        The largest difference.

    Raises:
        CheckFailed: If it is above the limit.
    """
    if not differences:
        raise CheckFailed("needs rows that the model scores, see above")
    worst = max(differences, key=lambda each: differences[each])
    largest = differences[worst]
    if not largest <= limit:
        raise CheckFailed(f"{what} differ for {worst} (limit {limit:g})", largest)
    return Finding(largest, f"largest relative difference ({worst})")


def batch_equals_single(subject: Subject) -> Finding:
    """Rows of a batch have the log-probabilities that they have alone.

    Args:
        subject: Model and processor.

    Returns:
        Largest relative difference.
    """
    differences = {}
    for kind, rows in subject.rows.items():
        together = subject.logps(subject.batch(rows))
        alone = [subject.logps(subject.batch([row])) for row in rows]
        differences[kind] = relative_difference(together, torch.cat(alone, dim=1))
    return judge(differences, subject.tolerances.logps, "batch and single rows")


def padding_sides_are_equal(subject: Subject) -> Finding:
    """It does not matter on which side a processor pads.

    Args:
        subject: Model and processor.

    Returns:
        Largest relative difference.
    """
    differences = {}
    for kind, rows in subject.rows.items():
        left, right = (subject.logps(subject.batch(rows, side=s)) for s in ("left", "right"))
        differences[kind] = relative_difference(left, right)
    return judge(differences, subject.tolerances.logps, "left and right padding")


def response_depends_on_image(subject: Subject) -> Finding:
    """Log-probabilities change with the image, each quarter of it, and each of several images.

    Args:
        subject: Model and processor.

    Returns:
        Smallest relative change.

    Raises:
        CheckFailed: If an image, a quarter of it or an image feature has no effect.
    """
    generator = np.random.default_rng(subject.seed + 1)
    row = subject.examples(ONE_IMAGE)[0]
    (image,) = row["images"]["chosen"]
    changed = {"another image": (row, [picture(generator, image.size)])}
    changed["the rejected image"] = (row, row["images"]["rejected"])
    for name, box in quarters(image.size):
        changed[f"the {name} quarter"] = (row, [repaint(image, box, generator)])
    for number, several in enumerate(subject.rows.get(SEVERAL_IMAGES, ())):
        images = several["images"]["chosen"]
        for place, each in enumerate(images):
            other = [*images[:place], picture(generator, each.size), *images[place + 1 :]]
            changed[f"image {place + 1} of {len(images)} in row {number}"] = (several, other)
    effects = {name: _effect(subject, *change) for name, change in changed.items()}
    blind = [name for name, effect in effects.items() if not effect > subject.tolerances.effect]
    if blind:
        raise CheckFailed(f"no effect of {', '.join(blind)}", min(effects.values()))
    _refuse_equal_features(subject, row)
    return Finding(min(effects.values()), "smallest relative change, " + _features_used(subject))


def _effect(subject: Subject, row: Example, images: Sequence[Any]) -> float:
    """How much a row's log-probabilities change with other images of the same sizes."""
    candidates = (CHOSEN, REJECTED)
    before = subject.logps(subject.batch([row]), candidates)
    after = subject.logps(subject.batch([with_images(row, images)]), candidates)
    return relative_difference(after, before)


def _refuse_equal_features(subject: Subject, row: Example) -> None:
    """Refuse an encoder that gives one feature for all parts of a picture of many colors."""
    try:
        with torch.no_grad():
            encoded = features_of(subject, subject.prompts([row]))
    except NotApplicable:
        return
    features = [feature for each in encoded for feature in each.flatten(0, -2)]
    distinct = len(torch.stack(features).unique(dim=0))
    # Some families repeat one of theirs at the end of each line of an image.
    if distinct < len(features) / 2:
        raise CheckFailed(f"only {distinct} of {len(features)} features of an image differ")


def _features_used(subject: Subject) -> str:
    """Refuse a model that leaves image features out: each must have a gradient."""
    row = subject.examples(ONE_IMAGE)[0]
    model = subject.model
    with evaluating(model), _features_as_leaves(model) as leaves:
        scored = PlainScorer(model)(model, subject.batch([row]), [CHOSEN])[CHOSEN]
        if not leaves:
            return "features not seen one by one"
        gradients = torch.autograd.grad(scored.sum(), leaves, allow_unused=True)
    unused = total = 0
    for leaf, gradient in zip(leaves, gradients, strict=True):
        norms = leaf.new_zeros(leaf.shape[:-1]) if gradient is None else gradient.norm(dim=-1)
        unused, total = unused + int((norms == 0).sum()), total + norms.numel()
    if unused:
        raise CheckFailed(f"{unused} of {total} image features have no effect on the response")
    return f"all {total} features of an image used"


@contextmanager
def _features_as_leaves(model: nn.Module) -> Iterator[list[Tensor]]:
    """Have image features enter the language model as leaves of the graph, and list them."""
    leaves: list[Tensor] = []
    inside: list[nn.Module] = []

    def watching(module: nn.Module, encode: Any) -> Any:
        def encode_images(*args: Any, **kwargs: Any) -> Any:
            inside.append(module)
            output = encode(*args, **kwargs)
            inside.pop()
            # A model may ask its inner one: the outermost call is the one whose output is used.
            if not inside and hasattr(output, "pooler_output"):
                pooled = output.pooler_output
                is_one = isinstance(pooled, Tensor)
                new = [each.detach().requires_grad_() for each in ([pooled] if is_one else pooled)]
                leaves.extend(new)
                output.pooler_output = new[0] if is_one else type(pooled)(new)
            return output

        return encode_images

    watched = [m for m in model.modules() if hasattr(type(m), "get_image_features")]
    for module in watched:
        encode: Any = module.get_image_features
        module.__dict__["get_image_features"] = watching(module, encode)
    try:
        yield leaves
    finally:
        for module in watched:
            del module.__dict__["get_image_features"]


def rows_are_independent(subject: Subject) -> Finding:
    """A row's log-probabilities do not change with the images of the other rows.

    Args:
        subject: Model and processor.

    Returns:
        Largest relative change of a row whose own images stay.
    """
    generator, differences = np.random.default_rng(subject.seed + 2), {}
    for kind in (ONE_IMAGE, SEVERAL_SIZES, SEVERAL_IMAGES, MIX):
        rows = subject.rows.get(kind, ())
        before = subject.logps(subject.batch(rows)) if rows else None
        for number, row in enumerate(rows):
            images = [picture(generator, each.size) for each in row["images"]["chosen"]]
            if not images or before is None:
                continue
            changed = [*rows[:number], with_images(row, images), *rows[number + 1 :]]
            after = subject.logps(subject.batch(changed))
            others = [k for k in range(len(rows)) if k != number]
            change = relative_difference(after[:, others], before[:, others])
            differences[f"{kind}, images of row {number} changed"] = change
    limit = min(subject.tolerances.logps, 10 * subject.tolerances.effect)
    return judge(differences, limit, "log-probabilities of other rows")


def tokens_do_not_see_ahead(subject: Subject) -> Finding:
    """What a model predicts in a response does not depend on the tokens that follow.

    Args:
        subject: Model and processor.

    Returns:
        Largest relative change of a token's log-probability by another last token.
    """
    differences = {}
    for kind, rows in subject.rows.items():
        batch = subject.batch(rows)
        response = batch["responses"]["chosen"]
        changed = dict(response) | {"input_ids": response["input_ids"].clone()}
        last = response["attention_mask"].sum(dim=1) - 1
        changed["input_ids"][torch.arange(len(last)), last] = response["input_ids"][:, 0]
        before, after = (
            _predictions(subject, batch["prompts"]["chosen"], each) for each in (response, changed)
        )
        differences[kind] = relative_difference(after, before)
    limit = min(subject.tolerances.logps, 10 * subject.tolerances.effect)
    return judge(differences, limit, "predictions before another last token")


def _predictions(subject: Subject, prompt: Inputs, response: Inputs) -> Tensor:
    """Log-probabilities of the whole vocabulary at each position that predicts a response token."""
    laid = lay_out(prompt, response)
    with torch.no_grad(), evaluating(subject.model):
        logits = subject.model(**laid.inputs, use_cache=False).logits
    return logits[laid.predicts_response].float().log_softmax(dim=-1)
