"""Every setting of a record against the dataclass that reads it, before anything is run."""

from __future__ import annotations

from pipeline import editors, labels, scoring, tasks, tracing, train_base, world
from pipeline.config import Params, build, check_root, pick
from pipeline.editing import moments
from pipeline.errors import SettingsError
from pipeline.ranges import check_record_ranges


def check(params: Params) -> None:
    """Build all settings and keep none.

    Raises:
        SettingsError: one is unknown, missing, of the wrong type or out of range.
    """
    check_root(params)
    if params["world"] is not None:
        build(world.Config, params["world"], "world")
    for bench in params["benches"]:
        where = f"benches.{bench}"
        build(tasks.load(bench).Config, pick(params, f"{where}.data"), f"{where}.data")
        build(train_base.Config, pick(params, f"{where}.base"), f"{where}.base")
        build(labels.Config, pick(params, f"{where}.label"), f"{where}.label")
    for alg in params["algs"]:
        build(editors.load(alg).Config, params["editors"][alg], f"editors.{alg}")
    for item in params["runs"].values():
        name = item["settings"]
        build(editors.load(item["alg"]).Config, params["settings"][name], f"settings.{name}")
    statistics = {key: item for key, item in params["statistics"].items() if key != "corpus"}
    build(moments.Config, statistics, "statistics")
    build(scoring.Config, params["evaluate"], "evaluate")
    build(tracing.Config, params["tracing"], "tracing")
    for bench in params["traces"]:
        pick(params, f"benches.{bench}")
    check_record_ranges(params)
    for bench in params["benches"]:
        _check_heads(params, bench)
    for run in params["runs"].values():
        _check_count(params, run)
        _check_depth(params, run)


def _check_heads(params: Params, bench: str) -> None:
    """Raises SettingsError where the width of a base model does not go into its heads."""
    base = pick(params, f"benches.{bench}.base")
    for name in ("shape", "sampler"):
        shape = base[name]
        if shape and shape["width"] % shape["heads"]:
            where = f"benches.{bench}.base.{name}"
            raise SettingsError(
                expected=f"{where}.heads to be a divisor of {where}.width, {shape['width']}",
                found=str(shape["heads"]),
                remedy="Change it in conf/, or on the command line.",
            )


def _check_count(params: Params, run: Params) -> None:
    """Raises SettingsError for more edits at once than there are cases."""
    cases = pick(params, f"benches.{run['bench']}.data")["validation_cases"]
    if params["evaluate"]["split"] == "validation" and run["k"] > cases:
        raise SettingsError(
            expected=f"plan.ks of at most {cases}, the validation cases of {run['bench']}",
            found=str(run["k"]),
            remedy=f"Lower it, or ask for more: benches.{run['bench']}.data.validation_cases.",
        )


def _check_depth(params: Params, run: Params) -> None:
    """Raises SettingsError where an editor changes more last blocks than its base model will have.

    What a model from elsewhere has is known once it is loaded.
    """
    settings = params["settings"][run["settings"]]
    base = pick(params, f"benches.{run['bench']}.base")
    if "blocks" not in settings or base["source"] is not None:
        return
    wanted = settings["blocks"] or (2 if base["kind"] == "seq2seq" else 3)  # the paper's
    if wanted > base["shape"]["layers"]:
        raise SettingsError(
            expected=f"at least {wanted} blocks in the base model of {run['bench']}: "
            f"{run['alg']} changes as many",
            found=f"benches.{run['bench']}.base.shape.layers = {base['shape']['layers']}",
            remedy=f"Make it deeper, or set overrides.{run['alg']}.{run['bench']}.blocks.",
        )
