"""One editor on one benchmark's validation cases or corrections, under the study's protocol."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pipeline import editors, metrics_text, models, protocols, scoring
from pipeline.config import Params, build, pick
from pipeline.editing import editor as editing
from pipeline.editing import moments
from pipeline.errors import DataError
from pipeline.records import hash_cases, read_cases
from pipeline.storage import hash_file, hash_folder
from pipeline.tables import write_frame
from stages import DATA, bench_folder, set_up_torch, start


def evaluate(params: Params, run: str) -> None:
    """data/S/STUDY/RUN/: outcomes.parquet, one row per case and probe, and timings.parquet."""
    set_up_torch(params)
    item = pick(params, f"runs.{run}")
    module = editors.load(item["alg"])
    settings = pick(params, f"settings.{item['settings']}")
    editor = module.Editor(build(module.Config, settings, f"settings.{item['settings']}"))
    config = build(scoring.Config, params["evaluate"], "evaluate")
    folder = bench_folder(params, item["bench"])
    learned = Path(item["editor"])
    face, base_hash = models.load(folder / "base"), hash_folder(folder / "base")
    if item["fit"]:
        editing.restore(editor, face, learned, base_hash)
    if "moments" in editor.needs:
        editor.take(moments.load(Path(item["moments"]), face))
    labelled = read_cases(folder / "labelled" / "cases.parquet")
    cases = [case for case in labelled if case.split == config.split]
    if not cases:
        raise DataError(
            expected=f"{config.split} cases of {item['bench']} (evaluate.split)",
            found="none",
            remedy=f"Ask for more in benches.{item['bench']}.data, or for another split.",
        )
    outcomes, timings = protocols.batched(
        face, editor, cases, config, item["k"], params["seed"],
        in_turn=item["protocol"] == "sequential", relations=item["relations"],
    )  # fmt: skip
    outcomes = metrics_text.judged(outcomes, labelled)
    identity = {name: item[name] for name in ("bench", "alg", "variant")}
    identity["study"] = params["study"]
    how = {name: item[name] for name in ("protocol", "k")}
    hashes = {
        "seed": params["seed"],
        "base_hash": base_hash,
        "editor_hash": _identity(learned) if item["fit"] else "",
        "cases_hash": hash_cases(cases),
    }
    relation = outcomes["case_id"].map({case.id: case.relation for case in cases})
    out = DATA / params["suite"] / params["study"] / run
    outcomes = outcomes.assign(**identity, **hashes, relation=relation)
    write_frame(out / "outcomes.parquet", outcomes)
    write_frame(out / "timings.parquet", timings.assign(**identity, **how))


def _identity(editor: Path) -> str:
    """Of what it was set to, learned and chose; other files there hold seconds, never twice."""
    files = ("settings.json", "editor.json", "editor.safetensors")
    hashes = "".join(hash_file(editor / name) for name in files)
    return hashlib.sha256(hashes.encode()).hexdigest()


if __name__ == "__main__":
    start(evaluate)
