"""A real pipe with something to see, and a real browser to see it with: Debian's chromium, driven by playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from tests.service.process import Server, Servers, kind
from tests.service.wire import Wire

CHROMIUM = shutil.which("chromium")
TOKEN = "0123456789abcdef-token"

ADMIN = '[admin]\nlisten = "127.0.0.1:0"\nshow_records = true\n'

CONFIG = "".join(
    [
        ADMIN,
        kind(7, "transfer", "local:tests.admin.handlers:fails", max_attempts=1),
        kind(8, "mail"),
        kind(9, "report", "local:tests.admin.handlers:holds", concurrency=4),
        kind(10, "invoice", "local:tests.admin.handlers:finishes", concurrency=2),
    ]
)


def start(pipes: Servers, config: str = CONFIG) -> Server:
    """A pipe with 3 parked, 30 due whose handler is not there, 4 at work, 60 stored for later, one active."""
    server = pipes.start(config)
    fill(server)
    return server


def fill(server: Server) -> None:
    with Wire.dial(server.address) as client:
        for number, count, seconds in ((7, 3, "0"), (8, 30, "0"), (9, 6, "0"), (8, 60, "86400")):
            for at in range(count):
                made = client.ask("NEW", str(number), b"debit 5 from A", b"\x00\xff%d" % at)
                client.ask("STORE", made, seconds)
    with asking(server) as admin:
        while admin.get("/v1/kinds/7").json()["phases"]["parked"] < 3:
            pass


def asking(server: Server) -> httpx.Client:
    return httpx.Client(base_url=url(server), timeout=20)


def url(server: Server) -> str:
    return f"http://{server.ready['admin']}"


@contextmanager
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # As root it has no sandbox of its own; what it is shown comes from a pipe on this machine.
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield made
        finally:
            made.close()


@contextmanager
def opened(browser: Browser, address: str, complaints: list[str], **options: object) -> Iterator[Page]:
    """A tab; whatever the browser complains of (errors, refusals of the policy) goes into `complaints`."""
    context = browser.new_context(**options)  # type: ignore[arg-type]
    page = context.new_page()
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.set_default_timeout(20_000)
    page.goto(address)
    try:
        yield page
    finally:
        context.close()
