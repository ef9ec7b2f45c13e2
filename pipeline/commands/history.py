"""Commands about what was done to a model: undo, log, check, export."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.commands.common import (
    Commands,
    command,
    journal_of,
    of_a_model,
    open_editable,
    refuse_idle,
    refuse_no_model,
    show,
    show_json,
    table,
    with_device,
    with_guard,
)
from pipeline.commands.made import health_line
from pipeline.errors import EditorError, ErrataError, SettingsError

if TYPE_CHECKING:
    from pipeline.editable import Edit, Editable
    from pipeline.editable.export import Exported
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
        "--to", choices=("float32", "bfloat16", "float16"), help="of merged weights (float32)",
    )  # fmt: skip


def _journal(arguments: argparse.Namespace) -> Journal:
    """The journal alone: no model is loaded for it, and none of its files read."""
    from pipeline.editable.journal import Journal
    from pipeline.editable.recorded import refuse_other

    refuse_no_model(arguments)
    refuse_other(journal_of(arguments))
    return Journal(journal_of(arguments))


def _undo(arguments: argparse.Namespace) -> None:
    if arguments.all == bool(arguments.numbers):
        raise SettingsError(
            expected="the numbers of edits, or --all",
            found="both" if arguments.all else "neither",
            remedy="`errata log` lists the edits.",
        )
    journal = _journal(arguments)
    record = journal.undo(None if arguments.all else arguments.numbers)
    undone = record["of"] if record else []
    if arguments.json:
        show_json({"undone": undone, "in_force": journal.active()})
        return
    show(f"Undone: {_list(undone)}. In force: {_list(journal.active())}.")


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
    from pipeline.editable.failures import GuardError
    from pipeline.editable.faults import faults as faults_of

    faults = faults_of(_journal(arguments))
    if not arguments.json:  # before the model is opened, which stops at the first
        for fault in faults:
            show(f"The journal is not whole: {fault}.")
    with _told_above(faults, as_json=arguments.json):
        model = open_editable(arguments)
    found = [row for edit in model.edits for row in _asked_again(model, edit)]
    health = None if arguments.guard == "off" else model.health()
    if arguments.json:
        told = asdict(health) if health else None
        show_json({"edits": found, "health": told, "faults": faults})
    else:
        rows = [
            [str(row["edit"]), row["prompt"], row["target"], row["answer"],
             "holds" if row["holds"] else "does not hold"]
            for row in found
        ]  # fmt: skip
        show(table(("edit", "prompt", "target", "answer", ""), rows) if rows else "No edits.")
        if health:
            show(health_line(health))
        if health and health.past:
            show(f"The model is past a limit: {'; '.join(health.past)}.")
    lost = [row["edit"] for row in found if row["held"] and not row["holds"]]
    _complain(faults, not arguments.json, lost)
    if health and arguments.guard == "refuse" and health.past:
        raise GuardError(
            expected="a model within the guard's limits",
            found="; ".join(health.past),
            remedy="Undo edits (`errata log` shows them), or widen the limits.",
        )


def _asked_again(model: Editable, edit: Edit) -> list[dict[str, Any]]:
    """What an edit was to achieve, whether it held when it was made, and whether it holds now."""
    from pipeline.editable.asking import TOKENS
    from pipeline.editable.work import says

    held = {answer.prompt for answer in edit.answers if answer.kind == "edit" and answer.right}
    targets = model.face.tokenise([item.pair for item in edit.corrections])
    tokens = max(TOKENS, *(len(item.labels) for item in targets))  # no target cut short
    said = model.ask([item.prompt for item in edit.corrections], tokens)
    return [
        {"edit": edit.number, "prompt": item.prompt, "target": item.target, "answer": answer,
         "holds": says(answer, item.target, ends=model.face.kind != "causal"),
         "held": item.prompt in held}
        for item, answer in zip(edit.corrections, said, strict=True)
    ]  # fmt: skip


@contextmanager
def _told_above(faults: Sequence[str], *, as_json: bool) -> Iterator[None]:
    """A model that the journal's faults keep from opening: what was shown is not said again."""
    try:
        yield
    except ErrataError as error:
        if not any(error.expected in fault for fault in faults):
            raise
        if as_json:
            show_json({"edits": [], "health": None, "faults": faults})
            raise
        _complain(faults, True, ())


def _complain(faults: Sequence[str], shown: bool, lost: Sequence[int]) -> None:
    """Raises JournalError where the journal is not whole, or an edit that held does no more."""
    from pipeline.editable.failures import JournalError

    if faults:
        also = f"; and edits {_list(lost)} no longer hold" if lost else ""
        raise JournalError(
            expected="a whole journal",
            found=("what is shown above" if shown else "; ".join(faults)) + also,
            remedy="Restore its files from a backup, or undo edits whose patch is lost (`errata "
            "undo`). A record that is gone stays gone: the others are as they were.",
        )
    if lost:
        raise JournalError(
            expected="every edit that was right to hold still",
            found=f"edits {_list(lost)}, which other edits or undos overrode",
            remedy="Undo those other edits, or make these again.",
        )


def _export(arguments: argparse.Namespace) -> None:
    if arguments.form != "merged":
        refuse_idle({"--to": arguments.to}, f"--as {arguments.form}")
    dtype = arguments.to or "float32"
    found = open_editable(arguments).export(arguments.out, arguments.form, dtype)
    if arguments.json:
        show_json(asdict(found))
    else:
        _show_export(found, dtype)
    if found.held < found.asked:
        raise EditorError(
            expected=f"all corrections to hold in {found.path}",
            found=f"{found.asked - found.held} of {found.asked} lost by rounding",
            remedy="It is kept. Open and export the model in float32, or make those edits anew.",
        )


def _show_export(found: Exported, dtype: str) -> None:
    show(f"Wrote {found.path} ({found.form}), edits {_list(found.edits)}.")
    show(
        f"Read back: of {found.asked} corrections that the edited model makes {found.held} hold; "
        f"logits differ by at most {found.worst_logit:.1e}."
    )
    if found.unchanged and dtype != "float32":
        share = max(found.unchanged.values())
        show(f"Rounding to {dtype} left up to {share:.1%} of a matrix's updates undone.")
    if found.ranks:
        ranks = sorted(found.ranks.values())
        show(f"Ranks {ranks[0]} to {ranks[-1]} over {len(ranks)} matrices.")


def _list(numbers: Any) -> str:
    return ", ".join(map(str, sorted(set(numbers)))) or "none"
