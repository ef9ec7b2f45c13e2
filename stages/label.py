"""Edit targets of one benchmark, and the audit that stops a run on meaningless cases."""

from __future__ import annotations

from pipeline import audit, labels, models, tasks, world
from pipeline.config import Params, build, pick
from pipeline.records import read_cases, write_cases
from pipeline.storage import write_json
from stages import SAMPLER, bench_folder, set_up_torch, start


def label(params: Params, bench: str) -> None:
    """data/S/B/labelled/: cases.parquet with every target filled in, and audit.json."""
    set_up_torch(params)
    where = f"benches.{bench}.label"
    config = build(labels.Config, pick(params, where), where)
    folder = bench_folder(params, bench)
    prepared = read_cases(folder / "prepared" / "cases.parquet")
    face = models.load(folder / "base")
    sampler = models.load(folder / SAMPLER) if (folder / SAMPLER).is_dir() else None
    cases, notes = labels.label(bench, prepared, face, sampler, config, params["seed"])
    sample = build(world.Config, params["world"] or {}, "world")
    source = tasks.open_source(params["suite"], params["raw"] or "", sample, params["seed"])
    cases = [tasks.complete(bench, source, case, params["seed"]) for case in cases]
    found = audit.audit(bench, cases)
    write_cases(folder / "labelled" / "cases.parquet", cases)
    write_json(folder / "labelled" / "audit.json", {**found, "labels": notes})


if __name__ == "__main__":
    start(label)
