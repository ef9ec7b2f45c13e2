"""Causal tracing of a benchmark's base model: where it keeps the facts that it was taught."""

from __future__ import annotations

import time

from pipeline import models, tracing
from pipeline.config import Params, build, pick
from pipeline.records import Case, read_cases
from pipeline.storage import hash_folder, write_json
from pipeline.tables import write_frame
from stages import DATA, bench_folder, set_up_torch, start


def trace(params: Params, bench: str) -> None:
    """data/S/STUDY/trace-B/: facts.parquet, states.parquet, and trace.json, how it was done."""
    set_up_torch(params)
    pick(params, f"traces.{bench}")
    config = build(tracing.Config, params["tracing"], "tracing")
    face = models.load(bench_folder(params, bench) / "base")
    facts = tracing.facts_of(_cases(params, bench, config), params["seed"])
    began = time.perf_counter()
    found = tracing.trace(face, facts, config, params["seed"])
    out = DATA / params["suite"] / params["study"] / f"trace-{bench}"
    write_frame(out / "facts.parquet", found.facts)
    write_frame(out / "states.parquet", found.states)
    notes = {
        "bench": bench,
        "source": config.source,
        "asked": len(facts),
        "known": found.known,
        "sigma": found.sigma,
        "noise": config.noise,
        "draws": config.draws,
        "window": config.window,
        "layers": int(found.states["layer"].max()) + 1,
        "base_hash": hash_folder(bench_folder(params, bench) / "base"),
        "seconds": time.perf_counter() - began,
    }
    write_json(out / "trace.json", notes)


def _cases(params: Params, bench: str, config: tracing.Config) -> list[Case]:
    folder = bench_folder(params, bench)
    if config.source == "known":
        return read_cases(folder / "prepared" / "known.parquet")
    return read_cases(folder / "labelled" / "cases.parquet")


if __name__ == "__main__":
    start(trace)
