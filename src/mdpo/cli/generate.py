"""``mdpo generate``: let a model answer the prompts of a benchmark."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mdpo.evaluation.generation.decoding import PRESETS
from mdpo.evaluation.generation.images import CONDITIONS, NONE, ORIGINAL
from mdpo.evaluation.suites import SUITES, suite_name

EPILOG = """\
The model is loaded here, or asked through any OpenAI-compatible endpoint (--endpoint). A run that
was cut off is taken up where it stopped by the same command; items that failed are tried again
with --retry-failed.

presets:
{presets}

examples:
  mdpo generate chair --adapter runs/mdpo --data runs/playground/chair --out runs/mdpo/chair
  mdpo generate pope --model llava-hf/llava-1.5-7b-hf --data data/pope --images data/coco/val2014 \\
      --out runs/base/pope --device cuda --preset pope-short
  mdpo generate amber --endpoint http://127.0.0.1:8000/v1 --model my-model --data data/amber \\
      --images data/amber/image --out runs/served/amber
  mdpo generate pope --adapter runs/mdpo --data data/pope --images data/coco/val2014 \\
      --out runs/mdpo/pope-unseen --image-condition none
"""

NAMED = 20
"""Items that a message lists."""


def build_parser() -> argparse.ArgumentParser:
    """Make the parser of the verb.

    Returns:
        The parser.
    """
    width = max(map(len, PRESETS))
    presets = "\n".join(f"  {name:<{width}}  {text}" for name, (text, _) in PRESETS.items())
    parser = argparse.ArgumentParser(
        prog="mdpo generate",
        allow_abbrev=False,
        description="Let a model answer the prompts of a benchmark.",
        epilog=EPILOG.format(presets=presets),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("suite", type=suite_name, choices=SUITES, metavar="SUITE", help=", ".join(SUITES))
    add("--model", help="folder or hub id (default: the base of the adapters); name at an endpoint")
    add("--adapter", type=Path, help="trained adapters")
    add("--data", type=Path, required=True, help="folder of the benchmark's data")
    add("--images", type=Path, help="folder of its images (default: that of the data)")
    add("--out", type=Path, required=True, help="folder of the run")
    add("--preset", choices=PRESETS, default="greedy", help="how answers are drawn, see below")
    add("--max-new-tokens", type=int, help="longest answer (default: of preset and suite)")
    add("--num-beams", type=int, help="of beam search (default: of the preset)")
    add("--temperature", type=float, help="of drawn tokens (default: 0, the likeliest)")
    add("--seed", type=int, help="of drawn tokens (default: 0)")
    add("--batch-size", type=int, default=16, help="prompts per batch (default: 16)")
    add("--limit", type=int, help="answer only the first prompts, to try things out")
    add(
        "--image-condition",
        choices=CONDITIONS,
        default=ORIGINAL,
        metavar="NAME",
        help=f"what is shown of images: {', '.join(CONDITIONS)} (default: original)",
    )
    add("--retry-failed", action="store_true", help="try again what failed before")
    add("--dtype", default="auto", help="of the weights")
    add("--device", default="cpu", help="cpu, cuda, ... (default: cpu)")
    add("--endpoint", help="instead of a model here: base URL of an OpenAI-compatible server")
    add("--key-env", default="OPENAI_API_KEY", help="environment variable with the server's key")
    add("--concurrency", type=int, default=8, help="requests at a time (default: 8)")
    add("--allow-model-mismatch", action="store_true", help="take answers of another model there")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Answer prompts; a run that was cut off is taken up where it stopped.

    Args:
        arguments: Command line after the verb.

    Returns:
        Exit status: 1 if an item failed, or is missing as it stopped early.
    """
    parser = build_parser()
    values = parser.parse_args(arguments)
    if values.endpoint and (values.model is None or values.adapter is not None):
        parser.error("--endpoint needs --model, the name of the model there, and no --adapter")
    if min(values.batch_size, values.concurrency, 1 if values.limit is None else values.limit) < 1:
        parser.error("--batch-size, --concurrency and --limit must be 1 or more")
    from mdpo.evaluation.generation.decoding import decoding_for
    from mdpo.evaluation.generation.images import ImageFolder
    from mdpo.evaluation.generation.messages import without_images
    from mdpo.evaluation.generation.run import check, generate
    from mdpo.evaluation.results import load_suite

    names = ("max_new_tokens", "num_beams", "temperature", "seed")
    drawn = {name: getattr(values, name) for name in names}
    decoding = decoding_for(values.suite, values.preset, **drawn)
    prompts = load_suite(values.suite, values.data).prompts()[: values.limit]
    condition = values.image_condition
    if condition == NONE:
        prompts = [without_images(each) for each in prompts]
    corruption = ORIGINAL if condition == NONE else condition
    images = ImageFolder(values.images or values.data, condition=corruption)
    check(prompts, images)
    answerer, settings, about = _answerer(values, images, decoding)
    if condition != ORIGINAL:
        settings |= {"image_condition": condition}
    tally = generate(
        answerer,
        prompts,
        images=images,
        out=values.out,
        settings={"suite": values.suite, **settings},
        about={
            "model": values.model and str(values.model),
            "adapter": values.adapter and str(values.adapter),
            "preset": values.preset,
            "image_root": str(images.root),
            "data": str(values.data.resolve()),
            **about,
        },
        decoding=decoding,
        retry_failed=values.retry_failed,
    )
    print(values.out)
    return _tell(tally, decoding.max_new_tokens)


