"""What one editor learns on one benchmark's training cases."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pandas as pd

from pipeline import editors, models
from pipeline.config import Params, build, pick
from pipeline.editing import editor as editing
from pipeline.records import hash_cases, read_cases
from pipeline.storage import hash_folder, write_json
from pipeline.tables import write_frame
from stages import bench_folder, checkpoints, set_up_torch, start

CURVE = ("step", "seconds", "loss", "loss_edit", "loss_loc", "val_loss", "val_success")


def fit(params: Params, name: str) -> None:
    """data/S/B/editors/NAME/: what the editor learned, what it tells the report, and its curve."""
    set_up_torch(params)
    item = pick(params, f"fits.{name}")
    bench, alg = item["bench"], item["alg"]
    module = editors.load(alg)
    settings = params["settings"][name]
    editor = module.Editor(build(module.Config, settings, f"settings.{name}"))
    folder = bench_folder(params, bench)
    cases = read_cases(folder / "labelled" / "cases.parquet", "train")
    base_hash = hash_folder(folder / "base")
    depends = [item, settings, params["seed"], params["threads"], base_hash, hash_cases(cases)]
    material = editing.Material(
        cases=cases, seed=params["seed"], checkpoints=checkpoints(name, depends)
    )
    face = models.load(folder / "base")
    began = time.monotonic()
    curve = editor.fit(face, material)
    costs = {
        "seconds": time.monotonic() - began,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    learned = Path(item["editor"])
    editing.save(editor, learned, base_hash)
    # So that the folder alone is enough to edit with, wherever it is taken.
    write_json(learned / "settings.json", {"alg": alg, "settings": settings})
    write_json(learned / "fit.json", editor.notes() | costs)
    write_frame(learned / "curve.parquet", pd.DataFrame(curve, columns=list(CURVE)))


if __name__ == "__main__":
    start(fit)
