"""Commands about what was done to a model: undo, log, check, export."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.commands.common import (
    Commands,
    command,
    journal_of,
    of_a_model,
    open_editable,
    show,
    show_json,
    table,
    with_device,
    with_guard,
)
from pipeline.commands.editing import health_line

if TYPE_CHECKING:
    from pipeline.editable.journal import Journal, Record


def add(commands: Commands) -> None:
    """`undo`, `log`, `check`, `export`."""
    shared = of_a_model()
    undo = command(
        commands,
        "undo",
        _undo,
        "take edits back: any, in any order",
        "errata undo MODEL 3",
        "errata undo MODEL 1 4",
        "errata undo MODEL --all",
        parents=[shared],
    )
    undo.add_argument("numbers", nargs="*", type=int, metavar="EDIT", help="`errata log` has them")
    undo.add_argument("--all", action="store_true", help="every edit in force")
    command(
        commands,
        "log",
        _log,
        "what was done to a model",
        "errata log MODEL",
        "errata log MODEL --json",
        parents=[shared],
    )
    command(
        commands,
        "check",
        _check,
        "is the journal whole, and do its edits still hold?",
        "errata check MODEL",
        "errata check MODEL --probes cases.parquet --json",
        parents=[shared, with_device(), with_guard()],
    )
    _add_export(commands, [shared, with_device()])


def _add_export(commands: Commands, parents: list[argparse.ArgumentParser]) -> None:
    export = command(
        commands,
        "export",
        _export,
        "write the edited model for others, and read it back",
        "errata export MODEL edited/                  # merged weights, by save_pretrained",
        "errata export MODEL edited/ --as merged --to bfloat16",
        "errata export MODEL adapter/ --as adapter    # LoRA, for peft",
        "errata export MODEL edits.safetensors --as patch",
        parents=parents,
    )
    export.add_argument("out", type=Path, help="where to; nothing may be there")
    export.add_argument(
        "--as", dest="form", default="merged", choices=("merged", "adapter", "patch")
    )
    export.add_argument(
        "--to", default="float32", choices=("float32", "bfloat16", "float16"),
        help="of merged weights (float32)",
    )  # fmt: skip


def _journal(arguments: argparse.Namespace) -> Journal:
    """The journal alone: no model is loaded for it, and none of its files read."""
    from pipeline.editable.journal import Journal

    return Journal(journal_of(arguments))


def _undo(arguments: argparse.Namespace) -> None:
    journal = _journal(arguments)
    numbers = journal.active() if arguments.all else arguments.numbers
    if numbers:
        journal.undo(numbers)
    if arguments.json:
        show_json({"undone": sorted(set(numbers)), "in_force": journal.active()})
        return
    show(f"Undone: {_list(numbers)}. In force: {_list(journal.active())}.")


def _log(arguments: argparse.Namespace) -> None:
    journal = _journal(arguments)
    records, active = journal.records(), journal.active()
    if arguments.json:
        show_json({"journal": journal.folder, "in_force": active, "records": records})
        return
    if not records:
        show(f"No edits yet in {journal.folder}.")
        return
    rows = [_row(record, active) for record in records]
    show(table(("no.", "time (UTC)", "what", "prompt", "target", ""), rows))


def _row(record: Record, active: list[int]) -> list[str]:
    number, when = str(record["number"]), record["time"][:19].replace("T", " ")
    if record["kind"] == "undo":
        return [number, when, "undo", f"of {_list(record['of'])}", "", ""]
    asked = record["corrections"]
    more = f" and {len(asked) - 1} more" if len(asked) > 1 else ""
    state = "in force" if record["number"] in active else "undone"
    if record["health"] and record["health"]["past"]:
        state += ", flagged"
    return [number, when, record["alg"], asked[0]["prompt"] + more, asked[0]["target"], state]


def _check(arguments: argparse.Namespace) -> None:
    from pipeline.editable.failures import JournalError

    model = open_editable(arguments)  # reads every patch in force against its hash
    rows: list[list[str]] = []
    lost: list[int] = []
    found: list[dict[str, Any]] = []
    for edit in model.edits:
        was = {answer.prompt: answer.right for answer in edit.answers if answer.kind == "edit"}
        said = model.ask([item.prompt for item in edit.corrections])
        for item, answer in zip(edit.corrections, said, strict=True):
            holds = answer.strip().startswith(item.target.strip())
            if was[item.prompt] and not holds:
                lost.append(edit.number)
            found.append({"edit": edit.number, "prompt": item.prompt, "target": item.target,
                          "answer": answer, "holds": holds})  # fmt: skip
            rows.append([str(edit.number), item.prompt, item.target, answer,
                         "holds" if holds else "does not hold"])  # fmt: skip
    health = model.health()
    if arguments.json:
        show_json({"edits": found, "health": asdict(health)})
    else:
        show(table(("edit", "prompt", "target", "answer", ""), rows) if rows else "No edits.")
        show(health_line(health))
    if lost:
        raise JournalError(
            expected="every edit that was right to hold still",
            found=f"edits {_list(lost)}, which later ones overrode",
            remedy="Undo the later ones, or make these again.",
        )


def _export(arguments: argparse.Namespace) -> None:
    model = open_editable(arguments)
    found = model.export(arguments.out, arguments.form, arguments.to)
    if arguments.json:
        show_json(asdict(found))
        return
    show(f"Wrote {found.path} ({found.form}), edits {_list(found.edits)}.")
    show(
        f"Read back: {found.held} of {found.asked} edits hold; logits differ by at most "
        f"{found.worst_logit:.1e}."
    )
    if found.unchanged and arguments.to != "float32":
        share = max(found.unchanged.values())
        show(f"Rounding to {arguments.to} left up to {share:.1%} of a matrix's updates undone.")
    if found.ranks:
        ranks = sorted(found.ranks.values())
        show(f"Ranks {ranks[0]} to {ranks[-1]} over {len(ranks)} matrices.")


def _list(numbers: Any) -> str:
    return ", ".join(map(str, sorted(set(numbers)))) or "none"
