"""Every setting of a record against the dataclass that reads it, before anything is run."""

from __future__ import annotations

from pipeline import editors, labels, scoring, tasks, tracing, train_base, world
from pipeline.config import Params, build, check_root, flatten, pick
from pipeline.editing import moments
from pipeline.errors import SettingsError

# What a run would divide by, or have nothing left with, wherever the setting stands.
_COUNTS = frozenset(
    {"batch", "cases", "epochs", "rank", "rows", "steps", "tries", "validate_every"}
)
_SIZES = frozenset({"lr", "rate", "scale", "epsilon"})


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
    for item in params["runs"].values():
        name = item["settings"]
        build(editors.load(item["alg"]).Config, params["settings"][name], f"settings.{name}")
    build(moments.Config, params["statistics"], "statistics")
    build(scoring.Config, params["evaluate"], "evaluate")
    build(tracing.Config, params["tracing"], "tracing")
    for bench in params["traces"]:
        pick(params, f"benches.{bench}")
    for part in ("editors", "settings", "evaluate", "benches", "statistics", "tracing"):
        for path, value in flatten(params[part], part).items():
            _check_range(path, value)


def _check_range(path: str, value: object) -> None:
    name = path.rpartition(".")[2]
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
    expected = None
    if name in _COUNTS and number is not None and number < 1:
        expected = "at least 1"
    elif name in _SIZES and number is not None and number <= 0:
        expected = "above 0"
    elif name == "rates" and value == []:
        expected = "a list of at least one rate"
    if expected:
        raise SettingsError(
            expected=f"{path} to be {expected}",
            found=repr(value),
            remedy="Correct it in conf/ (or in params.yaml) and compose again: errata params.",
        )
