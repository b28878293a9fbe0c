"""The data set: which images an example gets, and that nothing but seed and row decides it."""

from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from conftest import picture
from mdpo.data.dataset import Example, PreferenceDataset
from mdpo.data.reading import Rows
from mdpo.data.rejected_images import make_rejected_image_source
from mdpo.data.rows import RowError
from mdpo.data.sources import load_raw


def make(rows: list[dict[str, Any]], corruption: str = "crop_keep", **settings: Any) -> Any:
    return PreferenceDataset(
        Rows(load_raw(rows)),
        image_root=None,
        rejected_image=make_rejected_image_source(corruption, {}),
        **({"seed": 1, "donors": range(len(rows))} | settings),
    )


def rejected(example: Example) -> list[bytes]:
    return [image.tobytes() for image in example["images"]["rejected"]]


def chosen(example: Example) -> list[bytes]:
    return [image.tobytes() for image in example["images"]["chosen"]]


def test_true_images_are_untouched_and_rejected_ones_differ(mixed_rows: list[Any]) -> None:
    dataset = make(mixed_rows)
    for position, row in enumerate(mixed_rows):
        example = dataset[position]
        assert chosen(example) == [image.tobytes() for image in row["images"]]
        sizes = [image.size for image in example["images"]["rejected"]]
        assert sizes == [image.size for image in row["images"]]
        assert not set(chosen(example)) & set(rejected(example))


def test_draws_depend_on_seed_and_row_alone(mixed_rows: list[Any]) -> None:
    one, again, other = make(mixed_rows), make(mixed_rows), make(mixed_rows, seed=2)
    forwards = [rejected(one[k]) for k in range(4)]
    backwards = [rejected(again[k]) for k in (3, 2, 1, 0)]
    assert forwards == backwards[::-1]
    assert rejected(other[0]) != forwards[0]
    # a subset keeps the draws of its rows
    assert rejected(make(mixed_rows, indices=[3])[0]) == forwards[3]


def test_two_images_of_a_row_are_drawn_apart() -> None:
    row = {"images": [picture(0), picture(0)], "prompt": "?", "chosen": "a", "rejected": "b"}
    first, second = rejected(make([row], "noise")[0])
    assert first != second


def test_epochs_draw_anew_only_if_asked(mixed_rows: list[Any]) -> None:
    fixed, anew = make(mixed_rows), make(mixed_rows, per_epoch=True)
    before = rejected(fixed[0]), rejected(anew[0])
    fixed.set_epoch(1)
    anew.set_epoch(1)
    assert rejected(fixed[0]) == before[0]
    assert rejected(anew[0]) != before[1]
    anew.set_epoch(0)
    assert rejected(anew[0]) == before[1]


def first(examples: list[Example]) -> Example:
    return examples[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing_and_see_the_epoch(mixed_rows: list[Any], workers: int) -> None:
    dataset = make(mixed_rows, per_epoch=True)
    loader = DataLoader(
        dataset, collate_fn=first, num_workers=workers, persistent_workers=workers > 0
    )
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        alone = make(mixed_rows, per_epoch=True)
        alone.set_epoch(epoch)
        assert [rejected(each) for each in loader] == [rejected(alone[k]) for k in range(4)]


def test_random_image_is_never_the_rows_own(make_rows: Any) -> None:
    rows = make_rows(3)
    rows[1]["images"] = [rows[0]["images"][0].copy()]  # two questions about one picture
    own = [row["images"][0].tobytes() for row in rows]
    for seed in range(20):
        dataset = make(rows, "random_image", seed=seed)
        drawn = [rejected(dataset[k])[0] for k in range(3)]
        assert drawn[0] == drawn[1] == own[2]
        assert drawn[2] == own[0]


def test_random_image_gives_up_with_the_rows_name() -> None:
    rows = [
        {"images": [picture(0)], "prompt": "?", "chosen": "a", "rejected": "b"} for _ in range(2)
    ]
    with pytest.raises(RowError, match=r"row 0.*`images` must differ from those of other rows"):
        make(rows, "random_image")[0]


def test_random_image_needs_other_rows(make_rows: Any) -> None:
    with pytest.raises(ValueError, match=r"at least two rows with an image, got 1"):
        make(make_rows(1), "random_image")


def test_provided_images_are_those_of_the_row(make_rows: Any) -> None:
    rows = make_rows(2)
    for k, row in enumerate(rows):
        row["rejected_images"] = [picture(50 + k)]
    assert rejected(make(rows, "provided")[1]) == [picture(51).tobytes()]


def test_a_rows_own_rejected_image_wins_over_the_corruption(make_rows: Any) -> None:
    rows = make_rows(2)
    rows[0]["rejected_images"] = [picture(50)]
    dataset = make(rows, "black")
    assert rejected(dataset[0]) == [picture(50).tobytes()]
    assert not any(rejected(dataset[1])[0])


def test_missing_provided_image_is_refused(make_rows: Any) -> None:
    with pytest.raises(RowError, match=r"`rejected_images` must be given with `corruption` 'pro"):
        make(make_rows(2), "provided")[1]


def test_condition_none_takes_images_and_their_places_away(mixed_rows: list[Any]) -> None:
    example = make(mixed_rows, image_condition="none", image_slots=("chosen",))[1]
    assert example["images"] == {"chosen": []}
    assert [part["type"] for part in example["prompt"][0]["content"]] == ["text"]


def test_condition_swapped_shows_other_rows_images(make_rows: Any) -> None:
    rows = make_rows(4)
    dataset = make(rows, image_condition="swapped")
    own = [row["images"][0].tobytes() for row in rows]
    for k in range(4):
        example = dataset[k]
        assert chosen(example)[0] in set(own) - {own[k]}
        # the rejected image is made from what the model sees
        assert example["images"]["rejected"][0].size == example["images"]["chosen"][0].size


def test_text_only_rows_have_no_images(mixed_rows: list[Any]) -> None:
    example = make(mixed_rows)[2]
    assert example["images"] == {"chosen": [], "rejected": []}


def test_corruption_is_applied_to_the_pixels_as_they_are() -> None:
    row = {"images": [Image.new("RGB", (7, 5), (9, 8, 7))], "prompt": "?"}
    example = make([row | {"chosen": "a", "rejected": "b"}], "black")[0]
    pixels = np.asarray(example["images"]["rejected"][0])
    assert pixels.shape == (5, 7, 3)
    assert not pixels.any()
