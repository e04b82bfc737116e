"""The page in a real browser: nothing of a hostile text runs, and a reader sees the curves."""

import re
import shutil
import threading
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from finished_suites import make_facts, make_hostile_suite, make_mixed_suite, make_report, make_suite
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from fgvalidate.page import write_page, write_run_page

OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    "--window-size=1100,900",
)
COUNT_ELEMENTS = "return document.querySelectorAll(arguments[0]).length"
MEASURE = """
const box = document.querySelector(arguments[0]).getBoundingClientRect();
return [box.width, box.height];
"""
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')


class Canary:
    """A web server on this machine that notes what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def list_asked(self) -> list[str]:
        """Returns what was asked of it until a last question, which it has answered."""
        urllib.request.urlopen(f"{self.address}/last").close()
        return [path for path in self.asked if path != "/last"]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def find_program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.fail(f"{name} is missing: apt-get install -y --no-install-recommends chromium chromium-driver")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = find_program("chromium")
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service(find_program("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def canary() -> Iterator[Canary]:
    canary = Canary()
    yield canary
    canary.close()


def attack(address: str) -> str:
    """Returns a text that tells the canary and changes the page, if any part of it is taken for markup."""
    run = f"document.title='owned';fetch('{address}/script')"
    return "".join(
        (
            f"<script>{run}</script>",
            f'<img src="{address}/image" onerror="{run}">',
            f"</style></title></pre></textarea><script>{run}</script>",
            f'<link rel="stylesheet" href="{address}/style"><iframe src="{address}/frame"></iframe>',
            f'<svg onload="{run}"><image href="{address}/svg"/></svg>',
            f"<style>body {{ background: url({address}/background) }}</style>",
            f'" onmouseover="{run}" style="background: url({address}/attribute)" autofocus onfocus="{run}',
            f'<meta http-equiv="refresh" content="0; url={address}/refresh"><base href="{address}">',
        )
    )


def open_page(browser: Chrome, path: Path) -> str:
    """Opens a page and returns its title when it is loaded and painted, and what it started has had its turn."""
    browser.get(path.as_uri())
    browser.execute_async_script(
        "requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(arguments[0], 0)))"
    )
    return str(browser.title)


def read_complaints(browser: Chrome, path: Path) -> list[str]:
    """Returns what the browser has to say of a page, such as what its policy has stopped."""
    entries = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return [entry["message"] for entry in entries if path.as_uri() in entry["message"]]


def write_attacked_page(path: Path, text: str) -> None:
    report = make_report(
        "failed", text, test_id=text, command=text, stderr_tail=(text,), server_log_tail=(text,), advice=(text,)
    )
    facts = make_facts(**{"inference.texts": [text, text], "inference.scorer": text, "host.name": text})
    write_run_page(path, report, facts)


def test_missing_browser_is_a_failure_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    with pytest.raises(pytest.fail.Exception, match=r"^chromium is missing: apt-get install .* chromium-driver$"):
        find_program("chromium")


def test_page_runs_nothing_and_asks_for_nothing(browser: Chrome, canary: Canary, tmp_path: Path) -> None:
    write_attacked_page(tmp_path / "report.html", attack(canary.address))

    title = open_page(browser, tmp_path / "report.html")

    assert title.startswith("Failed: <script>document.title='owned'")
    assert canary.list_asked() == []
    assert browser.execute_script(COUNT_ELEMENTS, "script, iframe, img, link, base, image, [onload], [onerror]") == 0
    assert browser.execute_script(COUNT_ELEMENTS, "style") == 1
    assert read_complaints(browser, tmp_path / "report.html") == []


def test_page_runs_nothing_by_its_escaping_alone(browser: Chrome, canary: Canary, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_attacked_page(path, attack(canary.address))
    path.write_text(POLICY.sub("", path.read_text(encoding="utf-8"), count=1), encoding="utf-8")

    title = open_page(browser, path)

    assert title.startswith("Failed: <script>document.title='owned'")
    assert canary.list_asked() == []


def test_policy_alone_stops_what_is_not_escaped(browser: Chrome, canary: Canary, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_attacked_page(path, "harmless")
    run = (
        f"<script>document.title='owned'</script><img src='{canary.address}/image' onerror=\"document.title='owned'\">"
    )
    path.write_text(path.read_text(encoding="utf-8").replace("<main>", f"<main>{run}"), encoding="utf-8")

    title = open_page(browser, path)

    assert title == "Failed: harmless"
    assert canary.list_asked() == []
    assert len(read_complaints(browser, path)) >= 2


def test_attack_works_on_a_page_that_does_neither(
    browser: Chrome, canary: Canary, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    path = tmp_path / "open.html"
    path.write_text(f"<title>closed</title><body>{attack(canary.address)}", encoding="utf-8")

    browser.get(path.as_uri())

    wait_until(lambda: {"/image", "/script"} <= set(canary.asked))


def test_suite_of_hostile_texts_runs_nothing(browser: Chrome, tmp_path: Path) -> None:
    write_page(tmp_path / "report.html", make_hostile_suite(tmp_path / "suite"))

    title = open_page(browser, tmp_path / "report.html")

    assert title == "Failed: 10 specs: 10 failed"
    assert browser.execute_script(COUNT_ELEMENTS, "script") == 0
    for link in browser.execute_script("return [...document.querySelectorAll('a')].map(link => link.href)"):
        assert link.startswith(tmp_path.as_uri())
    assert read_complaints(browser, tmp_path / "report.html") == []


def test_clicking_every_link_of_a_hostile_page_runs_nothing(browser: Chrome, tmp_path: Path) -> None:
    write_page(tmp_path / "report.html", make_hostile_suite(tmp_path / "suite"))
    open_page(browser, tmp_path / "report.html")

    browser.execute_script("for (const link of document.querySelectorAll('a[href^=\"#\"]')) link.click()")

    assert browser.title == "Failed: 10 specs: 10 failed"


def test_curve_is_seen_with_its_bound_and_its_marks(browser: Chrome, tmp_path: Path) -> None:
    write_page(tmp_path / "report.html", make_mixed_suite(tmp_path / "suite"))
    open_page(browser, tmp_path / "report.html")

    curve, bound, mark = (
        browser.execute_script(MEASURE, f"#spec-1 {part}")
        for part in (".series.loss .line", ".series.bound .line", ".series.unshown .dot")
    )

    assert curve[0] > 100
    assert curve[1] > 10
    assert bound[0] > 300
    assert mark[0] > 3
    assert browser.execute_script("return document.querySelector('#spec-1 .series.loss .line').getTotalLength()") > 100
    stroke = "return getComputedStyle(document.querySelector(arguments[0])).stroke"
    strokes = [browser.execute_script(stroke, f"#spec-1 .series.{kind} .line") for kind in ("loss", "bound")]
    assert "none" not in strokes
    assert strokes[0] != strokes[1]
    assert read_complaints(browser, tmp_path / "report.html") == []


def test_link_of_a_row_opens_its_section(browser: Chrome, tmp_path: Path) -> None:
    write_page(tmp_path / "report.html", make_mixed_suite(tmp_path / "suite"))
    open_page(browser, tmp_path / "report.html")
    is_open = "return document.querySelector('#spec-0').closest('details').open"
    before = browser.execute_script(is_open)

    browser.execute_script("document.querySelector('a[href=\"#spec-0\"]').click()")
    open_after = browser.execute_async_script(
        "requestAnimationFrame(() => arguments[0](document.querySelector('#spec-0').closest('details').open))"
    )

    assert (before, open_after) == (False, True)


@pytest.mark.parametrize("width", [360, 1100])
def test_page_is_no_wider_than_the_window(browser: Chrome, tmp_path: Path, width: int) -> None:
    report = make_report("failed", "x" * 500, command="y" * 500, stderr_tail=("z" * 500,))
    suite = make_suite(tmp_path / "suite", (report, make_facts()), ending="completed")
    write_page(tmp_path / "report.html", suite)
    screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)

    try:
        open_page(browser, tmp_path / "report.html")

        root = "document.documentElement"
        hidden = browser.execute_script(f"return {root}.scrollWidth - {root}.clientWidth")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    assert hidden == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(browser: Chrome, tmp_path: Path, scheme: str) -> None:
    write_page(tmp_path / "report.html", make_mixed_suite(tmp_path / "suite"))
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    try:
        open_page(browser, tmp_path / "report.html")
        style = "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]"
        ink, paper = (sum(map(int, re.findall(r"\d+", colour))) / 3 for colour in browser.execute_script(style))
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})

    assert (ink < 60, paper > 230) == ((True, True) if scheme == "light" else (False, False))
    assert abs(ink - paper) > 180


def test_closed_sections_are_printed(browser: Chrome, tmp_path: Path) -> None:
    write_page(tmp_path / "report.html", make_mixed_suite(tmp_path / "suite"))
    open_page(browser, tmp_path / "report.html")
    is_visible = "return document.querySelector('#spec-0 .pygal-chart').checkVisibility()"
    before = browser.execute_script(is_visible)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})

    try:
        printed = browser.execute_script(is_visible)
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})

    assert (before, printed) == (False, True)
