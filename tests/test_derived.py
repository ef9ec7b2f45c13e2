"""What the record derives: runs and fits of a plan, what they share, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.composition import derive
from pipeline.errors import SettingsError

ROOT = Path(__file__).parents[1]


def values(**changes: Any) -> dict[str, Any]:
    """The least that the derived keys are derived from."""
    return {
        "suite": "sample",
        "raw": None,
        "world": {"facts": 200},
        "algs": ["mend", "rome"],
        "benches": {
            "zsre": {"base": {"kind": "seq2seq"}},
            "counterfact": {"base": {"kind": "causal"}},
        },
        "editors": {"mend": {"rank": 4, "outer": {"lr": 1, "steps": 9}}, "rome": {"layer": 1}},
        "traits": {
            "mend": {"learns": True, "edits": ["seq2seq", "causal"]},
            "rome": {"learns": False, "edits": ["causal"]},
        },
        "overrides": {},
        "evaluate": {"split": "validation"},
    } | changes


def test_a_study_of_corrections_leaves_out_benchmarks_that_have_none() -> None:
    benches = {
        "zsre": {"base": {"kind": "seq2seq"}, "data": {"corrections": 3}},
        "wikitext": {"base": {"kind": "causal"}, "data": {}},
    }
    derived = derive(values(benches=benches, algs=["mend"], evaluate={"split": "correction"}))
    assert list(derived["runs"]) == ["zsre-mend"]
    assert [pair["reason"] for pair in derived["skipped"]] == ["wikitext has no corrections"]
    assert len(derive(values(benches=benches, algs=["mend"]))["runs"]) == 2


def test_runs_hold_the_pairs_that_apply_and_skipped_the_others() -> None:
    derived = derive(values())
    assert list(derived["runs"]) == ["zsre-mend", "counterfact-mend", "counterfact-rome"]
    assert [pair["run"] for pair in derived["skipped"]] == ["zsre-rome"]
    assert "seq2seq" in derived["skipped"][0]["reason"]
    assert list(derived["fits"]) == ["zsre-mend", "counterfact-mend"]
    assert derived["runs"]["counterfact-rome"]["editor"] == "pipeline/editors/rome.py"
    assert derived["runs"]["zsre-mend"]["editor"] == "data/sample/zsre/editors/mend"


def test_overrides_reach_one_benchmark_and_keep_the_rest() -> None:
    found = derive(values(overrides={"mend": {"zsre": {"outer": {"lr": 2}}}}))["settings"]
    assert found["zsre-mend"] == {"rank": 4, "outer": {"lr": 2, "steps": 9}}
    assert found["counterfact-mend"] == {"rank": 4, "outer": {"lr": 1, "steps": 9}}


def test_a_plan_names_variants_and_numbers_of_edits() -> None:
    plan = {
        "on_benches": ["counterfact"],
        "variants": {"all": {"deep": {"layer": 2}}, "mend": {"thin": {"rank": 2}}},
        "ks": [1, 4],
        "joint": {"mend": {"outer": {"steps": 3}}},
    }
    editors = values()["editors"]
    editors["mend"]["outer"] |= {"k": 1, "batch": 6}
    derived = derive(values(plan=plan, editors=editors))
    runs = derived["runs"]
    assert list(runs) == [
        "counterfact-mend", "counterfact-mend-k4", "counterfact-mend-thin",
        "counterfact-mend-thin-k4", "counterfact-rome", "counterfact-rome-k4",
        "counterfact-rome-deep", "counterfact-rome-deep-k4",
    ]  # fmt: skip
    assert [(item["variant"], item["protocol"], item["k"]) for item in runs.values()][:4] == [
        ("", "single", 1), ("", "batched", 4), ("thin", "single", 1), ("thin", "batched", 4)
    ]  # fmt: skip
    settings = {run: derived["settings"][item["settings"]] for run, item in runs.items()}
    thin = settings["counterfact-mend-thin-k4"]
    assert thin == {"rank": 2, "outer": {"lr": 1, "steps": 3, "k": 4, "batch": 8}}
    assert settings["counterfact-mend-thin"]["outer"]["steps"] == 9
    assert settings["counterfact-rome-deep-k4"] == {"layer": 2}
    assert [pair["run"] for pair in derived["skipped"]] == ["counterfact-mend-deep"]
    assert list(derived["fits"]) == [
        "counterfact-mend", "counterfact-mend-k4",
        "counterfact-mend-thin", "counterfact-mend-thin-k4",
    ]  # fmt: skip


def test_training_for_more_edits_at_once_sees_as_many_of_them() -> None:
    editors = {"mend": {"outer": {"k": 1, "batch": 10, "steps": 90, "validate_every": 50}}}
    traits = {"mend": values()["traits"]["mend"]}
    plan = {"ks": [1, 4, 25, 100], "least_steps": 20}
    found = derive(values(plan=plan, editors=editors, traits=traits, algs=["mend"]))["settings"]
    outer = [found[f"counterfact-mend{at}"]["outer"] for at in ("", "-k4", "-k25", "-k100")]
    assert [(o["batch"], o["steps"]) for o in outer] == [(10, 90), (12, 75), (25, 36), (100, 20)]
    assert [o["validate_every"] for o in outer] == [50, 50, 36, 20]


def test_equal_settings_share_what_was_fitted() -> None:
    """FT's rate is the same for any k, and a variant that changes nothing is the editor itself."""
    traits = {"mend": {"learns": True, "edits": ["seq2seq", "causal"]}}
    plan = {"ks": [1, 4], "variants": {"mend": {"same": {"rank": 4}}}, "among": ["mend"]}
    editors = {"mend": {"rank": 4}, "rome": {}}
    derived = derive(values(plan=plan, editors=editors, traits=values()["traits"] | traits))
    assert len(derived["runs"]) == 8
    assert derived["fits"] == {
        f"{bench}-mend": {
            "bench": bench,
            "alg": "mend",
            "editor": f"data/sample/{bench}/editors/mend",
        }
        for bench in ("zsre", "counterfact")
    }
    assert derived["settings"]["zsre-mend"] == {"rank": 4}
    assert {item["settings"] for run, item in derived["runs"].items() if "zsre" in run} == {
        "zsre-mend"
    }


