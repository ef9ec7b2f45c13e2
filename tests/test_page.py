"""The page in a browser, where one is installed: nothing sticks out, on a desk or on a phone."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest
from fake_runs import Fake, study

from pipeline import reporting

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DESK, PHONE = 1280, 390
EDITORS = ("ft", "ft_kl", "enn", "ke", "mend", "cache", "malmen")
# Each frame is a window of its own to the page inside: narrower than browsers' windows can be.
MEASURE = """
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map((frame) => {
    const root = frame.contentDocument.documentElement;
    root.querySelectorAll("details").forEach((one) => (one.open = true));
    const clear = (one) => !one.closest(".frame");
    const right = (one) => one.getBoundingClientRect().right;
    return {
      window: frame.contentWindow.innerWidth,
      page: root.scrollWidth,
      furthest: Math.max(...[...root.querySelectorAll("body *")].filter(clear).map(right)),
      frames: Math.max(...[...root.querySelectorAll(".frame")].map(right)),
      drawings: Math.min(...[...root.querySelectorAll("figure svg")].map((one) => one.clientWidth)),
      text: root.innerText.length,
    };
  });
  document.title = JSON.stringify(found);
});
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, dict[str, float]], str]:
    """What a browser measured of a page with seven editors, by window, and what it logged."""
    if BROWSER is None:
        pytest.skip("no browser is installed")
    folder = tmp_path_factory.mktemp("page")
    runs = [
        Fake(bench, alg, 0.1 * i, 0.1, adapts=alg == "enn", notes={"peak_rss_mb": 900.0})
        for bench in ("counterfact", "wikitext")
        for i, alg in enumerate(EDITORS)
    ]
    reporting.write_report(study(folder / "runs", "main", runs, 12), folder)
    page = html.escape((folder / "report.html").read_text())
    frames = "".join(
        f'<iframe style="width:{width}px;height:900px;border:0" srcdoc="{page}"></iframe>'
        for width in (DESK, PHONE)
    )
    outer = folder / "outer.html"
    outer.write_text(f"<!DOCTYPE html><meta charset=utf-8>{frames}<script>{MEASURE}</script>")
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            f"--user-data-dir={folder / 'profile'}", "--no-first-run", "--dump-dom",
            outer.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    if not title:
        pytest.skip("the installed browser does not run here")
    desk, phone = json.loads(html.unescape(title.group(1)))
    return {"desk": desk, "phone": phone}, done.stderr


@pytest.mark.parametrize(("window", "width"), [("desk", DESK), ("phone", PHONE)])
def test_nothing_sticks_out(
    seen: tuple[dict[str, dict[str, float]], str], window: str, width: int
) -> None:
    found = seen[0][window]
    assert found["window"] == width
    assert found["text"] > 3000
    assert found["page"] <= width
    assert found["furthest"] <= width
    assert found["frames"] <= width  # tables scroll inside
    assert found["drawings"] > 320  # of 4.6 inches, 9 point letters


def test_the_browser_has_nothing_to_complain_of(
    seen: tuple[dict[str, dict[str, float]], str],
) -> None:
    assert not re.findall(r"^.*CONSOLE.*$", seen[1], re.MULTILINE)
