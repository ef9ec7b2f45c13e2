"""Every setting of a record against the dataclass that reads it, before anything is run."""

from __future__ import annotations

from pipeline import editors, labels, moments, scoring, tasks, train_base, world
from pipeline.config import Params, build, check_root


def check(params: Params) -> None:
    """Build all settings and keep none.

    Raises:
        SettingsError: one is unknown, missing, of the wrong type or out of range.
    """
    check_root(params)
    if params["world"] is not None:
        build(world.Config, params["world"], "world")
    for bench, settings in params["benches"].items():
        where = f"benches.{bench}"
        build(tasks.load(bench).Config, settings["data"], f"{where}.data")
        build(train_base.Config, settings["base"], f"{where}.base")
        build(labels.Config, settings["label"], f"{where}.label")
    for alg in params["algs"]:
        build(editors.load(alg).Config, params["editors"][alg], f"editors.{alg}")
    for run, item in params["runs"].items():
        build(editors.load(item["alg"]).Config, item["settings"], f"runs.{run}.settings")
    build(moments.Config, params["statistics"], "statistics")
    build(scoring.Config, params["evaluate"], "evaluate")
