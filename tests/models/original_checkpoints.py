"""Tiny random checkpoints in the original layouts of Bunny and LLaVA, with their tokenizers."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from original_models import TOWER, Conversation
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

END = "<|endoftext|>"
SPACES = ["   ", "  "]
"""Stand for the runs of spaces that Phi-2's tokenizer has beyond GPT-2's."""

SENTENCES = [
    Conversation("</s>").say("USER", "What is shown?").say("ASSISTANT", None).prompt(),
    "A red boat and two birds. There is a green cup with a blue plate. How many lamps are there?",
]

SIGLIP = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "image_size": 26,
    "patch_size": 8,
}
CLIP = {**SIGLIP, "image_size": 24, "num_hidden_layers": 3}
NUM_PATCHES = 9


@dataclass(frozen=True)
class Original:
    """A checkpoint on disk and what is in it; weights in float32, the whole tower included."""

    folder: Path
    config: dict[str, Any]
    weights: dict[str, Tensor]


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2))


def drawn(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Weights large enough for every part to show in the logits."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=generator)
        if len(shape) == 1:
            is_scale = "norm" in name and name.endswith("weight")
            weights[name] = 0.2 * value + (1.0 if is_scale else 0.0)
        elif "embed" in name:
            weights[name] = 0.5 * value
        else:
            weights[name] = value * 1.2 / value[0].numel() ** 0.5
    return weights


def tower_shapes(prefix: str, vision: dict[str, Any], *, clip: bool) -> dict[str, tuple[int, ...]]:
    d, m, p = vision["hidden_size"], vision["intermediate_size"], vision["patch_size"]
    shapes: dict[str, tuple[int, ...]] = {"embeddings.patch_embedding.weight": (d, 3, p, p)}
    if clip:
        shapes |= {"embeddings.class_embedding": (d,)}
        shapes |= {"pre_layrnorm.weight": (d,), "pre_layrnorm.bias": (d,)}
    else:
        shapes["embeddings.patch_embedding.bias"] = (d,)
    shapes["embeddings.position_embedding.weight"] = (NUM_PATCHES + clip, d)
    for i in range(vision["num_hidden_layers"]):
        at = f"encoder.layers.{i}."
        for each in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= {f"{at}self_attn.{each}.weight": (d, d), f"{at}self_attn.{each}.bias": (d,)}
        shapes |= {at + "mlp.fc1.weight": (m, d), at + "mlp.fc1.bias": (m,)}
        shapes |= {at + "mlp.fc2.weight": (d, m), at + "mlp.fc2.bias": (d,)}
        for each in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{at}{each}.weight": (d,), f"{at}{each}.bias": (d,)}
    shapes |= {"post_layernorm.weight": (d,), "post_layernorm.bias": (d,)}
    return {prefix + name: shape for name, shape in shapes.items()}


def text_shapes(config: dict[str, Any], vision: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    h, inner, v = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (v, h),
        "lm_head.weight": (v, h),
        "model.mm_projector.0.weight": (h, vision["hidden_size"]),
        "model.mm_projector.0.bias": (h,),
        "model.mm_projector.2.weight": (h, h),
        "model.mm_projector.2.bias": (h,),
    }
    phi = config["model_type"] == "bunny-phi"
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}."
        for each in ("q_proj", "k_proj", "v_proj", "dense" if phi else "o_proj"):
            shapes[f"{at}self_attn.{each}.weight"] = (h, h)
            if phi:
                shapes[f"{at}self_attn.{each}.bias"] = (h,)
        shapes[at + "input_layernorm.weight"] = (h,)
        if phi:
            shapes |= {at + "input_layernorm.bias": (h,)}
            shapes |= {at + "mlp.fc1.weight": (inner, h), at + "mlp.fc1.bias": (inner,)}
            shapes |= {at + "mlp.fc2.weight": (h, inner), at + "mlp.fc2.bias": (h,)}
        else:
            shapes[at + "post_attention_layernorm.weight"] = (h,)
            shapes |= {f"{at}mlp.{n}_proj.weight": (inner, h) for n in ("gate", "up")}
            shapes[at + "mlp.down_proj.weight"] = (h, inner)
    if phi:
        shapes |= {"model.final_layernorm.weight": (h,), "model.final_layernorm.bias": (h,)}
    else:
        shapes["model.norm.weight"] = (h,)
    return shapes


def save_sharded(folder: Path, weights: dict[str, Tensor], *, shards: int) -> None:
    names = sorted(weights)
    cut = -(-len(names) // shards)
    places = {}
    for k in range(shards):
        part = names[k * cut : (k + 1) * cut]
        file = f"model-{k + 1:05d}-of-{shards:05d}.safetensors"
        save_file({n: weights[n].contiguous() for n in part}, folder / file, {"format": "pt"})
        places |= dict.fromkeys(part, file)
    total = sum(each.nbytes for each in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    write_json(folder / "model.safetensors.index.json", index)


def write_bunny(
    folder: Path, *, seed: int = 0, dtype: torch.dtype = torch.float32, **changed: Any
) -> Original:
    """A Bunny whose tower lacks the last of its layers, as the release's does."""
    folder.mkdir(parents=True, exist_ok=True)
    num_tokens = write_phi_tokenizer(folder)
    end = num_tokens - len(SPACES) - 1
    config = {
        "_name_or_path": "BAAI/bunny-phi-2-siglip",
        "architectures": ["BunnyPhiForCausalLM"],
        "attention_dropout": 0.0,
        "auto_map": {"AutoConfig": "configuration_bunny_phi.BunnyPhiConfig"},
        "bos_token_id": end,
        "embd_pdrop": 0.0,
        "eos_token_id": end,
        "hidden_act": "gelu_new",
        "hidden_size": 40,
        "image_aspect_ratio": "pad",
        "initializer_range": 0.02,
        "intermediate_size": 48,
        "layer_norm_eps": 1e-03,
        "max_position_embeddings": 2048,
        "mm_hidden_size": SIGLIP["hidden_size"],
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_tower": "someone/tiny-siglip",
        "model_type": "bunny-phi",
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "pad_token_id": end,
        "partial_rotary_factor": 0.4,
        "qk_layernorm": False,
        "resid_pdrop": 0.1,
        "rope_scaling": None,
        "rope_theta": 500.0,
        "tie_word_embeddings": False,
        "torch_dtype": str(dtype).removeprefix("torch."),
        "transformers_version": "4.36.2",
        "use_cache": True,
        "vocab_size": num_tokens,
        **changed,
    }
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", {"_from_model_config": True, "eos_token_id": end})
    siglip = {"model_type": "siglip_vision_model", **SIGLIP}
    write_json(folder.parent / "siglip.json", siglip)
    weights = drawn(tower_shapes(TOWER, SIGLIP, clip=False) | text_shapes(config, SIGLIP), seed)
    last = f"{TOWER}encoder.layers.{SIGLIP['num_hidden_layers'] - 1}."
    stored = {n: t.to(dtype) for n, t in weights.items() if not n.startswith(last)}
    save_sharded(folder, stored, shards=2)
    return Original(folder, config, weights)


