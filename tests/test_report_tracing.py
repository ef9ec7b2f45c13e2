"""Tracing in the report: effects counted by hand, the maps, and what is said of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_runs import Fake, study

from pipeline import reporting
from pipeline.reporting import tracing
from pipeline.reporting.inputs import TraceTables, read
from pipeline.storage import read_json, write_json
from pipeline.tables import write_frame

ROLES = ["subject_first", "subject_middle", "subject_middle", "subject_last", "further", "last"]
BLOCKS = 4


def tables(site: int = 1) -> TraceTables:
    """Three facts; the last subject token's states of one block bring back 0.3 and more."""
    facts = pd.DataFrame(
        [
            {"id": f"f{i}", "prompt": f"Ada {i} was born in", "subject": f"Ada {i}",
             "answer": " Oslo", "p_clean": 0.9, "p_corrupt": 0.1 * i}
            for i in range(3)
        ]
    )  # fmt: skip
    rows = []
    for i in range(3):
        for restored, severed in tracing.MODES:
            for layer in range(BLOCKS):
                for position, role in enumerate(ROLES):
                    gain = 0.3 + 0.1 * i if (role, layer) == ("subject_last", site) else 0.0
                    if role == "subject_middle":
                        gain = 0.02 * position  # positions 1 and 2
                    if (role, layer) == ("last", BLOCKS - 1):
                        gain = 0.9 - 0.1 * i
                    rows.append(
                        {"id": f"f{i}", "restored": restored, "severed": severed, "layer": layer,
                         "position": position, "token": f" t{position}", "role": role,
                         "p": 0.1 * i + gain * (0.5 if severed else 1.0)}
                    )  # fmt: skip
    notes = {"known": 5, "asked": 7, "noise": 3.0, "sigma": 0.125, "draws": 10, "window": 1,
             "layers": BLOCKS}  # fmt: skip
    return TraceTables(facts=facts, states=pd.DataFrame(rows), notes=notes, layers={"rome": "2"})


def at(found: pd.DataFrame, restored: str, severed: str, role: str, layer: int) -> pd.Series:
    own = found.set_index(["restored", "severed", "role", "layer"])
    return own.loc[(restored, severed, role, layer)]


def test_effects_by_hand() -> None:
    found = tracing.effects(tables(), 0)
    site = at(found, "mlp", "", "subject_last", 1)
    assert site["effect"] == pytest.approx((0.3 + 0.4 + 0.5) / 3)
    assert site["low"] == pytest.approx(0.3)  # of three facts, all draws of the least
    assert site["high"] == pytest.approx(0.5)
    assert site["n"] == 3
    assert at(found, "block", "mlp", "subject_last", 1)["effect"] == pytest.approx(0.2)
    assert at(found, "block", "", "subject_middle", 0)["effect"] == pytest.approx(0.03)
    whole = tracing.totals(tables(), 0)
    assert whole["total effect"].value == pytest.approx(0.8)
    assert whole["corrupted"].value == pytest.approx(0.1)


def test_a_fact_without_a_role_is_left_out_of_it() -> None:
    found = tables()
    short = (found.states["id"] == "f2") & (found.states["role"] == "subject_last")
    fewer = replace(found, states=found.states[~short])
    site = at(tracing.effects(fewer, 0), "block", "", "subject_last", 1)
    assert site["effect"] == pytest.approx(0.35)
    assert site["n"] == 2


@pytest.mark.parametrize(
    ("site", "said"),
    [(1, "finds the paper's early site"), (0, "the site is in the first block"),
     (3, "the site is in the last block")],
)  # fmt: skip
def test_the_verdict_follows_the_numbers(site: int, said: str) -> None:
    found = tracing.effects(tables(site), 0)
    assert said in tracing.verdict(found, BLOCKS)
    flat = found.assign(effect=np.where(found["role"] == "further", 0.5, found["effect"]))
    assert "does not show" in tracing.verdict(flat, BLOCKS)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("trace")
    found = tables()
    write_frame(root / "trace" / "facts.parquet", found.facts)
    write_frame(root / "trace" / "states.parquet", found.states)
    write_json(root / "trace" / "trace.json", dict(found.notes))
    base = study(root, "tracing", [])
    bench = study(root / "other", "x", [Fake("counterfact", "ft", 0.5, 0.1)]).benches
    request = replace(
        base,
        benches=bench,
        traces=(reporting.Trace(bench="counterfact", folder=root / "trace", layers={"rome": "2"}),),
    )
    assert read(request).traces["counterfact"].notes["known"] == 5
    reporting.write_report(request, root / "report")
    return root / "report", (root / "report" / "report.md").read_text()


def test_a_report_without_edits_is_about_the_tracing(told: tuple[Path, str]) -> None:
    folder, text = told
    assert text.startswith("# Errata: a base model looked into, sample suite")
    assert "No edits, on CounterFact" in text
    assert "3 facts of 5 that the model knows" in text
    assert "an average total effect of 0.800 [" in text
    assert "| MLP outputs | 0.000 block 0 [0.000, 0.000] | 0.030 block 0 [" in text
    assert "| tracing: MLP outputs at the last subject token | 1 0.400 |" in text
    assert "| settings of rome | 2 |" in text
    assert "## Base models" in text
    assert "## Editors" not in text
    numbers = read_json(folder / "metrics.json")["trace-counterfact"]
    assert numbers == {
        "total_effect": 0.8, "mlp_effect_subject_last": 0.4, "mlp_block_subject_last": 1,
    }  # fmt: skip


def test_maps_have_axes_and_units(told: tuple[Path, str]) -> None:
    folder, _ = told
    svg = (folder / "figures" / "tracing-counterfact.svg").read_text()
    for word in ("Indirect effect", "Block (the window", "last subject token", "further tokens"):
        assert word in svg
    fact = (folder / "figures" / "tracing-counterfact-fact-1.svg").read_text()
    assert "Probability of the answer" in fact
    assert "* t3" in fact  # the subject's last token
    cut = (folder / "figures" / "tracing-severed-counterfact.svg").read_text()
    assert "MLPs severed" in cut
    assert len(list((folder / "figures").glob("tracing-counterfact-fact-*.svg"))) == 3
