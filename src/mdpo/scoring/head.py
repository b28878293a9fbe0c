"""The output head at response positions only: log-probabilities, never the logits of a sequence.

Shapes: ``n`` response tokens, ``t`` tokens of the sequence, ``d`` width of the model, ``v``
vocabulary, ``c`` tokens of a chunk.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mdpo.scoring.layout import token_logps

CHUNK = 1024
"""Response tokens whose logits exist at one time."""


class ResponseHead:
    """Stands in for a model's output head: in place of logits it returns log-probabilities.

    Inside the model's own ``forward``, so that wrappers which gather or cast its weights see the
    call as always. Logits exist for ``chunk`` positions at a time, in float32.

    Attributes:
        head: The model's output head.
        chunk: Positions at a time.
        vocabulary: Logits that take part, from the first; None for all.
    """

    def __init__(
        self, head: nn.Module, *, chunk: int = CHUNK, vocabulary: int | None = None
    ) -> None:
        """Keep the head."""
        self.head, self.chunk, self.vocabulary = head, chunk, vocabulary
        self._wanted: tuple[Tensor, Tensor] | None = None
        self._forward = head.forward
        # One function for all steps, so that compiled code finds the same one again.
        self._stand_in = torch.compiler.disable(self._score)

    @contextmanager
    def scoring(self, positions: Int[Tensor, " n"], ids: Int[Tensor, " n"]) -> Iterator[None]:
        """Let the head score tokens; it is itself again afterwards.

        Args:
            positions: Places in the flattened sequence whose outputs predict the tokens.
            ids: The tokens.

        Yields:
            Nothing.
        """
        had_own = "forward" in vars(self.head)
        self._forward, self._wanted = self.head.forward, (positions, ids)
        self.head.forward = self._stand_in
        try:
            yield
        finally:
            if had_own:
                self.head.forward = self._forward
            else:
                del self.head.forward
            self._wanted = None

    def _score(self, hidden: Float[Tensor, "*b t d"]) -> Float[Tensor, " n"]:
        """Do what the head's ``forward`` is asked for in its place."""
        assert self._wanted is not None
        positions, ids = self._wanted
        wanted = hidden.reshape(-1, hidden.shape[-1])[positions]
        return self.logps(wanted, ids)

    def logps(self, hidden: Float[Tensor, "n d"], ids: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Score tokens from the outputs that predict them.

        Args:
            hidden: Outputs of the decoder.
            ids: The tokens.

        Returns:
            Log-probabilities in nats, float32.
        """
        if type(self.head) is nn.Linear and not self.head.weight.requires_grad:
            weight, bias = _cast_as_autocast_would(self.head)
            weight, bias = (
                weight[: self.vocabulary],
                None if bias is None else bias[: self.vocabulary],
            )
            # Types are settled: autocast would round the logits on the way out.
            with torch.autocast(weight.device.type, enabled=False):
                return _FrozenHead.apply(hidden, weight, bias, ids, self.chunk)  # pyright: ignore[reportReturnType]
        forward = self._forward
        parts = [
            checkpoint(_chunk_logps, forward, h, i, self.vocabulary, use_reentrant=False)
            if torch.is_grad_enabled()
            else _chunk_logps(forward, h, i, self.vocabulary)
            for h, i in zip(hidden.split(self.chunk), ids.split(self.chunk), strict=True)
        ]
        return torch.cat(parts)  # pyright: ignore[reportArgumentType, reportCallIssue]


def _chunk_logps(forward: Any, hidden: Tensor, ids: Tensor, vocabulary: int | None) -> Tensor:
    """Score one chunk through any head."""
    return token_logps(forward(hidden)[..., :vocabulary], ids)


def _cast_as_autocast_would(head: nn.Linear) -> tuple[Tensor, Tensor | None]:
    """Take the weights in the type that the surrounding autocast computes in."""
    kind = head.weight.device.type
    if not torch.is_autocast_enabled(kind):
        return head.weight, head.bias
    dtype = torch.get_autocast_dtype(kind)
    return head.weight.to(dtype), None if head.bias is None else head.bias.to(dtype)


class _FrozenHead(torch.autograd.Function):
    """Log-probabilities under a head that is not trained.

    The gradient of a token's log-probability by its own hidden state does not depend on what is
    computed later, so it is worked out while the chunk's logits are there: no logits are kept and
    none are computed twice.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        hidden: Float[Tensor, "n d"],
        weight: Float[Tensor, "v d"],
        bias: Float[Tensor, " v"] | None,
        ids: Int[Tensor, " n"],
        chunk: int,
    ) -> Float[Tensor, " n"]:
        """Score the tokens, and keep the gradients if they are asked for."""
        logps = torch.empty(len(ids), dtype=_wide(hidden.dtype), device=hidden.device)
        grads = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for begin in range(0, len(ids), chunk):
            part = slice(begin, begin + chunk)
            logits = _project(hidden[part], weight, bias)
            normalizer = logits.logsumexp(dim=-1, keepdim=True)
            chosen = ids[part, None]
            logps[part] = (logits.gather(-1, chosen) - normalizer).squeeze(-1)
            if grads is not None:
                # d logp / d logits = one-hot - softmax
                slope = logits.sub_(normalizer).exp_().neg_()
                slope.scatter_add_(-1, chosen, torch.ones_like(chosen, dtype=slope.dtype))
                grads[part] = (slope.to(weight.dtype) @ weight).to(grads.dtype)
        if grads is not None:
            ctx.save_for_backward(grads)
        return logps

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        """Weigh each token's gradient."""
        (grads,) = ctx.saved_tensors
        weighted = grads * grad_outputs[0][:, None].to(grads.dtype)
        return weighted, None, None, None, None


def _wide(dtype: torch.dtype) -> torch.dtype:
    """Float32, or what is wider."""
    return torch.promote_types(dtype, torch.float32)


def _project(
    hidden: Float[Tensor, "c d"], weight: Float[Tensor, "v d"], bias: Float[Tensor, " v"] | None
) -> Float[Tensor, "c v"]:
    """Compute logits in float32, whatever type the weights have."""
    hidden = hidden.to(weight.dtype)
    if hidden.dtype.itemsize >= 4:
        logits = hidden @ weight.T
    elif hidden.is_cuda and hasattr(torch.ops.aten.mm, "dtype"):
        # Half-precision factors, float32 sums: nothing is rounded on the way out.
        logits = torch.mm(hidden, weight.T, out_dtype=torch.float32)  # pyright: ignore[reportCallIssue]
    else:
        logits = torch.cat([hidden.float() @ w.float().T for w in weight.split(8192)], dim=-1)
    return logits if bias is None else logits.add_(bias.to(logits.dtype))
