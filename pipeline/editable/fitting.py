"""Editors made ready to edit: taken from a fitted folder, fitted on the spot, or needing neither.

Any file of `pipeline/editors` will do: what an editor `needs` decides, never its name.
"""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pipeline import editors
from pipeline.config import build, merged
from pipeline.editable.corrections import Correction
from pipeline.editable.depth import as_deep, by_shape
from pipeline.editable.fitted import Ready, described, fitted_on, identity, inputs_of, restore
from pipeline.editable.rates import learns_a_rate, smallest_rate
from pipeline.editable.statistics import moments_for
from pipeline.editing.editor import Editor, Material
from pipeline.errors import DataError, EditorError, SettingsError
from pipeline.models import Face
from pipeline.ranges import check_ranges
from pipeline.records import Case

_LOG = logging.getLogger(__name__)
# What `fit` would choose; an editor whose config gives it has nothing left to learn.
_CHOSEN = ("rate", "epsilon")
# Minutes, not days: an outer loop on the spot, where nothing else is set. The papers' run 500,000
# steps at rates for such a run. At this one MEND on the sample's CounterFact model made 13 of 15
# edits of training cases that it was not fitted on.
QUICK: dict[str, Any] = {
    "steps": 400,
    "lr": 3e-4,
    "decay": True,
    "clip": 1.0,
    "heldout": 100,
    "validate_every": 100,
    "patience": 400,
    "any_wording": True,
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where an editor comes from.

    Attributes:
        alg: a name in `pipeline/editors`; "" where the folder says it.
        settings: of its `Config`; dotted keys reach into nested ones ("outer.steps").
        folder: what an earlier fit left.
        cases: training cases, to fit on the spot.
        moments: second moments, or a file of texts to take them over; None: the model's own words.
        seed: of a fit on the spot.
        checkpoints: where an interrupted fit resumes from.
        kept: where editors lie that were fitted before.
    """

    alg: str = ""
    settings: Mapping[str, Any]
    folder: Path | None = None
    cases: Sequence[Case] = ()
    moments: Path | None = None
    seed: int = 0
    checkpoints: Path | None = None
    kept: Path | None = None


def ready(
    face: Face,
    base_hash: str,
    source: Source,
    asked: Sequence[Correction],
    k: int = 1,
    edited: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Ready:
    """An editor, fitted or restored.

    Args:
        face: the untouched model.
        asked: what it is to edit, `k` at a time.
        edited: lets the model answer with the edits in force, for what is chosen by `asked` alone.

    Raises:
        SettingsError: there is no such editor or setting.
        EditorError: it cannot edit this kind of model, was fitted on another, or needs what is
            not there.
        DataError: it edits at a subject, and a request names none.
    """
    alg, inputs = source.alg, ""
    fitted_with: dict[str, Any] = {}
    if source.folder is not None:
        alg, fitted_with = described(source.folder, alg)
    settings = merged(fitted_with, nested(source.settings))
    module = editors.load(alg)
    if source.folder is None and source.cases:
        settings = merged(_quick(module.Config), settings)
    settings = as_deep(face, module.Config, settings)
    editor: Editor = module.Editor(build(module.Config, settings, alg))
    check_ranges(settings, alg)
    if reason := editor.applies_to(face):
        raise EditorError(
            expected="an editor of this model", found=f"{alg}: {reason}", remedy=_others(face)
        )
    _refuse_idle(alg, editor, source)
    if "moments" in editor.needs:
        refuse_no_subject(alg, editor, asked)
        editor.take(moments_for(face, source.moments, source.checkpoints, source.seed))
    if source.folder is not None:
        restore(editor, face, source.folder, base_hash)
    elif learns_a_rate(editor) and not source.cases:
        with edited():
            settings = settings | {"rate": smallest_rate(editor, face, asked, k)}
    elif editor.needs - {"moments"}:
        inputs = inputs_of(alg, editor, face, base_hash, source.cases, source.seed)
        if not (source.cases and _again(editor, face, source, alg, base_hash, inputs)):
            _fit(editor, face, source, alg, inputs)
    return Ready(alg, settings, editor, identity(editor), inputs if source.cases else "")


def _refuse_idle(alg: str, editor: Editor, source: Source) -> None:
    """Raises SettingsError for what was given and would change nothing."""
    if source.moments is not None and "moments" not in editor.needs:
        raise SettingsError(
            expected="second moments for an editor that edits by them (rome, memit)",
            found=f"{source.moments} for {alg}",
            remedy="Leave it out, or choose one of those editors.",
        )
    config = vars(editor).get("config")
    learns = "cases" in editor.needs
    chosen = [name for name in _CHOSEN if learns and getattr(config, name, None) is not None]
    if source.cases and (chosen or not learns):
        raise SettingsError(
            expected=f"no training cases for {alg}"
            + (f" with a {chosen[0]} of its own" if chosen else ""),
            found=f"{len(source.cases)} of them",
            remedy="They would change nothing: leave them out, or what makes them idle.",
        )


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """{"outer.steps": 3} as {"outer": {"steps": 3}}."""
    whole: dict[str, Any] = {}
    for path, value in settings.items():
        *above, last = path.split(".")
        here = whole
        for key in above:
            here = here.setdefault(key, {})
            if not isinstance(here, dict):
                raise SettingsError(
                    expected=f"{key} to be one setting or a group of them",
                    found=f"both {key} and {path}",
                    remedy="Leave one of the two out.",
                )
        if getattr(value, "ndim", None) == 0:  # a number out of an array: JSON knows none
            value = value.item()
        here[last] = nested(value) if isinstance(value, Mapping) else value
    return whole


def _again(
    editor: Editor, face: Face, source: Source, alg: str, base_hash: str, inputs: str
) -> bool:
    """Whether it was fitted on the same before, is kept, and is whole: then it is taken up."""
    folder = fitted_on(inputs, source.kept) if source.kept is not None else None
    if folder is None:
        return False
    try:
        restore(editor, face, folder, base_hash)
    except (EditorError, DataError) as error:
        _LOG.info("%s cannot be used, and is fitted anew: %s", folder, error)
        return False
    _LOG.info(
        "%s was fitted on these cases before, with these settings: taken from %s.", alg, folder
    )
    return True


def _fit(editor: Editor, face: Face, source: Source, alg: str, inputs: str) -> None:
    """Learn what is needed, from what is there."""
    cases = source.cases
    config: object = getattr(editor, "config", None)
    given = any(getattr(config, name, None) is not None for name in _CHOSEN)
    if not cases and not given:
        raise EditorError(
            expected=f"a folder where {alg} was fitted, or training cases",
            found="neither",
            remedy="Name the folder (--editor), or cases to fit it on now (--fit); ft needs "
            "neither.",
        )
    if source.cases:
        bar = "; the bar tells how long it takes" if sys.stderr.isatty() else ""
        _LOG.info("Fitting %s on %d cases%s.", alg, len(cases), bar)
    checkpoints = None
    if source.checkpoints is not None:  # under a name that stands for all the fit depends on
        checkpoints = source.checkpoints / f".fitting-{inputs[:16]}"
    editor.fit(face, Material(cases=cases, seed=source.seed, checkpoints=checkpoints))
    if checkpoints is not None:
        shutil.rmtree(checkpoints, ignore_errors=True)


def refuse_no_subject(alg: str, editor: Editor, asked: Sequence[Correction]) -> None:
    """Raises DataError before moments are taken, which takes a while, and before any edit."""
    for item in asked:
        if "moments" in editor.needs and not item.subject:
            raise DataError(
                expected=f"the subject of {item.prompt!r}: {alg} edits at its last token",
                found="none",
                remedy="Give it word for word as in the prompt (--subject, `subject`).",
            )


def _quick(config: type) -> dict[str, Any]:
    """An outer loop of minutes, for editors that have one."""
    outer = next((item for item in fields(config) if item.name == "outer"), None)
    return {"outer": dict(QUICK)} if outer is not None else {}


def _others(face: Face) -> str:
    """Those that can edit this model at all."""
    able = []
    for name in editors.names():
        module = editors.load(name)
        config = build(module.Config, by_shape(face, module.Config, {}), name)
        if not module.Editor(config).applies_to(face):
            able.append(name)
    return f"Choose another editor out of {', '.join(able)}."
