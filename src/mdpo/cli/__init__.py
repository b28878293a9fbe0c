"""The command line: ``mdpo VERB ...``. One module per verb, loaded when it is called.

Exit status: 0 done, 1 failed, 2 wrong usage. Results go to standard output, progress and messages
to standard error.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module

VERBS: dict[str, str] = {
    "train": "train a model on preference pairs",
    "plan": "say what a run would take: tokens, memory, time",
    "convert": "rewrite original checkpoints of Bunny and LLaVA, and back",
    "merge": "fold trained adapters into the weights",
    "check-model": "check whether a model behaves as training assumes",
    "data": "inspect a data set, look at it, or fetch a benchmark's: `data fetch`",
    "rewards": "score preference pairs by response and by image with a trained model",
    "generate": "let a model answer the prompts of a benchmark",
    "judge": "let a language model judge the answers of a run",
    "score": "score answers of a benchmark",
    "eval": "all of these in one go: generate, judge, score, report",
    "export": "write a run's answers in the format of the official scorer",
    "report": "compare scored runs: tables, differences, a page with the answers",
    "compare": "let people vote blindly on two systems' answers, and count the votes",
    "playground": "write the tiny model and the made data that the demo uses",
    "demo": "train the playground's model by DPO and by mDPO, and compare",
}

EXAMPLES = """\
examples:
  mdpo demo --out runs/demo
  mdpo train --config recipes/llava-1.5-7b.yaml --dataset_name pairs.jsonl --output_dir runs/a"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb.

    Args:
        arguments: Command line without the program name; None takes that of the process.

    Returns:
        Exit status.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0 if words else 2
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"mdpo {version('multimodal-dpo')}")
        return 0
    if words[0] not in VERBS:
        print(f"mdpo: {words[0]!r} is not a verb.\n\n{_usage()}", file=sys.stderr)
        return 2
    return _run(words[0], words[1:], debug=debug)


def _run(verb: str, arguments: list[str], *, debug: bool) -> int:
    """Run a verb and turn errors into one message and a status."""
    # Loading bars of weights and the like are noise beside our own.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        if verb not in ("train", "plan"):
            arguments = [_hyphenated(word) for word in arguments]
        return int(import_module(f"mdpo.cli.{verb.replace('-', '_')}").run(arguments) or 0)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        print("mdpo: interrupted.", file=sys.stderr)
        return 130
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        if debug:
            raise
        print(f"mdpo {verb}: error: {error}", file=sys.stderr)
        return 2 if type(error).__name__ == "SettingsError" else 1


def _hyphenated(word: str) -> str:
    """Write a flag with hyphens, so that settings of ``train`` work by their names elsewhere."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def _usage() -> str:
    """What ``mdpo --help`` prints."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {text}" for name, text in VERBS.items())
    return (
        "usage: mdpo VERB [options]\n\n"
        "Teach vision-language models to look at the picture: preference optimization with images\n"
        "(mDPO, arXiv:2406.11839), from data to a measured model.\n\n"
        f"verbs:\n{verbs}\n\n"
        "`mdpo VERB --help` describes a verb; `--debug` shows the traceback of an error.\n\n"
        f"{EXAMPLES}"
    )
