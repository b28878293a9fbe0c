"""The report: every bad row is named, with field and remedy; good rows are counted."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import LlavaProcessor

from conftest import picture
from mdpo.data.encoding import Encoder, TokenCounter
from mdpo.data.reading import Rows
from mdpo.data.report import DataReport, check_rows
from mdpo.data.sources import load_raw


def check(rows: list[dict[str, Any]], **settings: Any) -> DataReport:
    given: dict[str, Any] = {"image_root": None} | settings
    return check_rows(Rows(load_raw(rows)), **given)


def messages(report: DataReport) -> list[str]:
    return [problem.message for problem in report.problems]


def test_facts_of_a_good_set(mixed_rows: list[Any], processor: LlavaProcessor) -> None:
    report = check(mixed_rows, counter=TokenCounter(Encoder(processor)))
    assert (report.num_rows, report.num_images, report.num_text_only) == (4, 6, 1)
    assert report.good == (0, 1, 2, 3)
    assert report.with_images == (0, 1, 3)
    assert str(report.widths) == "20 / 60 / 90"
    assert str(report.heights) == "48 / 48 / 70"
    assert report.prompt_tokens is not None
    assert report.prompt_tokens.high > 3 * 36
    assert not report.problems
    assert report.to_dict()["num_good"] == 4
    assert "good" not in report.to_dict()


def test_bad_rows_are_named(make_rows: Any, tmp_path: Path) -> None:
    whole = io.BytesIO()
    picture(0, (300, 300)).save(whole, "JPEG")
    (tmp_path / "torn.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    rows = make_rows(5)
    rows[0]["images"] = ["missing.png"]
    rows[1]["images"] = ["torn.jpg"]
    rows[2]["images"] = ["../outside.png"]
    rows[3]["chosen"] = [{"role": "assistant", "content": "  "}]
    found = check(rows, image_root=tmp_path)
    assert found.good == (4,)
    assert [problem.index for problem in found.problems] == [0, 1, 2, 3]
    for k, words in enumerate(["missing.png", "torn.jpg", "outside.png", "`chosen"]):
        assert messages(found)[k].startswith(f"row {k}")
        assert words in messages(found)[k]
        assert "\n" not in messages(found)[k]


def test_a_decompression_bomb_is_named_before_it_is_decoded(
    make_rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 40,000 x 40,000 pixels that would take 4.8 GB
    Image.new("1", (40_000, 40_000)).save(tmp_path / "bomb.png")
    rows = make_rows(1)
    rows[0]["images"] = ["bomb.png"]
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    assert "bomb.png" in messages(check(rows, image_root=tmp_path))[0]


def test_max_length_refuses_rows_without_response_and_counts_cut_ones(
    make_rows: Any, processor: LlavaProcessor
) -> None:
    rows = make_rows(2)
    counter = TokenCounter(Encoder(processor))
    whole = check(rows, counter=counter)
    assert whole.prompt_tokens is not None
    short, long = whole.prompt_tokens.low, whole.prompt_tokens.high
    assert short < long
    cut = check(rows, counter=counter, max_length=long)
    assert cut.good == (0,)
    assert f"has {long} tokens (images included) of `max_length` {long}" in messages(cut)[0]
    assert cut.num_cut == 1
    assert check(rows, counter=counter, max_length=long + 1).good == (0, 1)


def test_rows_must_fit_the_models_positions(make_rows: Any, processor: LlavaProcessor) -> None:
    rows, counter = make_rows(1), TokenCounter(Encoder(processor))
    whole = check(rows, counter=counter)
    assert whole.prompt_tokens is not None
    assert whole.rejected_tokens is not None
    assert whole.chosen_tokens is not None
    longest = whole.prompt_tokens.high + max(whole.rejected_tokens.high, whole.chosen_tokens.high)
    assert not check(rows, counter=counter, context=longest).problems
    too_long = check(rows, counter=counter, context=longest - 1)
    assert (
        f"fit the model's {longest - 1} positions, have {longest} tokens" in messages(too_long)[0]
    )
    assert not check(rows, counter=counter, context=longest - 1, max_length=longest - 1).problems


def test_provided_images_are_asked_for(make_rows: Any) -> None:
    found = check(make_rows(1), needs_rejected_images=True)
    assert "`rejected_images` must be given" in messages(found)[0]


def test_fingerprint_sees_texts_and_pixels(make_rows: Any) -> None:
    rows, changed_text, changed_pixel = make_rows(2), make_rows(2), make_rows(2)
    changed_text[1]["chosen"][0]["content"] += "!"
    changed_pixel[1]["images"][0].putpixel((0, 0), (1, 2, 3))
    prints = [check(each).fingerprint for each in (rows, changed_text, changed_pixel)]
    assert len(set(prints)) == 3
    assert check(make_rows(2)).fingerprint == prints[0]


def test_without_images_nothing_is_opened(make_rows: Any) -> None:
    rows = make_rows(1)
    rows[0]["images"] = ["missing.png"]
    assert not check(rows, with_images=False).problems


def test_only_the_first_problems_are_listed(make_rows: Any) -> None:
    rows = make_rows(13)
    for row in rows:
        row["chosen"] = ""
    lines = check(rows).problem_lines(most=10)
    assert len(lines) == 11
    assert lines[-1] == "... and 3 more."
