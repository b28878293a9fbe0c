"""The contact sheet shows both images and all words of each row."""

from typing import Any

from conftest import picture
from mdpo.data.dataset import Example
from mdpo.data.preview import THUMBNAIL, contact_sheet


def example(**changes: Any) -> Example:
    images = {"chosen": [picture(0, (48, 48))], "rejected": [picture(1, (48, 48))]}
    parts = [{"type": "image"}, {"type": "text", "text": "What is shown?"}]
    prompt = [{"role": "user", "content": parts}]
    texts = {"prompt": prompt, "chosen": "a boat", "rejected": "b"}
    values = {"index": 0, "digest": 0, "images": images, **texts}
    return Example(**(values | changes))


def test_both_images_are_on_the_sheet() -> None:
    sheet = contact_sheet([example()], "crop_keep")
    colours = {colour for _, colour in sheet.getcolors(maxcolors=10**6) or []}
    for seed in (0, 1):
        shown = {colour for _, colour in picture(seed, (48, 48)).getcolors(4096) or []}
        assert len(shown & colours) > 0.95 * len(shown)


def test_rows_stand_below_each_other_and_grow_with_images_and_words() -> None:
    one = contact_sheet([example()], "crop_keep").height
    two = contact_sheet([example(), example()], "crop_keep").height
    images = {slot: [picture(0)] * 3 for slot in ("chosen", "rejected")}
    several = contact_sheet([example(images=images)], "crop_keep").height
    wordy = contact_sheet([example(chosen="words and " * 300)], "crop_keep").height
    unbroken = contact_sheet([example(chosen="x" * 3000)], "crop_keep").height
    assert two - one > THUMBNAIL
    assert several > one + 2 * THUMBNAIL
    assert wordy > one
    assert unbroken > one


def test_text_only_rows_have_a_place() -> None:
    images: dict[str, list[Any]] = {"chosen": [], "rejected": []}
    assert contact_sheet([example(images=images)], "crop_keep").height > 0
