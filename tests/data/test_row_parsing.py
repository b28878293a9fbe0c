"""Rows with native keys: the exact row that comes out, and every refusal with its message."""

import pickle
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mdpo.data.parsing import parse_row
from mdpo.data.rows import PreferenceRow, RowError, shown

IMAGE = {"type": "image"}


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


def user(*parts: dict[str, str]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def parsed(**row: Any) -> PreferenceRow:
    return parse_row({"chosen": "a cat", "rejected": "a dog"} | row, row_id="7", place="a.jsonl:8")


def parts_of(prompt: object, *images: str) -> list[dict[str, str]]:
    """Content of the only message of the prompt."""
    (message,) = parsed(prompt=prompt, images=list(images)).prompt
    return message["content"]


def refusal(**row: Any) -> str:
    with pytest.raises(RowError) as caught:
        parsed(**row)
    return str(caught.value)


def test_a_whole_row():
    row = parsed(
        images=["a.png"],
        prompt=[{"role": "system", "content": "Be brief."}, user(IMAGE, text("What is it?"))],
        chosen=[{"role": "assistant", "content": [text("a "), text("cat")]}],
        rejected=[{"role": "assistant", "content": "a dog"}],
        rejected_images=["b.png"],
    )
    assert row == PreferenceRow(
        row_id="7",
        place="a.jsonl:8",
        images=("a.png",),
        prompt=(
            {"role": "system", "content": [text("Be brief.")]},
            {"role": "user", "content": [IMAGE, text("What is it?")]},
        ),
        chosen="a cat",
        rejected="a dog",
        rejected_images=("b.png",),
    )


def test_the_raw_row_is_left_alone():
    prompt = [{"role": "user", "content": [{"type": "text", "text": "q"}]}]
    parsed(prompt=prompt, images=["a.png"])
    assert prompt == [{"role": "user", "content": [{"type": "text", "text": "q"}]}]


# Placeholders


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("What?", [IMAGE, text("What?")]),
        ("<image>\nWhat?", [IMAGE, text("What?")]),
        ("What?\n<image>", [text("What?"), IMAGE]),
        ("Here:\n<image>\nWhat?", [text("Here:"), IMAGE, text("What?")]),
        ("<image>\n\nWhat?", [IMAGE, text("\nWhat?")]),
        ("What?\n\n<image>", [text("What?\n"), IMAGE]),
        ("<image> What?\n", [IMAGE, text(" What?\n")]),
        ("\nWhat?<image>", [text("\nWhat?"), IMAGE]),
        ("<image>", [IMAGE]),
    ],
)
def test_a_marker_in_text_becomes_an_image_part(prompt: str, parts: list[dict[str, str]]):
    assert parts_of(prompt, "a.png") == parts


def test_two_markers_take_two_images_in_order():
    parts = parts_of("<image>\n<image>\nWhich?", "a.png", "b.png")
    assert parts == [IMAGE, IMAGE, text("Which?")]


def test_a_marker_in_a_text_part_counts_if_there_is_no_image_part():
    assert parts_of([user(text("See <image>"))], "a.png") == [text("See "), IMAGE]


def test_without_placeholder_images_open_the_first_question():
    first, answer, second = parsed(
        images=["a.png", "b.png"],
        prompt=[user(text("Hi")), {"role": "assistant", "content": "Hello"}, user(text("And?"))],
    ).prompt
    assert first == {"role": "user", "content": [IMAGE, IMAGE, text("Hi")]}
    assert answer == {"role": "assistant", "content": [text("Hello")]}
    assert second == {"role": "user", "content": [text("And?")]}


def test_without_placeholder_a_system_message_stays_free_of_images():
    system, question = parsed(
        images=["a.png"], prompt=[{"role": "system", "content": "S"}, user(text("Q"))]
    ).prompt
    assert system == {"role": "system", "content": [text("S")]}
    assert question == {"role": "user", "content": [IMAGE, text("Q")]}


