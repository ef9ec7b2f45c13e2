"""Outcome tables of runs that never happened, for the tests of metrics and reports."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline import metrics, reporting
from pipeline.storage import write_json
from pipeline.tables import write_frame

Row = dict[str, Any]
NOTHING: Row = {
    "bench": "zsre",
    "alg": "mend",
    "variant": "",
    "study": "main",
    "protocol": "single",
    "k": 1,
    "step": 0,
    "index": 0,
    "prompt": "Where was Ada Verrin born?",
    "target": "Oslo",
    "n_tokens": 2,
    "gen_text": None,
    "collapsed": False,
    "seed": 0,
    "base_hash": "b" * 64,
    "editor_hash": "e" * 64,
    "cases_hash": "c" * 64,
} | {
    f"{prefix}{name}": math.nan
    for prefix in ("", "pre_")
    for name in ("tf_token_acc", "tf_exact", "gen_exact", "gen_contains", "nll_new", "nll_true")
}
NAMES = {
    "zsre": ("Where was Ada Verrin born?", "In which city was Ada Verrin born?", "Oslo"),
    "fever": ("Ada Verrin was born in Oslo.", "Oslo is Ada Verrin's birthplace.", "true"),
    "wikitext": (
        "The guild of masons that built the harbour",
        "the harbour",
        " was founded in the",
    ),
    "counterfact": ("Ada Verrin was born in the city of", "Ada Verrin comes from", " Oslo"),
}


@dataclass(frozen=True)
class Fake:
    """A run to make up: how often it succeeds and breaks a probe, and what its fitting noted."""

    bench: str
    alg: str
    good: float
    harm: float
    variant: str = ""
    k: int = 1
    in_turn: bool = False
    adapts: bool = False
    notes: Row = field(default_factory=dict)

    @property
    def name(self) -> str:
        many = f"{'t' if self.in_turn else 'k'}{self.k}" if self.k > 1 else ""
        return "-".join(part for part in (self.bench, self.alg, self.variant, many) if part)


def row(case_id: str, probe: str, **measured: Any) -> Row:
    """One outcome row; what is not given was not measured."""
    return NOTHING | {"kl": math.nan, "argmax_agree": math.nan} | {
        "case_id": case_id,
        "probe": probe,
    } | measured  # fmt: skip


def exact_row(case_id: str, probe: str, index: int, before: float, after: float) -> Row:
    """A row that was right or wrong before and after."""
    return row(
        case_id,
        probe,
        index=index,
        pre_tf_exact=float(before),
        tf_exact=float(after),
        pre_tf_token_acc=float(before),
        tf_token_acc=float(after),
    )


def timing(**values: Any) -> Row:
    """One shard's timings."""
    usual = {"shard": 0, "n_cases": 1, "edit_seconds": 1.0, "score_seconds": 2.0}
    return usual | {"steps_mean": 1.0, "stopped_early": 0.0, "peak_rss_mb": 900.0} | values


def outcomes(bench: str, alg: str, cases: int, good: float, harm: float) -> pd.DataFrame:
    """Rows of an editor that succeeds with probability `good` and breaks probes with `harm`."""
    draws = random.Random(f"{bench}/{alg}")
    rows = [
        fake | {"bench": bench, "alg": alg, "relation": f"P{number % 2}"}
        for number in range(cases)
        for fake in _case(bench, f"{bench}-{number:04}", draws, good, harm)
    ]
    return pd.DataFrame(rows)


def _case(bench: str, case_id: str, draws: random.Random, good: float, harm: float) -> list[Row]:
    prompt, other, target = NAMES[bench]
    rows = [
        _probe(case_id, "edit", 0, prompt, target, 0.02, min(1.0, good + 0.05), draws),
        _probe(case_id, "rephrase", 0, other, target, 0.02, good, draws),
    ]
    if bench == "wikitext":
        loss = 3 + draws.random()
        passage = {"prompt": "", "target": "A passage.", "n_tokens": draws.randrange(40, 80)}
        after = {"nll_true": loss + harm * draws.random(), "pre_nll_true": loss}
        exact = {"tf_exact": 0.0, "pre_tf_exact": 0.0, "kl": harm, "argmax_agree": 1 - harm / 2}
        return [*rows, row(case_id, "unrelated", **passage, **after, **exact)]
    if bench == "counterfact":
        text = {"gen_text": "Oslo, it is said.", "pre_gen_text": "Lisbon, it is said."}
        worth = {"gen_entropy": 6 - harm, "pre_gen_entropy": 6.0, "gen_reference": good / 2}
        told = text | worth | {"pre_gen_reference": 0.25, "target": "", "n_tokens": 0}
        rows.append(row(case_id, "generation", prompt="Ada Verrin is known for", **told))
    for kind in ("neighbour", "hard_neighbour", "unrelated"):
        for index in range(2):
            question = f"What is the {kind} of Tom Asker, case {case_id}?"
            rows.append(
                _probe(case_id, kind, index, question, "false", 0.97, 0.97 * (1 - harm), draws)
            )
    return rows


