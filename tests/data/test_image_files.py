"""Images: exact pixels of every kind of file, sizes without decoding, and what is refused."""

import io
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from mdpo.data.images import ImageError, image_size, open_image
from mdpo.data.rows import ImageSource, shown

RED, WHITE = (255, 0, 0), (255, 255, 255)


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def noise(width: int = 40, height: int = 30) -> Image.Image:
    """Pixels that do not compress, so that half a file is half an image."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def marked() -> Image.Image:
    """White, 3 wide and 2 high, with a red pixel top left."""
    image = Image.new("RGB", (3, 2), WHITE)
    image.putpixel((0, 0), RED)
    return image


def pixels(source: ImageSource, root: Path | None = None) -> list[tuple[int, ...]]:
    image = open_image(source, root=root)
    assert image.mode == "RGB"
    return [tuple(pixel) for pixel in np.asarray(image).reshape(-1, 3).tolist()]


def refusal(source: ImageSource, root: Path | None = None, **options: int) -> str:
    with pytest.raises(ImageError) as caught:
        open_image(source, root=root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What is read


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_safe_formats_are_read(format: str, tmp_path: Path):
    (tmp_path / "a").write_bytes(encoded(Image.new("RGB", (16, 8), RED), format))
    image = open_image("a", root=tmp_path)
    assert (image.mode, image.size, image_size("a", root=tmp_path)) == ("RGB", (16, 8), (16, 8))
    assert np.abs(np.asarray(image).astype(int) - RED).max() <= 3  # JPEG and WEBP are lossy


def test_paths_bytes_and_images_give_the_same(tmp_path: Path):
    path = tmp_path / "a.png"
    marked().save(path)
    sources: list[ImageSource] = [str(path), path, "a.png", Path("a.png"), path.read_bytes()]
    for source in [*sources, marked()]:
        assert pixels(source, tmp_path) == [RED, *[WHITE] * 5]
        assert image_size(source, root=tmp_path) == (3, 2)


def test_a_given_image_is_left_alone():
    image = marked().convert("RGBA")
    opened = open_image(image, root=None)
    opened.putpixel((1, 1), (0, 0, 0))
    assert (image.mode, image.getpixel((1, 1))) == ("RGBA", (*WHITE, 255))
    same_mode = marked()
    open_image(same_mode, root=None).putpixel((1, 1), (0, 0, 0))
    assert same_mode.getpixel((1, 1)) == WHITE


@pytest.mark.parametrize("format", ["GIF", "TIFF", "WEBP", "PNG"])
def test_the_first_frame_is_taken(format: str):
    frames = {"save_all": True, "append_images": [Image.new("RGB", (4, 4), "blue")]}
    options = frames | ({"lossless": True} if format == "WEBP" else {})
    assert set(pixels(encoded(Image.new("RGB", (4, 4), RED), format, **options))) == {RED}


# Modes


def test_transparency_becomes_white():
    half = Image.new("RGBA", (1, 1), (255, 0, 0, 51))  # a fifth red: 255 and 255 * 4 / 5
    assert pixels(encoded(half)) == [(255, 204, 204)]
    assert pixels(Image.new("LA", (1, 1), (0, 0))) == [WHITE]


def test_a_transparent_palette_colour_becomes_white():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    assert pixels(encoded(image)) == [RED, (0, 0, 255)]
    assert pixels(encoded(image, transparency=1)) == [RED, WHITE]
    assert pixels(encoded(image, transparency=b"\xff\x00")) == [RED, WHITE]


def test_grey_and_bilevel():
    assert pixels(encoded(Image.new("L", (1, 1), 77))) == [(77, 77, 77)]
    assert pixels(encoded(Image.new("1", (1, 1), 1))) == [WHITE]


def test_16_bit_grey_is_scaled_not_clipped():
    # 65535 / 257 = 255 ; 32896 / 257 = 128 ; 256 / 257 rounds to 1
    values = np.array([[65535, 32896, 256]], dtype=np.uint16)
    for format in ("PNG", "TIFF"):
        expected = [(v, v, v) for v in (255, 128, 1)]
        assert pixels(encoded(Image.fromarray(values), format)) == expected


def test_cmyk():
    assert pixels(Image.new("CMYK", (1, 1), (0, 255, 255, 0))) == [RED]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_of_unknown_range_are_refused(mode: str):
    assert refusal(encoded(Image.new(mode, (1, 1), 3), "TIFF")).endswith(
        f" must have 8 or 16 bits per channel, got mode '{mode}', whose range is not known. "
        "Convert it or drop the row."
    )


def test_a_mode_without_way_to_rgb_is_refused():
    assert " is broken, got ValueError: conversion" in refusal(Image.new("La", (1, 1)))


# Orientation

UPRIGHT = {  # where the pixel top left of a 3 x 2 file stands once upright: (x, y), size
    1: ((0, 0), (3, 2)),
    2: ((2, 0), (3, 2)),
    3: ((2, 1), (3, 2)),
    4: ((0, 1), (3, 2)),
    5: ((0, 0), (2, 3)),
    6: ((1, 0), (2, 3)),
    7: ((1, 2), (2, 3)),
    8: ((0, 2), (2, 3)),
}


def exif(orientation: int) -> Image.Exif:
    data = Image.Exif()
    data[0x0112] = orientation
    return data


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_images_are_turned_upright(format: str, options: dict[str, object], orientation: int):
    place, size = UPRIGHT[orientation]
    data = encoded(marked(), format, exif=exif(orientation), **options)
    image = open_image(data, root=None)
    assert (image.size, image_size(data, root=None)) == (size, size)
    assert (image.getpixel(place), image.tobytes().count(b"\x00")) == (RED, 2)


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_jpeg_photographs_are_turned_upright(orientation: int):
    large = marked().resize((48, 32), Image.Resampling.NEAREST)  # blocks of 16, as JPEG likes
    (x, y), (width, height) = UPRIGHT[orientation]
    data = encoded(large, "JPEG", exif=exif(orientation), quality=95)
    image = open_image(data, root=None)
    assert image.size == image_size(data, root=None) == (16 * width, 16 * height)
    red, green, _ = np.asarray(image.resize((width, height), Image.Resampling.BOX))[y, x]
    assert (red > 240, green < 30) == (True, True)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF"])
def test_orientation_is_applied_once(format: str):
    data = encoded(noise(4, 2), format, exif=exif(6))
    once = open_image(data, root=None)
    assert once.info == {}
    twice = open_image(once, root=None)
    assert (once.size, twice.size) == ((2, 4), (2, 4))
    with Image.open(io.BytesIO(data)) as lazy:
        size = image_size(lazy, root=None)
        assert open_image(lazy, root=None).tobytes() == once.tobytes()
    assert size == (2, 4)


@pytest.mark.parametrize("value", [0, 9, 300])
def test_an_impossible_orientation_counts_as_upright(value: int):
    data = encoded(marked(), exif=exif(value))
    assert image_size(data, root=None) == open_image(data, root=None).size == (3, 2)


def test_broken_exif_counts_as_none():
    data = encoded(marked(), exif=b"Exif\x00\x00XX nonsense")
    assert image_size(data, root=None) == open_image(data, root=None).size == (3, 2)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_image_size_does_not_decode(format: str, monkeypatch: pytest.MonkeyPatch):
    data = encoded(noise(40, 30), format)

    def load(*_: object) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    assert image_size(data, root=None) == (40, 30)


# What is refused


def test_a_missing_file_is_refused(tmp_path: Path):
    expected = f"`image` 'coco/1.jpg' not found under {tmp_path}. Set `--image_root`."
    assert refusal("coco/1.jpg", tmp_path) == expected
    assert refusal(Path("coco/1.jpg"), tmp_path) == expected
    with pytest.raises(ImageError, match=r"not found under"):
        image_size("coco/1.jpg", root=tmp_path)


def test_a_folder_or_pipe_is_not_a_file(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")  # to open it would wait for ever
    for name in ("folder", "pipe"):
        assert refusal(name, tmp_path) == (
            f"`image` '{name}' not found under {tmp_path}. Set `--image_root`."
        )


def test_paths_stay_below_the_root(tmp_path: Path):
    outside, root = tmp_path / "out.png", tmp_path / "root"
    marked().save(outside)
    root.mkdir()
    (root / "link.png").symlink_to(outside)
    for source in ("../out.png", str(outside), "link.png", "x/../../out.png", "/etc/passwd"):
        path = Path("/etc/passwd").resolve() if "etc" in source else outside.resolve()
        assert refusal(source, root) == (
            f"`image` {shown(source)} must lie under {root}, got {path}. "
            "Set `--image_root` to a folder that holds it."
        )
    with pytest.raises(ImageError, match=r"must lie under"):
        image_size("../out.png", root=root)


def test_a_folder_whose_name_only_begins_alike_is_outside(tmp_path: Path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root2").mkdir()
    marked().save(tmp_path / "root2" / "a.png")
    assert "must lie under" in refusal("../root2/a.png", tmp_path / "root")


def test_links_within_the_root_and_to_it_are_fine(tmp_path: Path):
    root, link = tmp_path / "root", tmp_path / "link"
    root.mkdir()
    link.symlink_to(root)
    marked().save(root / "a.png")
    (root / "b.png").symlink_to(root / "a.png")
    for source in ("b.png", str(link / "b.png"), str(root / "a.png"), "../link/a.png"):
        assert open_image(source, root=link).size == (3, 2)


def test_a_root_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "root").mkdir()
    marked().save(tmp_path / "root" / "a.png")
    monkeypatch.chdir(tmp_path)
    assert open_image("a.png", root=Path("root")).size == (3, 2)


@pytest.mark.parametrize("source", ["a.png", "/tmp/a.png", Path("a.png")])
def test_without_a_root_paths_are_refused(source: str | Path):
    assert refusal(source) == (
        f"`image` '{source}' is a path in data without a folder. Set `--image_root`."
    )


@pytest.mark.parametrize(
    "source",
    [
        "http://example.org/a.png",
        "https://example.org/a.png",
        "HTTPS://example.org/a.png",
        "data:image/png;base64,iVBORw0KGgo=",
        "file:///etc/passwd",
        "s3://bucket/a.png",
    ],
)
def test_urls_are_refused(source: str, tmp_path: Path):
    expected = f"`image` {source!r} must be a file, got a URL. Download it and give its path."
    assert refusal(source, tmp_path) == refusal(source) == expected


def test_what_is_no_path_is_refused(tmp_path: Path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert refusal("a\x00.png", tmp_path).startswith("`image` 'a\\x00.png' is not a path, got ")
    assert refusal("loop", tmp_path).startswith("`image` 'loop' ")
    assert refusal("x" * 5000, tmp_path).startswith("`image` 'xxx")


@pytest.mark.parametrize("data", [b"", b"hello", b"<svg></svg>", encoded(marked(), "PPM")])
def test_other_files_are_refused(data: bytes, tmp_path: Path):
    (tmp_path / "a.png").write_bytes(data)
    rule = (
        "must be a file of type JPEG, PNG, WEBP, GIF, BMP, TIFF, got something else. "
        "Convert it or drop the row."
    )
    assert refusal("a.png", tmp_path) == f"`image` 'a.png' {rule}"
    assert refusal(data) == f"`image` <{len(data)} bytes> {rule}"


def test_postscript_is_not_run():
    # Pillow would hand this to Ghostscript
    assert "got something else" in refusal(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_file_is_refused(format: str, tmp_path: Path):
    data = encoded(noise(), format)
    (tmp_path / "a").write_bytes(data[: len(data) // 2])
    assert refusal("a", tmp_path).startswith("`image` 'a' ")


def test_a_truncated_jpeg_says_so():
    data = encoded(noise(), "JPEG")[:-400]
    message = refusal(data)
    assert message.startswith(f"`image` <{len(data)} bytes> is broken, got OSError: ")
    assert message.endswith(". Replace it or drop the row.")
    assert "truncated" in message


def test_a_truncated_image_object_is_refused():
    with Image.open(io.BytesIO(encoded(noise())[:-400])) as image:
        assert " is broken, got OSError: " in refusal(image)


def test_truncated_images_must_not_be_let_through(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(RuntimeError, match=r"LOAD_TRUNCATED_IMAGES` must be False, got True"):
        open_image(marked(), root=None)


def test_too_many_pixels_are_refused_before_decoding(monkeypatch: pytest.MonkeyPatch):
    data = encoded(Image.new("RGB", (30, 20)))
    assert open_image(data, root=None, max_pixels=600).size == (30, 20)

    def load(*_: object) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    assert refusal(data, max_pixels=599) == (
        f"`image` <{len(data)} bytes> must have 1 to 599 pixels, got 30 x 20. "
        "Make it smaller or drop the row."
    )


def test_a_decompression_bomb_is_refused():
    bomb = bytearray(encoded(Image.new("1", (16, 16))))
    # claims 65,535 x 65,535 pixels; the checksum of the header has to follow
    bomb[16:24] = (65535).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    assert refusal(bytes(bomb)) == (
        f"`image` <{len(bomb)} bytes> must have 1 to 178956970 pixels, got more. "
        "Make it smaller or drop the row."
    )


def test_an_image_without_pixels_is_refused():
    assert "must have 1 to 178956970 pixels, got 0 x 2." in refusal(Image.new("RGB", (0, 2)))


def test_files_are_closed(tmp_path: Path):
    marked().save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"hello")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        open_image("a.png", root=tmp_path)
        image_size("a.png", root=tmp_path)
        refusal("b.png", tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_reading_rows_does_not_import_torch():
    code = (
        "import sys, mdpo.data.rows, mdpo.data.parsing, mdpo.data.images, mdpo.data as d;"
        "assert 'datasets' not in sys.modules; d.load_raw; d.Rows; d.FORMATS; d.open_image;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