def test_a_placeholder_in_a_later_turn_stays_there():
    prompt = parsed(
        images=["a.png"],
        prompt=[user(text("Hi")), {"role": "assistant", "content": "Yes?"}, user(IMAGE, text("?"))],
    ).prompt
    assert [message["content"] for message in prompt] == [
        [text("Hi")],
        [text("Yes?")],
        [IMAGE, text("?")],
    ]


def test_keys_without_value_are_ignored():
    # a table gives every part the same keys
    content = [{"type": "image", "text": None, "url": None}, {"type": "text", "text": "Q"}]
    assert parts_of([{"role": "user", "content": content}], "a.png") == [IMAGE, text("Q")]


@pytest.mark.parametrize(
    ("prompt", "images", "got"),
    [
        ("<image><image>What?", ["a.png"], "(1), got 2"),
        ("<image>What?", ["a.png", "b.png"], "(2), got 1"),
        ("<image>What?", None, "(0), got 1"),
        ([user(IMAGE, text("What?"))], [], "(0), got 1"),
    ],
)
def test_placeholders_and_images_must_match(prompt: object, images: object, got: str):
    assert refusal(prompt=prompt, images=images) == (
        f"`prompt` must have one image placeholder per image {got}. "
        "Add the missing images, or remove placeholders."
    )


def test_two_ways_of_marking_images_are_refused():
    assert refusal(images=["a.png", "b.png"], prompt=[user(IMAGE, text("<image> too"))]) == (
        "`prompt` must mark images in one way, got image parts and a literal '<image>'. "
        "Remove the literal from the text."
    )


# Images


@pytest.mark.parametrize("images", [{}, {"images": None}, {"images": []}, {"image": None}])
def test_text_only_rows(images: dict[str, object]):
    row = parsed(prompt="What?", rejected_images=images.get("images"), **images)
    assert (row.images, row.rejected_images) == ((), None)
    assert row.prompt == ({"role": "user", "content": [text("What?")]},)


def test_an_image_column_is_one_image():
    picture = Image.new("RGB", (2, 2))
    assert parsed(prompt="Q", image=picture).images == (picture,)
    assert parsed(prompt="Q", image="a", rejected_image="b").rejected_images == ("b",)


def test_stored_images_are_bytes_else_path():
    images = [{"bytes": b"x", "path": "a.png"}, {"bytes": None, "path": "a.png"}, Path("b.png")]
    assert parsed(prompt="Q", images=images).images == (b"x", "a.png", Path("b.png"))


def test_image_beside_images_is_refused():
    assert refusal(prompt="Q", images=["a.png"], image="a.png") == (
        "`image` must not stand beside `images`, got both. Keep `images`."
    )


def test_images_must_be_a_list():
    assert refusal(prompt="Q", images="a.png") == (
        "`images` must be a list of images, got 'a.png'. "
        "Wrap it in a list, or name the column `image`."
    )


@pytest.mark.parametrize(
    ("value", "got"),
    [(None, "None"), (3, "3"), ("", "''"), ({"bytes": None, "path": None}, "None")],
)
def test_what_is_no_image_is_refused(value: object, got: str):
    assert refusal(prompt="Q", images=["a.png", value]) == (
        f"`images[1]` must be a PIL image, bytes or a path, got {got}. "
        "Give one image, or none at all for a text-only row."
    )


def test_a_list_of_images_in_the_image_column_is_refused():
    assert refusal(prompt="Q", image=["a.png"]).startswith(
        "`image` must be a PIL image, bytes or a path, got ['a.png']."
    )


@pytest.mark.parametrize("rejected", [[], ["c.png"], ["c.png", "d.png", "e.png"]])
def test_rejected_images_must_be_as_many_as_images(rejected: list[str]):
    row = {"images": ["a.png", "b.png"], "rejected_images": rejected}
    assert refusal(prompt="Q", **row) == (
        "`rejected_images` must have one image per image of the row (2), "
        f"got {len(rejected)}. Give one losing image for each, or none at all."
    )


