"""The demo's page: one HTML file with table, curves and answers side by side."""

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mdpo.evaluation.report.gather import gather
from mdpo.playground.summary import COLUMNS, NAMES, SYSTEMS

TITLES = {
    "base": "Base model",
    "dpo": "DPO",
    "dpo-no-image": "DPO without images",
    "mdpo": "mDPO",
}

COLOURS = {"base": "#6b7280", "dpo": "#d97706", "dpo-no-image": "#9333ea", "mdpo": "#047857"}

CURVES = {
    "rewards/accuracies": "Chosen response rewarded above the rejected one (share of pairs)",
    "rewards/chosen": "Reward of the chosen response",
    "rewards/image_accuracies": "True image rewarded above the rejected one (share of pairs)",
}

BARS = {
    "chair_s": "lower",
    "chair_i": "lower",
    "cover": "higher",
    "pope_accuracy": "higher",
    "pope_adversarial": "higher",
}
"""Metrics that are drawn as bars, and which way is better."""

NUM_EXAMPLES = 8


def write_page(out: Path, summary: dict[str, Any]) -> None:
    """Write ``index.html`` into the demo's folder.

    Args:
        out: Folder of the demo, with all runs in it.
        summary: As in ``summary.json``.
    """
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    page = environment.from_string(template).render(
        summary=summary,
        columns=COLUMNS,
        changes=list(NAMES),
        titles=TITLES,
        colours=COLOURS,
        bars=_bars(summary["systems"]),
        curves=Markup(_curves(out, summary["seeds"])),
        examples=_examples(out, summary["seeds"][0]),
        num_images=summary["systems"]["base"]["chair_s"]["n"],
    )
    (out / "index.html").write_text(page, encoding="utf-8")


def _bars(systems: dict[str, Any]) -> list[dict[str, Any]]:
    """Lay out one row per system and metric for the bars: all numbers in percent of the track."""
    charts = []
    for name, better in BARS.items():
        highest = max(each[name]["high"] for each in systems.values())
        top = 100.0 if better == "higher" else max(1.0, highest)
        rows = [
            {
                "system": system,
                "value": metrics[name]["value"],
                "low": metrics[name]["low"],
                "high": metrics[name]["high"],
                "start": 100 * metrics[name]["low"] / top,
                "width": 100 * (metrics[name]["high"] - metrics[name]["low"]) / top,
                "at": 100 * metrics[name]["value"] / top,
            }
            for system, metrics in systems.items()
        ]
        charts.append({"name": name, "better": better, "rows": rows})
    return charts


def _curves(out: Path, seeds: Sequence[int]) -> str:
    """Plot training curves, one line per run, as SVG."""
    try:
        import matplotlib
    except ImportError:
        raise RuntimeError(
            "The page needs matplotlib: pip install 'multimodal-dpo[plots]'."
        ) from None
    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(CURVES), figsize=(13, 3.4))
    for panel, (metric, title) in zip(panels, CURVES.items(), strict=True):
        for system in SYSTEMS[1:]:
            for number, seed in enumerate(seeds):
                history = _history(out / f"{system}-{seed}")
                points = [(row["step"], row[metric]) for row in history if metric in row]
                if points:
                    label = TITLES[system] if number == 0 else None
                    panel.plot(
                        *zip(*points, strict=True), color=COLOURS[system], label=label, lw=1.2
                    )
        panel.set_title(title, fontsize=9)
        panel.set_xlabel("optimizer step", fontsize=8)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(fontsize=8, frameon=False)
    figure.tight_layout()
    buffer = io.StringIO()
    # No date in the file: the same results give the same page.
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]


def _history(folder: Path) -> list[dict[str, Any]]:
    """Read what a run logged."""
    state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    return state["log_history"]


def _examples(out: Path, seed: int) -> list[dict[str, Any]]:
    """Collect pictures with the answers of all systems, spread evenly over the held-out scenes."""
    folders = {each: out / ("base" if each == "base" else f"{each}-{seed}") for each in SYSTEMS}
    runs = {system: gather([folder / "chair"])[0] for system, folder in folders.items()}
    scores = {system: {each.item: each for each in run.items} for system, run in runs.items()}
    ids = sorted(scores["base"])
    chosen = [ids[k * len(ids) // NUM_EXAMPLES] for k in range(NUM_EXAMPLES)]
    images = out / "playground" / "chair" / "images"
    return [
        {
            "id": image_id,
            "picture": _as_data_url(images / f"{image_id}.png"),
            "truth": ", ".join(scores["base"][image_id].details["truth"]),
            "answers": {
                system: Markup(
                    _marked(runs[system].responses[image_id], scores[system][image_id].details)
                )
                for system in SYSTEMS
            },
        }
        for image_id in chosen
    ]


def _marked(caption: str, details: Mapping[str, Any]) -> str:
    """Write a caption as HTML, true mentions and hallucinated ones marked."""
    pieces, position = [], 0
    for mention in details["mentions"]:
        kind = "wrong" if mention in details["hallucinated"] else "right"
        word = html.escape(caption[mention["start"] : mention["end"]])
        pieces.append(html.escape(caption[position : mention["start"]]))
        pieces.append(f'<mark class="{kind}">{word}</mark>')
        position = mention["end"]
    return "".join(pieces) + html.escape(caption[position:])


def _as_data_url(path: Path) -> str:
    """Put a picture into the page itself."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
