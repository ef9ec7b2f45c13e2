"""What subcommands share: how one is added, how a model is opened, how answers are shown."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ModelError, SettingsError, near_misses

if TYPE_CHECKING:
    from pipeline.editable import Editable, Guard

Commands = Any  # what argparse's add_subparsers returns has no public name
Run = Callable[[argparse.Namespace], None]

_NARROW = 12  # columns that a cell keeps, however narrow the terminal is


def command(
    commands: Commands, name: str, run: Run, about: str, *examples: str, parents: Any = ()
) -> argparse.ArgumentParser:
    """A subcommand whose help ends with examples."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}{'' if about[-1] in '?!' else '.'}",
        epilog="examples:\n" + "\n".join(f"  {example}" for example in examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=list(parents),
    )
    parser.set_defaults(run=run)
    return parser


def of_a_model() -> argparse.ArgumentParser:
    """Arguments of every command about a model of one's own."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("model", help="a folder made by save_pretrained, or a hub name, owner/name")
    shared.add_argument(
        "--journal", type=_folder, help="the folder of its edits (MODEL.errata, beside the model)"
    )
    shared.add_argument("--json", action="store_true", help="JSON for machines")
    return shared


def _folder(text: str) -> Path:
    """A folder's name; an empty one would be the folder that the command is called in."""
    if not text.strip():
        raise argparse.ArgumentTypeError("a folder's name, and not nothing")
    return Path(text)


def with_device() -> argparse.ArgumentParser:
    """Arguments of commands that load the model."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--device", default="cpu", help="cpu, cuda, ... (cpu)")
    shared.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16", "float16"), help="(float32)"
    )
    return shared


def with_guard() -> argparse.ArgumentParser:
    """Arguments of commands that watch what edits cost."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--guard",
        default="flag",
        choices=("flag", "refuse", "off"),
        help="what happens to an edit past a limit (flag)",
    )
    shared.add_argument(
        "--probes", type=Path, help="what should stay: .txt, .jsonl, or a parquet table of cases"
    )
    shared.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="NAME=X",
        help="perplexity=1.5 (most growth), agreement=0.8, growth=0.5 (of norms), entropy=0.7",
    )
    return shared


def journal_of(arguments: argparse.Namespace) -> Path:
    """Where the journal lies."""
    from pipeline.editable.naming import beside

    found: Path = arguments.journal or beside(arguments.model)
    return found


def refuse_no_model(arguments: argparse.Namespace) -> None:
    """Raises ModelError where a model is named that is not here, and no journal of it either.

    Commands about the history load no model, and would find a history of nothing.
    """
    from pipeline.editable.naming import looks_like_path

    source, journal = arguments.model, journal_of(arguments)
    if Path(source).is_dir() or journal.is_dir():
        return
    if not looks_like_path(source):
        from pipeline.editable.hub import cached

        if not cached(source):
            raise ModelError(
                expected=f"a model {source}, or its journal at {journal.resolve()}",
                found="no folder of that name here, none in the hub's cache, and no journal",
                remedy="Go to the folder where it was edited, or name its journal (--journal).",
            )
    else:
        raise ModelError(
            expected=f"a folder with a model at {source}, or its journal",
            found="no such folder",
            remedy="Give a folder made by save_pretrained, a hub name, or --journal.",
        )


def refuse_idle(given: Mapping[str, object], beside: str) -> None:
    """Raises SettingsError where arguments are given that another one leaves without effect."""
    if idle := [name for name, value in given.items() if value]:
        raise SettingsError(
            expected=f"{beside} without {' and '.join(idle)}",
            found="both",
            remedy=f"{' and '.join(idle)} would change nothing: leave one side out.",
        )


def open_editable(arguments: argparse.Namespace) -> Editable:
    """The model with its edits in force; quiet where nobody watches."""
    import torch
    from transformers.utils import logging as transformers_logging

    from pipeline.editable import Editable

    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    return Editable.load(
        arguments.model,
        journal=journal_of(arguments),
        guard=_guard(arguments),
        device=arguments.device,
        dtype=getattr(torch, arguments.dtype),
    )


def settings(pairs: Sequence[str]) -> dict[str, Any]:
    """`name=value` as settings; values are JSON where they can be, else text.

    Raises:
        SettingsError: a pair is none, or one would undo another.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise SettingsError(
                expected="a setting as name=value", found=repr(pair), remedy="Say rate=1e-3."
            )
        for other in found:
            if f"{name}.".startswith(f"{other}.") or f"{other}.".startswith(f"{name}."):
                raise SettingsError(
                    expected=f"each setting once ({pair})",
                    found=f"{other} and {name}" if other != name else f"{name} twice",
                    remedy="One would undo the other: leave it out.",
                )
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


def show(text: str) -> None:
    """A line for people."""
    sys.stdout.write(f"{text}\n")


def show_json(value: Any) -> None:
    """One JSON document; what is no number is null."""
    sys.stdout.write(json.dumps(_plain(value), ensure_ascii=False, indent=2) + "\n")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns that fit the terminal; what is too long is cut."""
    cells = [list(columns), *([_flat(cell) for cell in row] for row in rows)]
    widths = [max(_width(row[i]) for row in cells) for i in range(len(columns))]
    room = max(shutil.get_terminal_size((140, 24)).columns, 60) - 2 * (len(columns) - 1)
    while sum(widths) > room and max(widths) > _NARROW:
        widths[widths.index(max(widths))] -= 1
    lines = [
        "  ".join(_fill(cell, width) for cell, width in zip(row, widths, strict=True))
        for row in cells
    ]
    return "\n".join(line.rstrip() for line in (lines[0], "-" * _width(lines[0]), *lines[1:]))


def _guard(arguments: argparse.Namespace) -> Guard:
    from pipeline.config import build
    from pipeline.editable.guard import LIMITS, Guard
    from pipeline.editable.probes import read_probes

    if "guard" not in vars(arguments):
        return Guard(action="off")
    if arguments.guard == "off":
        refuse_idle({"--limit": arguments.limit, "--probes": arguments.probes}, "--guard off")
    limits = settings(arguments.limit)
    if others := set(limits) - set(LIMITS):
        raise SettingsError(
            expected=f"limits of {', '.join(LIMITS)}",
            found=", ".join(sorted(others)),
            remedy=near_misses(min(others), LIMITS),
        )
    guard = build(Guard, {"action": arguments.guard, **limits}, "guard")
    if arguments.probes is None:
        return guard
    return Guard(**(vars(guard) | {"probes": read_probes(arguments.probes)}))


def _flat(text: str) -> str:
    return " ".join(text.split())


def _fill(text: str, width: int) -> str:
    """Cut or filled up to as many columns."""
    if _width(text) > width:
        while _width(text) > width - 1:
            text = text[:-1]
        text += "…"
    return text + " " * (width - _width(text))


def _width(text: str) -> int:
    """Columns on a terminal: Chinese and the like are two wide, marks on a letter none."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