def write_llava(folder: Path, *, seed: int = 0, legacy: bool = False) -> Original:
    """A LLaVA without a tower, and beside it, in ``clip``, the CLIP model."""
    folder.mkdir(parents=True, exist_ok=True)
    num_tokens = write_llama_tokenizer(folder, legacy=legacy)
    config = {
        "architectures": ["LlavaLlamaForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "freeze_mm_mlp_adapter": False,
        "hidden_act": "silu",
        "hidden_size": 32,
        "image_aspect_ratio": "pad",
        "initializer_range": 0.02,
        "intermediate_size": 48,
        "max_position_embeddings": 2048,
        "mm_hidden_size": CLIP["hidden_size"],
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": "openai/clip-vit-large-patch14-336",
        "model_type": "llava",
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "pad_token_id": 0,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "vocab_size": num_tokens,
    }
    write_json(folder / "config.json", config)
    sampling = {"max_length": 4096, "temperature": 0.9, "top_p": 0.6}
    write_json(folder / "generation_config.json", sampling)
    weights = drawn(text_shapes(config, CLIP), seed)
    frequencies = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(8) for i in (0, 1)}
    save_sharded(folder, weights | frequencies, shards=2)
    tower = drawn(tower_shapes("vision_model.", CLIP, clip=True), seed + 1)
    others = {
        "vision_model.embeddings.position_ids": torch.arange(NUM_PATCHES + 1)[None],
        "text_model.final_layer_norm.weight": torch.ones(4),
        "visual_projection.weight": torch.ones(4, 4),
        "logit_scale": torch.tensor(2.6),
    }
    clip = folder.parent / "clip"
    clip.mkdir(exist_ok=True)
    save_file({**tower, **others}, clip / "model.safetensors", {"format": "pt"})
    write_json(
        clip / "config.json",
        {"model_type": "clip", "vision_config": {**CLIP, "dropout": 0.0, "top_k": 50}},
    )
    return Original(folder, config, weights | tower)


