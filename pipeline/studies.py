"""From a study's plan to the runs that it names: benchmarks, editors, variants, edits at once.

A run is called by its benchmark and editor, then by what makes it another one: `zsre-mend`,
`zsre-mend-no_norm`, `zsre-mend-k25`. What an editor learns lies in a folder named the same way by
its settings alone, so that runs of equal settings, in one study or in several, share it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.config import Params, merged
from pipeline.errors import SettingsError, near_misses

EVERY = "all"  # in `variants`: every editor that has the settings
RELATIONS = {1: "one_relation", 2: "two_relations"}  # what runs of such groups are called


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a study runs.

    Attributes:
        among: its editors, out of those asked for; None: all of them.
        on_benches: its benchmarks; None: all of them.
        variants: by editor (or "all"), named changes of its settings. The editor as it is runs
            beside them.
        ks: numbers of edits made at once; 1 is the main table's protocol.
        joint: by editor, changed settings where more than one edit is made at once.
        least_steps: of training for more than one edit at once. It sees as many edits as training
            for one, in larger batches and so in fewer steps, unless `joint` says how many.
        in_turn: whether `ks` count edits made one after another, each on the model as those before
            it left it, by editors fitted for one.
        train_for_k: whether editors that learn are fitted for each number of edits; else those
            fitted for one edit make all of them, as in MEMIT's scaling curves.
        relations: of how many relations further groups of edits are, beside groups of any: 1 or 2
            (MEMIT's section on categories of facts edited together).
    """

    among: tuple[str, ...] | None = None
    on_benches: tuple[str, ...] | None = None
    variants: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    ks: tuple[int, ...] = (1,)
    joint: dict[str, dict[str, Any]] = field(default_factory=dict)
    least_steps: int = 1
    in_turn: bool = False
    train_for_k: bool = True
    relations: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Raises SettingsError for numbers of edits that there cannot be, and names of no use."""
        if not self.ks or min(self.ks) < 1 or len(set(self.ks)) < len(self.ks):
            raise SettingsError(
                expected="plan.ks to be different numbers of edits from 1 on",
                found=str(list(self.ks)),
                remedy="The main table has [1], Table 5 of the MEND paper [1, 5, 25, 75, 125].",
            )
        if not set(self.relations) <= set(RELATIONS):
            raise SettingsError(
                expected=f"plan.relations to be some of {list(RELATIONS)}",
                found=str(list(self.relations)),
                remedy="It says of how many relations edits made at once are; [] for any.",
            )
        for alg, variants in self.variants.items():
            for name in variants:
                if not re.fullmatch(r"(?![kt]\d)[a-z][a-z0-9_]*", name):
                    raise SettingsError(
                        expected=f"a name in plan.variants.{alg}",
                        found=repr(name),
                        remedy="Use small letters, digits and _; k25 and t25 mean 25 edits.",
                    )
                if name.endswith(tuple(RELATIONS.values())):
                    raise SettingsError(
                        expected=f"a name in plan.variants.{alg} that no other runs have",
                        found=repr(name),
                        remedy="Runs that plan.relations adds are called so.",
                    )


@dataclass(frozen=True)
class Runs:
    """What a plan comes to.

    Attributes:
        runs: by name. A run names its settings, since DVC reads the whole record for each stage
            and what is written once is read faster.
        settings: of editors, by benchmark and what makes them others than the usual.
        skipped: the runs left out, each with the reason.
    """

    runs: Params = field(default_factory=dict)
    settings: Params = field(default_factory=dict)
    skipped: list[dict[str, str]] = field(default_factory=list)

    @property
    def fits(self) -> Params:
        """What has to be fitted for the runs: an item for each folder, named as its settings."""
        return {
            item["settings"]: {key: item[key] for key in ("bench", "alg", "editor")}
            for item in self.runs.values()
            if item["fit"]
        }


def name_runs(plan: Plan, values: Mapping[str, Any]) -> Runs:
    """The runs of a plan.

    Args:
        values: a record's suite, algs, benches, editors, traits and overrides.
    """
    _refuse_unknown(plan, values)
    found = Runs()
    for bench in values["benches"]:
        if plan.on_benches is not None and bench not in plan.on_benches:
            continue
        for alg in values["algs"]:
            if plan.among is not None and alg not in plan.among:
                continue
            if reason := _left_out(values, bench, alg):
                found.skipped.append(_skip(bench, alg, "", 1, reason))
                continue
            _add_runs(found, plan, values, bench, alg)
    return found


def used(plan: Plan, values: Mapping[str, Any]) -> list[str]:
    """The benchmarks that the study needs: those of its plan, and those where a model is traced."""
    among = plan.on_benches
    return [
        bench
        for bench in values["benches"]
        if among is None or bench in among or bench in values.get("traces", {})
    ]


def moments_of(runs: Params, values: Mapping[str, Any]) -> Params:
    """The benchmarks whose model's second moments some runs need, with the stage's settings."""
    settings = dict(values.get("statistics", {}))
    corpus = settings.pop("corpus", None)
    return {
        bench: {
            "bench": bench,
            "folder": _moments_folder(values, bench),
            # A folder that the stage needs anyway, since DVC has no optional dependencies.
            "corpus": corpus or f"data/{values['suite']}/{bench}/prepared",
            "settings": settings,
        }
        for bench in dict.fromkeys(item["bench"] for item in runs.values())
        if any(
            item["bench"] == bench and "moments" in _needs(values, item["alg"])
            for item in runs.values()
        )
    }


def _needs(values: Mapping[str, Any], alg: str) -> tuple[str, ...]:
    return tuple(values["traits"][alg].get("needs", ()))


def _moments_folder(values: Mapping[str, Any], bench: str) -> str:
    return f"data/{values['suite']}/{bench}/moments"


def refuse_unknown(
    where: str, found: Sequence[str] | Mapping[str, Any], known: Any, what: str
) -> None:
    """Raises SettingsError for a name that is not known, with the near misses."""
    for name in found:
        if name not in known:
            raise SettingsError(
                expected=f"{what} in {where}", found=repr(name), remedy=near_misses(name, known)
            )


def _left_out(values: Mapping[str, Any], bench: str, alg: str) -> str:
    """Why an editor does not run on a benchmark, "" if it does."""
    settings = values["benches"][bench]
    kind = settings["base"]["kind"]
    if kind not in values["traits"][alg]["edits"]:
        return f"{alg} does not edit a {kind} model"
    if "subjects" in _needs(values, alg) and not settings.get("subjects", True):
        return f"{alg} edits at a subject, and {bench} names none"
    wrong = settings.get("data", {}).get("corrections", 0)
    if values.get("evaluate", {}).get("split") == "correction" and not wrong:
        return f"{bench} has no corrections"
    return ""


def _add_runs(found: Runs, plan: Plan, values: Mapping[str, Any], bench: str, alg: str) -> None:
    """All runs of one editor on one benchmark."""
    traits, needs_moments = values["traits"][alg], "moments" in _needs(values, alg)
    usual = merged(values["editors"][alg], values["overrides"].get(alg, {}).get(bench, {}))
    for variant, own in _variants(plan, alg).items():
        if lacking := [key for key in own if key not in usual]:
            reason = f"{alg} has no setting {' and '.join(lacking)}"
            found.skipped.append(_skip(bench, alg, variant, 1, reason))
            continue
        alone = merged(usual, own)
        for k in plan.ks:
            settings = alone
            if k > 1 and plan.train_for_k and not plan.in_turn:
                settings = _of_k(plan, alg, merged(usual, plan.joint.get(alg, {})), own, k)
            label = alg
            if settings != usual:
                label = _label(alg, variant, 1 if settings == alone else k)
            found.settings[f"{bench}-{label}"] = settings
            folder = f"data/{values['suite']}/{bench}/editors/{label}"
            learned = folder if traits["learns"] else f"pipeline/editors/{alg}.py"
            item = {
                "bench": bench,
                "alg": alg,
                "variant": variant,
                "protocol": _protocol(plan, k),
                "k": k,
                "fit": traits["learns"],
                # What evaluation needs besides the base model, or a file that it needs anyway,
                # since DVC has no optional dependencies.
                "editor": learned,
                "moments": _moments_folder(values, bench) if needs_moments else learned,
                "settings": f"{bench}-{label}",
            }
            for relations, called in _groupings(plan, variant, k).items():
                name = f"{bench}-{_label(alg, called, k, 't' if plan.in_turn else 'k')}"
                found.runs[name] = item | {"variant": called, "relations": relations}


def _groupings(plan: Plan, variant: str, k: int) -> dict[int, str]:
    """What runs of k edits are called: of any cases (0), of so many relations."""
    counts = plan.relations if k > 1 else ()
    return {0: variant} | {n: f"{variant}_{RELATIONS[n]}".strip("_") for n in counts}


def _variants(plan: Plan, alg: str) -> dict[str, dict[str, Any]]:
    return {"": {}} | plan.variants.get(EVERY, {}) | plan.variants.get(alg, {})


def _of_k(plan: Plan, alg: str, usual: Params, own: Params, k: int) -> Params:
    """Settings of an editor that makes k edits at once: the outer loop trains it to do so."""
    settings = merged(usual, own)
    if (outer := settings.get("outer")) is None:
        return settings
    batch = -(-outer["batch"] // k) * k
    found = {"k": k, "batch": batch}
    if "steps" not in plan.joint.get(alg, {}).get("outer", {}):
        steps = max(plan.least_steps, outer["steps"] * outer["batch"] // batch)
        found["steps"] = steps
        if "validate_every" in outer:
            found["validate_every"] = min(steps, outer["validate_every"])
    return {**settings, "outer": {**outer, **found}}


def _protocol(plan: Plan, k: int) -> str:
    if k == 1:
        return "single"
    return "sequential" if plan.in_turn else "batched"


def _label(alg: str, variant: str, k: int, many: str = "k") -> str:
    return "-".join([alg, *([variant] if variant else []), *([f"{many}{k}"] if k > 1 else [])])


def _skip(bench: str, alg: str, variant: str, k: int, reason: str) -> dict[str, str]:
    run = f"{bench}-{_label(alg, variant, k)}"
    return {"run": run, "bench": bench, "alg": alg, "variant": variant, "reason": reason}


def _refuse_unknown(plan: Plan, values: Mapping[str, Any]) -> None:
    editors = values["editors"]
    refuse_unknown("plan.among", plan.among or (), editors, "an editor")
    refuse_unknown("plan.on_benches", plan.on_benches or (), values["benches"], "a benchmark")
    refuse_unknown("plan.joint", plan.joint, editors, "an editor")
    refuse_unknown("plan.variants", plan.variants, [*editors, EVERY], "an editor")
    of_any = {setting for settings in editors.values() for setting in settings}
    for alg, variants in plan.variants.items():
        known, what = (of_any, "any editor") if alg == EVERY else (editors[alg], alg)
        for name, own in variants.items():
            refuse_unknown(f"plan.variants.{alg}.{name}", own, known, f"a setting of {what}")
    for alg, own in plan.joint.items():
        refuse_unknown(f"plan.joint.{alg}", own, editors[alg], f"a setting of {alg}")
