"""One editor on one benchmark's validation cases or corrections, under the study's protocol."""

from __future__ import annotations

from pathlib import Path

from pipeline import editor as editing
from pipeline import editors, models, moments, protocols, scoring
from pipeline.config import Params, build, pick
from pipeline.errors import DataError, SettingsError
from pipeline.records import hash_cases, read_cases
from pipeline.storage import hash_file, hash_folder
from pipeline.tables import write_frame
from stages import DATA, bench_folder, set_up_torch, start


def evaluate(params: Params, run: str) -> None:
    """data/S/STUDY/RUN/: outcomes.parquet, one row per case and probe, and timings.parquet."""
    set_up_torch(params)
    item = pick(params, f"runs.{run}")
    module = editors.load(item["alg"])
    editor = module.Editor(build(module.Config, item["settings"], f"runs.{run}.settings"))
    config = build(scoring.Config, params["evaluate"], "evaluate")
    folder = bench_folder(params, item["bench"])
    learned = Path(item["editor"])
    face, base_hash = models.load(folder / "base"), hash_folder(folder / "base")
    if item["fit"]:
        _refuse_other_settings(params, run)
        editing.restore(editor, face, learned, base_hash)
    if "moments" in editor.needs:
        editor.take(moments.load(Path(item["moments"]), face))
    cases = read_cases(folder / "labelled" / "cases.parquet", config.split)
    if not cases:
        raise DataError(
            expected=f"{config.split} cases of {item['bench']} (evaluate.split)",
            found="none",
            remedy=f"Ask for more in benches.{item['bench']}.data, or for another split.",
        )
    outcomes, timings = protocols.batched(face, editor, cases, config, item["k"], params["seed"])
    identity = {name: item[name] for name in ("bench", "alg", "variant")}
    identity["study"] = params["study"]
    how = {name: item[name] for name in ("protocol", "k")}
    hashes = {
        "seed": params["seed"],
        "base_hash": base_hash,
        # Of the weights alone: the learning curve beside them holds seconds, never the same twice.
        "editor_hash": hash_file(learned / "editor.safetensors") if item["fit"] else "",
        "cases_hash": hash_cases(cases),
    }
    out = DATA / params["suite"] / params["study"] / run
    write_frame(out / "outcomes.parquet", outcomes.assign(**identity, **hashes))
    write_frame(out / "timings.parquet", timings.assign(**identity, **how))


def _refuse_other_settings(params: Params, run: str) -> None:
    """Composed, a run and what was fitted for it have the same settings; a hand edit may not."""
    item = params["runs"][run]
    for name, fitted in params["fits"].items():
        if fitted["editor"] == item["editor"] and fitted["settings"] != item["settings"]:
            raise SettingsError(
                expected=f"runs.{run}.settings to be those of fits.{name}, whose editor it takes",
                found="others",
                remedy="Edit both alike, or change conf/ and compose: errata params.",
            )


if __name__ == "__main__":
    start(evaluate)