def test_rejected_images_of_a_text_only_row_are_refused():
    assert "(0), got 1" in refusal(prompt="Q", rejected_images=["a.png"])


def test_rejected_images_that_are_the_images_are_refused():
    assert refusal(prompt="Q", images=["a.png"], rejected_images=["a.png"]) == (
        "`rejected_images` must differ from `images`, got the same images. "
        "Remove it, and a corruption makes the losing image."
    )


def test_one_of_two_images_may_stay_the_same():
    row = parsed(prompt="Q", images=["a.png", "b.png"], rejected_images=["a.png", "c.png"])
    assert row.rejected_images == ("a.png", "c.png")


# Prompts


@pytest.mark.parametrize("prompt", [None, 3, {"content": "Q", "role": "user"}])
def test_a_prompt_is_text_or_messages(prompt: object):
    assert refusal(prompt=prompt) == (
        f"`prompt` must be text or a list of messages, got {prompt!r}. "
        "Write the question, or give `chosen` and `rejected` as whole conversations."
    )


def test_an_unknown_role_is_refused():
    assert refusal(prompt=[{"role": "human", "content": "Q"}]) == (
        "`prompt[0].role` must be one of system, user, assistant, got 'human'. "
        "Rename the role or drop the row."
    )


@pytest.mark.parametrize(
    ("prompt", "got"),
    [
        ([], "None"),
        ([user(text("Q")), {"role": "assistant", "content": "A"}], "'assistant'"),
        ([{"role": "system", "content": "S"}], "'system'"),
    ],
)
def test_a_prompt_ends_with_the_user(prompt: object, got: str):
    assert refusal(prompt=prompt) == (
        f"`prompt` must end with a user message before the answer, got {got}. "
        "Move an answer to `chosen`, or add the question."
    )


@pytest.mark.parametrize("content", ["", " \n", [], [text(" ")]])
def test_an_empty_question_is_refused(content: object):
    message = refusal(prompt=[user(text("Q")), {"role": "user", "content": content}])
    assert message.startswith("`prompt[1].content` must not be empty, got '")
    assert message.endswith("'. Write it or drop the row.")


def test_an_empty_plain_prompt_is_refused_even_with_an_image():
    assert refusal(prompt="", images=["a.png"]) == (
        "`prompt` must not be empty, got ''. Write it or drop the row."
    )


def test_an_empty_system_message_is_kept():
    prompt = parsed(prompt=[{"role": "system", "content": ""}, user(text("Q"))]).prompt
    assert prompt[0] == {"role": "system", "content": [text("")]}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("hi", "`prompt[0]` must be a message with `role` and `content`, got 'hi'. "),
        ({"role": "user"}, "`prompt[0].content` must be text or a list of parts, got None. "),
        (user({"type": "video"}), "`prompt[0].content[0]` must be a part of type image or text, "),
        ({"role": "user", "content": ["hi"]}, "`prompt[0].content[0]` must be a part of type"),
        (user({"type": "text"}), "`prompt[0].content[0].text` must be text, got None. "),
        (
            user({"type": "image", "image": "a.png"}),
            "`prompt[0].content[0].image` must not hold the image, got 'a.png'. "
            "Move it to the `images` column.",
        ),
    ],
)
def test_malformed_messages_are_refused(message: object, expected: str):
    assert refusal(prompt=[message], images=["a.png"]).startswith(expected)


@pytest.mark.parametrize("name", ["tools", "videos", "audios", "chat_template_kwargs"])
def test_what_would_change_the_prompt_is_not_ignored(name: str):
    assert refusal(prompt="Q", **{name: ["x"]}) == (
        f"`{name}` is not supported, got ['x']. Drop the row."
    )
    assert parsed(prompt="Q", **{name: []}).chosen == "a cat"


# Implicit prompts


def conversation(*contents: str) -> list[dict[str, str]]:
    roles = ["user", "assistant"] * len(contents)
    return [{"role": r, "content": c} for r, c in zip(roles, contents, strict=False)]


