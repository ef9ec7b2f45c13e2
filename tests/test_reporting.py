"""Reports: the same numbers everywhere, nothing fetched, nothing unsaid, the same bytes again."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from fake_runs import exact_row, outcomes, request

from pipeline import metrics, reporting
from pipeline.errors import DataError, SettingsError
from pipeline.reporting import blocks, columns, examples, html, markdown, published
from pipeline.reporting.blocks import DASH, MINUS, Cell, Table, short

EDITORS = {"ft": (0.7, 0.15), "mend": (0.95, 0.01)}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> reporting.Request:
    return request(tmp_path_factory.mktemp("runs"), EDITORS)


@pytest.fixture(scope="module")
def folder(told: reporting.Request, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("report")
    reporting.write_report(told, where)
    return where


def part(told: reporting.Request, benches: int) -> reporting.Request:
    """The same report over the first benchmarks alone."""
    runs = told.runs[: benches * len(EDITORS)]
    return replace(told, runs=runs, benches=told.benches[:benches])


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_file_is_there(folder: Path) -> None:
    found = set(files(folder))
    assert {"report.md", "report.html", "metrics.json"} <= found
    tables = {"base", "zsre", "fever", "wikitext", "counterfact", "pairs", "examples", "timings"}
    assert {f"tables/{name}.csv" for name in tables} <= found
    assert {"figures/success-zsre.svg", "figures/curve-zsre.svg"} <= found
    assert "tables/curves/zsre-mend.csv" in found
    assert "tables/curves/zsre-ft.csv" not in found  # it learned nothing by steps


def test_same_input_same_bytes(told: reporting.Request, folder: Path, tmp_path: Path) -> None:
    reporting.write_report(told, tmp_path)
    again, before = files(tmp_path), files(folder)
    assert list(again) == list(before)
    assert [name for name in again if again[name] != before[name]] == []


def test_leftovers_of_an_earlier_report_go(told: reporting.Request, tmp_path: Path) -> None:
    reporting.write_report(part(told, 2), tmp_path)
    assert "tables/fever.csv" in files(tmp_path)
    one = part(told, 1)
    (tmp_path / "tables" / "mine.txt").write_text("kept")
    reporting.write_report(one, tmp_path)
    left = set(files(tmp_path))
    assert "tables/fever.csv" not in left
    assert "figures/success-fever.svg" not in left
    assert "tables/mine.txt" in left


def test_numbers_agree_in_every_form(told: reporting.Request, folder: Path) -> None:
    run = next(run for run in told.runs if run.name == "zsre-mend")
    numbers = json.loads(run.metrics.read_text())["edit_success_rephrase"]
    shown = f"{numbers['value']:.3f}"
    table = pd.read_csv(folder / "tables" / "zsre.csv").set_index("editor")
    assert table.loc["mend", "edit_success_rephrase"] == pytest.approx(numbers["value"], rel=1e-5)
    assert table.loc["mend", "edit_success_rephrase_low"] == pytest.approx(numbers["low"], rel=1e-5)
    stored = json.loads((folder / "metrics.json").read_text())
    assert stored["zsre-mend"]["edit_success_rephrase"] == pytest.approx(numbers["value"], rel=1e-5)
    ends = stored["intervals"]["zsre-mend"]["edit_success_rephrase"]
    assert ends == pytest.approx([numbers["low"], numbers["high"]], rel=1e-5)
    row = f"| mend | {shown} [{numbers['low']:.3f}, {numbers['high']:.3f}] |"
    assert row in (folder / "report.md").read_text()
    assert f"{shown}<small>[{numbers['low']:.3f}" in (folder / "report.html").read_text()


def test_first_row_is_the_model_before_any_edit(told: reporting.Request, folder: Path) -> None:
    run = told.runs[0]
    before = metrics.unedited(pd.read_parquet(run.folder / "outcomes.parquet"))
    table = pd.read_csv(folder / "tables" / f"{run.bench}.csv")
    assert table.loc[0, "editor"] == "unedited model"
    expected = before["edit_success_rephrase"]["value"]
    assert table.loc[0, "edit_success_rephrase"] == pytest.approx(expected, rel=1e-5)
    assert math.isnan(table.loc[0, "accuracy_drawdown"])


def test_what_was_left_out_has_its_reason(folder: Path) -> None:
    text = (folder / "report.md").read_text()
    assert f"| rome | {DASH} | {DASH} |" in text
    assert f"rome: {DASH} because rome does not edit a classifier" in text
    assert "| editors.mend.rank | 256 | 128 |" in text
    assert "rate 0.0003: share reached 0.62, rate 0.001: share reached 0.97" in text
    assert "| 0.410 | 0.520 |" in text  # held-out FEVER, the majority baseline beside it


def test_readme_table_is_rebuilt_from_what_is_committed(folder: Path) -> None:
    text = reporting.readme_table(folder)
    report = (folder / "report.md").read_text()
    assert "**The unedited models**" in text
    assert text.count("| mend |") == 1 + 4  # all benchmarks in one table, and one table each
    overview = text.partition("**Edit success")[2].partition("- Drawdown")[0]
    assert overview in report
    rows = [line for line in text.splitlines() if line.startswith("| CounterFact |")]
    assert rows[0] in report
    assert f"rome: {DASH} because" in text
    assert "nan" not in text


def test_readme_table_needs_a_report(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"base\.csv"):
        reporting.readme_table(tmp_path)


def test_a_missing_table_is_named(told: reporting.Request, tmp_path: Path) -> None:
    lost = replace(told, runs=(replace(told.runs[0], folder=tmp_path / "nowhere"),))
    with pytest.raises(DataError, match="nowhere"):
        reporting.write_report(lost, tmp_path)
    assert not files(tmp_path)


def test_a_run_without_its_benchmark_is_refused(told: reporting.Request, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="zsre-ft"):
        reporting.write_report(replace(told, benches=told.benches[1:]), tmp_path)


class Page(HTMLParser):
    """What a page asks for, names, links to and leaves open."""

    VOID = frozenset({"meta", "br", "path", "use", "rect"})

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.ids += [given["id"]] if "id" in given else []
        self.links += [v for k, v in given.items() if k.endswith("href")]
        self.links += re.findall(r"url\(([^)]*)\)", " ".join(given.values()))
        self.fetched += [given["src"]] if "src" in given else []
        self.fetched += [tag] if tag in ("script", "link", "img", "iframe", "object") else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_page_is_whole_and_fetches_nothing(folder: Path) -> None:
    text = (folder / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.fetched == []
    assert all(link.startswith("#") for link in page.links)
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"|http-equiv', "", text)
    assert "url(" not in html.CSS
    assert "@import" not in html.CSS


def test_figures_have_axes_units_and_intervals(folder: Path) -> None:
    svg = (folder / "figures" / "success-zsre.svg").read_text()
    assert "Edit success on a rephrasing (share of cases)" in svg
    assert "Drawdown, accuracy (share of probes; lower is better)" in svg
    assert all(editor in svg for editor in EDITORS)
    assert "LineCollection" in svg  # error bars
    assert "date" not in svg
    assert "perplexity; lower is better" in (folder / "figures/success-wikitext.svg").read_text()


def test_published_numbers_only_for_the_same_setting(
    told: reporting.Request, folder: Path, tmp_path: Path
) -> None:
    assert "published:" not in (folder / "report.md").read_text()
    assert "No published numbers stand here" in (folder / "report.md").read_text()
    both = part(told, 2)
    benches = (replace(both.benches[0], paper="mend-table-4-zsre"), both.benches[1])
    reporting.write_report(replace(both, benches=benches), tmp_path)
    text = (tmp_path / "report.md").read_text()
    source = "published: Mitchell et al. 2022, Table 4, BART-base 139M"
    assert f"| mend {source} | 0.98 | {DASH} | {DASH} | 0.002 |" in text
    assert f"| ft {source} | 0.96 | {DASH} | {DASH} | \\<0.001 |" in text
    assert text.count(source) == 2  # on one benchmark, for the editors that were run


def test_a_setting_of_another_benchmark_is_refused(told: reporting.Request, tmp_path: Path) -> None:
    benches = (replace(told.benches[0], paper="mend-table-4-fever"), *told.benches[1:])
    with pytest.raises(SettingsError, match="fever"):
        reporting.write_report(replace(told, benches=benches), tmp_path)
    with pytest.raises(SettingsError, match="mend-table-4-zsre"):
        published.setting("mend-table-4-zrse", "zsre")


def test_published_tables_are_whole() -> None:
    settings = published.all_settings()
    assert len(settings) == 28
    for setting in settings.values():
        for editor, values in setting.rows.items():
            assert len(values) == len(setting.metrics), (setting.source, editor)
            assert all(re.fullmatch(r"[<>]?-?\d+(\.\d+)?(±\d+\.\d+)?", v) for v in values)


@pytest.mark.parametrize("key", ["rome-table-4-counterfact-gpt2-xl", "memit-counterfact-gpt-j"])
def test_published_scores_are_harmonic_means(key: str) -> None:
    """S is printed beside the three that it comes from: a slip in copying would show."""
    setting = published.setting(key, "counterfact")
    for editor in setting.rows:
        texts = [setting.value(editor, name) for name in ("S", "ES", "PS", "NS")]
        score, *parts = (float(str(text).partition("±")[0]) for text in texts)
        assert score == pytest.approx(3 / sum(1 / part for part in parts), abs=0.15)


def test_examples_show_success_and_failure_by_fixed_rules() -> None:
    good = [("edit", 0, 0, 1), ("rephrase", 0, 0, 1), ("unrelated", 0, 1, 1)]
    missed = [("edit", 0, 0, 1), ("rephrase", 0, 0, 0), ("unrelated", 0, 1, 1)]
    broke = [("edit", 0, 0, 1), ("rephrase", 0, 0, 1), ("unrelated", 0, 1, 1),
             ("unrelated", 1, 1, 0)]  # fmt: skip
    frame = pd.DataFrame(
        [
            exact_row(case, *probe)
            for case, probes in {"a": missed, "b": good, "c": broke, "d": good}.items()
            for probe in probes
        ]
    )
    chosen = dict(examples.choose({"mend": frame}))
    assert list(chosen) == ["b", "a", "c"]
    table = examples.table({"mend": frame}, "c", chosen["c"])
    assert table.rows[0][0].text == "before"
    assert [cell.detail for cell in table.rows[1]][1:] == ["✓", "✓", "✗, changed"]  # it broke


def test_editors_are_shown_on_the_cases_they_share() -> None:
    a, b = outcomes("zsre", "ft", 5, 0.5, 0.5), outcomes("zsre", "mend", 8, 0.5, 0.5)
    shared = examples.by_editor([("ft", a), ("mend", b)])
    assert shared["mend"]["case_id"].nunique() == 5
    apart = {"ft": a, "mend": b[~b["case_id"].isin(a["case_id"])]}
    assert examples.choose(examples.by_editor(list(apart.items()))) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.98765, "0.988"),
        (-0.0021, f"{MINUS}0.002"),
        (0.0004, "<0.001"),
        (-0.0004, "0.000"),
        (0.0, "0.000"),
        (12345.6, "12,346"),
        (234.56, "234.6"),
        (3.2e12, "3.2e12"),
        (math.inf, "∞"),
        (math.nan, DASH),
    ],
)
def test_how_numbers_are_printed(value: float, text: str) -> None:
    assert columns.number(value) == text


def test_text_of_models_cannot_break_a_table() -> None:
    nasty = "a|b\n<script>alert(1)</script> `x` *y* ![z](http://w)"
    table = Table(header=("h|", "<b>"), rows=((Cell(text=nasty), Cell(text=nasty)),))
    shown = markdown.table(table)
    assert len(shown.splitlines()) == 3
    assert "<script" not in shown.replace("\\<", "")
    assert "](" not in shown
    assert "<script" not in html.table(table)


def test_short_keeps_the_end_of_a_prompt_and_one_line() -> None:
    assert short("one\ntwo\x00three") == "one two three"
    assert short("a long sentence", 8) == "a long…"
    assert short("a long sentence", 8, keep_end=True) == "…entence"


def test_an_odd_backtick_marks_no_code() -> None:
    assert blocks.spans("it`s") == [("it`s", False)]
    assert blocks.spans("a `b` c") == [("a ", False), ("b", True), (" c", False)]
