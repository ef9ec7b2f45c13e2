"""`Editable`: a model that can be edited, asked, compared, and brought back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

import torch

from pipeline.editable import export as exporting
from pipeline.editable import fitting, work
from pipeline.editable.asking import answers
from pipeline.editable.corrections import Asked, checked, corrections
from pipeline.editable.given import cases_of, prompts_of, settings_of, text_of
from pipeline.editable.guard import Guard, Health, guard_of
from pipeline.editable.journal import Journal, Record
from pipeline.editable.making import Maker
from pipeline.editable.opening import open_model, refuse_inside
from pipeline.editable.recorded import refuse_other
from pipeline.editable.state import versions
from pipeline.editable.work import Answer, Edit
from pipeline.models import Face
from pipeline.records import Case

Prompts = list[str] | tuple[str, ...] | Iterator[str]


class Editable:
    """A model and the edits in force on it. Its weights are never written.

    Where others write in the same journal, each call here first takes up what they did.

    Args:
        face: a loaded model (`Editable.load` loads one).
        base_hash: what stands for it; fitted editors and journals belong to one model.
        source: its folder or hub name.
        journal: where edits are written down; None keeps them in memory.
        guard: what edits may cost; by default they are measured and flagged.
    """

    def __init__(
        self,
        face: Face,
        base_hash: str = "",
        *,
        source: str = "",
        journal: Journal | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.face, self.base_hash, self.source = face, base_hash, source
        self.guard = guard_of(guard)
        self._journal = journal
        self._maker = Maker(face, base_hash, journal, self.guard)
        self._state = self._maker.state

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        journal: str | Path | None = None,
        guard: Guard | None = None,
        device: str = "cpu",
        dtype: str | torch.dtype = torch.float32,
    ) -> Editable:
        """Open a Hugging Face folder or hub name, with the edits of its journal in force.

        Args:
            journal: a folder that remembers edits, made with the first (`beside(source)`).

        Raises:
            ModelError: no model, no weights, or an architecture that is not supported.
            JournalError: the journal is a file or another folder, or about another model.
            DataError: the journal or a patch in it is corrupted.
        """
        if journal is not None:
            refuse_inside(Path(journal), source, "a journal")
            refuse_other(Path(journal))
        face, base_hash = open_model(source, device, exporting.dtype_of(dtype))
        kept = Journal(Path(journal), base_hash, str(source)) if journal is not None else None
        return cls(face, base_hash, source=str(source), journal=kept, guard=guard)

    # ------------------------------------------------------------------ editing

    def edit(
        self,
        requests: Asked | Iterable[Asked],
        alg: str = "",
        *,
        editor: str | Path | None = None,
        cases: Sequence[Case] | str | Path = (),
        moments: str | Path | None = None,
        together: bool = False,
        settings: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> tuple[Edit, ...]:
        """Make the model say something else; edits add up, each made on the model as it then is.

        Args:
            requests: one or several: (prompt, target), a `Correction`, or a mapping of its fields.
            alg: any file of `pipeline/editors`; by default what the fitted folder says, or "ft".
            editor: a folder where an editor that learns was fitted, on this very model.
            cases: training cases, or a parquet table of them, to fit it on now, in minutes.
            moments: for ROME and MEMIT, a folder of second moments or a file of texts to take them
                over; by default the model writes the texts, and the journal keeps the moments.
            together: one edit of all requests (undone as one) instead of one for each.
            settings, more: of the editor's `Config` ("outer.steps" reaches into nested ones).

        Returns:
            The edits made, with what the model said before and after, and what it cost. `right` is
            of the call's end; `overridden` and `overrode` say what a later edit undid.

        Raises:
            DataError: the model cannot be asked this. SettingsError: no such editor or setting.
            EditorError: the editor cannot make the edits of this model, or now (`temporarily`).
            GuardError: the guard refuses; earlier edits of this call stay.
            StorageError: the journal cannot be written; the edit is not in force.
        """
        self._state.refuse_lent()
        self._state.refuse_temporary()
        self._state.follow()
        source = self._source(alg, editor, cases, moments, settings_of(settings, more))
        asked = checked(self.face, corrections(requests))
        return self._maker.make(asked, source, together=together, keep=True)

    @contextmanager
    def temporarily(
        self,
        requests: Asked | Iterable[Asked],
        alg: str = "",
        *,
        editor: str | Path | None = None,
        cases: Sequence[Case] | str | Path = (),
        moments: str | Path | None = None,
        together: bool = False,
        settings: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Iterator[tuple[Edit, ...]]:
        """`edit`, for the length of a `with` block, and not in the journal."""
        self._state.refuse_lent()
        self._state.follow()
        source = self._source(alg, editor, cases, moments, settings_of(settings, more))
        asked, stack = checked(self.face, corrections(requests)), self._state.stack
        before = set(stack.numbers())
        try:
            yield self._maker.make(asked, source, together=together, keep=False)
        finally:
            for number in stack.numbers():
                if number < 0 and number not in before:
                    self._state.drop(number)

    def undo(self, *numbers: int) -> None:
        """Take edits back, any of those in force; the rest stays as it is, bit for bit.

        Raises:
            JournalError: one is not in force; then none is taken back.
            EditorError: inside a `with model.edited():` block.
        """
        self._state.refuse_lent()
        self._state.undo(numbers)

    # ------------------------------------------------------------------ asking

    @overload
    def ask(self, prompts: str, tokens: int | None = None) -> str: ...
    @overload
    def ask(self, prompts: Prompts, tokens: int | None = None) -> list[str]: ...
    def ask(self, prompts: str | Prompts, tokens: int | None = None) -> str | list[str]:
        """What the model answers now, greedily.

        Args:
            prompts: one prompt or several.
            tokens: most tokens of an answer; by default 10. The context may leave room for fewer.

        Raises:
            DataError: a prompt is no text, or leaves no room for an answer in the model's context.
            SettingsError: tokens are no whole number above 0.
        """
        self._state.follow()
        said = self._state.answers(prompts_of(prompts), tokens)
        return said[0] if isinstance(prompts, str) else said

    def compare(self, prompts: str | Prompts, tokens: int | None = None) -> tuple[Answer, ...]:
        """What the untouched model answers, and what it answers with all edits in force."""
        self._state.refuse_lent()
        self._state.follow()
        prompts = prompts_of(prompts)
        pairs = zip(
            prompts,
            answers(self.face, prompts, tokens),
            self._state.answers(prompts, tokens),
            strict=True,
        )
        return tuple(
            Answer(kind="asked", prompt=prompt, before=before, after=after)
            for prompt, before, after in pairs
        )

    @contextmanager
    def edited(self) -> Iterator[Any]:
        """The transformers model itself, which answers as edited inside the `with` block."""
        self._state.follow()
        with self._state.lent() as face:
            yield face.model

    def health(self) -> Health:
        """What the guard's probes say of the model as it is now."""
        self._state.refuse_lent()
        self._state.follow()
        return self._maker.health()

    # ------------------------------------------------------------------ what was done

    @property
    def in_force(self) -> list[int]:
        """Numbers of the edits in force, oldest first; temporary ones have none."""
        self._state.follow()
        return self._state.numbers

    @property
    def made(self) -> list[int]:
        """Of the edits in force, those made here: not those found, nor another process's."""
        return [number for number in self._state.numbers if number in self._state.written]

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The edits in force."""
        self._state.follow()
        return self._edits()

    def journal(self) -> list[Record]:
        """All that was done, oldest first: edits and undos, as plain values."""
        self._state.follow()
        return list(self._state.records)

    def export(
        self,
        path: str | Path,
        form: exporting.Form = "merged",
        dtype: str | torch.dtype = "float32",
    ) -> exporting.Exported:
        """Write the edited model, and read it back to see that it answers as it should.

        Args:
            path: a place that is free.
            form: "merged" weights by save_pretrained, a LoRA "adapter" for peft, or the "patch".
            dtype: of merged weights: float32, bfloat16 or float16, by name or as torch has it.

        Raises:
            EditorError: no edit is in force, or one has no such form.
            SettingsError: there is no such form or dtype.
            StorageError: the place is taken, or the model's or the journal's, or the disk refuses.
        """
        self._state.refuse_lent()
        self._state.follow()
        for folder in (self.source, *([self._journal.folder] if self._journal else ())):
            refuse_inside(Path(path), folder, "an export")
        updates = self._state.stack.weights()
        asked = [item for edit in self._edits() for item in edit.corrections]
        cargo = exporting.Cargo(
            face=self._state.current,
            updates=updates,
            edits=tuple(self._state.numbers),
            pairs=tuple(item.pair for item in asked),
            about={"base_hash": self.base_hash, "source": self.source} | versions(),
            source=str(Path(self.source).resolve()) if Path(self.source).is_dir() else self.source,
            adapted=self._state.current is not self.face,
        )
        return exporting.export(cargo, Path(path), form, str(dtype).removeprefix("torch."))

    def save(self, path: str | Path) -> exporting.Exported:
        """`export` of merged weights in float32."""
        return self.export(path)

    def _edits(self) -> tuple[Edit, ...]:
        records = {record["number"]: record for record in self._state.records}
        return tuple(work.of_record(records[number]) for number in self._state.numbers)

    def _source(
        self,
        alg: str,
        editor: str | Path | None,
        cases: Sequence[Case] | str | Path,
        moments: str | Path | None,
        settings: Mapping[str, Any],
    ) -> fitting.Source:
        text_of(alg, "the name of an editor", 'Give it as text, as "mend".')
        folder = None if editor is None else Path(editor)
        kept = self._journal.editors() if self._journal else None
        return fitting.Source(
            alg=alg or ("" if folder else "ft"),
            settings=settings,
            folder=folder,
            cases=cases_of(cases),
            moments=None if moments is None else Path(moments),
            checkpoints=kept,
            kept=kept,
        )
