"""The report: self-contained, escaped, complete, and right in its figures."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import numpy as np
import pytest
from markupsafe import Markup
from study_builder import HOSTILE, build_study

from pronk.compare import charts, report, templates, words
from pronk.compare.conclusion import conclusion
from pronk.compare.pairs import compare_study
from pronk.compare.report import write_report
from pronk.errors import StudyError

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """The page as a browser sees it: its elements, whether they nest, and its text without the style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def section(self, title: str) -> bool:
        return ("section", {"id": title}) in [(tag, {"id": a.get("id")}) for tag, a in self.tags]


def page_of(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


def dangers(page: Page) -> list[str]:
    """Elements and attributes that run code or load something, wherever they come from."""
    tags = {"script", "img", "iframe", "object", "embed", "link", "base", "form", "image", "foreignobject"}
    found = [tag for tag, _ in page.tags if tag in tags]
    for tag, attributes in page.tags:
        found += [f"{tag} {key}" for key in attributes if key.startswith("on") or key in ("src", "srcset", "action")]
        found += [f"{tag} {v}" for k, v in attributes.items() if k.endswith("href") and not (v or "").startswith("#")]
    return found


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with its comparisons and its report written."""
    folder = build_study(tmp_path_factory.mktemp("full"), items=300, failed=True)
    study = json.loads((folder / "study.json").read_text())
    study["comparisons"] = compare_study(folder)
    (folder / "study.json").write_text(json.dumps(study))
    write_report(folder)
    return folder


def html_of(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_study(tmp_path_factory.mktemp("hostile"), items=40, hostile=True, failed=True)


def assert_harmless(html: str) -> Page:
    page = Page(html)
    assert dangers(page) == []
    assert page.open == []  # every element is closed by its own end tag: no text broke out of its place
    return page


def test_hostile_text_is_shown_and_never_run(hostile: Path) -> None:
    page = assert_harmless(write_report(hostile).read_text(encoding="utf-8"))
    for text in HOSTILE:
        assert text in page.text
    assert 'qv-2"><img src=x onerror=alert(1)><script>alert(1)' in page.text


def forget_templates() -> None:
    templates.template.cache_clear()
    templates._environment.cache_clear()


def test_the_check_sees_a_template_that_does_not_escape(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(**settings: object) -> jinja2.Environment:
        return jinja2.Environment(**{**settings, "autoescape": False})

    with monkeypatch.context() as patch:
        patch.setattr(templates, "Environment", careless)
        forget_templates()
        html = report.render(hostile)
    forget_templates()
    with pytest.raises(AssertionError):
        assert_harmless(html)


def test_the_page_loads_nothing_and_runs_nothing(full: Path) -> None:
    html = html_of(full)
    assert dangers(Page(html)) == []
    assert not re.search(r"url\((?!#)|@import|@font-face", html)
    # namespaces of the SVG are names, not addresses that anything fetches
    assert re.sub(r'xmlns(:xlink)?="[^"]*"', "", html).count("http") == 0


def test_ids_are_unique_and_references_resolve(full: Path) -> None:
    html = html_of(full)
    ids = re.findall(r'\bid="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    referred = set(re.findall(r'(?:url\(|href=")#([^")]*)', html))
    assert referred
    assert referred <= set(ids)


def test_the_conclusion_says_what_the_comparison_found(full: Path) -> None:
    study = json.loads((full / "study.json").read_text())
    comparisons = study["comparisons"]
    best = max(study["runs"][1:6], key=lambda run: run["metrics"]["accuracy"])
    entry = next(c for c in comparisons if (c["a"], c["b"], c["metric"]) == ("smollm2", best["name"], "accuracy"))
    low, high = entry["interval"]
    first = (
        f"{best['name']} answers {best['metrics']['accuracy']:.3f} of 300 test items correctly, the base "
        f"{study['runs'][0]['metrics']['accuracy']:.3f}: a difference of +{entry['difference']:.3f} "
        f"(95% interval +{low:.3f} to +{high:.3f}), more than chance explains."
    )
    ties = sum(c["verdict"] == "tie" for c in comparisons)
    text = Page(html_of(full)).text
    assert first in text
    assert f"Of {len(comparisons)} differences tested, {ties} are ties." in text
    assert "1 run did not finish." in text


def test_every_section_is_there_and_the_failed_run_says_why(full: Path) -> None:
    page = Page(html_of(full))
    sections = [
        "ranking",
        "comparisons",
        "curves",
        "confusion",
        "classes",
        "quality",
        "axes",
        "grid",
        "flips",
        "settings",
        "cost",
        "data",
        "method",
    ]
    assert [title for title in sections if not page.section(title)] == []
    assert "all-linear-hot failed: the loss was not finite at step 31" in page.text
    assert "duplicates removed14" in page.text.replace("\n", "")
    assert "shares training with qv-2" in page.text
    assert "NVIDIA H200" in page.text


def test_the_ranking_is_by_accuracy_and_keeps_the_failed_run_last(full: Path) -> None:
    study = json.loads((full / "study.json").read_text())
    finished = [run for run in study["runs"] if run["status"] == "finished"]
    expected = [run["name"] for run in sorted(finished, key=lambda run: -run["metrics"]["accuracy"])]
    section = html_of(full).split('id="ranking"')[1].split("</table>")[0]
    assert re.findall(r'<th scope="row">([\w-]+)', section) == [*expected, "all-linear-hot"]


def test_flips_and_confusions_count_as_a_plain_loop_does(full: Path) -> None:
    study = json.loads((full / "study.json").read_text())
    best = max(study["runs"][1:6], key=lambda run: run["metrics"]["accuracy"])["name"]

    def rows(name: str) -> list[dict]:
        lines = (full / "runs" / name / "items" / "classify.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    right = {name: [row["predicted"] == row["label"] for row in rows(name)] for name in ("smollm2", best)}
    fixed = sum(now and not was for was, now in zip(right["smollm2"], right[best], strict=True))
    broken = sum(was and not now for was, now in zip(right["smollm2"], right[best], strict=True))
    page = Page(html_of(full))
    assert f"Fixed: {fixed}" in page.text
    assert f"Broken: {broken}" in page.text
    html = html_of(full)
    generated = html.split("Confusion matrix of smollm2, From generated")[1].split("</table>")[0]
    cells = [int(count) for count in re.findall(r'class="cell[^>]*>(\d+)<', generated)]
    assert sum(cells) == 300
    assert sum(cells[3::4]) == sum(row["generated_label"] is None for row in rows("smollm2")) > 0


def test_at_most_thirty_flips_are_shown(full: Path) -> None:
    group = html_of(full).split("<b>Fixed:")[1].split("</details>")[0]
    assert group.count('class="text"') == 30
    assert "the first 30" in group


def test_a_study_without_classification_speaks_of_loss(tmp_path: Path) -> None:
    page = page_of(build_study(tmp_path, items=60, classify=False))
    assert "nats per target token on 60 test items" in page.text
    assert not page.section("confusion")
    assert not page.section("flips")
    assert "lower is better" in page.text


@pytest.mark.parametrize(("runs", "baseline"), [(("qv-2",), True), (("qv-2",), False), ((), True), ((), False)])
def test_small_studies_render(tmp_path: Path, runs: tuple[str, ...], baseline: bool) -> None:
    page = page_of(build_study(tmp_path, items=20, runs=runs, baseline=baseline))
    assert page.open == []
    expected = "the base was not evaluated" if runs and not baseline else "test items" if runs else "No tuned run"
    assert expected in page.text
    assert page.section("comparisons") == (bool(runs) and baseline)


@pytest.mark.parametrize(("code", "many", "one"), [("en", "Many comparisons.", "One comparison."),
                                                    ("ko", "여러 번의 비교.", "한 번의 비교.")])  # fmt: skip
@pytest.mark.parametrize("count", [0, 1, 2])
def test_how_comparisons_are_judged_is_said_of_as_many_as_there_are(
    tmp_path: Path, count: int, code: str, many: str, one: str
) -> None:
    folder = build_study(tmp_path, items=40, runs=("qv-2",))
    study = json.loads((folder / "study.json").read_text())
    study["comparisons"] = compare_study(folder)[:count]
    (folder / "study.json").write_text(json.dumps(study))
    page = report.render(folder, code)
    assert (many in page, one in page) == (count > 1, count == 1)
    assert not re.search("all [01] comparison|비교 [01]건 전체", page)


def test_a_run_with_nothing_but_a_name_is_shown(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text('{"runs": [{"name": "lonely"}]}')
    page = page_of(tmp_path)
    assert "lonely" in page.text
    assert not page.section("curves")


def test_comparisons_are_taken_from_the_study_where_it_has_them(tmp_path: Path) -> None:
    folder = build_study(tmp_path, items=40, runs=("qv-2",))
    study = json.loads((folder / "study.json").read_text())
    study["comparisons"] = compare_study(folder)
    study["comparisons"][0] |= {"p_value": 0.123, "p_adjusted": 0.456, "verdict": "tie"}
    (folder / "study.json").write_text(json.dumps(study))
    text = page_of(folder).text
    assert "0.456" in text
    among = f" among {len(study['comparisons'])} comparisons"  # else an interval without zero contradicts the tie
    assert f"which chance could explain{among}: a tie" in text
    study["comparisons"][0]["interval"] = [-0.1, 0.3]
    (folder / "study.json").write_text(json.dumps(study))
    assert "which chance could explain: a tie" in page_of(folder).text


def test_the_same_study_gives_the_same_page_with_or_without_its_comparisons_stored(full: Path) -> None:
    study = json.loads((full / "study.json").read_text())
    before = html_of(full)
    del study["comparisons"]
    (full / "study.json").write_text(json.dumps(study))
    assert report.render(full) == before


def test_a_failing_write_leaves_the_old_page_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = build_study(tmp_path, items=20, runs=())
    (folder / "report.html").write_text("old")
    before = sorted(path.name for path in folder.iterdir())

    def refuse(source: str, target: Path) -> None:
        raise OSError(f"no space for {source} at {target}")

    monkeypatch.setattr("pronk.runs.os.replace", refuse)
    with pytest.raises(OSError, match="no space"):
        write_report(folder)
    monkeypatch.undo()
    assert (folder / "report.html").read_text() == "old"
    assert sorted(path.name for path in folder.iterdir()) == before
    write_report(folder)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_folder_that_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="there is no study"):
        write_report(tmp_path)


def test_charts_take_their_colours_from_the_page() -> None:
    lines = [charts.Curve(k, np.arange(5.0), np.linspace(2, 1, 5)) for k in range(10)]
    svg = charts.loss_chart(lines, "chart-x", points=True, labels=("epoch", "loss & more"))
    root = ElementTree.fromstring(svg)  # well-formed, with no prologue
    assert root.attrib["viewBox"].startswith("0 0 ")
    assert not {"width", "height"} & set(root.attrib)
    assert "epoch" in "".join(root.itertext())  # text, not outlines
    assert set(re.findall(r"#[0-9a-f]{6}\b", svg)) == set()
    assert {f"var(--series-{k})" for k in range(1, 9)} == set(re.findall(r"var\(--series-\d\)", svg))
    assert "currentColor" in svg
    assert "stroke-dasharray" in svg  # the ninth run has the first one's colour and dashes of its own
    assert svg == charts.loss_chart(lines, "chart-x", points=True, labels=("epoch", "loss & more"))


def test_smoothing_keeps_a_constant_and_calms_noise() -> None:
    assert charts.smooth(np.full(200, 1.5)) == pytest.approx(np.full(200, 1.5))
    assert charts.smooth(np.array([3.0, 1.0, 2.0])).tolist() == [3.0, 1.0, 2.0]  # too short to smooth
    noise = np.random.default_rng(0).normal(0, 1, 400)
    assert charts.smooth(noise)[50:].std() < 0.4


def test_losses_that_are_no_number_do_not_break_the_chart(tmp_path: Path) -> None:
    folder = build_study(tmp_path, items=20, runs=("qv-2",))
    with (folder / "runs" / "qv-2" / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 115, "epoch": 2.1, "loss": NaN}\n{"kind": "other"}\n')
    assert page_of(folder).section("curves")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (words.number(-0.0004), "0.000"),
        (words.number(-0.25, signed=True), "−0.250"),
        (words.number(1234.5, 1), "1,234.5"),
        (words.number(None), "–"),
        (words.p_value(0.0004), "< 0.001"),
        (words.p_value(0.0496), "0.0496"),
        (words.p_value(0.12345), "0.123"),
        (words.interval([-0.1, 0.2]), "−0.100 to +0.200"),
        (words.size(8_030_261_248), "8.0 B"),
        (words.size(999), "999"),
        (words.duration(59.94), "59.9 s"),
        (words.duration(145.2), "2 min 25 s"),
        (words.duration(3 * 3600 + 299), "3 h 04 min"),
        (words.memory(2**31), "2.0 GiB"),
        (words.setting(["q_proj", "v_proj"]), "q_proj, v_proj"),
        (words.setting(True), "true"),
        (words.metric_value("unparsable", 1234), "1,234"),
    ],
)
def test_figures_read_well(found: str, expected: str) -> None:
    assert found == expected


def test_names_in_the_conclusion_are_escaped_once() -> None:
    runs = [{"name": "<a&b>", "metrics": {"accuracy": 0.5}}]
    (sentence,) = conclusion(runs, [], 10)
    assert isinstance(sentence, Markup)
    assert "<b>&lt;a&amp;b&gt;</b>" in sentence


def test_the_room_loads_neither_torch_nor_what_takes_long() -> None:
    heavy = ("torch", "transformers", "sklearn", "pandas", "scipy.stats", "scipy.optimize")  # the last ones: 1.5 s
    code = f"import sys, pronk.compare.conclude; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
