"""Pictures of the web page for the documentation: `python -m tests.admin.pictures` writes docs/pictures/."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.admin.browser import CONFIG, asking, browser, opened, start, url
from tests.service.process import servers
from tests.service.wire import Wire

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
WIDE = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2}


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        for pipes in servers(Path(directory)):
            server = start(pipes, CONFIG.replace(":fails", ":refuses"))
            with Wire.dial(server.address) as client:  # something that is being worked off
                for _ in range(1200):
                    client.ask("STORE", client.ask("NEW", "10", b"x" * 300), "0")
            with asking(server) as admin, browser() as made:
                parked = admin.get("/v1/sessions", params={"phase": "parked"}).json()["sessions"][0]["id"]
                for name, where, options in (
                    ("overview", "", WIDE | {"color_scheme": "light"}),
                    ("overview-dark", "", WIDE | {"color_scheme": "dark"}),
                    ("sessions", "#/sessions?kind=8", WIDE),
                    ("session", f"#/session/{parked}", WIDE),
                    ("phone", "", PHONE),
                ):
                    with opened(made, f"{url(server)}/{where}", [], **options) as page:
                        page.get_by_text("live, ").wait_for()
                        page.wait_for_timeout(4500)  # for a rate to be known, and a line to be drawn
                        page.screenshot(path=PICTURES / f"{name}.png")


if __name__ == "__main__":
    main()
