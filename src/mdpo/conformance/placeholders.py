"""Checks of placeholders: one per image, and wrong counts refused."""

import re
from collections.abc import Sequence
from typing import Any

import torch

from mdpo.conformance.features import num_features, num_image_tokens
from mdpo.conformance.rows import ONE_IMAGE, make_prompt, make_rows
from mdpo.conformance.subject import CheckFailed, Finding, NotApplicable, Subject, image_token_id
from mdpo.data.batch import Inputs
from mdpo.data.dataset import Example, without_images

TAG = re.compile(r"<[^<>\s]{1,40}>")
"""What a template may write for an image without its being a token."""


def find_placeholder(subject: Subject, example: Example) -> str | None:
    """Find what stands for an image in a rendered prompt.

    Args:
        subject: Model and processor.
        example: With images.

    Returns:
        A token or tag that the rendered prompt has as many times more as it has images than the
        same prompt without them; the processor's image token if it is one. None if there is none.
    """
    encoder, count = subject.encoder, len(example["images"]["chosen"])
    text = encoder.prompt_text(example["prompt"])
    bare = encoder.prompt_text(without_images(example["prompt"]))
    known = [getattr(subject.processor, "image_token", None), *encoder.tokenizer.get_added_vocab()]
    for token in [*known, *TAG.findall(text)]:
        if token and text.count(str(token)) - bare.count(str(token)) == count:
            return str(token)
    return None


def one_placeholder_per_image(subject: Subject) -> Finding:
    """The template writes one placeholder per image.

    Args:
        subject: Model and processor.

    Returns:
        Most images of a row that the template takes.

    Raises:
        NotApplicable: If the processor places image tokens itself.
    """
    row = make_rows(subject.seed)[ONE_IMAGE][0]
    images, most, remark = row["images"]["chosen"], 0, ""
    for count in (1, 2, 3):
        example = row.copy()
        example["images"] = {"chosen": images * count}
        example["prompt"] = make_prompt(count, "Which?")
        try:
            found = find_placeholder(subject, example)
        except Exception as error:  # a template may raise anything
            if count == 1:
                raise
            remark = f"; the template refuses {count}: {error}"
            break
        if found is None:
            remark = _without_placeholder(subject, example, count)
            break
        most = count
    if most == 0:
        raise NotApplicable(remark.removeprefix("; "))
    return Finding(float(most), f"most images of a row{remark}")


def _without_placeholder(subject: Subject, example: Example, count: int) -> str:
    """Judge a template that writes fewer placeholders than there are images."""
    text = subject.encoder.prompt_text(example["prompt"])
    try:
        inputs = subject.prompt(example)
    except Exception as error:  # a processor may raise anything
        if count == 1:
            raise
        return f"; of {count} the template drops some, and the processor refuses: {error}"
    tokens, features = num_image_tokens(subject, inputs), num_features(subject, inputs)
    if tokens != features or tokens <= _tokens_of_fewer(subject, example):
        raise CheckFailed(
            f"the template renders {count} images as {text!r}, which has not one placeholder for "
            f"each, and nothing refuses it ({tokens} image tokens, {features} features)"
        )
    return "; the processor places image tokens itself, the template not one for each"


def _tokens_of_fewer(subject: Subject, example: Example) -> int:
    """Image tokens of the same row with one image less: none of the others may be lost."""
    fewer = example["images"]["chosen"][1:]
    if not fewer:
        return 0
    row = example.copy()
    row["images"] = {"chosen": fewer}
    row["prompt"] = make_prompt(len(fewer), "Which?")
    return num_image_tokens(subject, subject.prompt(row))


def wrong_counts_are_refused(subject: Subject) -> Finding:
    """Too few or too many image tokens raise, and so do images and placeholders.

    Args:
        subject: Model and processor.

    Returns:
        Which of model and processor refused what.

    Raises:
        CheckFailed: If a wrong number is taken.
    """
    example = subject.examples(ONE_IMAGE)[0]
    image, text = example["images"]["chosen"], subject.encoder.prompt_text(example["prompt"])
    plain = subject.encoder.prompt_text(without_images(example["prompt"]))
    accepted = [
        what
        for what, prompt, images in (
            ("a placeholder without its image", text, []),
            ("an image too many", text, image * 2),
            ("an image without placeholder", plain, image),
        )
        if (prompt != plain or text != plain) and _runs(subject, prompt, images)
    ]
    remark = "wrong numbers of image tokens raise"
    if wrong := _accepted_token_counts(subject, example):
        message = f"the model silently takes {', '.join(wrong)}"
        if subject.takes_features:
            raise CheckFailed(message)
        remark = message + ", which it does not replace by features"
    # Such rows do not come out of collation: the rows' own check counts images and their places.
    if accepted:
        remark += f"; taken without error, where it is not checked before: {', '.join(accepted)}"
    return Finding(remark=remark)


def _runs(subject: Subject, text: str, images: Sequence[Any]) -> bool:
    """Whether processor and model take a prompt whose images and image tokens do not agree."""
    try:
        inputs = subject.placed(subject.encoder.prompts([text], [images]))
        _forward(subject, inputs)
        tokens = num_image_tokens(subject, inputs)
        alone = num_image_tokens(subject, subject.prompt(subject.examples()[0]))
        # A processor may place image tokens itself; then nothing is wrong, unless it lost some.
        lost = len(images) > 1 and tokens <= alone
        return lost or tokens != (num_features(subject, inputs) if images else 0)
    except Exception:  # how it is refused does not matter
        return False


def _accepted_token_counts(subject: Subject, example: Example) -> list[str]:
    """Which wrong numbers of image tokens the model takes."""
    inputs, accepted = subject.prompt(example), []
    ids = inputs["input_ids"][0]
    places = (ids == image_token_id(subject)).nonzero()[:, 0].tolist()
    if not places:
        raise CheckFailed("the processed prompt has no image token")
    last, positions = places[-1], list(range(len(ids)))
    wrong = {
        "an image token too few": positions[:last] + positions[last + 1 :],
        "an image token too many": [*positions[: last + 1], last, *positions[last + 1 :]],
    }
    along = {key for key, each in inputs.items() if each.shape[:2] == (1, len(ids))}
    for what, kept in wrong.items():
        index = torch.tensor(kept, device=ids.device)
        changed = {key: each[:, index] if key in along else each for key, each in inputs.items()}
        try:
            _forward(subject, changed)
        except Exception:  # how it is refused does not matter
            continue
        accepted.append(what)
    return accepted


def _forward(subject: Subject, inputs: Inputs) -> None:
    """Run the model for nothing but its errors."""
    with torch.no_grad():
        subject.model(**inputs, use_cache=False)
