"""Published tables: complete, consistent where the paper prints a number twice, and marked."""

import pytest

from mdpo.evaluation.published import PUBLISHED, SOURCE
from mdpo.evaluation.suites import SUITES

TABLES = {each.place: each for each in PUBLISHED}


def row(place: str, name: str) -> tuple[float | None, ...]:
    numbers = dict(TABLES[place].rows)[name]
    return tuple(float(each) if each else None for each in numbers)


@pytest.mark.parametrize("table", PUBLISHED, ids=lambda each: each.place)
def test_each_row_has_a_number_or_nothing_per_column(table):
    assert len({name for name, _ in table.rows}) == len(table.rows)
    for _, numbers in table.rows:
        assert len(numbers) == len(table.columns)
        for printed, column in zip(numbers, table.columns, strict=True):
            assert printed == "" or 0 <= float(printed) <= 100
            assert column.direction in ("higher", "lower")
            assert column.suite in {*SUITES, "object-halbench"}
            if "fraction" in column.title and printed:
                assert float(printed) < 1


def test_numbers_of_the_paper():
    assert "2406.11839" in SOURCE
    assert row("Table 1", "Bunny-v1.0-3B + mDPO") == (2.96, 0.42, 27.0, 4.6, 4.9, 67.4, 37.7, 2.4)
    assert row("Table 1", "LLaVA-v1.5-7B + mDPO") == (2.39, 0.54, 35.7, 9.8, 4.4, 52.4, 24.5, 2.4)
    assert row("Table 1", "LLaVA-v1.5-7B + DPO")[5] == 55.1
    assert row("Table 3", "random other image") == (2.81, 0.46, 40.7, 6.6)
    quoted = row("Table 1, rows for reference", "LLaVA-v1.5-13B")
    assert quoted == (2.42, None, 46.3, 22.6, 7.8, 51.0, 36.4, 4.2)


def test_numbers_that_are_printed_twice_agree():
    main, base = "Table 1", "Bunny-v1.0-3B"
    full = row(main, f"{base} + mDPO")[:4]
    assert row("Table 2", "mDPO") == row("Table 3", "crop 0-20 %") == full
    assert row("Table 4", "chosen response") == full
    assert row("Table 2", "without both") == row(main, f"{base} + DPO")[:4]
    for name, of in ((base, base), ("+ DPO", f"{base} + DPO"), ("+ mDPO", f"{base} + mDPO")):
        overall, *categories = row("Table 5", name)
        assert overall == row(main, of)[0]
        assert len(categories) == 8
        # each printed mean is rounded to 0.005
        assert sum(each or 0 for each in categories) / 8 == pytest.approx(overall, abs=0.0101)


def test_tables_say_which_benchmarks_they_are_about():
    places = [each.place for each in PUBLISHED if each.about("amber")]
    assert places == ["Table 1", "Table 1, rows for reference"]
    assert TABLES["Table 2"].about("object-halbench-llm")
    assert TABLES["Table 5"].about("mmhal")
    assert not any(each.about("pope") for each in PUBLISHED)