def write_phi_tokenizer(folder: Path) -> int:
    """GPT-2's kind of tokenizer: the end token last of the vocabulary, runs of spaces added."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(SENTENCES, trainer)
    content = json.loads(backend.to_str())
    vocabulary = content["model"]["vocab"]
    vocabulary[END] = len(vocabulary)
    added = {spaces: len(vocabulary) + k for k, spaces in enumerate(SPACES)}

    def entry(token: str, number: int, *, special: bool) -> dict[str, Any]:
        flags = dict.fromkeys(("lstrip", "rstrip", "single_word"), False)
        return {"id": number, "content": token, **flags, "normalized": not special} | {
            "special": special
        }

    content["added_tokens"] = [entry(END, vocabulary[END], special=True)]
    content["added_tokens"] += [entry(t, n, special=False) for t, n in added.items()]
    write_json(folder / "tokenizer.json", content)
    write_json(folder / "vocab.json", vocabulary)
    merges = [
        each if isinstance(each, str) else " ".join(each) for each in content["model"]["merges"]
    ]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    write_json(folder / "added_tokens.json", added)
    special = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END)
    write_json(folder / "special_tokens_map.json", special)
    decoder = {
        str(each["id"]): {k: v for k, v in each.items() if k != "id"}
        for each in content["added_tokens"]
    }
    settings = {"add_prefix_space": False, "added_tokens_decoder": decoder, **special}
    settings |= {"clean_up_tokenization_spaces": True, "model_max_length": 2048}
    write_json(folder / "tokenizer_config.json", settings | {"tokenizer_class": "CodeGenTokenizer"})
    return len(vocabulary) + len(added)


def write_llama_tokenizer(folder: Path, *, legacy: bool) -> int:
    """Llama's kind of tokenizer: bytes for what is no piece, spaces as pieces."""
    backend = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    special = ["<unk>", "<s>", "</s>"]
    byte_pieces = [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=special + byte_pieces, show_progress=False
    )
    backend.train_from_iterator(SENTENCES, trainer)
    content = json.loads(backend.to_str())
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] in special]
    write_json(folder / "tokenizer.json", content)
    names = dict(zip(("unk_token", "bos_token", "eos_token"), special, strict=True))
    settings = {"tokenizer_class": "LlamaTokenizer", "legacy": legacy, "add_bos_token": True}
    settings |= {"model_max_length": 2048, "padding_side": "right", **names}
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "special_tokens_map.json", names)
    return len(content["model"]["vocab"])
