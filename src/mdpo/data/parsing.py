"""The checks of a row: native keys in, a ``PreferenceRow`` or a ``RowError`` out.

Native keys are ``images`` or ``image``, ``prompt``, ``chosen``, ``rejected`` and, if the user
has losing images, ``rejected_images`` or ``rejected_image``. Nothing is repaired: a row that
could mean two things is refused.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from mdpo.data.rows import ImageSource, Message, PreferenceRow, RowError, Value, shown

ROLES = ("system", "user", "assistant")
IMAGE_MARKER = "<image>"
UNSUPPORTED = ("tools", "videos", "audios", "chat_template_kwargs")
"""Columns that change the prompt in other frameworks; to ignore them would train on another one."""


def parse_row(row: Mapping[str, Value], *, row_id: str, place: str) -> PreferenceRow:
    """Check a row with native keys and bring it into the one form.

    Source: the vision preference rows of TRL, https://huggingface.co/docs/trl/dataset_formats.

    Args:
        row: Values by column. Missing and None are the same.
        row_id: Stable name of the row.
        place: Where the row stands, for messages.

    Returns:
        The checked row. Images are neither opened nor looked for.

    Raises:
        RowError: If the row breaks a rule; ``place`` is empty, the caller adds it.
    """
    for name in UNSUPPORTED:
        if row.get(name) not in (None, "", [], {}):
            raise RowError(name, f"is not supported, got {shown(row[name])}", "Drop the row.")
    images = _images(row, "images", "image")
    prompt, chosen, rejected = _conversation(row)
    if chosen == rejected:
        raise RowError(
            "rejected",
            f"must differ from `chosen`, got {shown(rejected)} for both",
            "Write another answer or drop the row.",
        )
    return PreferenceRow(
        row_id=row_id,
        place=place,
        images=images or (),
        prompt=_with_image_parts(prompt, len(images or ())),
        chosen=chosen,
        rejected=rejected,
        rejected_images=_rejected_images(row, images or ()),
    )


def _images(row: Mapping[str, Value], many: str, one: str) -> tuple[ImageSource, ...] | None:
    """Read the images of a row from ``many`` or ``one``; None if it has neither."""
    if row.get(many) is not None and row.get(one) is not None:
        raise RowError(one, f"must not stand beside `{many}`, got both", f"Keep `{many}`.")
    if row.get(one) is not None:
        return (_image(row[one], one),)
    values = row.get(many)
    if values is None:
        return None
    if not isinstance(values, list | tuple):
        raise RowError(
            many,
            f"must be a list of images, got {shown(values)}",
            f"Wrap it in a list, or name the column `{one}`.",
        )
    return tuple(_image(value, f"{many}[{index}]") for index, value in enumerate(values))


def _image(value: Value, field: str) -> ImageSource:
    if isinstance(value, Mapping):  # how `datasets` stores an image
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, Image.Image | bytes | str | Path) and value not in ("", b""):
        return value
    raise RowError(
        field,
        f"must be a PIL image, bytes or a path, got {shown(value)}",
        "Give one image, or none at all for a text-only row.",
    )


def _rejected_images(
    row: Mapping[str, Value], images: tuple[ImageSource, ...]
) -> tuple[ImageSource, ...] | None:
    rejected = _images(row, "rejected_images", "rejected_image")
    if rejected is None or (not rejected and not images):
        return None
    if len(rejected) != len(images):
        raise RowError(
            "rejected_images",
            f"must have one image per image of the row ({len(images)}), got {len(rejected)}",
            "Give one losing image for each, or none at all.",
        )
    # pixels are not compared here: that would decode every image
    if all(
        not isinstance(i, Image.Image) and i == r for i, r in zip(images, rejected, strict=True)
    ):
        raise RowError(
            "rejected_images",
            "must differ from `images`, got the same images",
            "Remove it, and a corruption makes the losing image.",
        )
    return rejected


def _conversation(row: Mapping[str, Value]) -> tuple[list[Message], str, str]:
    """Read prompt, chosen and rejected answer; every content is a list of parts afterwards."""
    prompt, chosen, rejected = row.get("prompt"), row.get("chosen"), row.get("rejected")
    if prompt is None and isinstance(chosen, list | tuple) and isinstance(rejected, list | tuple):
        shared = _shared_messages(chosen, rejected)
        return shared, _last_response(chosen, "chosen"), _last_response(rejected, "rejected")
    if isinstance(prompt, str):
        messages = [_message({"role": "user", "content": prompt}, "prompt")]
        _refuse_blank(messages[0]["content"], "prompt")
    elif isinstance(prompt, list | tuple):
        messages = _messages(prompt, "prompt")
    else:
        raise RowError(
            "prompt",
            f"must be text or a list of messages, got {shown(prompt)}",
            "Write the question, or give `chosen` and `rejected` as whole conversations.",
        )
    return messages, _response(chosen, "chosen"), _response(rejected, "rejected")


def _shared_messages(chosen: Sequence[Value], rejected: Sequence[Value]) -> list[Message]:
    """Read an implicit prompt: what two whole conversations share before their last message."""
    if len(chosen) < 2 or len(rejected) < 2:
        raise RowError(
            "prompt",
            "must be given if `chosen` and `rejected` share no message, got None",
            "Write the question.",
        )
    shared = _messages(chosen[:-1], "chosen")
    if shared != _messages(rejected[:-1], "rejected"):
        raise RowError(
            "rejected",
            "must share every message but the last with `chosen`, got another conversation",
            "Make the earlier messages the same, or drop the row.",
        )
    return shared


def _messages(values: Sequence[Value], field: str) -> list[Message]:
    messages = [_message(value, f"{field}[{index}]") for index, value in enumerate(values)]
    last = messages[-1]["role"] if messages else None
    if last != "user":
        raise RowError(
            field,
            f"must end with a user message before the answer, got {shown(last)}",
            "Move an answer to `chosen`, or add the question.",
        )
    for index, message in enumerate(messages):
        # an empty system text has a use: it switches off the default one of some templates
        if message["role"] != "system":
            _refuse_blank(message["content"], f"{field}[{index}].content")
    return messages


def _message(value: Value, field: str) -> Message:
    if not isinstance(value, Mapping):
        raise RowError(
            field,
            f"must be a message with `role` and `content`, got {shown(value)}",
            "Write it as an object.",
        )
    role, content = value.get("role"), value.get("content")
    if role not in ROLES:
        raise RowError(
            f"{field}.role",
            f"must be one of {', '.join(ROLES)}, got {shown(role)}",
            "Rename the role or drop the row.",
        )
    if isinstance(content, str):
        return {"role": role, "content": [{"type": "text", "text": content}]}
    if isinstance(content, list | tuple):
        parts = [_part(part, f"{field}.content[{i}]") for i, part in enumerate(content)]
        return {"role": role, "content": parts}
    raise RowError(
        f"{field}.content", f"must be text or a list of parts, got {shown(content)}", "Write it."
    )


def _part(value: Value, field: str) -> dict[str, str]:
    kind = value.get("type") if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping) or kind not in ("image", "text"):
        raise RowError(
            field, f"must be a part of type image or text, got {shown(value)}", "Drop the row."
        )
    if kind == "image":
        # columns of a table unify the keys of parts, so a key without a value is nobody's wish
        payload = [name for name in ("image", "url", "path", "base64") if value.get(name)]
        if payload:
            raise RowError(
                f"{field}.{payload[0]}",
                f"must not hold the image, got {shown(value[payload[0]])}",
                "Move it to the `images` column.",
            )
        return {"type": "image"}
    text = value.get("text")
    if not isinstance(text, str):
        raise RowError(f"{field}.text", f"must be text, got {shown(text)}", "Write the text.")
    return {"type": "text", "text": text}


def _refuse_blank(parts: Sequence[Mapping[str, str]], field: str) -> None:
    if not any(part["type"] == "image" or part["text"].strip() for part in parts):
        text = "".join(part["text"] for part in parts)
        raise RowError(field, f"must not be empty, got {shown(text)}", "Write it or drop the row.")


def _last_response(conversation: Sequence[Value], field: str) -> str:
    return _response_of(conversation[-1], f"{field}[{len(conversation) - 1}]")


def _response(value: Value, field: str) -> str:
    """Read an answer: text, or a list with one assistant message."""
    if isinstance(value, str):
        return _checked_response([{"type": "text", "text": value}], field)
    if not isinstance(value, list | tuple) or len(value) != 1:
        raise RowError(
            field,
            f"must be text or a list with one assistant message, got {shown(value)}",
            "Keep the answer only, or remove `prompt` if this is a whole conversation.",
        )
    return _response_of(value[0], f"{field}[0]")


def _response_of(value: Value, field: str) -> str:
    message = _message(value, field)
    if message["role"] != "assistant":
        raise RowError(
            f"{field}.role",
            f"must be assistant in an answer, got {shown(message['role'])}",
            "Keep the answer only.",
        )
    return _checked_response(message["content"], f"{field}.content")


def _checked_response(parts: Sequence[Mapping[str, str]], field: str) -> str:
    text = "".join(part.get("text", "") for part in parts)
    if any(part["type"] == "image" for part in parts) or IMAGE_MARKER in text:
        raise RowError(
            field,
            f"must not hold an image, got {shown(text)}",
            f"Remove the image part or the `{IMAGE_MARKER}` from the answer.",
        )
    if not text.strip():
        raise RowError(
            field, f"must not be empty, got {shown(text)}", "Write the answer or drop the row."
        )
    return text


def _with_image_parts(messages: list[Message], num_images: int) -> tuple[Message, ...]:
    """Turn markers into image parts; without any, put the images before the first question."""
    parts = [part for message in messages for part in message["content"]]
    marked = any(IMAGE_MARKER in part.get("text", "") for part in parts)
    if marked and any(part["type"] == "image" for part in parts):
        raise RowError(
            "prompt",
            f"must mark images in one way, got image parts and a literal '{IMAGE_MARKER}'",
            "Remove the literal from the text.",
        )
    placed: list[Message] = [
        {
            "role": message["role"],
            "content": [part for old in message["content"] for part in _split_markers(old)],
        }
        for message in messages
    ]
    found = sum(part["type"] == "image" for message in placed for part in message["content"])
    if not found:
        first = next(message for message in placed if message["role"] == "user")
        first["content"][:0] = [{"type": "image"} for _ in range(num_images)]
    elif found != num_images:
        raise RowError(
            "prompt",
            f"must have one image placeholder per image ({num_images}), got {found}",
            "Add the missing images, or remove placeholders.",
        )
    return tuple(placed)


def _split_markers(part: dict[str, str]) -> list[dict[str, str]]:
    """Split a part at its markers, less one newline beside each: templates add their own."""
    if IMAGE_MARKER not in part.get("text", ""):
        return [part]
    pieces = part["text"].split(IMAGE_MARKER)
    parts: list[dict[str, str]] = []
    for index, piece in enumerate(pieces):
        if index > 0:
            parts.append({"type": "image"})
            piece = piece.removeprefix("\n")
        if index < len(pieces) - 1:
            piece = piece.removesuffix("\n")
        if piece:
            parts.append({"type": "text", "text": piece})
    return parts
