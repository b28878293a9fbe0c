"""What a pass costs, measured on the meta device: bytes and matrix products, no weights needed.

The real modules of the real size run forward and backward on tensors that have a shape and no
storage. What autograd saves is counted by its own hooks, what lives at the same time by watching
every operation, so no architecture needs a formula of its own. Two things differ from a GPU there
and are put right: attention keeps what flash attention keeps, and autocast, which the meta device
lacks, is imitated.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge, saved_tensors_hooks
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry
from transformers import AttentionInterface

ATTENTION = "mdpo_plan"
"""Name under which models find the attention that is counted."""

_AUTOCAST: frozenset[Any] = frozenset(
    {
        functional.linear,
        functional.bilinear,
        functional.conv1d,
        functional.conv2d,
        functional.conv3d,
        torch.addmm,
        torch.baddbmm,
        torch.bmm,
        torch.einsum,
        torch.matmul,
        torch.mm,
        Tensor.__matmul__,
        Tensor.bmm,
        Tensor.matmul,
        Tensor.mm,
    }
)
"""Functions that autocast runs in the lower dtype, as far as models call them."""


@dataclass(frozen=True)
class PassCost:
    """What one pass costs.

    Attributes:
        kept: Bytes held from forward to backward.
        working: Bytes needed on top of these at the worst moment, forward or backward.
        flops: Of the matrix products, those of attention left out; a multiplication and an
            addition count as two.
        attention_flops: Of the products of attention, as if each position of a row attended to all
            of the row.
    """

    kept: int
    working: int
    flops: int
    attention_flops: int


def measure(
    run: Callable[[], Tensor],
    modules: Iterable[nn.Module],
    *,
    training: bool,
    autocast: torch.dtype | None = None,
) -> PassCost:
    """Run a pass on the meta device and say what it costs.

    Args:
        run: The forward pass; its result is differentiated.
        modules: Owners of the parameters and buffers, which do not count.
        training: Whether a backward pass follows; if not, no gradient is tracked.
        autocast: Lower dtype of mixed precision, if it is on.

    Returns:
        The costs.
    """
    parameters = [each for module in modules for each in module.parameters()]
    for each in parameters:
        # As after the first pass of a step: gradients are there, and counted elsewhere.
        if training and each.requires_grad and each.grad is None:
            each.grad = torch.empty_like(each)
    grads = [each.grad for each in parameters if each.grad is not None]
    buffers = [each for module in modules for each in module.buffers()]
    fixed = frozenset(map(_storage_key, [*parameters, *buffers, *grads]))
    saved, usage = SavedBytes(fixed), _Usage(fixed)
    kernels = _Kernels(autocast)
    hooks = saved_tensors_hooks(saved.pack, lambda each: each) if training else nullcontext()
    with kernels, usage, torch.set_grad_enabled(training):
        with hooks:
            result = run()
        if training:
            # `result.backward` would switch `kernels` off before layers are run again
            torch.autograd.backward(get_gradient_edge(result), torch.empty_like(result))
    return PassCost(saved.total, usage.peak - saved.total, usage.flops, kernels.attention_flops)


class SavedBytes:
    """Adds up what autograd saves: each storage once, given ones left out.

    Attributes:
        total: Bytes so far.
    """

    def __init__(self, fixed: frozenset[int]) -> None:
        """Begin at zero; ``fixed`` are the keys of storages that do not count."""
        self.total = 0
        self._seen = set(fixed)
        self._alive: list[Tensor] = []

    def pack(self, tensor: Tensor) -> Tensor:
        """Count a saved tensor.

        Args:
            tensor: What autograd saves.

        Returns:
            The same tensor.
        """
        key = _storage_key(tensor)
        if key not in self._seen:
            self._seen.add(key)
            self._alive.append(tensor.detach())  # or its key might be given to another storage
            self.total += tensor.untyped_storage().nbytes()
        return tensor


class _Usage(TorchDispatchMode):
    """Watches which storages live at the same time, and counts matrix products.

    Attributes:
        live: Bytes that live now.
        peak: Most bytes that lived at the same time.
        flops: Of matrix products so far.
    """

    def __init__(self, fixed: frozenset[int]) -> None:
        """Begin at zero; ``fixed`` are the keys of storages that do not count."""
        super().__init__()
        self.live = self.peak = self.flops = 0
        self._seen = set(fixed)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation and book what it makes."""
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=result)
        for each in tree_leaves(result):
            if isinstance(each, Tensor):
                self._book(each.untyped_storage())
        self.peak = max(self.peak, self.live)
        return result

    def _book(self, storage: torch.UntypedStorage) -> None:
        """Count a storage until it dies."""
        key = storage._cdata
        if key not in self._seen:
            self._seen.add(key)
            self.live += storage.nbytes()
            weakref.finalize(storage, self._forget, key, storage.nbytes())

    def _forget(self, key: int, num_bytes: int) -> None:
        """Take a dead storage off."""
        self._seen.discard(key)
        self.live -= num_bytes


class _Kernels(TorchFunctionMode):
    """Runs attention as flash attention keeps it, and matrix products as autocast would.

    Attributes:
        attention_flops: Of the products of attention so far.
    """

    def __init__(self, autocast: torch.dtype | None) -> None:
        """Begin at zero; ``autocast`` is the lower dtype, if there is one."""
        super().__init__()
        self.autocast, self.attention_flops = autocast, 0

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace attention, lower the inputs of matrix products, leave the rest."""
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            query, key, value = (self._lowered(each) for each in args[:3])
            return _FlashAttention.apply(self, query, key, value)
        if func in _AUTOCAST:
            args = tree_map(self._lowered, args)
            kwargs = {name: self._lowered(each) for name, each in kwargs.items()}
        return func(*args, **kwargs)

    def _lowered(self, value: Any) -> Any:
        """Cast a floating tensor to the dtype of autocast."""
        if self.autocast is None or not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        return value.to(self.autocast)


class _FlashAttention(torch.autograd.Function):
    """Has the memory of flash attention: query, key, value, result and one number per query."""

    @staticmethod
    def forward(ctx: Any, kernels: _Kernels, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Make a result of the right shape; its values mean nothing."""
        rows, heads, length, _ = query.shape
        # Laid out as the kernels do, so that joining the heads copies nothing.
        result = query.new_empty(rows, length, heads, value.shape[-1]).transpose(1, 2)
        normalizer = query.new_empty(rows, heads, length, dtype=torch.float32)
        ctx.save_for_backward(query, key, value, result, normalizer)
        pairs = rows * heads * length * key.shape[2]
        ctx.kernels, ctx.flops = kernels, 2 * pairs * (query.shape[-1] + value.shape[-1])
        kernels.attention_flops += ctx.flops
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Make gradients of the right shapes, and what the kernel needs meanwhile."""
        query, key, value, _, _ = ctx.saved_tensors
        ctx.kernels.attention_flops += 2 * ctx.flops
        sums = torch.empty_like(query, dtype=torch.float32)
        gradients = tuple(torch.empty_like(each) for each in (query, key, value))
        del sums, gradient
        return None, *gradients


def _counted_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers asks its attention functions to; without a mask."""
    result = functional.scaled_dot_product_attention(query, key, value)
    return result.transpose(1, 2), None


def _storage_key(tensor: Tensor) -> int:
    """Tell storages apart while they live."""
    return tensor.untyped_storage()._cdata


AttentionInterface.register(ATTENTION, _counted_attention)
