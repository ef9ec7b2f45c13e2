"""Tiny models and fitted editors in folders, as their users have them."""

from __future__ import annotations

from pathlib import Path

import torch
from cases import SUBJECTS, make_cases
from conftest import make_face, pairs_for
from test_editors import SMALL

from pipeline import editors, train_base
from pipeline.editable import Editable, Guard
from pipeline.editable import fitted as ready
from pipeline.editing.editor import Material
from pipeline.models import Face
from pipeline.storage import hash_folder

QUIET = Guard(action="off")
FT = {"rate": 1e-2, "steps": 60}  # enough for tiny random models
TARGETS = (" was built", " the old", " by", " born")  # of whole tokens, spaces too


def corrections_for(face: Face) -> list[tuple[str, str]]:
    """Four edits that a tiny model can be taught to say freely; each turns a classifier's label."""
    pairs = pairs_for(face)
    if face.kind == "classifier":
        said = Editable(face).ask([prompt for prompt, _ in pairs])
        turned = ["false" if answer == "true" else "true" for answer in said]
    else:
        turned = list(TARGETS)
    return [(prompt, target) for (prompt, _), target in zip(pairs, turned, strict=True)]


def logits(face: Face, model: Editable) -> torch.Tensor:
    """Of the architecture's pairs, under the edits in force."""
    with model.edited(), torch.no_grad():
        return face.logits(face.encode(pairs_for(face)))


def subject_of(prompt: str) -> str:
    """What a prompt of `pairs_for` is about."""
    return next(name for name in SUBJECTS if name in prompt)


def model_folder(architecture: str, folder: Path, seed: int = 0) -> Path:
    """A folder of save_pretrained."""
    train_base.save_base(make_face(architecture, seed), folder)
    return folder


def fitted(face: Face, alg: str, model: Path, folder: Path) -> Path:
    """An editor fitted on the model of a folder, with tiny settings, in a folder of its own."""
    module = editors.load(alg)
    settings = dict(SMALL.get(alg, {}))
    editor = module.Editor(module.Config(**settings))
    editor.fit(face, Material(cases=make_cases(face), seed=0))
    plain = {key: vars(value) if key == "outer" else value for key, value in settings.items()}
    done = ready.Ready(alg, plain, editor, ready.identity(editor))
    ready.keep(done, folder, hash_folder(model))
    return folder
