"""Every setting of a record against the dataclass that reads it, before anything is run."""

from __future__ import annotations

import math
from typing import Any

from pipeline import editors, labels, scoring, tasks, tracing, train_base, world
from pipeline.config import Params, build, check_record_ranges, check_root, flatten, pick
from pipeline.editing import moments
from pipeline.errors import SettingsError

_PARTS = (
    "world",
    "benches",
    "editors",
    "overrides",
    "settings",
    "evaluate",
    "statistics",
    "tracing",
)
# What a stage would divide by, draw from or build a model of, wherever the setting stands.
_AT_LEAST_ONE = frozenset({"beams", "condition", "context", "heads", "hidden", "layers"})
_AT_LEAST_ONE |= {"pool", "save_every", "tokens", "top_k", "vocabulary", "width"}


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
    for part in _PARTS:
        for path, value in flatten(params[part] or {}, part).items():
            _check_numbers(path, value)
    for bench in params["benches"]:
        _check_heads(params, bench)
    for run in params["runs"].values():
        _check_count(params, run)
        _check_depth(params, run)


def _check_numbers(path: str, value: object) -> None:
    """Raises SettingsError for a number, or one in a list, that no setting can have."""
    name = path.rpartition(".")[2]
    numbers: list[Any] = value if isinstance(value, list) else [value]
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        if not (math.isfinite(number) and number >= 0):
            raise _wrong(path, "no less than 0, and finite", value)
        if name in _AT_LEAST_ONE and not isinstance(value, list) and number < 1:
            raise _wrong(path, "at least 1", value)
        if name == "smoothing" and number >= 1:
            raise _wrong(path, "below 1", value)
    if name == "rates" and not (numbers[0] > 0 and numbers == sorted(set(numbers))):
        raise _wrong(path, "rates above 0, in rising order", value)


def _check_heads(params: Params, bench: str) -> None:
    """Raises SettingsError where the width of a base model does not go into its heads."""
    base = pick(params, f"benches.{bench}.base")
    for name in ("shape", "sampler"):
        shape = base[name]
        if shape and shape["width"] % shape["heads"]:
            where = f"benches.{bench}.base.{name}"
            raise _wrong(f"{where}.heads", f"a divisor of {where}.width", shape["heads"])


def _wrong(path: str, expected: str, found: object) -> SettingsError:
    return SettingsError(
        expected=f"{path} to be {expected}",
        found=str(found),
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
