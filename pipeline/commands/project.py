"""Commands about the pipeline itself: settings, the graph, MLflow, the README."""

from __future__ import annotations

import argparse
import logging
from contextlib import chdir, suppress
from pathlib import Path

from pipeline import composition
from pipeline.commands.common import Commands, command, refuse_idle
from pipeline.config import RECORD, Params, check_root, read_params
from pipeline.errors import SettingsError, StorageError

_LOG = logging.getLogger(__name__)


def add(commands: Commands) -> None:
    """`params`, `repro`, `mlflow`, `readme`."""
    root = argparse.ArgumentParser(add_help=False)
    root.add_argument("--root", type=Path, default=Path(), help="the project's folder (here)")

    params = command(
        commands,
        "params",
        _params,
        "compose params.yaml from conf/",
        "errata params",
        "errata params alg=mend seed=1",
        "errata params --check     # is it what conf/ gives by default?",
        parents=[root],
    )
    params.add_argument("overrides", nargs="*", metavar="key=value", help="alg=mend, seed=1, ...")
    params.add_argument("--check", action="store_true", help="change nothing; fail if it differs")

    repro = command(
        commands,
        "repro",
        _repro,
        "bring the graph up to date on all cores, as dvc repro does on one",
        "errata repro",
        "errata repro --jobs 1",
        parents=[root],
    )
    repro.add_argument("--jobs", type=int, help="stages side by side (cores / threads)")

    command(
        commands,
        "mlflow",
        _mlflow,
        "send results on disk to MLflow",
        "errata mlflow",
        parents=[root],
    )
    command(
        commands,
        "readme",
        _readme,
        "write README.md's results table",
        "errata readme",
        parents=[root],
    )


def _params(arguments: argparse.Namespace) -> None:
    if arguments.check:
        refuse_idle({"overrides": arguments.overrides}, "--check")
        _check(arguments.root)
        return
    text = composition.compose(arguments.root, arguments.overrides)
    # It was checked when it was written, and each stage checks its own settings again.
    if composition.is_recorded(arguments.root, text):
        _LOG.info("%s is up to date", RECORD)
        return
    from pipeline.settings import check  # imports every module that has settings, and torch

    check(composition.parse(text))
    composition.write_record(arguments.root, text)
    _LOG.info("%s composed anew", RECORD)


def _check(root: Path) -> None:
    from pipeline.settings import check

    found = composition.record_differences(root)
    if found:
        raise SettingsError(
            expected=f"{RECORD} as conf/ composes it by default",
            found="; ".join(f"{path}: {value!r}, not {usual!r}" for path, value, usual in found),
            remedy="Compose it again: errata params.",
        )
    check(read_params(root / RECORD))
    _LOG.info("%s is the default composition", RECORD)


def _repro(arguments: argparse.Namespace) -> None:
    from pipeline import lanes

    params = read_params(arguments.root / RECORD)
    check_root(params)
    _tell_of_hand_edits(params)
    lanes.repro(arguments.root, params, arguments.jobs)


def _tell_of_hand_edits(params: Params) -> None:
    """Runs read the derived part of the record; what that is derived from does nothing alone."""
    derived: Params = {}
    with suppress(SettingsError, KeyError):  # a folder that is gone: what needs it will say so
        derived = composition.derive(params)
    kept = {key: params[key] for key in derived}
    for path, value, usual in composition.differences(kept, derived):
        _LOG.warning(
            "%s: %s is %r, where what it is derived from says %r. Runs go by what it is; to change "
            "a setting: conf/, then errata params.",
            RECORD,
            path,
            value,
            usual,
        )


def _mlflow(arguments: argparse.Namespace) -> None:
    from pipeline import results, tracking

    params = read_params(arguments.root / RECORD)
    check_root(params)
    with chdir(arguments.root):  # whose database it is
        new = tracking.log(results.collect(Path(), params))
    if new is None:
        raise StorageError(
            expected=f"to send results to MLflow at {tracking.database()}",
            found="that it cannot be written",
            remedy="Mend what the warning above names, and run it again.",
        )
    _LOG.info("%d new in %s", new, tracking.database())


def _readme(arguments: argparse.Namespace) -> None:
    from pipeline import readme

    changed = readme.update(arguments.root)
    _LOG.info("README.md %s", "rewritten" if changed else "is up to date")