def test_an_implicit_prompt_is_what_both_share():
    row = parsed(
        images=["a.png"],
        chosen=conversation("<image>\nHi", "Hello", "What?", "a cat"),
        rejected=conversation("<image>\nHi", "Hello", "What?", "a dog"),
    )
    assert row.prompt == (
        user(IMAGE, text("Hi")),
        {"role": "assistant", "content": [text("Hello")]},
        user(text("What?")),
    )
    assert (row.chosen, row.rejected) == ("a cat", "a dog")


def test_an_implicit_prompt_that_is_not_shared_is_refused():
    row = {"chosen": conversation("Q", "a cat"), "rejected": conversation("P", "a dog")}
    assert refusal(**row) == (
        "`rejected` must share every message but the last with `chosen`, got another conversation. "
        "Make the earlier messages the same, or drop the row."
    )


def test_answers_without_any_prompt_are_refused():
    answer = [{"role": "assistant", "content": "a cat"}]
    assert refusal(chosen=answer, rejected=conversation("Q", "a dog")) == (
        "`prompt` must be given if `chosen` and `rejected` share no message, got None. "
        "Write the question."
    )


def test_conversations_must_end_with_the_assistant():
    row = {"chosen": conversation("Q", "A", "B"), "rejected": conversation("Q", "A", "C")}
    assert "`chosen` must end with a user message" in refusal(**row)
    twice = [{"role": "user", "content": "Q"}] * 2
    assert refusal(chosen=twice, rejected=twice) == (
        "`chosen[1].role` must be assistant in an answer, got 'user'. Keep the answer only."
    )


# Answers


@pytest.mark.parametrize("name", ["chosen", "rejected"])
@pytest.mark.parametrize("value", ["", " \n"])
def test_an_empty_answer_is_refused(name: str, value: str):
    assert refusal(prompt="Q", **{name: value}) == (
        f"`{name}` must not be empty, got {value!r}. Write the answer or drop the row."
    )


def test_the_text_of_an_answer_is_kept_to_the_blank():
    assert parsed(prompt="Q", chosen=" a cat\n").chosen == " a cat\n"


def test_equal_answers_are_refused():
    assert refusal(prompt="Q", rejected="a cat") == (
        "`rejected` must differ from `chosen`, got 'a cat' for both. "
        "Write another answer or drop the row."
    )


@pytest.mark.parametrize("value", [None, 3, [], conversation("Q", "a cat")])
def test_an_answer_is_one_message(value: object):
    message = refusal(prompt="Q", chosen=value)
    assert message.startswith("`chosen` must be text or a list with one assistant message, got ")
    assert message.endswith("or remove `prompt` if this is a whole conversation.")


def test_an_answer_is_the_assistants():
    assert refusal(prompt="Q", chosen=[{"role": "user", "content": "a cat"}]) == (
        "`chosen[0].role` must be assistant in an answer, got 'user'. Keep the answer only."
    )


@pytest.mark.parametrize("content", ["a <image> cat", [text("a "), IMAGE, text(" cat")]])
def test_an_image_in_an_answer_is_refused(content: object):
    message = refusal(prompt="Q", chosen=[{"role": "assistant", "content": content}])
    assert message.startswith("`chosen[0].content` must not hold an image, got 'a ")
    assert message.endswith("Remove the image part or the `<image>` from the answer.")


# Messages


def test_a_message_is_one_short_line():
    long = shown("a\nb" * 1000)
    assert len(long) < 100
    assert long.startswith("'a\\nba\\nb")
    assert shown(b"123") == "<3 bytes>"


def test_a_row_error_survives_pickling():
    error = RowError("chosen", "must not be empty, got ''", "Drop the row.", "train.jsonl:412")
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == "train.jsonl:412: `chosen` must not be empty, got ''. Drop the row."
    assert (copy.place, copy.field) == ("train.jsonl:412", "chosen")
