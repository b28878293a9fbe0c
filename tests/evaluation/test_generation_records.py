"""Records of a run: torn lines, and the settings they were made with."""

import json
import os
from pathlib import Path

import pytest

from mdpo.evaluation.generation_records import claim, read_records

WHOLE = '{"image_id": "1"}\n{"image_id": "2"}\n'


@pytest.fixture
def records(tmp_path: Path) -> Path:
    return tmp_path / "generations.jsonl"


def test_records_are_read_in_order(tmp_path: Path, records: Path):
    records.write_text(WHOLE, encoding="utf-8")
    assert read_records(tmp_path) == [{"image_id": "1"}, {"image_id": "2"}]
    assert records.read_text(encoding="utf-8") == WHOLE


def test_reading_whole_records_writes_nothing(tmp_path: Path, records: Path):
    records.write_text(WHOLE, encoding="utf-8")
    os.utime(records, (0, 0))
    read_records(tmp_path)
    assert records.stat().st_mtime == 0


def test_folder_without_records_has_none(tmp_path: Path, records: Path):
    assert read_records(tmp_path) == []
    assert not records.exists()


def test_empty_file_has_no_records(tmp_path: Path, records: Path):
    records.touch()
    assert read_records(tmp_path) == []


def test_torn_last_line_is_cut_off_so_that_the_next_one_stands_alone(tmp_path: Path, records: Path):
    records.write_text(WHOLE + '{"image_id": "3", "capt', encoding="utf-8")
    assert read_records(tmp_path) == [{"image_id": "1"}, {"image_id": "2"}]
    with records.open("a", encoding="utf-8") as file:
        file.write('{"image_id": "4"}\n')
    assert [record["image_id"] for record in read_records(tmp_path)] == ["1", "2", "4"]


def test_last_line_that_lacks_only_its_line_break_counts_as_torn(tmp_path: Path, records: Path):
    records.write_text(WHOLE.removesuffix("\n"), encoding="utf-8")
    assert read_records(tmp_path) == [{"image_id": "1"}]
    assert records.read_text(encoding="utf-8") == '{"image_id": "1"}\n'


def test_torn_only_line_leaves_an_empty_file(tmp_path: Path, records: Path):
    records.write_text('{"image_id', encoding="utf-8")
    assert read_records(tmp_path) == []
    assert records.read_bytes() == b""


def test_line_torn_within_a_character_is_cut_off(tmp_path: Path, records: Path):
    """The file could not be decoded, so the run could not be resumed."""
    records.write_bytes(WHOLE.encode() + '{"caption": "é'.encode()[:-1])
    assert len(read_records(tmp_path)) == 2
    assert records.read_text(encoding="utf-8") == WHOLE


@pytest.mark.parametrize("separator", ["\u2028", "\x85"])
def test_line_separators_inside_a_caption_do_not_split_a_record(
    tmp_path: Path, records: Path, separator: str
):
    record = {"image_id": "1", "caption": f"a{separator}b"}
    records.write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_records(tmp_path) == [record]


def test_first_claim_writes_the_settings_down(tmp_path: Path):
    claim(tmp_path, {"model": "a", "adapter": None})
    written = (tmp_path / "generation.json").read_text(encoding="utf-8")
    assert json.loads(written) == {"model": "a", "adapter": None}
    assert written.endswith("}\n")


def test_same_settings_may_go_on(tmp_path: Path):
    claim(tmp_path, {"model": "a", "max_new_tokens": 64})
    claim(tmp_path, {"max_new_tokens": 64, "model": "a"})
    assert json.loads((tmp_path / "generation.json").read_text(encoding="utf-8"))["model"] == "a"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "b", "tokens": 64}, "`model` 'a', now 'b'"),
        ({"model": "a", "tokens": 65}, "`tokens` 64, now 65"),
        ({"model": "a"}, "`tokens` 64, now None"),
        ({"model": "a", "tokens": 64, "adapter": "c"}, "`adapter` None, now 'c'"),
    ],
)
def test_other_settings_are_refused_and_the_old_ones_kept(
    tmp_path: Path, settings: dict[str, object], message: str
):
    claim(tmp_path, {"model": "a", "tokens": 64})
    with pytest.raises(ValueError, match=f"holds answers made with {message}") as caught:
        claim(tmp_path, settings)
    assert str(caught.value).endswith("Take another folder.")
    assert str(tmp_path) in str(caught.value)
    kept = json.loads((tmp_path / "generation.json").read_text(encoding="utf-8"))
    assert kept == {"model": "a", "tokens": 64}
