"""The web page in a real browser: what it shows and does, on a phone, by keyboard, in the dark, to hostile text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.admin import browser as browsing
from tests.admin.browser import ADMIN, CHROMIUM, TOKEN, asking, opened, start, url
from tests.service.process import Server, Servers, kind, servers

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing.browser() as made:
        yield made


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    for made in servers(tmp_path_factory.mktemp("page")):
        yield start(made)


@pytest.fixture
def pipes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    yield from servers(tmp_path_factory.mktemp("own"))


@pytest.fixture
def page(browser: Browser, pipe: Server) -> Iterator[Page]:
    complaints: list[str] = []
    with opened(browser, url(pipe), complaints) as made:
        yield made
    assert complaints == []


def card(page: Page, name: str) -> Any:
    return page.locator("section.card").filter(has=page.get_by_role("heading", name=re.compile(f"^{name} ")))


def test_the_overview_tells_how_each_kind_does(page: Page) -> None:
    expect(page.get_by_role("heading", name="Node truba")).to_be_visible()
    expect(page.get_by_text("takes sessions", exact=True)).to_be_visible()
    expect(card(page, "transfer").get_by_role("link", name="parked")).to_have_text("3parked")
    expect(card(page, "mail").get_by_text("handler takes nothing")).to_be_visible()
    expect(card(page, "mail").get_by_text(re.compile("^for "))).to_be_visible()
    expect(card(page, "mail").get_by_text(re.compile("^90 unfinished, (not becoming fewer|growing)"))).to_be_visible()
    expect(card(page, "report").get_by_text("handler has all it may")).to_be_visible()
    expect(card(page, "report").get_by_text("4 of 4")).to_be_visible()
    expect(card(page, "invoice").get_by_text("handler well")).to_be_visible()


def test_it_is_live(page: Page, pipe: Server) -> None:
    expect(card(page, "invoice").get_by_text("0 tried")).to_be_visible()
    with browsing.Wire.dial(pipe.address) as client:
        client.ask("STORE", client.ask("NEW", "10", "x"), "0")
    expect(card(page, "invoice").get_by_text("1 tried, 1 deleted")).to_be_visible()


def test_sessions_are_searched_and_paged(page: Page) -> None:
    page.get_by_role("navigation").get_by_role("link", name="Sessions").click()
    page.get_by_role("combobox", name="kind").select_option(label="mail")  # not the overview's cards, still there
    page.get_by_label("phase").select_option("stored")
    page.get_by_role("button", name="Search").click()
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(50)
    expect(page).to_have_url(re.compile(r"#/sessions\?kind=8&phase=stored$"))
    page.get_by_role("button", name="More").click()
    expect(rows).to_have_count(90)
    expect(page.get_by_text("90 shown, that is all")).to_be_visible()
    page.get_by_label("due").select_option("now")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_text("30 shown, that is all")).to_be_visible()
    page.go_back()
    expect(page.get_by_text("50 shown, and perhaps more")).to_be_visible()


def test_one_session_by_keyboard_alone(page: Page, pipe: Server) -> None:
    with asking(pipe) as admin:
        number = admin.get("/v1/sessions", params={"phase": "parked"}).json()["sessions"][0]["id"]
    expect(page.get_by_role("heading", name="Node truba")).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type(number)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=f"Session {number} parked")).to_be_visible()
    expect(page.get_by_text("Parked: its limits are exhausted")).to_be_visible()
    expect(page.locator(".history li")).to_have_count(2)
    expect(page.locator(".history li").nth(1)).to_contain_text("local:tests.admin.handlers:fails (epoch 1)")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Show contents":
            break
    page.keyboard.press("Enter")
    expect(page.get_by_text("debit 5 from A")).to_be_visible()
    expect(page.get_by_text(re.compile("^00 ff 3"))).to_be_visible()


def test_a_session_whose_kind_has_a_codec_shows_what_that_allows(browser: Browser, pipes: Servers) -> None:
    server = pipes.start(ADMIN + kind(codec="tests.admin.handlers:MARKUP") + kind(8, "mail"))
    with browsing.Wire.dial(server.address) as client:
        typed = client.ask("NEW", "7", b'{"step":"debit","from":"hidden"}', b"hidden").decode()
        plain = client.ask("NEW", "8", b"hidden").decode()
    complaints: list[str] = []
    with opened(browser, f"{url(server)}/#/session/{typed}", complaints) as page:
        cells = page.locator("td[data-title='Shown by its codec']")
        expect(cells).to_have_text(["<img src=x> debit", "6 bytes, not readable by the codec"])
        assert page.locator("main img").count() == 0
        expect(page.get_by_role("button", name="Show contents")).to_have_count(0)
        assert "hidden" not in page.content()
        page.goto(f"{url(server)}/#/session/{plain}")
        page.get_by_role("button", name="Show contents").click()
        expect(page.locator("td[data-title='Contents']")).to_have_text("hidden")
    assert complaints == []


def test_hostile_text_stays_text(page: Page) -> None:
    page.get_by_role("navigation").get_by_role("link", name="Parked").click()
    expect(page.locator("tbody tr")).to_have_count(3)
    expect(page.locator("tbody")).to_contain_text("<img src=x onerror=")
    page.locator("tbody a").first.click()
    expect(page.locator(".history")).to_contain_text("<img src=x")
    assert page.locator("main img, main script").count() == 0
    assert "owned" not in page.title()


def test_a_search_that_makes_no_sense_is_told(page: Page, browser: Browser, pipe: Server) -> None:
    complaints: list[str] = []
    for where, told in (
        ("#/session/1-9999", "no session 1-9999: it is finished, or never was"),
        ("#/session/%3Cb%3E", "not an id: '<b>'"),
    ):
        with opened(browser, url(pipe) + "/" + where, complaints) as other:
            expect(other.get_by_text(told)).to_be_visible()
    assert all("404" in said or "400" in said for said in complaints)  # the browser itself tells of those


def test_pause_and_continue(page: Page) -> None:
    mail = card(page, "mail")
    mail.get_by_role("button", name="Pause").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Nothing of this kind is handed over")
    page.keyboard.press("Escape")
    expect(mail.get_by_role("button", name="Pause")).to_be_visible()
    mail.get_by_role("button", name="Pause").click()
    dialog.get_by_role("button", name="Do it").click()
    expect(mail.get_by_text("paused", exact=True)).to_be_visible()
    expect(page.get_by_text("mail is paused")).to_be_visible()
    mail.get_by_role("button", name="Continue").click()
    expect(mail.get_by_text("handler takes nothing")).to_be_visible()


def test_resume_due_and_delete(browser: Browser, pipes: Servers) -> None:
    server, complaints = start(pipes), list[str]()
    with opened(browser, url(server) + "/#/sessions?phase=parked", complaints) as page:
        row = page.locator("tbody tr").first
        row.get_by_role("button", name="Resume").click()
        expect(page.locator("#said")).to_contain_text("is resumed")
        expect(row).to_contain_text("resumed")
        page.goto(url(server) + "/#/sessions?kind=8&due=false")
        page.locator("tbody a").first.click()
        page.get_by_label("seconds from now").fill("7200")
        page.get_by_role("button", name="Due in so many seconds").click()
        expect(
            page.get_by_text(re.compile("It is to be handed to truba://127.0.0.1:1 in (2 h|120 min)"))
        ).to_be_visible()
        page.get_by_label("seconds from now").fill("")
        page.get_by_role("button", name="Due in so many seconds").click()
        expect(page.locator("#said")).to_contain_text("nothing was changed")
        expect(
            page.get_by_text(re.compile("It is to be handed to truba://127.0.0.1:1 in (2 h|1.. min)"))
        ).to_be_visible()
        page.get_by_role("button", name="Deliver now").click()
        expect(page.get_by_text(re.compile("^It came due"))).to_be_visible()
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Do it").click()
        expect(page.get_by_text("it is finished, or never was")).to_be_visible()
        page.goto(url(server))
        transfer = card(page, "transfer")
        transfer.get_by_role("button", name=re.compile("Resume . parked")).click()
        page.get_by_role("dialog").get_by_role("button", name="Do it").click()
        expect(transfer.get_by_text(re.compile("[67] tried"))).to_be_visible()
    (refused,) = (said for said in complaints if "404" not in said)
    assert "400" in refused  # of no seconds at all


def test_it_says_when_the_pipe_is_gone(browser: Browser, pipes: Servers) -> None:
    server = pipes.start('[admin]\nlisten = "127.0.0.1:0"\n' + kind())
    complaints: list[str] = []
    with opened(browser, url(server), complaints) as page:
        expect(page.get_by_text(re.compile("^live, "))).to_be_visible()
        server.kill()
        expect(page.get_by_text("the pipe does not answer; trying again")).to_be_visible()
    assert all("ERR_" in said for said in complaints)


def test_a_token_is_asked_for_and_kept_in_the_tab(browser: Browser, pipes: Servers) -> None:
    (pipes.directory / "token").write_text(TOKEN)
    server = pipes.start('[admin]\nlisten = "127.0.0.1:0"\ntoken_file = "token"\n' + kind())
    complaints: list[str] = []
    with opened(browser, url(server), complaints) as page:
        field = page.get_by_role("textbox", name="Token")
        field.fill("wrong")
        page.keyboard.press("Enter")
        expect(field).to_have_value("")
        field.fill(TOKEN)
        page.get_by_role("button", name="Go on").click()
        expect(page.get_by_role("heading", name="Node truba")).to_be_visible()
        page.reload()
        expect(page.get_by_role("heading", name="Node truba")).to_be_visible()
        assert page.context.cookies() == []
    assert all("401" in said for said in complaints)


@pytest.mark.parametrize("where", ["", "#/sessions", "#/sessions?phase=parked", "#/session/1-5"])
def test_on_a_phone_nothing_is_cut_off(browser: Browser, pipe: Server, where: str) -> None:
    complaints: list[str] = []
    with opened(browser, f"{url(pipe)}/{where}", complaints, viewport={"width": 360, "height": 740}) as page:
        expect(page.get_by_text(re.compile("^live, "))).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        small = page.evaluate(
            "[...document.querySelectorAll('button')].filter(b => b.offsetParent && b.offsetHeight < 40).length"
        )
        assert small == 0  # a thumb can press them


CONTRAST = """
() => {
  const channel = c => { c /= 255; return c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4; };
  const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(Number);
    return .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b); };
  const back = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$/.test(c) && c !== 'transparent') return c; } return 'rgb(255,255,255)'; };
  const poor = [];
  for (const e of document.querySelectorAll('main *, header *')) {
    if (!e.offsetParent || ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(back(e))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) poor.push(`${e.tagName} ${e.className} ${e.textContent.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return poor;
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("where", ["", "#/sessions?phase=parked", "#/session/1-5"])
def test_it_can_be_read_by_day_and_by_night(browser: Browser, pipe: Server, scheme: str, where: str) -> None:
    """Contrast of 4.5 to 1 (WCAG AA) for every text that is shown."""
    complaints: list[str] = []
    with opened(browser, f"{url(pipe)}/{where}", complaints, color_scheme=scheme) as page:
        expect(page.get_by_text(re.compile("^live, "))).to_be_visible()
        assert page.evaluate(CONTRAST) == []
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (back == "rgb(18, 23, 26)") is (scheme == "dark")
