"""``mdpo rewards``: score preference pairs by response and by image with a trained model."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

EPILOG = """\
Rows of OUT/rewards.jsonl hold the implicit reward of each candidate; OUT/metrics.json holds
accuracies and margins with 95 % intervals. Response accuracy is the share of pairs whose chosen
response has the higher reward; image accuracy the share whose chosen response is rewarded more
under the true image than under the rejected one.

example:
  mdpo rewards validation.jsonl --adapter runs/mdpo --out runs/mdpo/rewards"""


def run(arguments: Sequence[str]) -> int:
    """Score pairs and write rewards and metrics.

    Args:
        arguments: Command line after the verb.

    Returns:
        Exit status.

    Raises:
        ValueError: If there is no model, or no reference, to score with.
    """
    parser = argparse.ArgumentParser(
        prog="mdpo rewards",
        allow_abbrev=False,
        description="Does a trained model prefer the chosen response, and the true image?",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", help="preference pairs: file, save_to_disk folder, hub id")
    parser.add_argument("--split", default="train", help="split of the source (default: train)")
    parser.add_argument("--image-root", type=Path, help="folder of the images")
    parser.add_argument("--adapter", type=Path, help="trained adapters")
    parser.add_argument("--model", help="trained model, or base of the adapters")
    parser.add_argument(
        "--reference", help="what training began as: a model, or the adapters that were trained on"
    )
    parser.add_argument("--beta", type=float, default=0.1, help="as in training (default: 0.1)")
    parser.add_argument("--corruption", default="crop_keep", help="how rejected images are made")
    parser.add_argument(
        "--corruption-options", type=json.loads, default={}, help="options, as JSON"
    )
    parser.add_argument(
        "--chat-template-kwargs", type=json.loads, default={}, help="as in training, as JSON"
    )
    parser.add_argument("--seed", type=int, default=42, help="of the draws (default: 42)")
    parser.add_argument("--batch-size", type=int, default=8, help="pairs per pass (default: 8)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ... (default: cpu)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    values = parser.parse_args(arguments)
    if values.adapter is None and (values.model is None or values.reference is None):
        raise ValueError("Give `--adapter`, or `--model` and `--reference`.")
    return _score(values)


def _score(values: argparse.Namespace) -> int:
    """Score pairs."""
    from mdpo.data.collation import PreferenceCollator
    from mdpo.data.dataset import PreferenceDataset
    from mdpo.data.encoding import Encoder
    from mdpo.data.reading import Rows
    from mdpo.data.rejected_images import make_rejected_image_source
    from mdpo.data.report import check_rows
    from mdpo.data.sources import load_raw
    from mdpo.diagnostics.rewards import pair_rewards, summarise_rewards
    from mdpo.models.adapted import load_adapted
    from mdpo.models.processors import load_processor

    rows = Rows(load_raw(values.source, split=values.split))
    root = values.image_root or rows.root
    report = check_rows(rows, image_root=root)
    if report.problems:
        raise ValueError("\n".join(report.problem_lines()))
    dataset = PreferenceDataset(
        rows,
        image_root=root,
        rejected_image=make_rejected_image_source(values.corruption, values.corruption_options),
        seed=values.seed,
        donors=report.with_images,
    )
    policy = load_adapted(values.model, values.adapter).to(values.device)  # pyright: ignore[reportArgumentType]  # a device name
    reference = _reference(values)
    encoder = Encoder(
        load_processor(values.adapter or values.model),
        chat_template_kwargs=values.chat_template_kwargs,
    )
    rewards = list(
        pair_rewards(
            policy,
            reference,
            dataset,
            PreferenceCollator(encoder),
            beta=values.beta,
            batch_size=values.batch_size,
        )
    )
    summary = summarise_rewards(rewards)
    values.out.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(each.to_dict()) + "\n" for each in rewards)
    (values.out / "rewards.jsonl").write_text(lines, encoding="utf-8")
    metrics = {name: estimate.to_dict() for name, estimate in summary.items()}
    (values.out / "metrics.json").write_text(json.dumps({"metrics": metrics}, indent=2) + "\n")
    for name, estimate in summary.items():
        print(f"{name:<26} {estimate}  n {estimate.n}")
    return 0


def _reference(values: argparse.Namespace) -> Any:
    """Load what training began as; None takes the model with its adapters off."""
    from mdpo.models.adapted import base_of, load_adapted

    if values.reference is not None:
        given = Path(values.reference)
        if not (given / "adapter_config.json").exists():
            return load_adapted(values.reference, None).to(values.device)  # pyright: ignore[reportArgumentType]  # a device name
        base = values.model or base_of(values.adapter or given)
        return load_adapted(base, given).to(values.device)  # pyright: ignore[reportArgumentType]  # a device name
    record = values.adapter / "run.json"
    if record.exists() and json.loads(record.read_text("utf-8")).get("starting_adapters"):
        raise ValueError(
            f"`--reference` must be given: the training of {values.adapter} began from other "
            "adapters, which are its reference. Name their folder (`adapter_name_or_path`)."
        )
    return None
