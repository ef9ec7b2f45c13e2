"""Composing the record: what stands in it, what is refused, and how it differs from the default."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from pipeline import settings
from pipeline.cli import main
from pipeline.composition import compose, parse, record_differences, write_record
from pipeline.config import RECORD, read_params
from pipeline.errors import SettingsError

ROOT = Path(__file__).parents[1]
STUDIES = sorted(path.stem for path in (ROOT / "conf" / "study").glob("*.yaml"))
SUITES = sorted(path.stem for path in (ROOT / "conf" / "suite").glob("*.yaml"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    write_record(tmp_path, compose(tmp_path))
    return tmp_path


def test_the_committed_record_is_the_default_composition() -> None:
    assert (ROOT / RECORD).read_text() == compose(ROOT), "compose it again: errata params"
    assert record_differences(ROOT) == []


def test_dvc_composes_the_same_bytes(tmp_path: Path) -> None:
    from dvc.utils.hydra import compose_and_dump

    out = tmp_path / RECORD
    overrides = ["alg=mend", "seed=3", "study=batched"]
    plugins = str(ROOT / "conf" / "plugins")
    compose_and_dump(str(out), str(ROOT / "conf"), None, "config", plugins, overrides)
    assert out.read_text() == compose(ROOT, overrides)


@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_composes_to_settings_that_the_library_knows(
    suite: str, tmp_path: Path
) -> None:
    raw = [f"raw={tmp_path}"] if suite == "local" else []
    settings.check(parse(compose(ROOT, [f"suite={suite}", *raw])))


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("study", STUDIES)
def test_every_study_composes_to_settings_that_the_library_knows(
    study: str, suite: str, tmp_path: Path
) -> None:
    raw = [f"raw={tmp_path}"] if suite == "local" else []
    params = parse(compose(ROOT, [f"study={study}", f"suite={suite}", *raw]))
    settings.check(params)
    assert params["study"] == study
    assert params["runs"] or params["traces"]
    fitted = {item["editor"] for item in params["fits"].values()}
    assert fitted == {item["editor"] for item in params["runs"].values() if item["fit"]}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("editors.ft.rates=[]", "at least one rate"),
        ("editors.mend.outer.batch=0", "at least 1"),
        ("editors.cache.scale=-1", "above 0"),
        ("evaluate.rows=0", "at least 1"),
        ("benches.zsre.base.epochs=0", "at least 1"),
        ("editors.ft.reach=2", "above 0 and at most 1"),
        ("editors.ft.rates=[nan]", "finite"),
        ("editors.ft.rates=[0]", "above 0, in rising order"),
        ("editors.ft.rates=[1e-3,1e-4]", "in rising order"),
        ("editors.cache.drawdown=nan", "finite"),
        ("statistics.contexts.free=[[5,-1]]", "no less than 0"),
        ("editors.mend.outer.warm_up=-1", "no less than 0"),
        ("editors.ke.hidden=0", "at least 1"),
        ("editors.ft_kl.pool=0", "at least 1"),
        ("evaluate.texts.top_k=0", "at least 1"),
        ("statistics.save_every=0", "at least 1"),
        ("benches.zsre.base.smoothing=2", "below 1"),
        ("benches.zsre.base.shape.heads=3", "a divisor of benches.zsre.base.shape.width"),
    ],
)
def test_settings_out_of_range_are_refused_before_anything_runs(
    override: str, expected: str
) -> None:
    with pytest.raises(SettingsError, match=f"{override.partition('=')[0]} to be .*{expected}"):
        settings.check(parse(compose(ROOT, [override])))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("editors.mend.alpha=0", "mend.alpha above 0"),
        ("editors.mend.ridge=0", "mend.ridge above 0"),
        ("editors.ke.least_margin=1", "ke.least_margin of at most ke.margin"),
        ("statistics.contexts.free=[[0,10]]", "each at least 1"),
    ],
)
def test_settings_that_one_editor_cannot_use_are_refused(override: str, expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        settings.check(parse(compose(ROOT, [override])))


def test_more_blocks_than_the_base_model_will_have_are_refused() -> None:
    deep = ["suite=sample", "benches.zsre.base.kind=causal", "alg=mend"]
    expected = "at least 3 blocks in the base model of zsre: mend changes as many.*layers = 2"
    with pytest.raises(SettingsError, match=expected):
        settings.check(parse(compose(ROOT, deep)))
    settings.check(parse(compose(ROOT, [*deep, "benches.zsre.base.shape.layers=3"])))
    settings.check(parse(compose(ROOT, [*deep, "+overrides.mend.zsre.blocks=2"])))


def test_every_budget_is_of_a_suite_and_a_study() -> None:
    for path in (ROOT / "conf" / "budget").glob("*.yaml"):
        suite, _, study = path.stem.partition("-")
        assert suite in SUITES
        assert study in STUDIES


def test_the_study_of_corrections_scores_them_on_every_benchmark_of_facts() -> None:
    params = parse(compose(ROOT, ["study=corrections"]))
    settings.check(params)
    assert params["evaluate"]["split"] == "correction"
    assert {item["bench"] for item in params["runs"].values()} == {"fever", "zsre", "counterfact"}
    assert params["fits"].keys() <= parse(compose(ROOT))["fits"].keys()


@pytest.mark.parametrize("study", ["scaling", "scaling_corrections", "relations", "zsre_lm"])
def test_the_command_line_chooses_a_studys_editors(study: str) -> None:
    """A study brings its own choice of editors along, and no more than that."""
    many = ["mend", "ft_w", "rome", "memit"]
    assert parse(compose(ROOT, [f"study={study}"]))["algs"] == many
    assert parse(compose(ROOT, [f"study={study}", "alg=memit"]))["algs"] == ["memit"]


def test_a_wide_base_has_more_keys_than_edits_are_made_at_once() -> None:
    params = parse(compose(ROOT, ["study=scaling_wide"]))
    keys = 4 * params["benches"]["counterfact"]["base"]["shape"]["width"]
    assert keys > max(params["plan"]["ks"]) == 1000
    assert set(params["algs"]) >= {item["alg"] for item in params["runs"].values()}


def test_an_override_of_nothing_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"an override as key=value; found '=3'"):
        compose(ROOT, ["=3"])


def test_plans_that_cannot_run_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"at least one run.*none by ft.*plan.among"):
        compose(ROOT, ["study=caching", "alg=ft"])
    with pytest.raises(SettingsError, match=r"plan\.ks of at most 200.*found 500"):
        settings.check(parse(compose(ROOT, ["plan.ks=[500]"])))


def test_the_command_line_overrides_a_studys_budget() -> None:
    params = parse(compose(ROOT, ["suite=tiny", "study=batched", "alg=mend"]))
    assert {run for run in params["runs"] if "least" not in run} == {"zsre-mend", "zsre-mend-k2"}
    params = parse(compose(ROOT, ["suite=tiny", "study=batched", "alg=mend", "plan.ks=[3]"]))
    assert set(params["runs"]) == {"zsre-mend-k3", "zsre-mend-least_squares-k3"}
    assert params["settings"]["zsre-mend-k3"]["outer"]["batch"] == 3


def test_a_study_without_a_name_is_refused(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "conf" / "study" / "mine.yaml").write_text("# @package _global_\nplan: {ks: [2]}\n")
    with pytest.raises(SettingsError, match="a value for study; found none"):
        compose(tmp_path, ["study=mine"])


def test_broken_yaml_is_told_with_its_line(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    with (tmp_path / "conf" / "suite" / "tiny.yaml").open("a") as file:
        file.write("  bad: [\n")
    with pytest.raises(SettingsError, match=r"settings that compose.*tiny\.yaml.*line"):
        compose(tmp_path, ["suite=tiny"])


def test_one_benchmark_alone_is_asked_for_by_the_plan() -> None:
    with pytest.raises(SettingsError, match=r"plan\.on_benches=\[zsre\]"):
        compose(ROOT, ["benches=[zsre]"])


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("alg=mnd", "a known alg; found 'mnd'. Did you mean 'mend'"),
        ("suite=smaple", "a known suite; found 'smaple'. Did you mean 'sample'"),
        ("study=mian", "a known study; found 'mian'. Did you mean 'main'"),
        ("alg=ft,mend", "one alg.*dvc exp run -S alg=ft,mend --queue"),
        ("editors.mend.rnak=1", "no 'rnak' in editors.mend. Did you mean 'rank'"),
        ("editors.mend.rank=many", r"runs\.\S+rank to be a whole number|editors\.mend\.rank to be"),
        ("seed", "settings that compose"),
    ],
)
def test_the_command_line_refuses_by_name(
    override: str, expected: str, project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = (project / RECORD).read_text()
    assert main(["params", "--root", str(project), override]) == 1
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("SettingsError: expected ")
    assert re.search(expected, message), message
    assert (project / RECORD).read_text() == before


def test_differences_name_each_change_once(project: Path) -> None:
    write_record(project, compose(project, ["alg=mend", "editors.mend.rank=7"]))
    found = record_differences(project)
    assert sorted(path for path, _, _ in found) == ["algs", "editors.mend.rank"]
    assert ("algs", ["mend"], ["ft", "ft_kl", "enn", "ke", "mend", "cache"]) in found


def test_a_hand_edit_of_a_derived_key_is_seen(project: Path) -> None:
    rank = read_params(project / RECORD)["settings"]["zsre-mend"]["rank"]
    text = (project / RECORD).read_text()
    place = text.index(f"rank: {rank}", text.index("zsre-mend:", text.index("\nsettings:")))
    (project / RECORD).write_text(text[:place] + "rank: 3" + text[place + len(f"rank: {rank}") :])
    assert record_differences(project) == [("settings.zsre-mend.rank", 3, rank)]


def test_check_passes_on_the_default_and_names_what_differs(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["params", "--check", "--root", str(project)]) == 0
    assert main(["params", "--root", str(project), "seed=5"]) == 0
    assert main(["params", "--check", "--root", str(project)]) == 1
    assert "seed: 5, not 0" in caplog.text


def test_only_the_benchmarks_of_a_study_are_prepared_and_taught() -> None:
    assert parse(compose(ROOT))["used"] == ["fever", "zsre", "wikitext", "counterfact"]
    assert parse(compose(ROOT, ["study=zsre_lm"]))["used"] == ["zsre"]
    traced = ["study=sequence", "plan.on_benches=[zsre]", "+traces.counterfact={}"]
    assert parse(compose(ROOT, traced))["used"] == ["zsre", "counterfact"]


def test_a_record_edited_where_its_derived_part_comes_from_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pipeline.lanes.repro", lambda *_: None)
    write_record(tmp_path, compose(ROOT))
    assert main(["repro", "--root", str(tmp_path)]) == 0
    assert not caplog.records
    text = (tmp_path / RECORD).read_text().replace("    rank: 128\n", "    rank: 64\n", 1)
    write_record(tmp_path, text)
    assert main(["repro", "--root", str(tmp_path)]) == 0
    assert "settings.zsre-mend.rank is 128, where what it is derived from says 64" in caplog.text
    (tmp_path / RECORD).write_text("threads: 1\n")
    assert main(["repro", "--root", str(tmp_path)]) == 1


def test_sending_nothing_to_mlflow_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pipeline.results.collect", lambda *_: [])
    monkeypatch.setattr("pipeline.tracking.log", lambda _: None)
    write_record(tmp_path, compose(ROOT))
    assert main(["mlflow", "--root", str(tmp_path)]) == 1
    assert "to send results to MLflow" in caplog.text
