"""Edits made: an editor readied, each edit computed, looked at, judged, and written down."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from pipeline.editable import fitted, fitting, work
from pipeline.editable.corrections import Correction
from pipeline.editable.failures import ChangedError, GuardError, JournalError
from pipeline.editable.fitted import Ready
from pipeline.editable.guard import Guard, Health, Watch
from pipeline.editable.holding import at_the_end
from pipeline.editable.journal import Journal, Record
from pipeline.editable.state import State, now, versions
from pipeline.editable.work import Answer, Edit
from pipeline.editing.editor import Edits
from pipeline.editing.patch import Intervention, Patch
from pipeline.errors import EditorError
from pipeline.models import Face
from pipeline.progress import bar
from pipeline.stack import moved, one_row

_LOG = logging.getLogger(__name__)


class Maker:
    """Makes edits of one model, and keeps the editors that it made ready.

    Args:
        face: the untouched model.
        base_hash: what stands for it.
        guard: what edits may cost.
    """

    def __init__(self, face: Face, base_hash: str, journal: Journal | None, guard: Guard) -> None:
        self.face, self.base_hash, self.journal, self.guard = face, base_hash, journal, guard
        self._watch: Watch | None = None
        self._editors: dict[str, Ready] = {}
        self.state = State(face, journal, self._adapted)

    def make(
        self, asked: Sequence[Correction], source: fitting.Source, *, together: bool, keep: bool
    ) -> tuple[Edit, ...]:
        """One edit for each correction, or one of all; see `Editable.edit`."""
        ready = self._ready(source, asked, len(asked) if together else 1, keep=keep)
        face = ready.editor.adapt(self.face)
        on = "" if face is self.face else ready.identity
        self.state.refuse_other_base(on, ready.alg)
        self.state.faces.setdefault(on, face)
        if keep and on:
            self._kept(ready)
        groups = [asked] if together else [(item,) for item in asked]
        made = [self._surely(ready, on, group, keep=keep) for group in bar(groups, "edit")]
        return at_the_end(self.state, made)

    def health(self) -> Health:
        """What the guard's probes say of the model as it is now."""
        self._watch = self._watch or Watch(self.face, self.guard)
        with self.state.applied() as face:
            return self._watch.judge(face, self.state.stack.updates(), face.model)

    def _surely(self, ready: Ready, on: str, asked: Sequence[Correction], *, keep: bool) -> Edit:
        """One edit; once more where another process changed what is in force meanwhile."""
        try:
            return self._one(ready, on, asked, keep=keep)
        except ChangedError:
            self.state.follow()
            self.state.refuse_other_base(on, ready.alg)
            return self._one(ready, on, asked, keep=keep)

    def _one(self, ready: Ready, on: str, asked: Sequence[Correction], *, keep: bool) -> Edit:
        """One edit; out again if anything fails on the way, be it an interrupt."""
        looked = work.questions(asked)
        prompts = [prompt for _, prompt, _ in looked]
        tokens = max(len(item.labels) for item in self.face.tokenise([c.pair for c in asked]))
        before = self.state.answers(prompts, tokens)
        began = time.perf_counter()
        made = self._edits(ready, on, asked, before, looked)
        seconds = time.perf_counter() - began
        ends = self.face.kind != "causal"
        patch = moved(one_row(made.patch), self.face.device)
        _refuse_endless(patch, ready.alg)
        number = self.state.temporary()
        self.state.put(number, on, patch)
        try:
            after = self.state.answers(prompts, tokens)
            edit = Edit(
                number=number,
                time=now(),
                alg=ready.alg,
                settings=ready.settings,
                editor=ready.identity,
                corrections=tuple(asked),
                answers=tuple(
                    Answer(kind=kind, prompt=prompt, before=b, after=a, wanted=wanted, ends=ends)
                    for (kind, prompt, wanted), b, a in zip(looked, before, after, strict=True)
                ),
                health=None if self.guard.action == "off" else self.health(),
                steps=sum(made.steps),
                seconds=seconds,
            )
            self._refuse(edit)
            if not keep:
                return edit
            record = self._write(edit, on, patch)
        except BaseException:
            self.state.drop(number)
            raise
        self.state.drop(number)
        self.state.put(record["number"], on, patch)
        return work.of_record(record)

    def _edits(
        self,
        ready: Ready,
        on: str,
        asked: Sequence[Correction],
        before: Sequence[str],
        looked: Sequence[tuple[work.Kind, str, str]],
    ) -> Edits:
        """On the model as edited so far. What it says now is the prediction that KE reads."""
        said = [b for b, (kind, _, _) in zip(before, looked, strict=True) if kind == "edit"]
        requests = [item.request(text) for item, text in zip(asked, said, strict=True)]
        face = self.state.faces[on]
        with self.state.on_top(face):
            return ready.editor.edit(face, requests, k=len(requests))

    def _write(self, edit: Edit, on: str, patch: Intervention) -> Record:
        about = {"on": on, "base_hash": self.base_hash} | versions()
        return self.state.write(edit.record() | about, patch)

    def _refuse(self, edit: Edit) -> None:
        if self.guard.action == "refuse" and edit.health and edit.health.past:
            prompts = ", ".join(repr(item.prompt) for item in edit.corrections)
            raise GuardError(
                expected=f"an edit within the guard's limits ({prompts})",
                found="; ".join(edit.health.past),
                remedy="It was not made. Lower its rate, take another editor, or widen the guard.",
            )

    def _ready(
        self, source: fitting.Source, asked: Sequence[Correction], k: int, *, keep: bool
    ) -> Ready:
        """An editor; those that learned something are loaded or fitted once."""
        if not keep:
            source = replace(source, checkpoints=None)  # nothing is written of what is tried out
        about = (source.alg, source.folder, source.moments, dict(source.settings))
        key = repr((*about, hash(source.cases)))
        if key not in self._editors:
            ready = fitting.ready(
                self.face, self.base_hash, source, asked, k, lambda: self.state.on_top(self.face)
            )
            if source.folder is None and not source.cases and "moments" not in ready.editor.needs:
                return ready  # it learned from these requests alone, if at all
            self._editors[key] = ready
        ready = self._editors[key]
        fitting.refuse_no_subject(ready.alg, ready.editor, asked)
        if keep and source.cases and (folder := self._kept(ready)):
            _LOG.info("The fitted %s is kept in %s; --editor takes it.", ready.alg, folder)
        return ready

    def _kept(self, ready: Ready) -> Path | None:
        """Keep what an editor learned in the journal; where, if it was not there before."""
        if self.journal is None or not ready.identity:
            return None
        folder = self.journal.editors() / ready.identity[:16]
        if (folder / "editor.json").is_file():
            return None
        fitted.keep(ready, folder, self.base_hash)
        return folder

    def _adapted(self, record: Record) -> Face:
        """The model that an editor trained, from where the journal keeps it."""
        assert self.journal is not None
        folder = self.journal.editor(record)
        ready = self._ready(fitting.Source(settings={}, folder=folder), (), 1, keep=False)
        if ready.identity != record["on"]:
            number = record["number"]
            raise JournalError(
                expected=f"the editor that edit {number} was made with in {folder}, {record['on']}",
                found=ready.identity,
                remedy=f"It is corrupted: restore it, or take edit {number} back (errata undo).",
            )
        return ready.editor.adapt(self.face)


def _refuse_endless(edit: Intervention, alg: str) -> None:
    """Raises EditorError for an edit that is no number: nothing could be said with it in force."""
    if isinstance(edit, Patch) and not all(
        torch.isfinite(tensor).all()
        for update in edit.updates.values()
        for tensor in vars(update).values()
    ):
        raise EditorError(
            expected=f"an edit by {alg} of finite numbers",
            found="infinite ones, or none at all",
            remedy="It was not made. Lower its rate, or take another editor.",
        )
