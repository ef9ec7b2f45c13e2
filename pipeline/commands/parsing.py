"""Subcommands' parsers: options may stand anywhere, also between MODEL and what follows it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any

_NEGATIVE = re.compile(r"-\d+|-\d*\.\d+")


class Parser(argparse.ArgumentParser):
    """A parser whose last positional takes several words, wherever they stand.

    argparse settles such a positional together with the one before it, as empty where an option
    comes between the two, and then has no place for the words that follow.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, but with nothing left over: the usage of an error is this command's."""
        found, left = super().parse_known_args(args, namespace)
        several = [action for action in self._actions if action.nargs == "*"]
        words, unknown = _sorted(left)
        if unknown or (words and not several):
            self.error(f"unrecognized arguments: {' '.join(unknown or words)}")
        for word in words:
            try:
                value = self._get_value(several[-1], word)
            except argparse.ArgumentError as error:
                self.error(str(error))
            setattr(found, several[-1].dest, [*getattr(found, several[-1].dest), value])
        return found, []


def _sorted(left: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words, and options that there are not; after `--` all are words."""
    words: list[str] = []
    unknown: list[str] = []
    for number, word in enumerate(left):
        if word == "--":
            return [*words, *left[number + 1 :]], unknown
        option = word.startswith("-") and len(word) > 1 and " " not in word
        (unknown if option and not _NEGATIVE.fullmatch(word) else words).append(word)
    return words, unknown