def test_no_editors_give_no_runs_and_are_refused_where_nothing_else_is_asked_for() -> None:
    derived = derive(values(algs=[], traces={"counterfact": {}}))
    assert derived["runs"] == derived["fits"] == {}
    with pytest.raises(SettingsError, match="none by no editor"):
        derive(values(algs=[]))


@pytest.mark.parametrize(
    "changes",
    [
        {"editors": {"mend": {"rank": 0}, "rome": {}}},
        {"overrides": {"mend": {"zsre": {"rank": 0}}}},
        {"evaluate": {"split": "validation", "rows": 0}},
        {"evaluate": {"split": "validation", "most": 0}},
    ],
)
def test_what_is_out_of_range_is_refused_while_composing(changes: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="to be at least 1; found 0"):
        derive(values(**changes))


def test_a_base_model_from_a_folder_is_read_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()

    def benches(source: str | None) -> dict[str, Any]:
        return {
            "zsre": {"base": {"kind": "seq2seq", "source": source}},
            "counterfact": {"base": {"kind": "causal"}},
        }

    needed = {bench: {"source": f"data/sample/{bench}/prepared"} for bench in benches(None)}
    for hub in (None, "gpt2", "facebook/bart-base"):
        assert derive(values(benches=benches(hub)))["bases"] == needed
    found = derive(values(benches=benches("model")))["bases"]
    assert found == needed | {"zsre": {"source": "model"}}
    for lost in ("/no/such/model", "./model2"):
        with pytest.raises(SettingsError, match=r"zsre\.base\.source to be there"):
            derive(values(benches=benches(lost)))
    monkeypatch.setattr("sys.argv", ["dvc", "exp", "run", "--queue"])
    with pytest.raises(SettingsError, match=f"an absolute path.*{tmp_path}/model"):
        derive(values(benches=benches("model")))
    assert derive(values(benches=benches(str(tmp_path / "model"))))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"algs": ["mnd"]}, "an editor in algs; found 'mnd'. Did you mean 'mend'"),
        ({"algs": "mend"}, "algs to be a list.*alg=mend"),
        ({"overrides": {"mnd": {}}}, "an editor in overrides"),
        ({"overrides": {"mend": {"zrse": {}}}}, "a benchmark in overrides.mend.*'zsre'"),
        ({"overrides": {"mend": {"zsre": {"rnak": 1}}}}, r"overrides\.mend\.zsre.*'rank'"),
        ({"plan": {"among": ["mnd"]}}, "an editor in plan.among.*'mend'"),
        ({"plan": {"on_benches": ["zrse"]}}, "a benchmark in plan.on_benches.*'zsre'"),
        ({"plan": {"variants": {"mnd": {}}}}, "an editor in plan.variants"),
        ({"plan": {"variants": {"mend": {"a": {"rnak": 1}}}}}, r"plan\.variants\.mend\.a.*'rank'"),
        ({"plan": {"variants": {"all": {"x": {"rte": 1}}}}}, "a setting of any editor in"),
        ({"plan": {"variants": {"mend": {"k25": {}}}}}, "a name in plan.variants.mend"),
        ({"plan": {"variants": {"mend": {"one_relation": {}}}}}, "that no other runs have"),
        ({"plan": {"joint": {"mend": {"rnak": 1}}}}, r"plan\.joint\.mend.*'rank'"),
        ({"plan": {"relations": [3]}}, r"plan\.relations.*found \[3\]"),
        ({"plan": {"ks": [1, 0]}}, "different numbers of edits from 1 on"),
        ({"plan": {"sk": [1]}}, "found plan.sk. Did you mean 'ks'"),
        ({"raw": "/somewhere"}, "no folder of raw data.*suite=local"),
        ({"world": None}, "raw to be the folder.*-S raw=/path"),
        ({"world": None, "raw": "/no/such/folder"}, "a folder.*/no/such/folder"),
    ],
)
def test_derive_refuses_by_name(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        derive(values(**changes))


def test_a_relative_folder_is_refused_when_queued_and_only_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raw").mkdir()
    monkeypatch.chdir(tmp_path)
    relative = values(world=None, raw="raw")
    monkeypatch.setattr("sys.argv", ["dvc", "exp", "run"])
    assert derive(relative)["source"] == "raw"
    monkeypatch.setattr("sys.argv", ["dvc", "exp", "run", "--queue"])
    with pytest.raises(SettingsError, match=f"raw=raw.*{tmp_path}/raw"):
        derive(relative)
    assert derive(values(world=None, raw=str(tmp_path)))["source"] == str(tmp_path)


def test_moments_are_taken_where_a_run_needs_them() -> None:
    traits = values()["traits"] | {
        "rome": {"learns": False, "edits": ["causal"], "needs": ["moments", "subjects"]}
    }
    benches = values()["benches"]
    benches |= {"wikitext": {"base": {"kind": "causal"}, "subjects": False}}
    asked = {"traits": traits, "benches": benches, "statistics": {"tokens": 7}}
    derived = derive(values(**asked))
    assert derived["moments"] == {
        "counterfact": {
            "bench": "counterfact",
            "folder": "data/sample/counterfact/moments",
            "corpus": "data/sample/counterfact/prepared",
            "settings": {"tokens": 7},
        }
    }
    reasons = {pair["run"]: pair["reason"] for pair in derived["skipped"]}
    assert reasons["wikitext-rome"] == "rome edits at a subject, and wikitext names none"
    runs = derived["runs"]
    assert runs["counterfact-rome"]["moments"] == "data/sample/counterfact/moments"
    assert runs["counterfact-mend"]["moments"] == runs["counterfact-mend"]["editor"]
    assert derive(values(**asked, algs=["mend"]))["moments"] == {}
    own = derive(values(**asked | {"statistics": {"corpus": str(ROOT / "README.md"), "batch": 2}}))[
        "moments"
    ]
    assert own["counterfact"]["corpus"] == str(ROOT / "README.md")
    with pytest.raises(SettingsError, match=r"statistics\.corpus to be there"):
        derive(values(**asked | {"statistics": {"corpus": "/no/texts.txt"}}))
    assert own["counterfact"]["settings"] == {"batch": 2}


def test_edits_of_one_or_two_relations_stand_beside_edits_of_any() -> None:
    plan = {"ks": [1, 4], "train_for_k": False, "relations": [1, 2], "on_benches": ["counterfact"]}
    runs = derive(values(plan=plan, algs=["rome"]))["runs"]
    found = {name: (item["variant"], item["relations"]) for name, item in runs.items()}
    assert found == {
        "counterfact-rome": ("", 0),
        "counterfact-rome-k4": ("", 0),
        "counterfact-rome-one_relation-k4": ("one_relation", 1),
        "counterfact-rome-two_relations-k4": ("two_relations", 2),
    }
    turns = derive(values(plan=plan | {"in_turn": True}, algs=["rome"]))["runs"]
    assert turns["counterfact-rome-two_relations-t4"]["relations"] == 2
    assert len({item["settings"] for item in runs.values()}) == 1


def test_editors_fitted_for_one_edit_can_make_many() -> None:
    derived = derive(values(plan={"ks": [1, 4], "train_for_k": False}))
    runs = derived["runs"]
    assert runs["counterfact-mend-k4"]["k"] == 4
    assert runs["counterfact-mend-k4"]["editor"] == runs["counterfact-mend"]["editor"]
    assert list(derived["fits"]) == ["zsre-mend", "counterfact-mend"]
