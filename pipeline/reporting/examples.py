"""Edits that a reader can look at: what the model said before, and what it says after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from pipeline.metrics import measured_original
from pipeline.records import LABELS
from pipeline.reporting.blocks import DASH, Cell, Table, short
from pipeline.reporting.columns import number

_SHOWN = (
    ("edit", "The edit"),
    ("rephrase", "Other wording"),
    ("neighbour", "Neighbour"),
    ("hard_neighbour", "Hard neighbour"),
    ("unrelated", "Unrelated"),
    ("implied", "Implied"),
)
_LOCAL = ("neighbour", "hard_neighbour", "unrelated")
Outcomes = Mapping[str, pd.DataFrame]  # editor -> its outcome rows


def choose(outcomes: Outcomes) -> list[tuple[str, str]]:
    """Case ids worth showing, each with the rule it was chosen by.

    The first case, by id, where the edit holds in its own and in another wording and nothing else
    moves, under as many editors as ever at once; the first where some editor's does not hold; the
    first where some editor breaks a probe that should not have moved. The rules are fixed, so
    nobody picks what flatters. None where the editors were scored on different cases.
    """
    both = {name: (_worked(frame), _kept(frame)) for name, frame in outcomes.items()}
    good, kept = (
        pd.DataFrame({name: found[part] for name, found in both.items()}).dropna().astype(bool)
        for part in (0, 1)
    )
    if good.empty:
        return []
    clean = (good & kept).sum(axis=1)
    most, among = int(clean.max()), len(good.columns)
    whom = "every editor" if most == among else f"{most} of {among} editors"
    rules = (
        (
            f"Held in both wordings under {whom}, and nothing else moved",
            (clean == most) & (most > 0),
        ),
        ("Did not hold in both wordings under every editor", ~good.all(axis=1)),
        ("A probe moved that should not have", ~kept.all(axis=1)),
    )
    chosen: dict[str, str] = {}
    for rule, hits in rules:
        fresh = [str(case) for case in hits.index[hits] if str(case) not in chosen]
        if fresh:
            chosen[fresh[0]] = rule
    return list(chosen.items())


def table(outcomes: Outcomes, case_id: str, rule: str) -> Table:
    """One case: a row for the unedited model and for each editor, a column for each probe."""
    cases = {editor: _case(frame, case_id) for editor, frame in outcomes.items()}
    shown = _probes(list(cases.values()))
    # What an editor changed before it edited is not what the others started from.
    usual = (case for case in cases.values() if not measured_original(case))
    first = next(usual, next(iter(cases.values())))
    header = [_question(first.loc[probe], label) for label, probe in shown]
    rows = [(Cell(text="before"), *(_answer(first.loc[probe], "pre_") for _, probe in shown))]
    for editor, case in cases.items():
        answers = (_marked(case, probe) for _, probe in shown)
        rows.append((Cell(text=editor), *answers))
    return Table(
        header=("Model", *header),
        rows=tuple(rows),
        caption=f"{rule} (case {case_id})",
        look="texts",
    )


def _worked(frame: pd.DataFrame) -> pd.Series:
    """Case id -> the edit holds in its own and in the first other wording, if it has one."""
    rows = frame[frame["probe"].isin(("edit", "rephrase")) & (frame["index"] == 0)]
    worst = rows.assign(ok=(rows["tf_exact"] == 1) & ~rows["collapsed"]).groupby("case_id")["ok"]
    return worst.min().astype(bool)


def _kept(frame: pd.DataFrame) -> pd.Series:
    """Case id -> no probe that was right before is wrong after."""
    local = frame["probe"].isin(_LOCAL) & (frame["pre_tf_exact"] == 1)
    lost = local & ((frame["tf_exact"] != 1) | frame["collapsed"])
    return ~lost.groupby(frame["case_id"]).any()


def _case(frame: pd.DataFrame, case_id: str) -> pd.DataFrame:
    """A case's rows by kind and number of the probe."""
    rows = frame[frame["case_id"].astype(str) == case_id]
    rows = rows.drop_duplicates(["probe", "index"])  # scored after several steps: the first
    return rows.set_index(["probe", "index"], drop=False).sort_index()


