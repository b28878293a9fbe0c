"""Check of generation: cache, left padding and batches change nothing."""

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from mdpo.conformance.invariances import judge
from mdpo.conformance.rows import MIX, ONE_IMAGE, SEVERAL_SIZES
from mdpo.conformance.subject import CheckFailed, Finding, Subject
from mdpo.conformance.tolerances import relative_difference
from mdpo.data.dataset import Example
from mdpo.scoring.layout import lay_out
from mdpo.scoring.reference import evaluating

STEPS = 4


def generation_equals_scoring(subject: Subject) -> Finding:
    """Greedy answers of a left-padded batch are those of single rows and those of scoring.

    Args:
        subject: Model and processor.

    Returns:
        Largest relative difference of a token's log-probability between a batch with cache and a
        single row without.
    """
    differences, special = {}, 0
    with torch.no_grad(), evaluating(subject.model):
        for kind in (ONE_IMAGE, SEVERAL_SIZES, MIX):
            rows = list(subject.rows.get(kind, ()))
            if not rows:
                continue
            ids, logps = _generated(subject, rows)
            for number, row in enumerate(rows):
                where = f"row {number} of kind {kind!r}"
                alone, _ = _generated(subject, [row])
                steps, found = _used(subject, ids[number].tolist())
                special += found
                scored = _scored(subject, row, ids[number][:steps])
                batch = logps[number][: len(scored)]
                differences[where] = _difference(batch, scored)
                _compare_choices(subject, ids[number], alone[0], scored, where)
    finding = judge(differences, subject.tolerances.token, "generated and scored log-probabilities")
    said = f"; {special} answers up to a special token only" if special else ""
    return Finding(finding.figure, finding.remark + said)


def _generated(subject: Subject, rows: list[Example]) -> tuple[Tensor, Tensor]:
    """Answer greedily: tokens, and log-probabilities of the whole vocabulary at each step."""
    inputs = subject.prompts(rows, side="left")
    generate: Any = subject.model.generate
    tokenizer = subject.encoder.tokenizer
    own: Any = subject.model.generation_config
    pad = tokenizer.pad_token_id
    settings = GenerationConfig(
        max_new_tokens=STEPS,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        eos_token_id=own.eos_token_id,
        bos_token_id=own.bos_token_id,
        pad_token_id=pad if pad is not None else tokenizer.eos_token_id,
        output_logits=True,
        return_dict_in_generate=True,
    )
    output = generate(**inputs, generation_config=settings)
    logits = torch.stack(output.logits, dim=1)
    return output.sequences[:, -logits.shape[1] :], logits.float().log_softmax(dim=-1)


def _used(subject: Subject, ids: list[int]) -> tuple[int, int]:
    """How many generated tokens can be fed back, and whether a special token ends them."""
    # A token of an image's markup has no image to go with it; what follows an end is padding.
    tokenizer = subject.encoder.tokenizer
    settings: Any = subject.model.generation_config
    ends = settings.eos_token_id
    ends = ({ends} if isinstance(ends, int) else set(ends or ())) | {tokenizer.eos_token_id}
    stops = ends | {*tokenizer.get_added_vocab().values(), *tokenizer.all_special_ids}
    steps = next((step for step, token in enumerate(ids) if token in stops), len(ids))
    return min(steps, STEPS - 1), int(steps < len(ids) and ids[steps] not in ends)


def _scored(subject: Subject, row: Example, ids: Tensor) -> Tensor:
    """Log-probabilities of the next token after the prompt and after each of some tokens."""
    # The last token predicts nothing that is read; it makes the position before it be read.
    end = ids.new_tensor([subject.encoder.tokenizer.eos_token_id])
    response = torch.cat([ids, end])[None]
    # What else runs along a response, such as token types, is the same for each of its tokens.
    collated = subject.batch([row])["responses"]["chosen"]
    answer = {key: each[:, :1].expand_as(response) for key, each in collated.items()}
    answer |= {"input_ids": response, "attention_mask": torch.ones_like(response)}
    laid = lay_out(subject.prompts([row]), answer)
    logits = subject.model(**laid.inputs, use_cache=False).logits
    return logits[laid.predicts_response].float().log_softmax(dim=-1)


def _difference(found: Tensor, expected: Tensor) -> float:
    """Compare distributions over the tokens that are likely at all."""
    likely = expected > expected.max(dim=-1, keepdim=True).values - 10
    return relative_difference(found[likely], expected[likely])


def _compare_choices(
    subject: Subject, batch: Tensor, alone: Tensor, scored: Tensor, where: str
) -> None:
    """Refuse other tokens than scoring or a single row gives, unless two are equally likely."""
    for step, logps in enumerate(scored):
        best = int(logps.argmax())
        for what, ids in (("a batch", batch), ("a single row", alone)):
            token = int(ids[step])
            if token == best:
                continue
            gap = float(logps[best] - logps[token])
            if gap > 2 * subject.tolerances.token * max(1.0, abs(float(logps[best]))):
                raise CheckFailed(
                    f"{what} generates token {token} at step {step + 1} of {where}, scoring has "
                    f"{best} (ahead by {gap:.2g} nats)",
                    gap,
                )
            return
