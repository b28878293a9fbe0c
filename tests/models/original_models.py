"""Bunny and LLaVA as their projects compute them, in plain torch, on tensors by original name.

Written from descriptions of the original code; shares nothing with what it checks. One sequence at
a time is spliced, then padded on the right, as the projects do.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

IMAGE = -200
CUT = 2048

Weights = Mapping[str, Tensor]

TOWER = "model.vision_tower.vision_tower.vision_model."


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, w[name + ".weight"], w.get(name + ".bias"))


def layer_norm(w: Weights, name: str, x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[name + ".weight"], w[name + ".bias"], eps)


def heads(x: Tensor, number: int) -> Tensor:
    return x.view(x.shape[0], number, -1).transpose(0, 1)


def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    scores = (q.float() @ k.float().transpose(1, 2)) / math.sqrt(q.shape[-1])
    if causal:
        hidden = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(hidden, -torch.inf)
    mixed = scores.softmax(-1).to(v.dtype) @ v
    return mixed.transpose(0, 1).flatten(1)


def rotate(x: Tensor, num_dims: int, theta: float) -> Tensor:
    """Turn the first dimensions of each head; the halves are the pairs."""
    turned, kept = x[..., :num_dims], x[..., num_dims:]
    frequencies = theta ** -(torch.arange(0, num_dims, 2).float() / num_dims)
    angles = torch.arange(x.shape[1]).float()[:, None] * frequencies
    cos, sin = angles.cos(), angles.sin()
    a, b = turned[..., : num_dims // 2], turned[..., num_dims // 2 :]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, kept], dim=-1)


def tower_states(
    w: Weights, prefix: str, x: Tensor, *, layers: int, num_heads: int, eps: float, gelu: Any
) -> list[Tensor]:
    """Hidden states of a transformer encoder, the input first."""
    states = [x]
    for i in range(layers):
        at = f"{prefix}encoder.layers.{i}."
        y = layer_norm(w, at + "layer_norm1", x, eps)
        parts = [heads(linear(w, f"{at}self_attn.{n}_proj", y), num_heads) for n in "qkv"]
        x = x + linear(w, at + "self_attn.out_proj", attend(*parts, causal=False))
        y = layer_norm(w, at + "layer_norm2", x, eps)
        x = x + linear(w, at + "mlp.fc2", gelu(linear(w, at + "mlp.fc1", y)))
        states.append(x)
    return states


def patches(w: Weights, prefix: str, pixels: Tensor, patch: int) -> Tensor:
    at = prefix + "embeddings.patch_embedding."
    return (
        F.conv2d(pixels[None], w[at + "weight"], w.get(at + "bias"), stride=patch)[0].flatten(1).T
    )


def siglip_features(w: Weights, pixels: Tensor, vision: Mapping[str, Any]) -> Tensor:
    """All patches, after the last layer but one of the whole tower, not normalised."""
    x = patches(w, TOWER, pixels, vision["patch_size"])
    x = x + w[TOWER + "embeddings.position_embedding.weight"]
    return tower_states(
        w,
        TOWER,
        x,
        layers=vision["num_hidden_layers"],
        num_heads=vision["num_attention_heads"],
        eps=1e-6,
        gelu=lambda y: F.gelu(y, approximate="tanh"),
    )[-2]


def clip_features(w: Weights, pixels: Tensor, vision: Mapping[str, Any]) -> Tensor:
    """Patches without the class token, after the last layer but one."""
    at = "vision_model."
    x = torch.cat(
        [w[at + "embeddings.class_embedding"][None], patches(w, at, pixels, vision["patch_size"])]
    )
    x = x + w[at + "embeddings.position_embedding.weight"]
    x = layer_norm(w, at + "pre_layrnorm", x, 1e-5)
    return tower_states(
        w,
        at,
        x,
        layers=vision["num_hidden_layers"],
        num_heads=vision["num_attention_heads"],
        eps=1e-5,
        gelu=lambda y: y * torch.sigmoid(1.702 * y),
    )[-2][1:]


def project(w: Weights, x: Tensor) -> Tensor:
    return linear(w, "model.mm_projector.2", F.gelu(linear(w, "model.mm_projector.0", x)))


def phi_logits(w: Weights, x: Tensor, config: Mapping[str, Any]) -> Tensor:
    number, eps = config["num_attention_heads"], config["layer_norm_eps"]
    turned = int(config["partial_rotary_factor"] * (config["hidden_size"] // number))
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}."
        y = layer_norm(w, at + "input_layernorm", x, eps)
        q, k, v = (heads(linear(w, f"{at}self_attn.{n}_proj", y), number) for n in "qkv")
        q, k = (rotate(each, turned, config["rope_theta"]) for each in (q, k))
        mixed = linear(w, at + "self_attn.dense", attend(q, k, v, causal=True))
        inner = F.gelu(linear(w, at + "mlp.fc1", y), approximate="tanh")
        x = x + mixed + linear(w, at + "mlp.fc2", inner)
    return linear(w, "lm_head", layer_norm(w, "model.final_layernorm", x, eps))


def rms_norm(w: Weights, name: str, x: Tensor, eps: float) -> Tensor:
    return x * (x.pow(2).mean(-1, keepdim=True) + eps).rsqrt() * w[name + ".weight"]


def llama_logits(w: Weights, x: Tensor, config: Mapping[str, Any]) -> Tensor:
    number, eps = config["num_attention_heads"], config["rms_norm_eps"]
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}."
        y = rms_norm(w, at + "input_layernorm", x, eps)
        q, k, v = (heads(linear(w, f"{at}self_attn.{n}_proj", y), number) for n in "qkv")
        q, k = (rotate(each, each.shape[-1], 10000.0) for each in (q, k))
        x = x + linear(w, at + "self_attn.o_proj", attend(q, k, v, causal=True))
        y = rms_norm(w, at + "post_attention_layernorm", x, eps)
        gate = F.silu(linear(w, at + "mlp.gate_proj", y))
        x = x + linear(w, at + "mlp.down_proj", gate * linear(w, at + "mlp.up_proj", y))
    return linear(w, "lm_head", rms_norm(w, "model.norm", x, eps))


def splice(w: Weights, ids: Sequence[int], features: Sequence[Tensor]) -> Tensor:
    """Embeddings of a sequence, each -200 replaced by the features of its image."""
    images = iter(features)
    table = w["model.embed_tokens.weight"]
    rows = [next(images) if i == IMAGE else table[i][None] for i in ids]
    return torch.cat(rows)[:CUT]


def square(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """Paste on a square of the longer side, centred, halves rounded down."""
    image = image.convert("RGB")
    width, height = image.size
    side = max(width, height)
    canvas = Image.new("RGB", (side, side), colour)
    canvas.paste(image, ((side - width) // 2, (side - height) // 2))
    return canvas


def normalise(image: Image.Image, side: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    resized = image.resize((side, side), Image.Resampling.BICUBIC)
    values = (np.asarray(resized, dtype=np.float32) / 255 - np.array(mean)) / np.array(std)
    return torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1)


class Conversation:
    """The two-separator conversation of both projects."""

    def __init__(self, end: str) -> None:
        self.end = end
        self.system = (
            "A chat between a curious user and an artificial intelligence assistant. "
            "The assistant gives helpful, detailed, and polite answers to the user's questions."
        )
        self.turns: list[tuple[str, str | None]] = []

    def say(self, role: str, text: str | None) -> "Conversation":
        self.turns.append((role, text))
        return self

    def prompt(self) -> str:
        pieces = [self.system, " "]
        for number, (role, text) in enumerate(self.turns):
            pieces.append(f"{role}:" if text is None else f"{role}: {text}")
            if text is not None:
                pieces.append(self.end if number % 2 else " ")
        return "".join(pieces)
