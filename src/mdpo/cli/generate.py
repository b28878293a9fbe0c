"""``mdpo generate``: let a model answer the prompts of a benchmark."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mdpo.evaluation.generation.decoding import PRESETS
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
"""


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
    add("--retry-failed", action="store_true", help="try again what failed before")
    add("--dtype", default="auto", help="of the weights")
    add("--device", default="cpu", help="cpu, cuda, ... (default: cpu)")
    add("--endpoint", help="instead of a model here: base URL of an OpenAI-compatible server")
    add("--key-env", default="OPENAI_API_KEY", help="environment variable with the server's key")
    add("--concurrency", type=int, default=8, help="requests at a time (default: 8)")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Answer prompts; a run that was cut off is taken up where it stopped.

    Args:
        arguments: Command line after the verb.

    Returns:
        Exit status: 1 if an item failed.
    """
    parser = build_parser()
    values = parser.parse_args(arguments)
    if values.endpoint and (values.model is None or values.adapter is not None):
        parser.error("--endpoint needs --model, the name of the model there, and no --adapter")
    if values.batch_size < 1 or values.concurrency < 1:
        parser.error("--batch-size and --concurrency must be 1 or more")
    from mdpo.evaluation.generation.decoding import decoding_for
    from mdpo.evaluation.generation.images import ImageFolder
    from mdpo.evaluation.generation.run import generate
    from mdpo.evaluation.results import load_suite

    names = ("max_new_tokens", "num_beams", "temperature", "seed")
    drawn = {name: getattr(values, name) for name in names}
    decoding = decoding_for(values.suite, values.preset, **drawn)
    suite = load_suite(values.suite, values.data)
    images = ImageFolder(values.images or values.data)
    prompts = suite.prompts()[: values.limit]
    images.require(name for each in prompts for name in each.images if isinstance(name, str))
    answerer, settings = _answerer(values, images, decoding)
    tally = generate(
        answerer,
        prompts,
        images=images,
        out=values.out,
        settings={"suite": values.suite, **settings},
        about={
            "model": values.model and str(values.model),
            "adapter": values.adapter and str(values.adapter),
            "image_root": str(images.root),
            "data": str(values.data.resolve()),
        },
        decoding=decoding,
        batch_size=values.concurrency if values.endpoint else values.batch_size,
        retry_failed=values.retry_failed,
    )
    if tally.cut:
        print(
            f"mdpo generate: {tally.cut} answers were cut at {decoding.max_new_tokens} tokens; "
            "--max-new-tokens gives room.",
            file=sys.stderr,
        )
    if tally.failed:
        item, message = next(iter(tally.failed.items()))
        print(
            f"mdpo generate: {len(tally.failed)} items failed, {item!r} for example: {message}\n"
            "The same command with --retry-failed tries them again.",
            file=sys.stderr,
        )
    print(values.out)
    return 1 if tally.failed else 0


def _answerer(values: argparse.Namespace, images: Any, decoding: Any) -> tuple[Any, Mapping]:
    """Load the model, or reach for the server; and say what answers depend on."""
    if values.endpoint:
        from mdpo.evaluation.chat import ChatClient, key_from
        from mdpo.evaluation.generation.endpoint import Endpoint

        client = ChatClient(values.endpoint, values.model, key=key_from(values.key_env))
        return Endpoint(client, images, decoding, values.concurrency), {
            "endpoint": values.endpoint,
            "weights": [values.model],
        }
    from mdpo.evaluation.generation.local import LocalModel
    from mdpo.models.adapted import load_adapted, weights_fingerprint
    from mdpo.models.processors import load_processor

    model = load_adapted(values.model, values.adapter, dtype=values.dtype)
    model.to(values.device)  # pyright: ignore[reportArgumentType]  # a device name
    named = [each for each in (values.model, values.adapter) if each]
    return LocalModel(model, load_processor(values.adapter or values.model), images, decoding), {
        "weights": [weights_fingerprint(each) for each in named],
        "dtype": values.dtype,
    }
