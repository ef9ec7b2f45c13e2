"""`errata`: edit a model of one's own; and what DVC and MLflow have no command for."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from pipeline.commands import editing, history, project
from pipeline.errors import ErrataError

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
    parser = argparse.ArgumentParser(
        prog="errata",
        description=__doc__,
        epilog="`errata COMMAND --help` shows examples of each.",
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    editing.add(commands)
    history.add(commands)
    project.add(commands)
    return parser