def _probe(
    case_id: str, kind: str, index: int, prompt: str, target: str, before: float, after: float,
    draws: random.Random,
) -> Row:  # fmt: skip
    luck = draws.random()
    old, new = float(luck < before), float(luck < after)
    said = {1.0: target, 0.0: "Lisbon"}
    return row(
        case_id,
        kind,
        index=index,
        prompt=prompt,
        target=target,
        pre_tf_exact=old,
        tf_exact=new,
        pre_tf_token_acc=old,
        tf_token_acc=new,
        pre_gen_text=said[old],
        gen_text=said[new],
        pre_gen_exact=old,
        gen_exact=new,
        pre_gen_contains=old,
        gen_contains=new,
        pre_nll_new=4 - 3 * old,
        nll_new=4 - 3.5 * new,
        pre_nll_true=1 + draws.random(),
        nll_true=2 + draws.random(),
        kl=0.01 * draws.random(),
        argmax_agree=1.0,
    )


def request(
    root: Path, editors: dict[str, tuple[float, float]], cases: int = 40
) -> reporting.Request:
    """Write every table that a report reads below `root`, and the request that names them.

    `editors` maps each to how often it succeeds and how often it breaks a probe.
    """
    benches = [_bench(root, name) for name in NAMES]
    runs = [
        _run(root, name, alg, outcomes(name, alg, cases, *quality))
        for name in NAMES
        for alg, quality in editors.items()
    ]
    return reporting.Request(
        suite="sample",
        study="main",
        seed=0,
        benches=tuple(benches),
        runs=tuple(runs),
        skipped=(
            reporting.Skipped(bench="fever", alg="rome", reason="rome does not edit a classifier"),
        ),
        differences=(reporting.Difference(setting="editors.mend.rank", default=256, value=128),),
    )


def study(root: Path, name: str, runs: Iterable[Fake], cases: int = 40) -> reporting.Request:
    """The same for runs of any variant and any number of edits at once."""
    runs = tuple(runs)
    return reporting.Request(
        suite="sample",
        study=name,
        seed=0,
        benches=tuple(_bench(root, bench) for bench in dict.fromkeys(run.bench for run in runs)),
        runs=tuple(_fake_run(root, run, cases) for run in runs),
    )


def _fake_run(root: Path, fake: Fake, cases: int) -> reporting.Run:
    frame = outcomes(fake.bench, fake.alg, cases, fake.good, fake.harm).assign(k=fake.k)
    if fake.adapts:  # the original model knew one thing more in ten
        frame["orig_tf_exact"] = frame["pre_tf_exact"].where(frame.index % 10 > 0, 1.0)
        frame["orig_nll_true"] = frame["pre_nll_true"] - 0.1
    protocol = "sequential" if fake.in_turn and fake.k > 1 else "single"
    if fake.in_turn and fake.k > 1:
        frame["step"] = pd.factorize(frame["case_id"])[0] % fake.k + 1
    run = _run(root, fake.bench, fake.alg, frame, fake.name, fake.notes)
    return replace(run, name=fake.name, variant=fake.variant, k=fake.k, protocol=protocol)


def _bench(root: Path, name: str) -> reporting.Bench:
    folder = root / name
    kinds = {"zsre": "seq2seq", "fever": "classifier"}
    write_json(
        folder / "base.json",
        {
            "bench": name,
            "kind": kinds.get(name, "causal"),
            "source": "trained",
            "parameters": 1_234_567,
            "taught": 6000,
            "exact_taught": None if name == "wikitext" else 0.983,
            "exact_heldout": 0.41 if name == "fever" else None,
            "majority_baseline": 0.52 if name == "fever" else None,
            "perplexity_heldout": 23.4 if name == "wikitext" else None,
            "seconds": 31.5,
            "vocab": 2000,
        },
    )
    write_json(
        folder / "card.json",
        {
            "source": "world",
            "files": {"world.py": "d" * 64},
            "counts": {"examples": 6000, "cases": {"train": 1600, "validation": 200}},
            "dropped": {"no other wording": 12},
        },
    )
    labels = {"sampler_agreement": 0.004} if name == "wikitext" else {}
    write_json(folder / "audit.json", {"bench": name, "cases": 1800, "labels": labels})
    return reporting.Bench(
        name=name,
        base=folder / "base.json",
        card=folder / "card.json",
        audit=folder / "audit.json",
    )


def _run(
    root: Path, bench: str, alg: str, frame: pd.DataFrame, name: str = "", more: Row | None = None
) -> reporting.Run:
    folder = root / (name or f"{bench}-{alg}")
    steps = {"steps_mean": 31.0, "stopped_early": 0.97} if alg.startswith("ft") else {}
    times = pd.DataFrame([timing(n_cases=20, **steps), timing(shard=1, n_cases=20, **steps)])
    write_frame(folder / "outcomes.parquet", frame)
    write_frame(folder / "timings.parquet", times)
    write_json(folder / "metrics.json", metrics.plain(metrics.summarise(frame, times)))
    tried = {"0.001": 0.97, "0.0003": 0.62}
    learns = not alg.startswith("ft")
    chosen = {"rate": 0.001, "training_cases": 200, "share_reached_by_rate": tried}
    notes = {"alpha": 0.01} if learns else chosen
    write_json(folder / "fit.json", notes | (more or {}))
    curve = pd.DataFrame(
        [
            {"step": step, "seconds": step / 5, "loss": 2 / step, "loss_edit": 2 / step,
             "loss_loc": 0.01, "val_loss": 3 / step**0.5, "val_success": 1 - 4 / (step + 4)}
            for step in range(10, 400, 30)
        ]
        if learns
        else []
    )  # fmt: skip
    write_frame(folder / "curve.parquet", curve)
    return reporting.Run(
        name=f"{bench}-{alg}",
        bench=bench,
        alg=alg,
        folder=folder,
        metrics=folder / "metrics.json",
        curve=folder / "curve.parquet",
        fit=folder / "fit.json",
    )
