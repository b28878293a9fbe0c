"""Memory that ``mdpo plan`` expects of each recipe, at the full size of its model.

No weights and no downloads: configs have the published sizes, a tokenizer of bytes stands in for
the model's own, and rows are made: one image of 640 by 480 pixels, a prompt of 55 tokens and
responses of about 110.

    python benchmarks/recipe_memory.py --out benchmarks/results/recipe_memory.json
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import transformers
from PIL import Image
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    PhiConfig,
    Qwen2_5_VLConfig,
    Qwen3VLConfig,
    SiglipVisionConfig,
    SmolVLMConfig,
)

from mdpo.conformance.tiny import TINY_MODELS
from mdpo.conformance.tiny.base import TinyModel
from mdpo.planning.plan import Plan, make_plan
from mdpo.training.arguments import parse_settings

RECIPES = Path(__file__).parents[1] / "recipes"
NUM_ROWS, PROMPT, RESPONSE = 64, 55, 110
SIZE = (640, 480)


def llava(tiny: TinyModel) -> Any:
    """LLaVA-1.5-7B: CLIP ViT-L/14 at 336 pixels, Vicuna-7B."""
    pixels = tiny.processor.image_processor
    pixels.size, pixels.crop_size = {"shortest_edge": 336}, {"height": 336, "width": 336}
    tiny.processor.patch_size = 14
    return LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=24,
            num_attention_heads=16,
            image_size=336,
            patch_size=14,
        ),
        text_config=LlamaConfig(vocab_size=32064, max_position_embeddings=4096),
        image_token_index=tiny.config.image_token_index,
    )


def bunny(tiny: TinyModel) -> Any:
    """Bunny-v1.0-3B: SigLIP-SO400M without its last layer, Phi-2."""
    tiny.processor.image_processor.size = {"height": 384, "width": 384}
    tiny.processor.patch_size = 14
    return LlavaConfig(
        vision_config=so400m(num_hidden_layers=26),
        text_config=PhiConfig(
            vocab_size=50304,
            hidden_size=2560,
            intermediate_size=10240,
            num_hidden_layers=32,
            num_attention_heads=32,
            partial_rotary_factor=0.4,  # pyright: ignore[reportCallIssue]
        ),
        image_token_index=tiny.config.image_token_index,
        image_seq_length=729,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )


def qwen2_5_vl(tiny: TinyModel) -> Any:
    """Qwen2.5-VL-7B."""
    wide(tiny.processor.image_processor, patch_size=14)
    return Qwen2_5_VLConfig(
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 3584,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        text_config={
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24]},
        },
        **special(tiny),
    )


def qwen3_vl(tiny: TinyModel) -> Any:
    """Qwen3-VL-8B."""
    wide(tiny.processor.image_processor, patch_size=16)
    return Qwen3VLConfig(
        vision_config={"out_hidden_size": 4096},
        text_config={
            "vocab_size": 151936,
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [24, 20, 20],
                "mrope_interleaved": True,
            },
        },
        **special(tiny),
    )


def smolvlm(tiny: TinyModel) -> Any:
    """SmolVLM2-2.2B: SigLIP-SO400M on tiles of 384 pixels, SmolLM2-1.7B."""
    pixels = tiny.processor.image_processor
    pixels.size, pixels.max_image_size = {"longest_edge": 1536}, {"longest_edge": 384}
    tiny.processor.image_seq_len = 81
    return SmolVLMConfig(
        vision_config=so400m().to_dict(),
        text_config={
            "model_type": "llama",
            "vocab_size": 49280,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 24,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "max_position_embeddings": 8192,
        },
        image_token_id=tiny.config.image_token_id,
        scale_factor=3,
    )


BUILT: dict[str, tuple[str, Callable[[TinyModel], Any]]] = {
    "llava-1.5-7b": ("llava", llava),
    "bunny-v1.0-3b": ("bunny", bunny),
    "qwen2.5-vl-7b": ("qwen2_5_vl", qwen2_5_vl),
    "qwen3-vl-8b": ("qwen3_vl", qwen3_vl),
    "smolvlm2-2.2b": ("smolvlm", smolvlm),
}
"""By recipe: family of the tiny model whose processor is made large, and the full config."""


def so400m(**changed: Any) -> SiglipVisionConfig:
    """SigLIP-SO400M/14 at 384 pixels."""
    sizes: dict[str, Any] = {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
    }
    return SiglipVisionConfig(**sizes | changed, vision_use_head=False)


def wide(pixels: Any, *, patch_size: int) -> None:
    """Let an image processor of Qwen's take images of any usual size."""
    pixels.patch_size = patch_size
    pixels.size = {"shortest_edge": 4 * patch_size**2, "longest_edge": 16384 * patch_size**2}


def special(tiny: TinyModel) -> dict[str, Any]:
    """Ids of the tokens around images."""
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    return {name: getattr(tiny.config, name) for name in names}


def rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Make rows; a character is a token."""
    generator = np.random.default_rng(0)
    Image.new("RGB", SIZE, "gray").save(folder / "image.png")
    for number in range(NUM_ROWS):
        lengths = np.clip(generator.lognormal(np.log(RESPONSE), 0.5, 2), 20, 400).astype(int)
        yield {
            "images": ["image.png"],
            "prompt": f"{number:02d}".ljust(PROMPT, "?"),
            "chosen": "a" * int(lengths[0]),
            "rejected": "b" * int(lengths[1]),
        }


def plan_recipe(recipe: str, folder: Path) -> Plan:
    """Plan a recipe at full size.

    Args:
        recipe: Its name.
        folder: Empty; config and rows are written to it.

    Returns:
        The plan for one device.
    """
    family, build = BUILT[recipe]
    tiny = TINY_MODELS[family]()
    build(tiny).save_pretrained(folder / "model")
    lines = [json.dumps(row) + "\n" for row in rows(folder)]
    (folder / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
    flags = {
        "config": RECIPES / f"{recipe}.yaml",
        "model_name_or_path": folder / "model",
        "dataset_name": folder / "rows.jsonl",
        "image_root": folder,
        "output_dir": folder / "run",
        # Planning needs no device; these two would be refused without one.
        "use_cpu": "true",
        "tf32": "false",
        "disable_tqdm": "true",
    }
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    return make_plan(parse_settings(words), processor=tiny.processor)


def main() -> None:
    """Plan all recipes, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", choices=BUILT, action="append")
    parser.add_argument("--out", type=Path)
    values = parser.parse_args()
    results = {}
    for recipe in values.recipe or BUILT:
        with TemporaryDirectory() as folder:
            plan = plan_recipe(recipe, Path(folder))
        memory = {need.name: need.num_bytes for need in plan.memory}
        results[recipe] = {"total": plan.peak_bytes, "parts": memory}
        at_least = "" if None not in memory.values() else ", at least"
        print(f"{recipe:<30} {plan.peak_bytes / 2**30:6.2f} GiB{at_least}")
        for name, size in memory.items():
            print(f"    {name:<26} {'?' if size is None else f'{size / 2**30:.2f}':>6}")
    if values.out is not None:
        written = {
            "command": "python benchmarks/recipe_memory.py",
            "note": "Planned from configs, not measured; null is not known, and not in the total.",
            "rows": {"image": SIZE, "prompt": PROMPT, "response": RESPONSE, "number": NUM_ROWS},
            "transformers": transformers.__version__,
            "bytes": results,
        }
        values.out.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