def _answerer(values: argparse.Namespace, images: Any, decoding: Any) -> tuple[Any, dict, dict]:
    """Load the model, or reach for the server; say what answers depend on, and what else."""
    if values.endpoint:
        from mdpo.evaluation.chat import ChatClient, key_from
        from mdpo.evaluation.generation.endpoint import Endpoint

        client = ChatClient(
            values.endpoint,
            values.model,
            key=key_from(values.key_env),
            allow_other_model=values.allow_model_mismatch,
        )
        endpoint = Endpoint(client, images, decoding, values.concurrency)
        return endpoint, {"weights": [values.model]}, {"endpoint": values.endpoint}
    from importlib.metadata import version

    from mdpo.evaluation.generation.local import LocalModel
    from mdpo.models.adapted import adapter_folder, base_of, load_adapted, weights_fingerprint
    from mdpo.models.processors import load_processor

    model = load_adapted(values.model, values.adapter, dtype=values.dtype)
    model.to(values.device)  # pyright: ignore[reportArgumentType]  # a device name
    adapters = [adapter_folder(values.adapter)] if values.adapter else []
    named = [values.model or base_of(adapters[0]), *adapters]
    processor = load_processor(values.adapter or values.model)
    local = LocalModel(model, processor, images, decoding, batch_size=values.batch_size)
    fingerprints = [weights_fingerprint(each) for each in named]
    versions = {name: version(name) for name in ("multimodal-dpo", "torch", "transformers")}
    return local, {"weights": fingerprints, "dtype": values.dtype}, {"versions": versions}


def _tell(tally: Any, longest: int) -> int:
    """Print what is to be known of the end, and what to do next."""
    if tally.cut:
        _say(f"{tally.cut} answers were cut at {longest} tokens; --max-new-tokens gives room.")
    if tally.failed:
        item, message = next(iter(tally.failed.items()))
        others = [each for each in tally.failed if each != item]
        named = ", ".join(others[:NAMED]) + (" ..." if len(others) > NAMED else "")
        _say(
            f"{len(tally.failed)} items failed, {item!r} for example: {message}\n"
            + (f"The others: {named}\n" if others else "")
            + "The same command with --retry-failed tries them again."
        )
    if tally.stopped:
        _say(f"{tally.stopped}\n{tally.waiting} answers are missing. The same command goes on.")
    return 1 if tally.failed or tally.waiting else 0


def _say(text: str) -> None:
    """Write a message for people."""
    print(f"mdpo generate: {text}", file=sys.stderr)
