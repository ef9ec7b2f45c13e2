"""What edits did, told to people or as JSON."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from pipeline.commands.common import journal_of, show, show_json, table

if TYPE_CHECKING:
    from pipeline.editable import Answer, Edit, Health


def report(arguments: argparse.Namespace, edits: Sequence[Edit]) -> None:
    """What a call's edits did, as it is at the call's end."""
    if arguments.json:
        plain = [asdict(edit) | {"right": edit.right} for edit in edits]
        overridden = [edit.number for edit in edits if edit.overridden]
        show_json({"edits": plain, "overridden": overridden, "overrode": edits[-1].overrode})
        return
    rows = [
        [
            "" if edit.number < 0 else str(edit.number),
            answer.kind,
            answer.prompt,
            answer.before,
            answer.after,
            _verdict(edit, answer),
        ]
        for edit in edits
        for answer in edit.answers
    ]
    show(table(("edit", "what", "prompt", "before", "after", ""), rows))
    last = edits[-1]
    show(f"\n{_sum(edits)}")
    if last.overrode:
        show(
            f"Made before, and would be overridden: {_list(last.overrode)}."
            if arguments.dry_run
            else f"Made before, and overridden: {_list(last.overrode)} (`errata check` tells more)."
        )
    if last.health is not None:
        show(health_line(last.health))
    flagged = [edit for edit in edits if edit.health and edit.health.past]
    for edit in flagged:
        assert edit.health is not None
        name = f"Edit {edit.number}" if edit.number > 0 else "An edit"
        show(f"{name} goes past a limit: {'; '.join(edit.health.past)}.")
    if arguments.dry_run:
        show("Nothing was kept: a dry run.")
    else:
        show(f"Written to {journal_of(arguments)}; `errata undo` takes any edit back.")


def _sum(edits: Sequence[Edit]) -> str:
    """How many hold, and which a later one undid: by number, or of a dry run by their order."""
    right, seconds = sum(edit.right for edit in edits), sum(edit.seconds for edit in edits)
    line = f"{right} of {len(edits)} edits say what they should ({edits[-1].alg}, {seconds:.1f} s)"
    lost = [place if e.number < 0 else e.number for place, e in enumerate(edits, 1) if e.overridden]
    if not lost:
        return f"{line}."
    were = "was" if len(lost) == 1 else "were"
    return f"{line}; {_list(lost)} {were} overridden by later ones: try --together."


def health_line(health: Health) -> str:
    """The probe set in a sentence. A number that is none is said in words."""
    grown = f"norms grew by up to {_number(health.growth, '.1%')}"
    if math.isnan(health.perplexity_before):
        return f"Probes: none that this model can be asked, {grown}."
    line = (
        f"Probes: drawdown {_number(health.drawdown)}, agreement {_number(health.agreement)}, "
        f"perplexity {_number(health.perplexity_before)} to {_number(health.perplexity)}, {grown}"
    )
    if not math.isnan(health.entropy_before):
        line += f", entropy of free text {_number(health.entropy_before)}"
        line += f" to {_number(health.entropy)}"
    return line + "."


def _number(value: float, form: str = ".2f") -> str:
    return "no number" if math.isnan(value) else format(value, form)


def _verdict(edit: Edit, answer: Answer) -> str:
    if answer.kind == "neighbour":
        return "stayed" if answer.right else "moved"
    if answer.right:
        return "right"
    return "overridden" if edit.overridden and answer.kind == "edit" else "not yet"


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
