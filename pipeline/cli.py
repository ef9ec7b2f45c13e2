"""`errata`, the command line for what DVC and MLflow have no command for."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline import composition
from pipeline.config import RECORD, read_params
from pipeline.errors import ErrataError, SettingsError

_LOG = logging.getLogger(__name__)


def main(words: Sequence[str] | None = None) -> int:
    """Run one subcommand; a user's mistake is one message and exit code 1."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    arguments = _parser().parse_args(words)
    try:
        arguments.run(arguments)
    except ErrataError as error:
        _LOG.error("%s: %s", type(error).__name__, error)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="errata", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    root = argparse.ArgumentParser(add_help=False)
    root.add_argument("--root", type=Path, default=Path(), help="the project's folder (here)")

    params = commands.add_parser("params", parents=[root], help="compose params.yaml from conf/")
    params.add_argument("overrides", nargs="*", metavar="key=value", help="alg=mend, seed=1, ...")
    params.set_defaults(run=_params)

    repro = commands.add_parser("repro", parents=[root], help="dvc repro, on all cores")
    repro.add_argument("--jobs", type=int, help="stages side by side (cores / threads)")
    repro.set_defaults(run=_repro)

    check = commands.add_parser("check", parents=[root], help="is params.yaml what conf/ gives?")
    check.set_defaults(run=_check)

    log = commands.add_parser("log", parents=[root], help="send results on disk to MLflow")
    log.set_defaults(run=_log)

    readme = commands.add_parser("readme", parents=[root], help="write README.md's results table")
    readme.set_defaults(run=_readme)
    return parser


def _params(arguments: argparse.Namespace) -> None:
    from pipeline.settings import check

    text = composition.compose(arguments.root, arguments.overrides)
    check(composition.parse(text))
    changed = composition.write_record(arguments.root, text)
    _LOG.info("%s %s", RECORD, "composed anew" if changed else "is up to date")


def _repro(arguments: argparse.Namespace) -> None:
    from pipeline import lanes

    lanes.repro(arguments.root, read_params(arguments.root / RECORD), arguments.jobs)


def _check(arguments: argparse.Namespace) -> None:
    from pipeline.settings import check

    found = composition.record_differences(arguments.root)
    if found:
        raise SettingsError(
            expected=f"{RECORD} as conf/ composes it by default",
            found="; ".join(f"{path}: {value!r}, not {usual!r}" for path, value, usual in found),
            remedy="Compose it again: errata params.",
        )
    check(read_params(arguments.root / RECORD))
    _LOG.info("%s is the default composition", RECORD)


def _log(arguments: argparse.Namespace) -> None:
    from pipeline import results, tracking

    new = tracking.log(results.collect(arguments.root, read_params(arguments.root / RECORD)))
    if new is not None:
        _LOG.info("%d new in %s", new, tracking.database())


def _readme(arguments: argparse.Namespace) -> None:
    from pipeline import readme

    changed = readme.update(arguments.root)
    _LOG.info("README.md %s", "rewritten" if changed else "is up to date")
