"""The page of a report: what is in the file, and what it does in a browser."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from devtools import Page, chromium, needs_chromium
from made_runs import CAPTIONS, NASTY, change, make_data, make_run

from mdpo.cli import main
from mdpo.evaluation.comparison import Difference
from mdpo.evaluation.published import PUBLISHED
from mdpo.evaluation.report.findings import findings
from mdpo.evaluation.report.gather import gather
from mdpo.evaluation.report.page import _verdict, as_page

JUDGED = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of two systems on CHAIR and POPE, one of them on MMHal-Bench too."""
    folder = tmp_path_factory.mktemp("page")
    make_data(folder / "data")
    make_run(folder / "data", folder / "runs", "base", ("chair", "pope", "mmhal"))
    make_run(folder / "data", folder / "runs", "mdpo")
    change(folder / "runs/base/pope/metrics.json", generation={"model": "a", "prompt": JUDGED})
    change(folder / "runs/mdpo/pope/metrics.json", generation={"model": "b", "prompt": "plain"})
    runs = [str(folder / "runs" / each) for each in ("base", "mdpo")]
    images = ["--images", str(folder / "data/images")]
    assert main(["report", *runs, "--out", str(folder / "out"), *images]) == 0
    return folder


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    return (folder / "out/report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tab() -> Iterator[Page]:
    with chromium() as page:
        yield page


@pytest.fixture
def page(tab: Page, folder: Path) -> Page:
    """The page, freshly opened."""
    tab.errors.clear()
    tab.requests.clear()
    tab.open(folder / "out/report.html")
    return tab


def choose(page: Page, control: str, value: str) -> None:
    page.evaluate(
        f"(() => {{ const c = document.getElementById({control!r}); c.value = "
        f"{json.dumps(value)}; c.dispatchEvent(new Event('input', {{bubbles: true}})); }})()"
    )


def shown(page: Page) -> list[str]:
    return page.evaluate(
        "[...document.querySelectorAll('.card')].map(c => c.getAttribute('aria-label'))"
    )


def count(page: Page) -> str:
    return page.evaluate("document.getElementById('count').textContent")


def focused(page: Page) -> str | None:
    return page.evaluate("document.activeElement.getAttribute('aria-label')")


def test_answers_and_names_cannot_become_markup(text: str):
    assert "<script>document.title" not in text
    assert JUDGED not in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text  # in the warning on settings
    assert text.count("</script>") == 2
    data = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    assert not set("<>&") & set(data[1])
    answers = [
        "".join(piece for piece, _ in answer["pieces"] or ())
        for item in json.loads(data[1])["items"]
        for answer in item["answers"].values()
    ]
    assert NASTY in answers
    assert CAPTIONS["base"]["1"] in answers


def test_page_needs_nothing_else(text: str):
    markup = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    addresses = re.findall(r'<[a-z][^>]*\s(?:src|href|data|action)="([^"]+)"', markup)
    assert "url(" not in markup
    assert "@import" not in markup
    assert addresses
    assert all(each.startswith("#") for each in addresses), addresses
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy[1]
    assert " style=" not in text
    assert not re.search(r"\son[a-z]+=\"", text)


@pytest.mark.parametrize(
    ("ends", "direction", "verdict"),
    [
        ((1.0, 3.0), "higher", "better"),
        ((1.0, 3.0), "lower", "worse"),
        ((-3.0, -1.0), "higher", "worse"),
        ((-3.0, -1.0), "lower", "better"),
        ((-1.0, 1.0), "lower", "unclear"),
        ((0.0, 1.0), "higher", "unclear"),
        ((1.0, 3.0), "", ""),
    ],
)
def test_differences_say_better_and_worse(ends: tuple[float, float], direction: str, verdict: str):
    assert _verdict(Difference(sum(ends) / 2, *ends, 0.5), direction) == verdict
    assert _verdict(None, direction) == _verdict(Difference(*[None] * 4), direction) == ""


def test_differences_are_in_the_page(text: str):
    rows = re.findall(r'<td class="number (\w*)">([-+0-9.]+)', text)
    assert {("unclear", "-50.0"), ("unclear", "-33.3"), ("unclear", "+33.3")} <= set(rows)


def test_published_tables_are_marked_in_the_page(folder: Path):
    found = findings(gather([folder / "runs/base/mmhal"]))
    page = as_page(found, PUBLISHED)
    assert page.count('<span class="tag">published</span>') == len(PUBLISHED)
    assert "Published, not measured here" in page
    assert "--images DIR" in page


def test_systems_that_cannot_be_compared_are_marked(folder: Path, tmp_path: Path):
    for system in ("base", "mdpo"):
        make_run(folder / "data", tmp_path, system, ("pope",))
    change(tmp_path / "mdpo/pope/metrics.json", backend="approximate: other")
    page = as_page(findings(gather([tmp_path / "base/pope", tmp_path / "mdpo/pope"])), [])
    assert "<b>Not comparable: mdpo with base.</b>" in page
    marked = page.count("<em>not comparable</em>")
    assert marked == len(re.findall(r'<tr class="row apart">', page))
    assert "<h2>pope (approximate)</h2>" in page


@needs_chromium
def test_page_opens_without_errors_and_requests(page: Page, folder: Path):
    assert page.evaluate("document.title") == "Evaluation of base, mdpo"
    assert page.evaluate("document.querySelectorAll('section.suite').length") == 3
    assert page.evaluate("document.querySelectorAll('.category .track').length") == 8
    assert page.evaluate("document.querySelectorAll('table.metrics .track').length") > 20
    local = (folder / "out/report.html").resolve().as_uri()
    assert {each for each in page.requests if not each.startswith("data:image/jpeg")} == {local}
    assert page.errors == []


@needs_chromium
def test_style_and_script_are_allowed_by_their_hashes(page: Page):
    assert page.evaluate("getComputedStyle(document.querySelector('.rail')).strokeWidth") == "1px"
    assert len(shown(page)) == 10


@needs_chromium
def test_nothing_else_is_allowed(page: Page):
    page.evaluate(
        "(() => { const s = document.createElement('script'); s.textContent = 'window.bad = 1'; "
        "document.body.append(s); })()"
    )
    assert page.evaluate("window.bad") is None
    assert any("Content Security Policy" in each for each in page.errors)


@needs_chromium
def test_words_are_marked_where_they_stand(page: Page):
    choose(page, "suite", "chair")
    first = "document.querySelectorAll('.card')[0].querySelectorAll('.answer')"
    marks = page.evaluate(
        f"[...{first}[0].querySelectorAll('mark')].map(m => [m.className, m.textContent])"
    )
    # the emoji before them is two units long here and one character in Python
    assert marks == [["there", "dog"], ["absent", "cat"], ["there", "tree"]]
    assert page.evaluate(f"{first}[0].querySelector('p').textContent") == CAPTIONS["base"]["1"]
    assert page.evaluate(f"[...{first}].map(a => a.querySelector('b').textContent)") == [
        "base",
        "mdpo",
    ]
    line = "getComputedStyle(document.querySelector('mark.absent')).textDecorationLine"
    assert page.evaluate(line) == "underline"
    assert page.evaluate("document.querySelector('.question').textContent") == "Describe <it>."


@needs_chromium
def test_nasty_answers_are_text(page: Page):
    choose(page, "suite", "pope")
    texts = page.evaluate("[...document.querySelectorAll('.answer p')].map(p => p.textContent)")
    assert NASTY in texts
    assert page.evaluate("document.title") != "owned"


@needs_chromium
def test_filters_change_what_is_shown(page: Page):
    assert count(page) == "18 of 18 items"
    assert page.evaluate("document.getElementById('pages').textContent") == "page 1 of 2"
    choose(page, "suite", "pope")
    assert count(page) == "6 of 18 items"
    assert len(shown(page)) == 6
    choose(page, "verdict", "wrong")
    assert count(page) == "4 of 18 items"  # wrong in base: 2, 4, 5, 6; in mdpo: 5, 6
    choose(page, "system", "mdpo")
    assert shown(page) == ["pope coco/random/5", "pope coco/random/6"]
    choose(page, "verdict", "right")
    assert len(shown(page)) == 4
    choose(page, "suite", "chair")
    assert count(page) == "0 of 18 items"
    choose(page, "verdict", "hallucinated")
    assert shown(page) == ["chair 4"]
    choose(page, "system", "base")
    assert shown(page) == ["chair 1", "chair 2", "chair 3"]
    choose(page, "verdict", "clean")
    assert shown(page) == ["chair 4"]
    choose(page, "system", "")
    choose(page, "suite", "")
    # described or rated; answers of yes and no are neither clean nor hallucinated
    assert not any(each.startswith("pope") for each in shown(page))
    choose(page, "system", "base")
    choose(page, "suite", "mmhal")
    # ratings 0, 1, 2, 3, 4, 5, 6, 0
    assert shown(page) == ["mmhal m3", "mmhal m4", "mmhal m5", "mmhal m6"]


@needs_chromium
def test_search_and_disagreement(page: Page):
    choose(page, "search", "CAR AND A DOG")
    assert shown(page) == ["chair 3"]
    choose(page, "search", "no such words")
    assert count(page) == "0 of 18 items"
    choose(page, "search", "")
    page.evaluate("document.getElementById('differ').click()")
    assert count(page) == "6 of 18 items"
    assert "pope coco/random/2" in shown(page)
    assert "pope coco/random/1" not in shown(page)


@needs_chromium
def test_keys_move_between_items_and_pages(page: Page):
    page.press("j")
    assert focused(page) == "chair 1"
    page.press("j")
    page.press("ArrowDown")
    assert focused(page) == "chair 3"
    page.press("k")
    assert focused(page) == "chair 2"
    for _ in range(9):
        page.press("j")
    assert page.evaluate("document.getElementById('pages').textContent") == "page 2 of 2"
    assert len(shown(page)) == 8
    page.press("k")
    assert page.evaluate("document.getElementById('pages').textContent") == "page 1 of 2"
    page.evaluate("document.getElementById('on').click()")
    choose(page, "system", "base")
    assert page.evaluate("document.getElementById('pages').textContent") == "page 1 of 2"
    page.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.press("j")
    assert page.evaluate("document.getElementById('search').value") == "j"
    page.press("Escape")
    page.evaluate("document.getElementById('on').click()")
    assert page.errors == []


@needs_chromium
def test_images_are_inside(page: Page):
    choose(page, "suite", "chair")
    # image 4 is not in the folder
    sizes = page.evaluate(
        "Promise.all([...document.querySelectorAll('.card')].map(async c => { const i = "
        "c.querySelector('img'); if (!i) return null; await i.decode(); return i.naturalWidth; }))"
    )
    assert sizes == [320, 320, 320, None]
    assert "9 images were not found" in page.evaluate(
        "document.querySelector('#items .note').textContent"
    )


@needs_chromium
def test_controls_have_labels_and_focus_is_seen(page: Page):
    assert page.evaluate(
        "[...document.querySelectorAll('#filters select, #filters input')]"
        ".every(c => c.labels.length === 1)"
    )
    page.press("j")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    assert page.evaluate("[...document.querySelectorAll('img')].every(i => i.alt)")


@needs_chromium
@pytest.mark.parametrize("width", [360, 768, 1280, 1900])
def test_nothing_is_wider_than_the_window(tab: Page, folder: Path, width: int):
    tab.open(folder / "out/report.html", width=width)
    tab.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


@needs_chromium
def test_dark_screens_have_light_text(tab: Page, folder: Path):
    colours = []
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        tab.command("Emulation.setEmulatedMedia", features=[feature])
        tab.open(folder / "out/report.html")
        style = "getComputedStyle(document.body)"
        colours.append(tab.evaluate(f"[{style}.color, {style}.backgroundColor]"))
    brightness = [[sum(map(int, re.findall(r"\d+", each))) for each in pair] for pair in colours]
    assert brightness[0][0] + 300 < brightness[0][1]
    assert brightness[1][1] + 300 < brightness[1][0]
