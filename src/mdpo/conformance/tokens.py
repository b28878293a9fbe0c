"""Checks of what a processor makes of a row: image tokens, and labels."""

import re
from typing import Any

from mdpo.conformance.features import num_features, num_image_tokens
from mdpo.conformance.placeholders import find_placeholder
from mdpo.conformance.rows import ONE_IMAGE, SEVERAL_IMAGES, SEVERAL_SIZES, TEXT_ONLY
from mdpo.conformance.subject import CheckFailed, Finding, Subject
from mdpo.data.dataset import Example
from mdpo.data.encoding import TokenCounter
from mdpo.scoring.layout import lay_out


def image_tokens_equal_features(subject: Subject) -> Finding:
    """As many image tokens as image features, for each image, row and batch; counts by size too.

    Args:
        subject: Model and processor.

    Returns:
        Most tokens that one image took.

    Raises:
        CheckFailed: If the numbers differ.
    """
    counter, most = TokenCounter(subject.encoder), 0
    batches = [[each] for kind in (ONE_IMAGE, SEVERAL_SIZES) for each in subject.examples(kind)]
    single = len(batches)
    batches += [[each] for each in subject.collated.get(SEVERAL_IMAGES, ())]
    batches += [list(rows) for kind, rows in subject.collated.items() if kind != TEXT_ONLY]
    for number, rows in enumerate(batches):
        inputs = subject.prompts(rows)
        tokens, features = num_image_tokens(subject, inputs), num_features(subject, inputs)
        if tokens != features or tokens == 0:
            sizes = [image.size for row in rows for image in row["images"]["chosen"]]
            raise CheckFailed(f"{tokens} image tokens for {features} image features of {sizes}")
        most = max(most, tokens) if number < single else most
    for rows in subject.collated.values():
        for row in rows:
            _check_count(subject, counter, row)
    return Finding(float(most), "most tokens of one image")


def _check_count(subject: Subject, counter: TokenCounter, row: Example) -> None:
    """Compare the length that sizes predict with that of the processed prompt."""
    sizes = [image.size for image in row["images"]["chosen"]]
    real = int(subject.prompt(row)["attention_mask"].sum())
    counted = counter.prompt_length(row["prompt"], sizes)
    if counted != real:
        raise CheckFailed(f"a prompt with images of {sizes} has {real} tokens, counted {counted}")


def labels_are_the_response(subject: Subject) -> Finding:
    """The scored tokens are the response with its end; what stands before is the prompt.

    Args:
        subject: Model and processor.

    Returns:
        Fewest scored tokens of a response.
    """
    fewest, remarks = None, set[str]()
    for kind, examples in subject.collated.items():
        batch = subject.batch(examples)
        for slot in ("chosen", "rejected"):
            rows = lay_out(batch["prompts"]["chosen"], batch["responses"][slot])
            for number, example in enumerate(examples):
                scored = rows.is_response[number]
                ids = rows.inputs["input_ids"][number]
                labels = ids[scored].tolist()
                fewest = min(len(labels), fewest or len(labels))
                remarks |= _check_response(subject, example, slot, labels)
                before = int(rows.inputs["attention_mask"][number].sum()) - len(labels)
                remarks |= _check_prompt(subject, example, ids[:before].tolist(), kind)
    remarks.add("fewest scored tokens of a response")
    return Finding(fewest, "; ".join(sorted(remarks)))


def _check_response(subject: Subject, example: Example, slot: str, labels: list[int]) -> set[str]:
    """Compare labels with the rendered response."""
    response = str(example[slot])
    if len(labels) < 2:
        raise CheckFailed(f"response {response!r} has {len(labels)} tokens, its end included")
    expected = subject.encoder.response_text(example["prompt"], response)
    remarks = _compare_texts("response", _decoded(subject, labels), expected)
    if response not in expected:
        raise CheckFailed(f"the template writes response {response!r} as {expected!r}")
    if labels[-1] not in (ends := _ends(subject)):
        last = subject.encoder.tokenizer.convert_ids_to_tokens(labels[-1])
        raise CheckFailed(
            f"responses end in {last!r} (id {labels[-1]}), at which generation does not stop: it "
            f"stops at {sorted(ends)}"
        )
    return remarks


def _ends(subject: Subject) -> set[int]:
    """Tokens at which generation stops."""
    settings: Any = subject.model.generation_config
    ends = getattr(settings, "eos_token_id", None)
    ends = {ends} if isinstance(ends, int) else set(ends or ())
    return ends | {subject.encoder.tokenizer.eos_token_id}


def _check_prompt(subject: Subject, example: Example, ids: list[int], kind: str) -> set[str]:
    """Compare a prompt's tokens with the rendered prompt, each image's block as its placeholder."""
    text, found = subject.encoder.prompt_text(example["prompt"]), _decoded(subject, ids)
    start = subject.encoder.tokenizer.bos_token
    if start and not text.startswith(start):
        found = found.removeprefix(start)
    count = len(example["images"]["chosen"])
    placeholder = find_placeholder(subject, example) if count else None
    if placeholder is None:
        # Without images, or with image tokens that the processor places by itself.
        if count:
            found = found[-len(text) :]
        return _compare_texts("prompt", found, text)
    between = [_squeezed(each) for each in text.split(placeholder)]
    block = rf"(?:{re.escape(placeholder)}|.+?)"
    if not re.fullmatch(block.join(map(re.escape, between)), _squeezed(found), re.DOTALL):
        raise CheckFailed(f"a prompt of kind {kind!r} reads {found!r}, rendered {text!r}")
    return set()


def _compare_texts(what: str, found: str, expected: str) -> set[str]:
    """Refuse another text; white space that a tokenizer does not keep is only remarked on."""
    if found == expected:
        return set()
    if _squeezed(found) != _squeezed(expected):
        raise CheckFailed(f"the {what}'s tokens read {found!r}, rendered {expected!r}")
    return {"texts equal up to white space"}


def _squeezed(text: str) -> str:
    """Take white space out."""
    return "".join(text.split())


def _decoded(subject: Subject, ids: list[int]) -> str:
    """Read tokens as text, special ones included."""
    return subject.encoder.tokenizer.decode(
        ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
