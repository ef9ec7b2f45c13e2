"""From `conf/` to the record `params.yaml`, and what the record derives from its own values.

Hydra composes the record, here and inside `dvc exp run -S ...`; both must write the same bytes.
Eight root keys are derived: what the raw data are read from, the benchmarks that the study uses,
what their models are copied from, its runs, their editors' settings, what has to be fitted for
them, whose second moments are taken for them, and the runs left out with the reason.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import places
from pipeline.config import RECORD, Params, build, flatten, pick, read_params
from pipeline.errors import SettingsError, near_misses
from pipeline.ranges import check_record_ranges
from pipeline.storage import write_aside
from pipeline.studies import Plan, moments_of, name_runs, refuse_unknown, used

if TYPE_CHECKING:
    from omegaconf import DictConfig

DERIVED = ("source", "used", "bases", "runs", "settings", "fits", "moments", "skipped")
_NEEDED = (
    *("suite", "raw", "world", "algs", "plan", "benches"),
    *("editors", "traits", "overrides", "statistics", "evaluate", "traces"),
)


def register() -> None:
    """Teach OmegaConf `${errata:runs}` and the other derived keys. Safe to call again."""
    from omegaconf import OmegaConf

    def resolve(name: str, *, _root_: DictConfig) -> Any:
        whole = OmegaConf.to_container(_root_, resolve=False)
        assert isinstance(whole, dict)
        values = {key: whole[key] for key in _NEEDED}
        return OmegaConf.create({"value": derive(values)[name]}).value

    OmegaConf.register_new_resolver("errata", resolve, replace=True)


def derive(values: Mapping[str, Any]) -> Params:
    """The derived root keys of a record.

    Raises:
        SettingsError: an editor or a benchmark is named that there is not, or `raw` does not fit.
    """
    _refuse_unknown(values)
    check_record_ranges(values)
    plan = build(Plan, values.get("plan", {}), "plan")
    found = name_runs(plan, values)
    if not found.runs and not values.get("traces"):
        raise SettingsError(
            expected="at least one run of the study's plan",
            found=f"none by {', '.join(values['algs']) or 'no editor'}; plan.among is "
            f"{plan.among}, plan.on_benches {plan.on_benches}",
            remedy="Name an editor and a benchmark that the plan has, or change it.",
        )
    benches = used(plan, values)
    places.refuse_lost(values, benches)
    return {
        "source": places.source(values),
        "used": benches,
        "bases": places.bases(values, benches),
        "runs": found.runs,
        "settings": found.settings,
        "fits": found.fits,
        "moments": moments_of(found.runs, values),
        "skipped": found.skipped,
    }


def compose(root: Path, overrides: Sequence[str] = ()) -> str:
    """The text of `params.yaml` for the defaults of `conf/` and some overrides, as DVC writes it.

    Raises:
        SettingsError: an override names something unknown, or does not fit the rest.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    register()
    _refuse_nameless(overrides)
    _refuse_unknown_groups(root / "conf", overrides)
    try:
        with initialize_config_dir(str((root / "conf").resolve()), version_base=None):
            composed = hydra_compose("config", overrides=list(overrides))
        OmegaConf.resolve(composed)
        _refuse_open(OmegaConf.missing_keys(composed))
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        if (own := _own_error(error)) is not None:
            raise own from None  # what derive() said, without the frame OmegaConf puts around it
        raise _explain(root, overrides, error) from error
    return OmegaConf.to_yaml(composed)


def _refuse_open(names: Collection[str]) -> None:
    """Raises SettingsError for what a study of one's own did not say, such as its name."""
    if names:
        raise SettingsError(
            expected=f"a value for {', '.join(sorted(names))}",
            found="none",
            remedy="Set it in conf/, in the file of the suite or study that leaves it open.",
        )


def _refuse_nameless(overrides: Sequence[str]) -> None:
    """Raises SettingsError for an override of nothing, over which Hydra stumbles."""
    for override in overrides:
        if not override.lstrip("+~").partition("=")[0].strip():
            raise SettingsError(
                expected="an override as key=value",
                found=repr(override),
                remedy="Say alg=mend, or seed=1.",
            )


def parse(text: str) -> Params:
    """Composed text as plain values, read as the record is."""
    from ruamel.yaml import YAML

    values = YAML(typ="safe").load(text)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def is_recorded(root: Path, text: str) -> bool:
    """Whether composed text is what `params.yaml` says already."""
    path = root / RECORD
    return path.is_file() and path.read_text(encoding="utf-8") == text