def _probes(cases: Sequence[pd.DataFrame]) -> list[tuple[str, tuple[str, int]]]:
    """One probe of each kind: the first that some editor broke, else the first there is.

    Of those that all editors were scored on: which probes count in a group of edits depends on
    whom the group is of, and runs may have drawn other groups.
    """
    everywhere = set.intersection(*(set(case.index) for case in cases))
    shown = []
    for kind, label in _SHOWN:
        numbers = sorted(int(n) for probe, n in everywhere if probe == kind)
        broken = [n for n in numbers if any(_broke(case.loc[(kind, n)]) for case in cases)]
        if numbers:
            shown.append((label, (kind, min(broken if kind in _LOCAL and broken else numbers))))
    return shown


def _broke(row: pd.Series) -> bool:
    return bool(row["pre_tf_exact"] == 1 and (row["tf_exact"] != 1 or row["collapsed"]))


def _question(row: pd.Series, label: str) -> str:
    if not row["prompt"]:
        return f"{label}: a passage of {int(row['n_tokens'])} tokens, its perplexity"
    wanted = short(str(row["target"]), 60) or "anything, unchanged"
    return f"{label}: {short(str(row['prompt']), 110, keep_end=True)} \N{RIGHTWARDS ARROW} {wanted}"


def _answer(row: pd.Series, prefix: str) -> Cell:
    """What a model says there, and whether that is what the probe wants."""
    if not row["prompt"]:
        with np.errstate(over="ignore"):
            return Cell(text=number(float(np.exp(row[f"{prefix}nll_true"])), 2))
    if not prefix and row["collapsed"]:
        return Cell(text=DASH, detail="collapsed")
    right = row[f"{prefix}tf_exact"] == 1
    text = row.get(f"{prefix}gen_text")
    if isinstance(text, str):
        return Cell(text=short(text) or "(nothing)", detail=_verdict(row, prefix, right))
    if row["target"] in LABELS:  # a classifier answers with one label or the other
        said = row["target"] if right else next(word for word in LABELS if word != row["target"])
        return Cell(text=str(said), detail=_mark(right))
    share = round(float(row[f"{prefix}tf_token_acc"]) * int(row["n_tokens"]))
    return Cell(text=f"{share} of {int(row['n_tokens'])} target tokens", detail=_mark(right))


def _marked(case: pd.DataFrame, probe: tuple[str, int]) -> Cell:
    """What the edited model says, and where the edit reached too far or not far enough."""
    row, kind = case.loc[probe], probe[0]
    cell = _answer(row, "")
    if not row["prompt"] or row["collapsed"]:
        return cell
    edit = case.loc[("edit", 0)]
    if kind in _LOCAL and _broke(row):
        took = str(edit["target"]).strip().casefold() in str(row.get("gen_text") or "").casefold()
        return replace(cell, detail=f"{cell.detail}, {'over-generalises' if took else 'changed'}")
    if kind == "rephrase" and row["tf_exact"] != 1 and edit["tf_exact"] == 1:
        return replace(cell, detail=f"{cell.detail}, under-generalises")
    if kind in _LOCAL and row["pre_tf_exact"] == 1:
        return replace(cell, detail=f"{cell.detail}, kept")
    return cell


def _verdict(row: pd.Series, prefix: str, right: bool) -> str:
    """The mark, and a word where free writing and the guided measure disagree."""
    free = row.get(f"{prefix}gen_exact") == 1
    if free == right:
        return _mark(right)
    return "✗ written freely, ✓ when guided" if right else "✓ written freely, ✗ when guided"


def _mark(right: bool) -> str:
    return "✓" if right else "✗"


def by_editor(runs: Sequence[tuple[str, pd.DataFrame]]) -> Outcomes:
    """Editors' rows over the cases that all of them were scored on."""
    common = set.intersection(*(set(frame["case_id"]) for _, frame in runs)) if runs else set()
    return {name: frame[frame["case_id"].isin(common)] for name, frame in runs}


def long_form(shown: Sequence[tuple[str, Table]]) -> pd.DataFrame:
    """Example tables as one frame: benchmark, rule, model, probe, answer, verdict."""
    rows = [
        (bench, item.caption, row[0].text, question, cell.text, cell.detail)
        for bench, item in shown
        for row in item.rows
        for question, cell in zip(item.header[1:], row[1:], strict=True)
    ]
    return pd.DataFrame(rows, columns=["bench", "rule", "model", "probe", "answer", "verdict"])
