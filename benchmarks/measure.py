"""What is measured: tokens and images through the model, memory, and this machine's peak rate."""

import ctypes
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy")

NOMINAL_BF16_RATES = {"H200": 989e12, "H100": 989e12, "A100": 312e12}
"""Dense bfloat16 operations per second by the makers' data sheets (SXM), by part of the name."""


@dataclass
class Traffic:
    """Counts what passes through language model and vision tower, policy and reference together.

    Attributes:
        tokens: Places of the decoder's input, padding included.
        images: Images through the vision tower.
    """

    tokens: int = 0
    images: int = 0

    def watch(self, model: PreTrainedModel) -> None:
        """Count from now on.

        Args:
            model: Without adapters or wrappers.
        """
        decoder, tower = model.get_decoder(), model.get_encoder(modality="image")
        assert decoder is not None
        decoder.register_forward_pre_hook(self._count_tokens, with_kwargs=True)
        tower.register_forward_pre_hook(self._count_images, with_kwargs=True)

    def reset(self) -> None:
        """Begin anew."""
        self.tokens = self.images = 0

    def _count_tokens(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Add rows times length."""
        embeddings = kwargs.get("inputs_embeds")
        ids = args[0] if args else kwargs.get("input_ids")
        shape = embeddings.shape if embeddings is not None else ids.shape  # pyright: ignore[reportOptionalMemberAccess]
        self.tokens += shape[0] * shape[1]

    def _count_images(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Add rows of the grid where patches of all images come in one row, else of the pixels."""
        grid = kwargs.get("grid_thw", args[1] if len(args) > 1 else None)
        pixels = args[0] if args else kwargs["pixel_values"]
        self.images += len(grid if grid is not None else pixels)


def synchronize(device: str) -> None:
    """Wait until the device has done all it was given.

    Args:
        device: ``cpu`` or ``cuda``.
    """
    if device == "cuda":
        torch.cuda.synchronize()


def memory_in_use(device: str) -> int:
    """Measure the memory in use.

    Args:
        device: ``cpu``: resident size of this process; ``cuda``: allocated on the device.

    Returns:
        Bytes.
    """
    if device == "cuda":
        return torch.cuda.memory_allocated()
    return _process_status("VmRSS")


def reset_peak_memory(device: str) -> None:
    """Let the peak begin at what is in use now.

    Args:
        device: ``cpu`` or ``cuda``.
    """
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return
    ctypes.CDLL(None).malloc_trim(0)  # what was freed but kept is no use of ours
    Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: str) -> int:
    """Measure the largest memory in use since ``reset_peak_memory``.

    Args:
        device: ``cpu`` or ``cuda``.

    Returns:
        Bytes.
    """
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return _process_status("VmHWM")


def _process_status(name: str) -> int:
    """Read a size in bytes from the status of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}: memory is measured on Linux only.")


def peak_rate(device: str, *, tries: int = 5) -> float:
    """Measure the rate of one large matrix product, the best of several.

    Args:
        device: ``cpu``: 2048 cubed in float32, ``cuda``: 8192 cubed in bfloat16.
        tries: How many.

    Returns:
        Floating-point operations per second.
    """
    side, dtype = (8192, torch.bfloat16) if device == "cuda" else (2048, torch.float32)
    left = torch.randn(side, side, device=device, dtype=dtype)
    right = torch.randn(side, side, device=device, dtype=dtype)
    out = left @ right
    fastest = min(
        seconds_of(lambda: torch.mm(left, right, out=out), device=device) for _ in range(tries)
    )
    return 2 * side**3 / fastest


def seconds_of(call: Callable[[], object], *, device: str) -> float:
    """Time a call.

    Args:
        call: What to time.
        device: Waited for before and after.

    Returns:
        Seconds.
    """
    synchronize(device)
    began = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - began


def machine_facts(device: str, threads: int) -> dict[str, Any]:
    """Describe the machine and the software.

    Args:
        device: ``cpu`` or ``cuda``.
        threads: Used by each measured process.

    Returns:
        Facts for the result file.
    """
    facts: dict[str, Any] = {
        "system": platform.platform(),
        "python": platform.python_version(),
        "processor": _processor_name(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "versions": {name: version(name) for name in PACKAGES},
    }
    if device == "cuda":
        facts["gpu"] = torch.cuda.get_device_name()
        facts["cuda"] = torch.version.cuda
        facts["nominal_rate"] = nominal_rate()
    return facts


def nominal_rate() -> float | None:
    """Look up what the GPU's maker promises.

    Returns:
        Dense bfloat16 operations per second; None for a GPU that is not listed.
    """
    name = torch.cuda.get_device_name()
    return next((rate for part, rate in NOMINAL_BF16_RATES.items() if part in name), None)


def _processor_name() -> str:
    """Read the processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()
