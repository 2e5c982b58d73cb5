"""The page as a browser shows it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from layerscope.plots.theme import DARK, LIGHT
from layerscope.report import write_report
from report.made_runs import MakeRun

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: the page is not opened"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Opened:
    """A page, and whatever it did that it should not."""

    def __init__(self, page: Page, path: Path) -> None:
        self.page, self.complaints = page, list[str]()
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: self._asked(request.url))
        page.goto(path.as_uri())

    def _said(self, message: ConsoleMessage) -> None:
        self.complaints.append(message.text)

    def _asked(self, url: str) -> None:
        if not url.startswith(("file:", "data:", "blob:")):
            self.complaints.append(url)

    def draw_all(self) -> None:
        self.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        for figure in self.page.locator("figure").all():
            figure.scroll_into_view_if_needed()
        self.wait_until("document.querySelectorAll('figure:not([data-drawn=yes])').length === 0")

    def wait_until(self, expression: str) -> None:
        """Ask from outside: the page's own policy forbids wait_for_function's eval inside."""
        for _ in range(200):
            if self.page.evaluate(expression):
                return
            self.page.wait_for_timeout(50)
        pytest.fail(f"still not so after ten seconds: {expression}")


@pytest.fixture
def page(make_run: MakeRun, tmp_path: Path, browser: Browser) -> Iterator[Opened]:
    runs = [make_run("a"), make_run("b", result=False), make_run("c", experiment="trial_gone")]
    runs.append(make_run("d", experiment="trial_layers"))
    path = write_report(runs, tmp_path / "report.html")
    context = browser.new_context(viewport={"width": 1400, "height": 900}, color_scheme="light")
    yield Opened(context.new_page(), path)
    context.close()


@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_draws_everything_asks_nothing_and_fits(page: Opened, width: int) -> None:
    page.page.set_viewport_size({"width": width, "height": 900})
    page.draw_all()

    drawn = page.page.eval_on_selector_all("figure", "all => all.map(f => f.dataset.drawn)")
    assert drawn == ["yes"] * 8
    assert page.page.locator(".main-svg").count() >= 8
    assert page.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert page.complaints == []


def test_hostile_labels_are_seen_as_they_were_written(page: Opened) -> None:
    page.draw_all()
    legend = page.page.locator("#run-1-figure-2 .legendtext").all_text_contents()
    ticks = page.page.locator("#run-1-figure-3 .ytick text").all_text_contents()

    assert "<b>other</b> %{y}" in legend
    assert ticks[0].startswith("<script>alert(1)</script><b>·&l")
    assert ticks[1] == "·<b>"


def test_hover_names_the_token(page: Opened) -> None:
    page.draw_all()
    plot = page.page.locator("#run-1-figure-3 .nsewdrag")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    page.page.mouse.move(box["x"] + 5, box["y"] + box["height"] - 5)
    page.page.wait_for_selector("#run-1-figure-3 .hovertext")

    said = page.page.locator("#run-1-figure-3 .hovertext").text_content() or ""
    assert said.startswith("·<b>depth 00.")


def test_the_menu_shows_another_prompt(page: Opened) -> None:
    page.draw_all()
    numbers = "document.querySelector('#run-1-figure-3 .drawing').data[0].z[0][0]"
    before = page.page.evaluate(numbers)
    select = page.page.locator("#run-1-figure-3 select")

    groups = select.locator("optgroup").evaluate_all("all => all.map(one => one.label)")
    select.select_option(index=7)

    assert groups == ["phrases", "facts", "<b>other</b> %{y}"]
    assert page.page.evaluate(numbers) != before
    assert page.complaints == []


def test_theme_follows_the_system_and_the_button(page: Opened) -> None:
    page.draw_all()
    look = "(([{ layout }]) => [layout.template.layout.font.color, layout.coloraxis.colorscale[0][1]].join())"
    shown = f"{look}(document.querySelectorAll('#run-1-figure-3 .drawing'))"

    page.wait_until(f"{shown} === '{LIGHT.ink},{LIGHT.paper}'")
    page.page.emulate_media(color_scheme="dark")
    page.wait_until(f"{shown} === '{DARK.ink},{DARK.paper}'")
    page.page.locator("#theme").click()
    page.wait_until(f"{shown} === '{LIGHT.ink},{LIGHT.paper}'")

    assert page.page.locator("#theme").text_content() == "Theme: light"


def test_printing_draws_what_was_not_yet_seen(page: Opened) -> None:
    assert len(page.page.pdf()) > 50_000

    assert page.page.locator("figure[data-drawn=yes]").count() == 4
    assert page.complaints == []


def test_on_paper_every_figure_fits_its_column(page: Opened) -> None:
    page.draw_all()
    page.page.set_viewport_size({"width": 718, "height": 1000})  # A4 with margins of a centimetre
    page.page.emulate_media(media="print")
    page.page.evaluate("dispatchEvent(new Event('beforeprint'))")

    widths = page.page.evaluate(
        "[...document.querySelectorAll('figure')].map((figure) => "
        "[figure.querySelector('svg.main-svg').getBoundingClientRect().width, figure.clientWidth])"
    )
    assert len(widths) >= 4
    assert all(0 < drawn <= column for drawn, column in widths), widths


def test_nothing_is_drawn_behind_more_until_it_is_opened(page: Opened) -> None:
    page.page.wait_for_timeout(300)
    hidden = page.page.locator(".more figure[data-drawn]")
    assert hidden.count() == 0

    page.page.locator("#run-4-more > summary").click()
    page.page.locator("#run-4-more figure").first.scroll_into_view_if_needed()
    page.wait_until("document.querySelector('#run-4-more figure').dataset.drawn === 'yes'")


def test_a_layer_of_the_map_opens_its_dossier(page: Opened) -> None:
    assert not page.page.locator("#layer-3").evaluate("one => one.open")

    page.page.locator(".map thead a").nth(3).click()
    page.wait_until("document.getElementById('layer-3').open")
    assert "share done here" in (page.page.locator("#layer-3").text_content() or "")


def test_menus_are_searched_by_text(page: Opened) -> None:
    page.draw_all()
    menu = page.page.locator("#run-1-figure-3 .menu")
    every = menu.locator("option").count()

    menu.locator("input").fill("prompt 17")

    assert every > 8
    assert menu.locator("option").all_text_contents() == ["prompt 17"]


def test_a_table_is_sorted_by_a_click_and_filtered_by_words(page: Opened) -> None:
    # Figures above may still be drawn and move the fold from under a click.
    page.page.locator("#run-1-more").evaluate("fold => { fold.open = true; }")
    values = page.page.locator("#run-1-more .findings tbody tr td:nth-child(2)")
    page.page.locator("#run-1-more .findings th").nth(1).click()

    numbers = [float(text.split()[0]) for text in values.all_text_contents()]
    assert numbers == sorted(numbers)


def test_contents_follow_the_scroll(page: Opened) -> None:
    page.page.locator("#provenance").scroll_into_view_if_needed()

    page.wait_until("document.querySelector('.contents a.here')?.hash === '#provenance'")


def test_no_chart_is_uploaded_and_pictures_are_svg(page: Opened) -> None:
    page.draw_all()
    buttons = page.page.locator(".modebar-btn").evaluate_all("all => all.map(one => one.dataset.title)")

    assert buttons
    assert not [title for title in buttons if "hare" in title]
    picture = page.page.evaluate("document.querySelector('.drawing')._context.toImageButtonOptions")
    assert picture["format"] == "svg"


def test_examples_are_unpacked_when_they_are_opened(
    make_run: MakeRun, tmp_path: Path, browser: Browser
) -> None:
    path = write_report([make_run(experiment="trial_reading")], tmp_path / "report.html")
    context = browser.new_context()
    opened = Opened(context.new_page(), path)
    assert opened.page.locator(".excerpts li").count() == 0

    opened.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    opened.wait_until("document.querySelectorAll('.reading .excerpts li').length > 0")

    lines = opened.page.locator(".excerpts li").count()
    opened.page.evaluate("document.querySelectorAll('.reading').forEach(one => one.open = false)")
    opened.page.evaluate("document.querySelectorAll('.reading').forEach(one => one.open = true)")
    opened.page.wait_for_timeout(200)
    assert opened.page.locator(".excerpts li").count() == lines
    assert "<script>alert(1)</script>" in (opened.page.locator(".reading").first.text_content() or "")
    assert opened.complaints == []
    context.close()
