"""Edit a model of one's own: load, edit, ask, compare, undo, export.

    from pipeline import Editable

    model = Editable.load("path/to/model")
    model.edit([("The capital of Verlania is", " Oslo")], rate=1e-3)
    model.ask("The capital of Verlania is")
    model.undo(1)

The base weights are never written: edits are patches in forward hooks (`pipeline.patch`), so taking
one off is exact, in any order. What was done lies in a journal, on disk if a folder is given.
"""

from pipeline.editable.corrections import Correction
from pipeline.editable.export import Exported
from pipeline.editable.failures import GuardError, JournalError
from pipeline.editable.guard import Guard, Health
from pipeline.editable.journal import Journal, beside
from pipeline.editable.model import Editable
from pipeline.editable.work import Answer, Edit

__all__ = [
    "Answer",
    "Correction",
    "Edit",
    "Editable",
    "Exported",
    "Guard",
    "GuardError",
    "Health",
    "Journal",
    "JournalError",
    "beside",
]
