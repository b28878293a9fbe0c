"""Every family of the table passes every check, and docs/models.md says what is found here."""

from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers import LlamaConfig

from mdpo.cli import main
from mdpo.conformance.families import page, prove
from mdpo.conformance.tiny import TINY_MODELS
from mdpo.models.families import FAMILIES, UNPROVEN, family_of
from mdpo.models.sharing import reason_against_sharing

PAGE = Path(__file__).parents[2] / "docs" / "models.md"

KNOWN_FAILURES = {"mllama": {"batch = single", "generation = scoring"}}
"""Faults of transformers 5.23 that the page tells users about."""


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_family_passes_and_the_page_says_so(name: str) -> None:
    proof = prove(name)
    failed = {each.name for each in proof.report.results if each.status == "failed"}
    assert failed == KNOWN_FAILURES.get(name, set()), "\n".join(proof.report.lines())
    if f"transformers {transformers.__version__}," in PAGE.read_text(encoding="utf-8"):
        lines = PAGE.read_text(encoding="utf-8").splitlines()
        assert proof.row in lines
        assert proof.parts in lines


@pytest.mark.parametrize("name", FAMILIES)
def test_table_agrees_with_the_tiny_model(name: str) -> None:
    tiny, family = TINY_MODELS[name](), FAMILIES[name]
    assert family_of(tiny.config) is family
    assert (reason_against_sharing(tiny.model()) is None) == family.shares


@pytest.mark.parametrize("name", FAMILIES)
def test_images_are_counted_as_the_table_says(name: str) -> None:
    from PIL import Image

    from mdpo.data.encoding import Encoder

    encoder = Encoder(TINY_MODELS[name]().processor)
    prompt = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
    text = encoder.prompt_text(prompt)  # pyright: ignore[reportArgumentType]
    lengths = {
        encoder.prompts([text], [[Image.new("RGB", size)]])["input_ids"].shape[1]
        for size in ((32, 32), (64, 64), (96, 32), (32, 96), (120, 90))
    }
    assert (len(lengths) == 1) == (FAMILIES[name].image_tokens in ("fixed", "across"))


def test_unknown_decoder_of_a_known_class_is_of_no_special_family() -> None:
    config: Any = TINY_MODELS["bunny"]().config
    config.text_config = LlamaConfig()
    assert family_of(config) is FAMILIES["llava"]
    assert family_of(LlamaConfig()) is None


def test_every_row_has_a_tiny_model() -> None:
    assert list(TINY_MODELS) == list(FAMILIES)


def test_page_names_what_is_not_proven() -> None:
    text = page([])
    assert all(name in text for name in UNPROVEN)


def test_family_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-model", "--family", "llava"]) == 0
    assert "24 passed, 0 failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--family", "lava"], "`--family` must be all or one of llava, bunny"),
        (["runs/x", "--family", "llava"], "give a model, or `--family`"),
        ([], "give a model, or `--family`"),
        (["--family", "llava", "--page", "x.md"], "`--page` needs `--family all`"),
    ],
)
def test_wrong_use_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check-model", *arguments]) != 0
    assert message in capsys.readouterr().err
