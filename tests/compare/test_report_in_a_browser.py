"""The report in headless Chromium: no page is wider than its window, on a phone and on a desk, in either language."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from study_builder import SWEEP, build_study

from pronk.compare.report import render

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = (380, 1400)


def widths(page: Path, name: str) -> list[tuple[int, int]]:
    """How wide the content of a page is, and how wide the window, for each of the widths."""
    frames = "".join(f'<iframe src="{name}" style="width:{width}px;height:900px"></iframe>' for width in WIDTHS)
    script = """onload = () => { for (const frame of document.querySelectorAll("iframe")) {
      const root = frame.contentDocument.documentElement;
      document.body.append(`[${root.scrollWidth} of ${root.clientWidth}]`); } }"""
    page.write_text(f"<body>{frames}<script>{script}</script></body>", encoding="utf-8")
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
        f"--user-data-dir={page.parent / 'profile'}", "--virtual-time-budget=5000", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    seen = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    return [(int(wide), int(room)) for wide, room in re.findall(r"\[(\d+) of (\d+)\]", seen)]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_the_page_never_scrolls_sideways(tmp_path: Path) -> None:
    folder = build_study(tmp_path / "study", items=20, runs=tuple(SWEEP)[:4], hostile=True, validation=True)
    for code in ("en", "ko"):
        (tmp_path / "report.html").write_text(render(folder, code), encoding="utf-8")
        found = widths(tmp_path / f"probe-{code}.html", "report.html")
        assert len(found) == len(WIDTHS)
        assert all(wide <= room for wide, room in found), found
    too_wide = render(folder).replace("<main>", '<main><div style="width:500px">wide</div>')
    (tmp_path / "wide.html").write_text(too_wide, encoding="utf-8")
    phone, desk = widths(tmp_path / "probe-wide.html", "wide.html")
    assert phone[0] > phone[1]  # the check sees a page that is too wide for a phone
    assert desk[0] <= desk[1]
