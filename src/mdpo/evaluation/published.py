"""The tables of the mDPO paper (Wang et al. 2024, arXiv:2406.11839), to read measured ones beside.

Numbers stand as printed. They were not measured here, are of single runs without intervals, and
the paper states neither judge nor decoding; so a difference from a number measured here may be of
the set-up and not of the model. Rows of ``PUBLISHED[1]`` were taken by its authors from other
papers, and called not directly comparable by them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mdpo.evaluation.suite import Direction

SOURCE = "Wang et al. 2024, arXiv:2406.11839"


class Column(NamedTuple):
    """One column of a table.

    Attributes:
        title: As printed.
        suite: Benchmark of this package.
        direction: Which way is better.
    """

    title: str
    suite: str
    direction: Direction


@dataclass(frozen=True)
class Table:
    """A published table.

    Attributes:
        title: What it is of.
        place: Where it is printed.
        note: What to know before comparing.
        columns: Measures.
        rows: Name and numbers as printed; empty where nothing is printed.
    """

    title: str
    place: str
    note: str
    columns: Sequence[Column]
    rows: Sequence[tuple[str, Sequence[str]]]

    def about(self, suite: str) -> bool:
        """Tell whether it has numbers of a benchmark.

        Args:
            suite: Its name; ``object-halbench-llm`` is the same benchmark as without the ending.

        Returns:
            Whether one of its columns is of it.
        """
        return suite.removesuffix("-llm") in {each.suite for each in self.columns}


MMHAL = (
    Column("MMHal score", "mmhal", "higher"),
    Column("MMHal HalRate (fraction)", "mmhal", "lower"),
)
OBJECT_HALBENCH = (
    Column("ObjHal CHAIRs", "object-halbench", "lower"),
    Column("ObjHal CHAIRi", "object-halbench", "lower"),
)
AMBER = (
    Column("AMBER CHAIR", "amber", "lower"),
    Column("AMBER Cover", "amber", "higher"),
    Column("AMBER HalRate", "amber", "lower"),
    Column("AMBER Cog", "amber", "lower"),
)
MAIN = (*MMHAL, *OBJECT_HALBENCH, *AMBER)
CATEGORIES = tuple(
    Column(title, "mmhal", "higher")
    for title in (
        "overall",
        "attribute",
        "adversarial",
        "comparison",
        "counting",
        "relation",
        "environment",
        "holistic",
        "other",
    )
)


def _rows(text: str) -> list[tuple[str, list[str]]]:
    """Read lines of a name and its numbers; a dash stands for a number that is not printed."""
    rows = []
    for line in text.strip().split("\n"):
        name, _, numbers = line.partition(":")
        rows.append((name.strip(), ["" if each == "-" else each for each in numbers.split()]))
    return rows


PUBLISHED: Sequence[Table] = (
    Table(
        "Main results",
        "Table 1",
        "Single runs without intervals. Judge and decoding are not stated.",
        MAIN,
        _rows("""
            Bunny-v1.0-3B: 2.11 0.58 43.0 8.9 9.8 75.6 64.9 6.0
            Bunny-v1.0-3B + DPO: 2.28 0.56 44.3 7.6 7.9 74.1 58.9 4.8
            Bunny-v1.0-3B + mDPO: 2.96 0.42 27.0 4.6 4.9 67.4 37.7 2.4
            LLaVA-v1.5-7B: 2.19 0.57 54.7 15.9 7.4 51.8 34.7 4.1
            LLaVA-v1.5-7B + DPO: 2.14 0.65 49.0 13.0 6.5 55.1 34.5 2.3
            LLaVA-v1.5-7B + mDPO: 2.39 0.54 35.7 9.8 4.4 52.4 24.5 2.4
        """),
    ),
    Table(
        "Results quoted from other papers",
        "Table 1, rows for reference",
        "Taken by the paper's authors from the papers of HSA-DPO, HALVA and RLAIF-V; not directly "
        "comparable by their own word.",
        MAIN,
        _rows("""
            GPT-4V: 3.49 0.28 13.6 7.3 4.6 67.1 30.7 2.6
            LLaVA-v1.5-7B: 2.11 0.54 53.6 25.2 7.8 51.0 36.4 4.2
            LLaVA-v1.5-7B + HACL: 2.13 0.50 - - - - - -
            LLaVA-v1.5-7B + POVID: 2.08 0.56 48.1 24.4 - - - -
            LLaVA-v1.5-7B + OPERA: 2.15 0.54 45.1 22.3 - - - -
            LLaVA-v1.5-7B + VCD: 2.12 0.54 48.8 24.3 - - - -
            LLaVA-v1.5-7B + EOS: 2.03 0.59 40.3 17.8 5.1 49.1 22.7 2.0
            LLaVA-v1.5-7B + HA-DPO: 1.97 0.60 39.9 19.9 6.7 49.8 30.9 3.3
            LLaVA-v1.5-7B + HALVA: 2.25 0.54 - - 6.6 53.0 32.2 3.4
            LLaVA-v1.5-13B: 2.42 - 46.3 22.6 7.8 51.0 36.4 4.2
            LLaVA-v1.5-13B + RLHF-V: 2.81 0.49 12.2 7.5 6.3 46.1 25.1 2.1
            LLaVA-v1.5-13B + HSA-DPO: 2.61 0.48 5.2 3.2 2.1 47.3 13.4 1.2
            LLaVA-v1.5-13B + HALVA: 2.58 0.45 - - 6.4 52.6 30.4 3.2
            Qwen-VL-Chat: 2.89 0.43 36.0 21.3 6.6 53.2 31.0 2.9
            Qwen-VL-Chat + Silkie-80K: 3.01 0.41 25.3 13.9 5.4 55.8 29.0 2.0
        """),
    ),
    Table(
        "Without parts of the objective, Bunny-v1.0-3B",
        "Table 2",
        "Without both parts the objective is DPO.",
        (*MMHAL, *OBJECT_HALBENCH),
        _rows("""
            mDPO: 2.96 0.42 27.0 4.6
            without conditional term: 2.36 0.53 40.3 7.1
            without anchor: 2.50 0.48 34.3 5.7
            without both: 2.28 0.56 44.3 7.6
        """),
    ),
    Table(
        "Rejected images, Bunny-v1.0-3B",
        "Table 3",
        "How the rejected image is made. Of a crop the share is what the released code keeps; the "
        "text can also be read as what it removes.",
        (*MMHAL, *OBJECT_HALBENCH),
        _rows("""
            random other image: 2.81 0.46 40.7 6.6
            crop 0-20 %: 2.96 0.42 27.0 4.6
            crop 20-50 %: 2.92 0.42 33.7 5.4
            MoCo v2 augmentation: 2.82 0.44 32.3 5.9
        """),
    ),
    Table(
        "Anchors, Bunny-v1.0-3B",
        "Table 4",
        "Which responses and images are anchored.",
        (*MMHAL, *OBJECT_HALBENCH),
        _rows("""
            chosen response: 2.96 0.42 27.0 4.6
            both responses: 2.98 0.39 29.3 5.0
            both responses and rejected image: 2.85 0.40 34.7 6.1
        """),
    ),
    Table(
        "MMHal-Bench by category, Bunny-v1.0-3B",
        "Table 5",
        "Mean ratings, 0 to 6, of 12 questions per category.",
        CATEGORIES,
        _rows("""
            Bunny-v1.0-3B: 2.11 3.92 0.83 2.17 2.33 2.67 2.25 1.75 1.00
            + DPO: 2.28 3.25 1.50 1.42 2.50 2.67 4.25 1.75 0.92
            + mDPO: 2.96 3.08 4.17 2.00 3.50 3.25 4.08 2.17 1.42
        """),
    ),
)
