"""The plain scorer: one forward pass per candidate, nothing shared. What others must equal.

Shapes: ``b`` rows, ``n`` response tokens of all rows together, ``v`` vocabulary.
"""

import inspect
from collections.abc import Iterable
from typing import Protocol

from jaxtyping import Float
from torch import Tensor, nn

from mdpo.data.batch import Batch
from mdpo.models.sharing import real_vocabulary
from mdpo.objectives import Candidate
from mdpo.scoring.layout import lay_out, sum_by_row, token_logps


class Scorer(Protocol):
    """From model and batch to log-probabilities of candidates."""

    def __call__(
        self, model: nn.Module, batch: Batch, candidates: Iterable[Candidate]
    ) -> dict[Candidate, Float[Tensor, " b"]]:
        """Score candidates.

        Args:
            model: Policy or reference.
            batch: From collation; it must hold the slots that the candidates name.
            candidates: What to score.

        Returns:
            Summed response log-probabilities in nats, float32, one per row.
        """
        ...


class PlainScorer:
    """One forward pass per candidate, logits at response positions only.

    Attributes:
        selects_logits: Whether the model can be asked for the logits of some positions only
            (``logits_to_keep``); otherwise all are computed and the rest thrown away.
        vocabulary: Logits that take part, from the first; None for all.
    """

    def __init__(self, model: nn.Module) -> None:
        """Look up what the model's ``forward`` takes; ``model`` is without wrappers."""
        base = getattr(model, "get_base_model", lambda: model)()
        self.selects_logits = "logits_to_keep" in inspect.signature(base.forward).parameters
        self.vocabulary = real_vocabulary(base)

    def __call__(
        self, model: nn.Module, batch: Batch, candidates: Iterable[Candidate]
    ) -> dict[Candidate, Float[Tensor, " b"]]:
        """Score candidates one after the other.

        Args:
            model: Policy or reference, as wrapped for training.
            batch: From collation; it must hold the slots that the candidates name.
            candidates: What to score.

        Returns:
            Summed response log-probabilities in nats, float32, one per row.
        """
        return {each: self._score(model, batch, each) for each in candidates}

    def _score(self, model: nn.Module, batch: Batch, candidate: Candidate) -> Float[Tensor, " b"]:
        """Score one candidate."""
        rows = lay_out(batch["prompts"][candidate.image], batch["responses"][candidate.response])
        keep = rows.predicts_response
        if self.selects_logits:
            logits = model(**rows.inputs, use_cache=False, logits_to_keep=keep).logits
        else:
            logits = model(**rows.inputs, use_cache=False).logits[keep]
        logps = token_logps(logits[..., : self.vocabulary], rows.response_ids)
        return sum_by_row(logps, rows.row_of_token, num_rows=len(batch["rows"]))
