"""Answers as runs and other harnesses write them."""

from pathlib import Path

import pytest

from mdpo.evaluation.responses import read_responses


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


def test_captions_and_texts_are_read_in_order(answers: Path):
    answers.write_text(
        '{"image_id": "b", "caption": "A dog."}\n{"image_id": 7, "text": "Zwei Bücher."}\n',
        encoding="utf-8",
    )
    assert read_responses(answers) == [("b", "A dog."), ("7", "Zwei Bücher.")]


def test_folder_of_a_run_is_read_from_its_records(tmp_path: Path):
    line = '{"item_id": "3", "image_id": "3", "caption": "", "num_tokens": 1}\n'
    (tmp_path / "generations.jsonl").write_text(line, encoding="utf-8")
    assert read_responses(tmp_path) == [("3", "")]


def test_last_line_needs_no_line_break(answers: Path):
    answers.write_text('{"image_id": "1", "text": "a"}', encoding="utf-8")
    assert read_responses(answers) == [("1", "a")]


def test_caption_goes_before_text(answers: Path):
    answers.write_text('{"image_id": "1", "text": "a", "caption": "b"}\n', encoding="utf-8")
    assert read_responses(answers) == [("1", "b")]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_line_separators_inside_a_caption_do_not_split_it(answers: Path, separator: str):
    """JSON leaves them as they are, and ``splitlines`` split at them."""
    answers.write_text(f'{{"image_id": "1", "text": "a{separator}b"}}\n', encoding="utf-8")
    assert read_responses(answers) == [("1", f"a{separator}b")]


def test_empty_file_has_no_answers(answers: Path):
    answers.write_text("", encoding="utf-8")
    assert read_responses(answers) == []


@pytest.mark.parametrize(
    "broken", ["{'image_id': 1}", "", '{"image_id": "2", "capt', "A dog.", "{} {}"]
)
def test_lines_that_are_not_json_are_named(answers: Path, broken: str):
    good = '{"image_id": "1", "text": "a"}\n'
    answers.write_text(f"{good}{broken}\n{good}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"answers\.jsonl:2: not JSON: "):
        read_responses(answers)


@pytest.mark.parametrize(
    "incomplete",
    [
        '{"image_id": "1"}',
        '{"text": "a"}',
        '{"image_id": "1", "caption": null}',
        '{"image_id": "1", "text": 3}',
        '["1", "a"]',
        '"image_id"',
    ],
)
def test_lines_without_image_or_caption_are_named(answers: Path, incomplete: str):
    answers.write_text(incomplete + "\n", encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"answers\.jsonl:1: must have `image_id` and `caption` or `text`"
    ):
        read_responses(answers)


def test_missing_files_are_refused_with_what_writes_them(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"generations\.jsonl not found\. `mdpo generate`"):
        read_responses(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"other\.jsonl not found"):
        read_responses(tmp_path / "other.jsonl")
