"""Raw data of one benchmark to examples and cases."""

from __future__ import annotations

from pipeline import tasks, world
from pipeline.config import Params, build, pick
from pipeline.records import write_cases, write_examples
from pipeline.storage import write_json
from stages import bench_folder, start


def prepare(params: Params, bench: str) -> None:
    """data/S/B/prepared/: examples.parquet, cases.parquet and the card that counts them.

    known.parquet, too, where the source has facts for causal tracing alone.
    """
    task = tasks.load(bench)
    where = f"benches.{bench}.data"
    config = build(task.Config, pick(params, where), where)
    sample = build(world.Config, params["world"] or {}, "world")
    source = tasks.open_source(params["suite"], params["raw"] or "", sample, params["seed"])
    prepared = task.prepare(source, config, params["seed"])
    folder = bench_folder(params, bench) / "prepared"
    write_examples(folder / "examples.parquet", prepared.examples)
    write_cases(folder / "cases.parquet", prepared.cases)
    if prepared.known:
        write_cases(folder / "known.parquet", prepared.known)
    write_json(folder / "card.json", prepared.card)


if __name__ == "__main__":
    start(prepare)
