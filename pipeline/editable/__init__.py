"""Edit a model of one's own: load, edit, ask, compare, undo, export.

    from pipeline import Editable

    model = Editable.load("path/to/model")
    model.edit([("The capital of Verlania is", " Oslo")], rate=1e-3)
    model.ask("The capital of Verlania is")
    model.undo(1)

The base weights are never written: edits are patches in forward hooks (`pipeline.editing.patch`),
so taking one off is exact, in any order. What was done lies in a journal, on disk if a folder is
given.

The names below are loaded when they are asked for: a journal can be read without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.editable.corrections import Correction
    from pipeline.editable.export import Exported
    from pipeline.editable.failures import ChangedError, GuardError, JournalError, PortError
    from pipeline.editable.guard import Guard, Health
    from pipeline.editable.journal import Journal
    from pipeline.editable.model import Editable
    from pipeline.editable.naming import beside
    from pipeline.editable.work import Answer, Edit

__all__ = [
    "Answer",
    "ChangedError",
    "Correction",
    "Edit",
    "Editable",
    "Exported",
    "Guard",
    "GuardError",
    "Health",
    "Journal",
    "JournalError",
    "PortError",
    "beside",
]


def __getattr__(name: str) -> Any:
    homes = {
        "Answer": "work",
        "ChangedError": "failures",
        "Correction": "corrections",
        "Edit": "work",
        "Editable": "model",
        "Exported": "export",
        "Guard": "guard",
        "GuardError": "failures",
        "Health": "guard",
        "Journal": "journal",
        "JournalError": "failures",
        "PortError": "failures",
        "beside": "naming",
    }
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{homes[name]}"), name)