def write_record(root: Path, text: str) -> None:
    """Put composed text in `params.yaml`."""
    write_aside(root / RECORD, lambda part: part.write_text(text, encoding="utf-8"))


def record_differences(root: Path) -> list[tuple[str, Any, Any]]:
    """Where the record is not the default composition: (path, recorded, default).

    Of another suite or study, that choice is one difference, and the rest is compared with what
    `conf/` composes for it. Derived keys are compared with what the record's own values derive. So
    one changed setting is listed once, and a hand edit of a derived key is still seen. A path that
    only one side has is None on the other.
    """
    recorded = read_params(root / RECORD)
    usual = parse(compose(root))
    chosen = [
        (key, recorded.get(key), usual[key])
        for key in ("suite", "study", "raw")
        if recorded.get(key) != usual[key]
    ]
    # A record too broken to compose or to derive from is compared with the default as it stands.
    with suppress(SettingsError, KeyError):
        if chosen:
            usual = parse(compose(root, [f"{key}={_quoted(value)}" for key, value, _ in chosen]))
        usual.update(derive(recorded))
    known = {key for key, _, _ in chosen}
    return chosen + [item for item in differences(recorded, usual) if item[0] not in known]


def _quoted(value: Any) -> str:
    """A value in Hydra's grammar, whatever characters a path has."""
    return "null" if value is None else "'" + str(value).replace("'", "\\'") + "'"


def differences(recorded: Params, default: Params) -> list[tuple[str, Any, Any]]:
    """Dotted paths at which two sets of settings differ, with both values."""
    left, right = flatten(recorded), flatten(default)
    paths = [*left, *(path for path in right if path not in left)]
    return [
        (path, left.get(path), right.get(path))
        for path in paths
        if path not in left or path not in right or left[path] != right[path]
    ]


def _own_error(error: BaseException | None) -> SettingsError | None:
    while error is not None and not isinstance(error, SettingsError):
        error = error.__cause__ or error.__context__
    return error


def _refuse_unknown(values: Mapping[str, Any]) -> None:
    if isinstance(values["algs"], str):
        raise SettingsError(
            expected="algs to be a list",
            found=repr(values["algs"]),
            remedy=f"Name one by its group: alg={values['algs']}; several run one after another: "
            "--queue.",
        )
    refuse_unknown("algs", values["algs"], values["editors"], "an editor")
    refuse_unknown("traits", values["editors"], values["traits"], "an editor with traits")
    refuse_unknown("overrides", values["overrides"], values["editors"], "an editor")
    for alg, benches in values["overrides"].items():
        refuse_unknown(f"overrides.{alg}", benches, values["benches"], "a benchmark")
        for bench, own in benches.items():
            refuse_unknown(
                f"overrides.{alg}.{bench}", own, values["editors"][alg], f"a setting of {alg}"
            )


def _refuse_unknown_groups(conf: Path, overrides: Sequence[str]) -> None:
    """Name the near misses of an unknown editor, suite or study; hydra does not."""
    for override in overrides:
        group, _, choice = override.partition("=")
        choice = choice.strip("'")
        if not (conf / group).is_dir() or not group.isidentifier():
            continue
        known = sorted(path.stem for path in (conf / group).glob("*.yaml"))
        if "," in choice:
            raise SettingsError(
                expected=f"one {group}",
                found=override,
                remedy="Several are run one after another: "
                f"dvc exp run -S {override} --queue, then dvc queue start.",
            )
        if choice not in known:
            raise SettingsError(
                expected=f"a known {group}", found=repr(choice), remedy=near_misses(choice, known)
            )


def _explain(root: Path, overrides: Sequence[str], error: Exception) -> SettingsError:
    """Hydra's refusal in the project's words, with near misses where a key is unknown."""
    if overrides:
        default = parse(compose(root))
        for override in overrides:
            key = override.lstrip("+~").partition("=")[0]
            if not override.startswith("+") and "/" not in key and "@" not in key:
                pick(default, key)
            if key == "benches":
                return SettingsError(
                    expected="settings of benches.BENCHMARK",
                    found=override,
                    remedy="To run on some of the benchmarks alone: plan.on_benches=[zsre].",
                )
    return SettingsError(
        expected="settings that compose",
        found=str(error).replace("\n", " "),
        remedy="Correct conf/ or the override.",
    )
