"""The report in a real browser: it loads, answers to pointer, keyboard and sliders, and is accessible.

Screenshots are kept in build/report/.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evomerge.runs import Run
from tests.reports.worlds import HOSTILE

ARTIFACTS = Path(__file__).parent.parent.parent / "build" / "report"
PICTURES = Path(__file__).parent.parent.parent / "docs" / "pictures"
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
pytestmark = pytest.mark.slow


@pytest.fixture
def shown(browser: Any, reports: dict[str, Path]) -> Iterator[Any]:
    """A function that opens a report; at the end nothing may have been loaded, logged or thrown."""
    noise: list[str] = []
    contexts = []

    def show(name: str, size: dict[str, int] = DESK, scheme: str = "light", script: bool = True) -> Any:
        context = browser.new_context(viewport=size, color_scheme=scheme, java_script_enabled=script)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: noise.append(f"console {message.type}: {message.text}"))
        page.on("pageerror", lambda error: noise.append(f"error: {error}"))
        page.on("dialog", lambda dialog: noise.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: noise.append(request.url) if request.url != url else None)
        url = reports[name].as_uri()
        page.goto(url)
        return page

    yield show
    for context in contexts:
        context.close()
    assert noise == []


def chosen(page: Any) -> int:
    return int(page.locator("#chosen h3").inner_text().removeprefix("Candidate "))


@pytest.mark.parametrize("name", ["two", "four", "one", "hostile", "predicted", "estimated"])
def test_it_loads_without_a_word_and_is_kept_as_a_picture(shown: Any, runs: dict[str, Run], name: str) -> None:
    page = shown(name)
    best = runs[name].best()
    assert best is not None
    assert chosen(page) == best.number
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"{name}-objectives.png", full_page=True)
    assert page.locator("#picture circle, #picture path").count() > 10


@pytest.mark.parametrize(("name", "file"), [("predicted", "report_two.png"), ("four", "report_four.png")])
def test_the_pictures_of_the_documentation(shown: Any, name: str, file: str) -> None:
    """Writes them into build/report/; `make pictures` copies them into docs/pictures/, where they are committed."""
    image = pytest.importorskip("PIL.Image", reason="pip install pillow")
    page = shown(name, size={"width": 1120, "height": 760})
    page.evaluate("document.querySelector('#front').scrollIntoView({behavior: 'instant'})")
    # the run's folder here is a temporary one, of which a picture for readers should not tell
    page.evaluate("(node => node.textContent = node.textContent.replace(/export \\S+/, 'export runs/mine'))(command)")
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTIFACTS / file)
    with image.open(ARTIFACTS / file) as picture:  # few colours: a third of the size, and nobody sees it
        picture.convert("RGB").quantize(64, dither=image.Dither.NONE).save(ARTIFACTS / file, optimize=True)
    committed = PICTURES / file
    assert committed.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert sum(path.stat().st_size for path in PICTURES.iterdir()) < 300_000
    assert committed.read_bytes()[16:24] == (ARTIFACTS / file).read_bytes()[16:24]  # the same width and height


def test_hovering_tells_and_clicking_chooses(shown: Any, runs: dict[str, Run]) -> None:
    page = shown("two")
    front = runs["two"].front().set_index("candidate")
    dots = page.locator("#picture circle.front")
    assert dots.count() == len(front)
    page.locator("#picture").scroll_into_view_if_needed()
    box = dots.first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tip = page.locator("#tip")
    tip.wait_for(state="visible")
    number = int(tip.inner_text().splitlines()[0].removeprefix("candidate "))
    score, stderr = (100 * front.loc[number, f"{kind}.add"] for kind in ("score", "stderr"))
    assert f"add: {score:.1f} ± {stderr:.1f}" in tip.inner_text()
    page.mouse.down()
    page.mouse.up()
    assert chosen(page) == number
    assert page.locator(f"#pick-{number}").is_checked()
    assert page.locator("#command").inner_text().endswith(f"--to candidate-{number} --pick {number}")
    page.mouse.move(5, 5)
    assert tip.is_hidden()


def test_lines_of_many_objectives_can_be_pointed_at(shown: Any, runs: dict[str, Run]) -> None:
    page = shown("four")
    page.locator("#picture").scroll_into_view_if_needed()
    box = page.locator("#picture").bounding_box()
    found = set()
    for height in range(60, int(box["height"]) - 60, 12):
        page.mouse.move(box["x"] + box["width"] * 0.45, box["y"] + height)
        page.mouse.down()
        page.mouse.up()
        found.add(chosen(page))
    assert len(found) > 5
    page.select_option("#view", "plane")
    page.select_option("#axis-x", "2")
    assert "ifeval" in (page.locator("#picture").text_content() or "")
    assert page.locator("#picture circle.front").count() == len(runs["four"].front())


@pytest.mark.parametrize("name", ["two", "four"])
def test_sliders_choose_as_export_does(shown: Any, runs: dict[str, Run], name: str) -> None:
    page, run = shown(name), runs[name]
    names = [objective.name for objective in run.objectives]
    weights = list(itertools.product((0, 3, 10), repeat=len(names)))[1 :: 7 if len(names) > 2 else 1]
    for row in weights:
        for place, weight in enumerate(row):
            page.locator(f"#weight-{place}").fill(str(weight))
        preference = ",".join(f"{o}={w}" for o, w in zip(names, row, strict=True))
        assert chosen(page) == run.pick(preference).number, preference
    assert page.locator("#shown-0").inner_text() == str(weights[-1][0])


def test_predicted_points_are_told_and_cannot_be_chosen(shown: Any, runs: dict[str, Run]) -> None:
    page = shown("predicted")
    squares = page.locator("#picture rect.predicted")
    count = squares.count()
    assert count > 0
    before = chosen(page)
    page.locator("#picture").scroll_into_view_if_needed()
    box = squares.first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.locator("#tip").wait_for(state="visible")
    tip = page.locator("#tip").inner_text()
    assert re.match(r"predicted point \d, not measured\nadd: [\d.]+, 90% interval [\d.]+ to [\d.]+\n", tip)
    page.mouse.down()
    page.mouse.up()
    assert chosen(page) == before
    page.locator("#show-predicted").uncheck()
    assert squares.count() == 0
    page.locator("#show-predicted").check()
    assert squares.count() == count


def test_estimated_points_are_hollow_and_say_so(shown: Any, runs: dict[str, Run]) -> None:
    page, run = shown("estimated"), runs["estimated"]
    full, front = set(run.data.full_candidates()), [int(n) for n in run.front()["candidate"]]
    guessed = [number for number in front if number not in full]
    assert page.locator("#picture circle.front.estimated").count() == len(guessed) > 0
    assert page.locator("#chosen").inner_text().count("estimated from few items") == 0  # the best has answered all
    page.locator(f"#pick-{guessed[0]}").check()
    assert "estimated from few items" in page.locator("#chosen").inner_text()
    assert "~ " in page.locator("#chosen table").inner_text()


def test_the_keyboard_is_enough(shown: Any, runs: dict[str, Run]) -> None:
    page = shown("two")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.locator("#choices input:checked").focus()
    before = chosen(page)
    page.keyboard.press("ArrowDown")
    after = chosen(page)
    assert after != before
    assert page.locator(f"#pick-{after}").is_checked()
    page.locator("#weight-0").focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert page.locator("#weight-0").input_value() == "10"
    page.get_by_role("button", name="best sort").focus()
    page.keyboard.press("Enter")
    assert chosen(page) == runs["two"].front().set_index("candidate")["score.sort"].idxmax()


def test_forms_of_export_and_copying(shown: Any, browser: Any) -> None:
    page = shown("two")
    number = chosen(page)
    page.select_option("#form", "mergekit")
    command = page.locator("#command").inner_text()
    assert command.endswith(f"--to candidate-{number}.yaml --pick {number} --as mergekit")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#copy").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == command


def test_themes_differ_and_the_button_turns_them(shown: Any) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    light, dark = shown("two"), shown("two", scheme="dark")
    assert light.evaluate(colour) != dark.evaluate(colour)
    dark.locator("#theme").click()
    assert dark.evaluate(colour) == light.evaluate(colour)
    dark.locator("#theme").click()
    dark.screenshot(path=ARTIFACTS / "two-dark.png")


@pytest.mark.parametrize("name", ["two", "four", "hostile", "predicted"])
def test_a_phone_shows_it_without_scrolling_sideways(shown: Any, name: str) -> None:
    page = shown(name, size=PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    small = page.evaluate(
        "[...document.querySelectorAll('button, select')].filter((b) => b.offsetParent && b.offsetHeight < 32).length"
    )
    assert small == 0
    page.screenshot(path=ARTIFACTS / f"{name}-phone.png", full_page=True)


def test_without_a_script_the_table_is_there(shown: Any, runs: dict[str, Run]) -> None:
    page = shown("two", script=False)
    assert page.locator("#choices tbody tr").count() == len(runs["two"].front())
    assert page.locator("fieldset").is_hidden()
    assert page.locator("noscript").count() == 1


def test_hostile_names_are_shown_as_they_are(shown: Any) -> None:
    page = shown("hostile")
    assert HOSTILE in page.locator("#choices thead").inner_text()
    assert HOSTILE in page.locator("#chosen").inner_text()
    assert page.locator("img").count() == 0


@pytest.mark.parametrize(
    ("name", "scheme", "size"),
    [("two", "light", PHONE), ("four", "dark", DESK), ("predicted", "dark", DESK), ("estimated", "light", DESK)],
)
def test_the_accessibility_checker_finds_no_violation(shown: Any, name: str, scheme: str, size: dict[str, int]) -> None:
    axe = pytest.importorskip("axe_playwright_python.base", reason="pip install axe-playwright-python")
    page = shown(name, scheme=scheme, size=size)
    for details in page.locator("details").all():
        details.evaluate("(node) => { node.open = true; }")
    page.evaluate(Path(axe.__file__).with_name("axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")
    assert len(found["passes"]) > 20  # the checker did look
    problems = [(v["id"], v["help"], [node["html"][:160] for node in v["nodes"][:3]]) for v in found["violations"]]
    assert problems == []


def test_print_leaves_the_controls_out(shown: Any) -> None:
    page = shown("two")
    page.emulate_media(media="print")
    assert page.locator("fieldset").is_hidden()
    assert page.locator("nav").is_hidden()
    assert page.locator("#finalists").is_visible()
    assert page.pdf()[:4] == b"%PDF"
