"""`errata`: edit a model of one's own; and what DVC and MLflow have no command for."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from pipeline.commands import editing, history, project
from pipeline.commands.parsing import Parser
from pipeline.editable.texts import encodable
from pipeline.errors import ErrataError

_LOG = logging.getLogger(__name__)
# What a shell gives a program that a signal ended: SIGINT, SIGPIPE.
_INTERRUPTED, _NOBODY_READS = 130, 141


def main(words: Sequence[str] | None = None) -> int:
    """Run one subcommand; a user's mistake is one message and exit code 1."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        try:
            return _run(sys.argv[1:] if words is None else words)
        finally:
            sys.stdout.flush()  # here, where it can still be told that nobody reads
    except BrokenPipeError:  # `errata log M | head -1`
        silence = os.open(os.devnull, os.O_WRONLY)  # for what Python flushes when it ends
        os.dup2(silence, sys.stdout.fileno())
        return _NOBODY_READS
    except KeyboardInterrupt as error:
        _LOG.error("Interrupted.%s", _notes(error))
        return _INTERRUPTED


def _run(words: Sequence[str]) -> int:
    arguments = _parser().parse_args(words)
    try:
        for word in words:
            encodable(word, "the command line")
        arguments.run(arguments)
    except ErrataError as error:
        _LOG.error("%s: %s%s", type(error).__name__, error, _notes(error))
        return 1
    return 0


def _notes(error: BaseException) -> str:
    """What was added to an error on its way, such as which edits were made before it."""
    return "".join(f" {note}" for note in getattr(error, "__notes__", ()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="errata",
        description=__doc__,
        epilog="`errata COMMAND --help` shows examples of each.",
    )
    commands = parser.add_subparsers(required=True, metavar="command", parser_class=Parser)
    editing.add(commands)
    history.add(commands)
    project.add(commands)
    return parser
