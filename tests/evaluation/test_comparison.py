"""Paired differences: by hand, against loops, and under changes that must change nothing."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from mdpo.evaluation.comparison import (
    Difference,
    compare,
    coverage_warnings,
    load_metrics,
    shared_items,
)
from mdpo.evaluation.statistics import bootstrap_p, mcnemar_p, resampled_totals
from mdpo.evaluation.suite import ItemScore, Metric, share, summarise
from mdpo.evaluation.suites import SUITES

RATE = Metric("rate", "lower", share("wrong", "words"))
COUNT = Metric("mean", "higher", share("words", "answers", scale=1.0))


def scored(
    item: str, cluster: str, details: Mapping[str, Any] | None = None, **columns: float
) -> ItemScore:
    return ItemScore(item, cluster, columns, details or {})


def made(seed: int, *, chance: float, images: int = 40) -> list[ItemScore]:
    """One to three descriptions per image, with wrong words among five to nine."""
    sizes = np.random.default_rng(100).integers(1, 4, images)
    generator = np.random.default_rng(seed)
    items = []
    for image, size in enumerate(sizes):
        for k in range(size):
            words = int(generator.integers(5, 10))
            wrong = int(generator.binomial(words, chance))
            items.append(
                scored(
                    f"{image}/{k}",
                    f"image {image:03}",
                    {"right": wrong == 0},
                    words=words,
                    wrong=wrong,
                    answers=1.0,
                )
            )
    return items


def whole(difference: Difference) -> tuple[float, float, float, float]:
    values = (difference.value, difference.low, difference.high, difference.p)
    assert all(each is not None for each in values)
    return values  # pyright: ignore[reportReturnType]  # None is excluded above


def test_mcnemar_by_hand():
    # two-sided binomial tails: 2 (1 + 6) / 64, 2 (1 + 13 + 78 + 286) / 8192
    assert mcnemar_p(5, 1) == 14 / 64
    assert mcnemar_p(10, 3) == 756 / 8192
    assert mcnemar_p(0, 6) == 2 / 64
    assert mcnemar_p(0, 0) == 1.0
    assert mcnemar_p(4, 4) == 1.0  # twice the tail is more than 1


@pytest.mark.parametrize("counts", [(3, 1), (7, 12), (0, 9), (40, 25)])
def test_mcnemar_against_sums_of_coin_tosses(counts):
    number = sum(counts)
    tail = sum(math.comb(number, k) for k in range(min(counts) + 1)) / 2**number
    assert mcnemar_p(*counts) == mcnemar_p(*counts[::-1]) == pytest.approx(min(1, 2 * tail))


def test_mcnemar_of_large_counts_neither_overflows_nor_vanishes():
    # normal approximation with continuity: z = (|4600 - 4400| - 1) / sqrt(9000) = 2.0976
    assert mcnemar_p(4600, 4400) == pytest.approx(math.erfc(2.0976 / math.sqrt(2)), rel=1e-3)
    assert 0 < mcnemar_p(300, 1200) < 1e-100


def test_bootstrap_p_by_hand():
    # one of 19 samples is not above 0: 2 (1 + 1) / 20
    assert bootstrap_p(np.array([-1.0] + [1.0] * 18)) == pytest.approx(0.2)
    assert bootstrap_p(np.array([1.0] + [-1.0] * 18)) == pytest.approx(0.2)
    assert bootstrap_p(np.ones(99)) == pytest.approx(2 / 100)
    assert bootstrap_p(np.zeros(7)) == 1.0
    assert bootstrap_p(np.array([-1.0, 0.0, 1.0])) == 1.0


def test_tables_are_summed_over_the_same_draws():
    table = np.random.default_rng(0).normal(size=(6, 3))
    one, other = resampled_totals([table, table[:, :2] * 2], seed=4, draws=50)
    assert one.shape == (3, 50)
    assert other == pytest.approx(2 * one[:2])
    assert (resampled_totals([np.ones((6, 1))], seed=4, draws=5)[0] == 6).all()


@pytest.mark.parametrize("sizes", [(3, 4), (0, 0)])
def test_tables_of_other_images_are_refused(sizes):
    with pytest.raises(ValueError, match="same images"):
        resampled_totals([np.ones((size, 2)) for size in sizes], seed=0, draws=2)


def test_difference_by_hand():
    # 2/10 against 3/10 and 1/6: (1 + 3)/(10 + 6) = 25 % against (2 + 1)/(10 + 5) = 20 %
    before = [scored("1", "a", words=10, wrong=1), scored("2", "b", words=6, wrong=3)]
    after = [scored("2", "b", words=5, wrong=1), scored("1", "a", words=10, wrong=2)]
    found = compare(before, after, [RATE])
    assert found.differences["rate"].value == pytest.approx(-5.0)
    assert (found.items, found.clusters) == (2, 2)
    # draws: both a, mixed, both b give 20 - 10, 20 - 25, 20 - 50
    assert found.differences["rate"].low == pytest.approx(-30.0)
    assert found.differences["rate"].high == pytest.approx(10.0)


def test_differences_equal_a_loop_over_draws():
    before, after = made(1, chance=0.3), made(2, chance=0.2)
    value, low, high, p = whole(compare(before, after, [RATE], seed=3).differences["rate"])
    images = sorted({each.cluster for each in before})
    counts = np.random.default_rng(3).multinomial(40, np.full(40, 1 / 40), size=2000)
    differences = []
    for draw in counts:
        rates = []
        for items in (before, after):
            wrong = words = 0.0
            for number, image in zip(draw, images, strict=True):
                for each in items:
                    if number and each.cluster == image:
                        wrong += number * each.columns["wrong"]
                        words += number * each.columns["words"]
            rates.append(100 * wrong / words)
        differences.append(rates[1] - rates[0])
    ordered = sorted(differences)
    assert (low, high) == pytest.approx(tuple(np.quantile(ordered, [0.025, 0.975])))
    assert low < value < high
    not_below = sum(each >= 0 for each in differences)
    assert p == pytest.approx(2 * (not_below + 1) / 2001)


def test_identical_systems_differ_by_nothing():
    items = made(1, chance=0.3)
    found = compare(items, items, [RATE, COUNT])
    assert whole(found.differences["rate"]) == (0.0, 0.0, 0.0, 1.0)
    assert whole(found.differences["mean"]) == (0.0, 0.0, 0.0, 1.0)
    assert found.right_or_wrong is not None
    assert found.right_or_wrong.p == 1.0


def test_order_of_items_changes_nothing():
    before, after = made(1, chance=0.3), made(2, chance=0.2)
    shuffled = [after[k] for k in np.random.default_rng(5).permutation(len(after))]
    assert compare(before, shuffled, [RATE]) == compare(before, after, [RATE])
    assert compare(before[::-1], after, [RATE]) == compare(before, after, [RATE])


def test_exchanged_systems_exchange_signs():
    before, after = made(1, chance=0.3), made(2, chance=0.2)
    there, back = (
        whole(compare(*pair, [RATE]).differences["rate"])
        for pair in ((before, after), (after, before))
    )
    assert there[0] == pytest.approx(-back[0])
    assert there[1] == pytest.approx(-back[2])
    assert there[3] == back[3]


def test_seed_moves_the_interval_and_not_the_value():
    before, after = made(1, chance=0.3), made(2, chance=0.2)
    one, other = (
        whole(compare(before, after, [RATE], seed=seed).differences["rate"]) for seed in (0, 1)
    )
    assert one[0] == other[0]
    assert one[1:3] != other[1:3]


def test_pairs_are_known_better_than_systems():
    """Errors that go with the image cancel; an unpaired interval would be wider."""
    generator = np.random.default_rng(0)
    hard = generator.uniform(0.05, 0.6, 150)
    before, after = (
        [
            scored(
                str(k), str(k), words=20, wrong=int(np.random.default_rng([n, k]).binomial(20, h))
            )
            for k, h in enumerate(hard)
        ]
        for n in (0, 1)
    )
    _, low, high, _ = whole(compare(before, after, [RATE]).differences["rate"])
    alone = [summarise(each, [RATE])["rate"] for each in (before, after)]
    widths = [(each.high or 0) - (each.low or 0) for each in alone]
    assert high - low < 0.75 * math.hypot(*widths)


def test_interval_covers_the_truth_as_often_as_it_says():
    covered = 0
    for seed in range(150):
        before = made(2 * seed, chance=0.3, images=60)
        after = made(2 * seed + 1, chance=0.2, images=60)
        found = compare(before, after, [RATE], seed=seed, draws=400).differences["rate"]
        _, low, high, _ = whole(found)
        covered += low <= -10.0 <= high
    # 95 % of 150 is 142; four standard errors are 11
    assert 131 <= covered <= 150


def test_p_is_even_where_systems_are_equal():
    values = []
    for seed in range(200):
        before = made(2 * seed, chance=0.3, images=50)
        after = made(2 * seed + 1, chance=0.3, images=50)
        values.append(whole(compare(before, after, [RATE], draws=400).differences["rate"])[3])
    # 5 % and 50 % of 200; four standard errors are 12 and 28
    assert sum(each < 0.05 for each in values) <= 22
    assert 72 <= sum(each < 0.5 for each in values) <= 128


def test_a_difference_that_is_there_is_found():
    found = compare(made(1, chance=0.4, images=200), made(2, chance=0.2, images=200), [RATE])
    value, _, high, p = whole(found.differences["rate"])
    assert value == pytest.approx(-20, abs=4)
    assert high < 0
    assert p == pytest.approx(2 / 2001)


def test_items_of_one_system_are_left_out_and_counted():
    before, after = made(1, chance=0.3), made(2, chance=0.2)
    more = [*after[:-5], scored("new", "image 900", words=1, wrong=1)]
    found = compare(before, more, [RATE])
    assert found.items == len(before) - 5
    assert (found.left_out_baseline, found.left_out_system) == (5, 1)
    assert found.differences == compare(before[:-5], after[:-5], [RATE]).differences


def test_systems_without_a_shared_item_are_refused():
    with pytest.raises(ValueError, match="share none"):
        compare([scored("1", "a")], [scored("2", "a")], [RATE])


def test_items_about_other_images_are_refused():
    with pytest.raises(ValueError, match=r"'1' is about 'a' .* 'b'"):
        compare([scored("1", "a", words=1)], [scored("1", "b", words=1)], [RATE])


def test_groups_are_shared_where_their_image_is():
    def questions(*names: str) -> list[ItemScore]:
        return [scored(name, name[0], words=1) for name in names]

    def group(image: str) -> ItemScore:
        return scored(f"image {image}", image, {"questions": 2}, both=1.0)

    first = [*questions("a1", "a2", "b1", "b2"), group("a"), group("b")]
    second = [*questions("a1", "a2", "b1"), group("a"), group("b")]
    kept, others = shared_items(first, second)
    assert [each.item for each in kept] == ["a1", "a2", "b1", "image a"]
    assert [each.item for each in others] == [each.item for each in kept]
    found = compare(first, second, [Metric("both", "higher", share("both", "words"))])
    assert (found.items, found.left_out_baseline, found.left_out_system) == (3, 1, 0)


def test_metrics_without_a_value_have_no_difference():
    before, after = made(1, chance=0.3), made(2, chance=0.2)
    unknown = Metric("unknown", "higher", share("words", "nowhere"))
    assert compare(before, after, [unknown]).differences["unknown"] == Difference(*[None] * 4)
    half = Metric("half", "higher", share("words", "new"))
    more = [*after[:-1], ItemScore(after[-1].item, after[-1].cluster, {"new": 1}, {})]
    assert compare(before, more, [half]).differences["half"].value is None


def test_draws_without_a_value_are_left_out():
    def items(wrong: int) -> list[ItemScore]:
        return [
            scored(str(k), str(k), words=float(k == 0), wrong=wrong * float(k == 0))
            for k in range(3)
        ]

    # a third of all draws has no words at all
    assert whole(compare(items(0), items(1), [RATE]).differences["rate"])[:3] == (100, 100, 100)


def test_right_and_wrong_are_counted_by_system():
    def answers(right: Sequence[bool]) -> list[ItemScore]:
        return [scored(str(k), str(k), {"right": each}, words=1.0) for k, each in enumerate(right)]

    t, f = True, False
    before, after = answers([t, t, t, f, f, f, t]), answers([t, f, t, t, t, t, t])
    found = compare(before, after, [RATE]).right_or_wrong
    assert found is not None
    assert (found.both, found.only_baseline, found.only_system, found.neither) == (3, 1, 3, 0)
    assert found.p == 2 * (1 + 4) / 16
    plain = [scored("1", "1", words=1.0)]
    assert compare(plain, plain, [RATE]).right_or_wrong is None


def made_difference(value: float, low: float, high: float) -> Difference:
    return Difference(value, low, high, 0.5)


def test_falling_coverage_is_warned_about():
    less = {
        "CHAIRs": made_difference(-8, -12, -4),
        "CHAIRi": made_difference(1, -1, 3),
        "Recall": made_difference(-6, -9, -3),
    }
    (warning,) = coverage_warnings("chair", less, (None, None))
    assert warning.startswith("Strong warning: CHAIRs fell, but Recall fell too, by 6.0 [-9.0,")
    unsure = {**less, "Recall": made_difference(-1, -3, 1)}
    (warning,) = coverage_warnings("chair", unsure, (None, None))
    assert warning.startswith("Note: CHAIRs fell")


@pytest.mark.parametrize(
    "changed",
    [
        {"Recall": made_difference(2, 1, 3)},
        {"CHAIRs": made_difference(3, 1, 5)},
        {"Recall": Difference(None, None, None, None)},
    ],
)
def test_no_warning_without_both_falling(changed):
    less = {"CHAIRs": made_difference(-8, -12, -4), "Recall": made_difference(-6, -9, -3)}
    assert coverage_warnings("chair", {**less, **changed}, (None, None)) == []
    assert coverage_warnings("pope", less, (None, None)) == []


def test_shorter_responses_are_warned_about():
    (warning,) = coverage_warnings("pope", {}, (50.0, 39.0))
    assert warning.startswith("Note: responses are 22 % shorter (39.0 words, baseline 50.0)")
    assert coverage_warnings("pope", {}, (50.0, 41.0)) == []
    assert coverage_warnings("pope", {}, (None, 3.0)) == []


def test_metrics_come_without_data():
    columns = {"coco/random/tp", "coco/popular/fn", "repope/coco/random/tp", "length/words"}
    names = [each.name for each in load_metrics("pope", columns)]
    assert names[:4] == ["accuracy", "precision", "recall", "f1"]
    assert {"popular/f1", "repope/random/recall", "robust/accuracy", "length"} <= set(names)
    assert "repope/f1" not in {each.name for each in load_metrics("pope", {"coco/random/tp"})}
    assert not any(name.endswith("yes_ratio") or name == "unscored" for name in names)
    tasks = {"asked", "right", "Counting asked", "Counting right", "robust/Counting asked"}
    assert [each.name for each in load_metrics("muirbench", tasks)] == [
        "accuracy",
        "Counting",
        "robust/accuracy",
        "robust/Counting",
    ]
    assert "total" in {each.name for each in load_metrics("mme", ())}


def test_unknown_benchmarks_are_refused():
    with pytest.raises(ValueError, match=f"one of {next(iter(SUITES))}.*got 'bogus'"):
        load_metrics("bogus", ())
