"""Edited models for others: three forms, read back here, in a fresh process, and by stock peft."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import SENTENCES, make_face, pairs_for
from models_on_disk import FT, corrections_for, fitted, model_folder, subject_of
from test_editors import SMALL
from transformers import AutoTokenizer

from pipeline import editors, models
from pipeline.cli import main
from pipeline.editable import Editable, Guard, beside
from pipeline.editable import export as exporting
from pipeline.editing.descent import FineTuner
from pipeline.editing.patch import Patch, applied
from pipeline.editing.patch_file import load_patch
from pipeline.editing.updates import Factors
from pipeline.errors import EditorError, SettingsError, StorageError
from pipeline.models import Tokenizer

# peft 0.21 asks transformers 5.23 by a name that it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
QUIET = Guard(action="off")
KINDS = ("gpt2", "t5", "bert")
# Reads exports as a stranger would: with transformers and peft; the patch with this library.
STRANGER = """
import json, sys, torch
from pathlib import Path
from peft import PeftModel
from pipeline import models
from pipeline.editing.patch import applied
from pipeline.editing.patch_file import load_patch
torch.set_num_threads(1)
found = {}
for job in json.loads(sys.argv[1]):
    base, pairs = Path(job["base"]), job["pairs"]
    merged = models.load(Path(job["merged"]))
    said = {"merged": merged.write([p for p, _ in pairs], [4] * len(pairs))}
    face = models.load(base)
    with applied(face.model, load_patch(Path(job["patch"]))[0]):
        said["patch"] = face.write([p for p, _ in pairs], [4] * len(pairs))
    face.model = PeftModel.from_pretrained(face.model, job["adapter"]).base_model.model
    said["adapter"] = face.write([p for p, _ in pairs], [4] * len(pairs))
    found[job["name"]] = {form: [item.opening for item in items] for form, items in said.items()}
print(json.dumps(found))
"""


def logits(model: Editable) -> torch.Tensor:
    with model.edited(), torch.no_grad():
        return model.face.logits(model.face.encode(pairs_for(model.face)))


@pytest.fixture
def edited(tmp_path: Path) -> Editable:
    """A small model with one edit in force."""
    one = Editable.load(model_folder("gpt2", tmp_path / "model"), guard=QUIET)
    one.edit(corrections_for(one.face)[:1], **FT)
    return one


def test_three_forms_say_the_same_in_a_fresh_process(tmp_path: Path) -> None:
    """Edits by FT, one of them undone; exported three ways; one process reads them all."""
    jobs, expected = [], {}
    for name in KINDS:
        home = tmp_path / name
        folder = model_folder(name, home / "model")
        one = Editable.load(folder, journal=beside(folder), guard=QUIET)
        pairs = corrections_for(one.face)
        one.edit(pairs[:3], **FT)
        one.undo(3)
        job = {"name": name, "base": str(folder), "pairs": pairs}
        for form in ("merged", "adapter", "patch"):
            found = one.export(home / form, form)  # type: ignore[arg-type]
            assert found.asked > 0
            assert found.held == found.asked
            assert found.worst_logit < 1e-4
            assert found.edits == (1, 2)
            job[form] = str(home / form)
        jobs.append(job)
        with one.edited():
            written = one.face.write([prompt for prompt, _ in pairs], [4] * len(pairs))
        expected[name] = [item.opening for item in written]
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, json.dumps(jobs)],
        cwd=Path(__file__).parents[1], env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    for name in KINDS:
        for form in ("merged", "adapter", "patch"):
            assert said[name][form] == expected[name], (name, form)


@pytest.mark.parametrize("alg", editors.names())
@pytest.mark.parametrize("architecture", KINDS)
def test_stock_peft_loads_every_edit_of_factors(
    alg: str, architecture: str, tmp_path: Path
) -> None:
    """Two edits of any editor whose edits are factors; logits as under the hooks, to 1e-5."""
    from peft import PeftModel

    folder = model_folder(architecture, tmp_path / "model")
    one = Editable.load(folder, guard=QUIET)
    module = editors.load(alg)
    if reason := module.Editor(module.Config()).applies_to(one.face):
        pytest.skip(reason)
    if issubclass(module.Editor, FineTuner):
        pytest.skip("its edits are not factors")
    if "moments" in module.Editor.needs:
        (tmp_path / "texts.txt").write_text("\n".join(SENTENCES * 2))
        requests = [
            {"prompt": prompt, "target": target, "subject": subject_of(prompt)}
            for prompt, target in pairs_for(one.face)[:2]
        ]
        one.edit(requests, alg, moments=tmp_path / "texts.txt", settings=SMALL[alg])
    else:
        learned = fitted(one.face, alg, folder, tmp_path / "editor")
        one.edit(corrections_for(one.face)[:2], editor=learned)
    stack = one._state.stack
    if one._state.current is not one.face:
        with pytest.raises(EditorError, match=r"trained all of its weights.*--as merged"):
            one.export(tmp_path / "adapter", "adapter")
        return
    parts = [part for parts in stack.updates().values() for part in parts]
    if not parts or not all(isinstance(part, Factors) for part in parts):
        pytest.skip("its edits are not factors")
    found = one.export(tmp_path / "adapter", "adapter")
    for site, updates in stack.updates().items():
        total = sum(part.dense_ROI()[0].double() for part in updates)
        assert found.ranks[site] == torch.linalg.matrix_rank(total, rtol=1e-6)
    expected = logits(one)
    stranger = PeftModel.from_pretrained(models.load(folder).model, tmp_path / "adapter")
    face = models.face_of(stranger.base_model.model, one.face.tokenizer)
    with torch.no_grad():
        said = face.logits(face.encode(pairs_for(face)))
    torch.testing.assert_close(said, expected, atol=1e-5, rtol=0)


def test_terms_beyond_the_width_are_compressed(tmp_path: Path) -> None:
    """Twelve edits' tokens are more terms than a 16-wide matrix can need."""
    from peft import PeftModel

    folder = model_folder("gpt2", tmp_path / "model")
    one = Editable.load(folder, guard=QUIET)
    mend = fitted(one.face, "mend", folder, tmp_path / "mend")
    for _ in range(3):
        one.edit(corrections_for(one.face), editor=mend)
    terms = {
        site: sum(part.left_RKO.shape[1] for part in parts if isinstance(part, Factors))
        for site, parts in one._state.stack.updates().items()
    }
    assert min(terms.values()) > 64
    found = one.export(tmp_path / "adapter", "adapter")
    assert max(found.ranks.values()) <= 16
    stranger = PeftModel.from_pretrained(models.load(folder).model, tmp_path / "adapter")
    face = models.face_of(stranger.base_model.model, one.face.tokenizer)
    with torch.no_grad():
        said = face.logits(face.encode(pairs_for(face)))
    torch.testing.assert_close(said, logits(one), atol=2e-5, rtol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_merged_weights_say_what_rounding_left(dtype: str, tmp_path: Path) -> None:
    folder = model_folder("gpt2", tmp_path / "model")
    one = Editable.load(folder, guard=QUIET)
    one.edit(corrections_for(one.face)[:2], "ft", rate=1e-3, steps=60)
    found = one.export(tmp_path / "out", "merged", dtype)
    kind = exporting.DTYPES[dtype]
    merged, base = models.load(tmp_path / "out", dtype=kind).model, one.face.model
    stayed = []
    for site, parts in one._state.stack.updates().items():
        delta = sum(part.dense_ROI()[0].double() for part in parts)
        old = base.get_submodule(site).weight.T  # GPT-2's maps are stored the other way round
        new = merged.get_submodule(site).weight.T
        assert new.dtype == kind
        stayed.append((((new == old.to(kind)) & (delta != 0)).sum() / (delta != 0).sum()).item())
        assert found.unchanged[site] == pytest.approx(stayed[-1], abs=0.01)
        limit = 1e-6 if kind == torch.float32 else 2**-8
        assert ((new.double() - old.double() - delta).abs() <= limit * old.abs() + 2e-3).all()
    assert (max(stayed) < 0.01) == (dtype == "float32")
    about = json.loads((tmp_path / "out" / "errata.json").read_text())
    assert about["edits"] == [1, 2]
    assert about["base_hash"] == one.base_hash


def test_a_patch_brings_the_same_bits(tmp_path: Path) -> None:
    folder = model_folder("gpt2", tmp_path / "model")
    one = Editable.load(folder, guard=QUIET)
    mend = fitted(one.face, "mend", folder, tmp_path / "mend")
    one.edit(corrections_for(one.face)[:2], editor=mend)
    one.export(tmp_path / "edits.safetensors", "patch")
    patch, about = load_patch(tmp_path / "edits.safetensors")
    face = models.load(folder)
    with applied(face.model, patch), torch.no_grad():
        assert torch.equal(face.logits(face.encode(pairs_for(face))), logits(one))
    assert about["base_hash"] == one.base_hash


def test_exports_never_overwrite_and_leave_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = model_folder("gpt2", tmp_path / "model")
    one = Editable.load(folder, guard=QUIET)
    with pytest.raises(EditorError, match="an edit in force"):
        one.export(tmp_path / "out")
    one.edit(corrections_for(one.face)[:1], **FT)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("mine")
    with pytest.raises(StorageError, match=r"nothing at .*taken.*never overwrite"):
        one.export(tmp_path / "taken")
    assert (tmp_path / "taken" / "thesis.tex").read_text() == "mine"
    # A writer that loses an update must be found out when the export is read back.
    monkeypatch.setattr(exporting.adapter, "read", lambda _: Patch({}))
    with pytest.raises(StorageError, match=r"answer as the edited model.*logits that differ"):
        one.export(tmp_path / "out", "adapter")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))


def test_two_exports_to_one_place_leave_one_whole(tmp_path: Path, edited: Editable) -> None:
    """The second to finish finds the place taken; neither touches what the other fills."""
    out, kind = tmp_path / "out", type(edited.face.tokenizer)
    save = kind.save_pretrained

    def save_both(tokenizer: Tokenizer, folder: Path) -> None:
        patch.undo()
        edited.export(out)  # starts later, and is done first
        save(tokenizer, folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "save_pretrained", save_both)
        with pytest.raises(StorageError, match=r"nothing at .*out; found a file or folder"):
            edited.export(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out"]
    assert Editable.load(out).ask("The harbour") == edited.ask("The harbour")


def test_forms_and_places_that_cannot_be_are_named(tmp_path: Path, edited: Editable) -> None:
    with pytest.raises(SettingsError, match=r"a form of export; found 'zip'.*adapter"):
        edited.export(tmp_path / "out", "zip")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=r"a dtype of export; found 'int8'.*bfloat16"):
        edited.export(tmp_path / "out", dtype="int8")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StorageError, match="nothing at"):
        edited.export(tmp_path / "empty", "patch")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path / "empty")
        assert edited.export(".", "adapter").path == tmp_path / "empty"


def test_the_tokenizer_goes_along_as_it_came(tmp_path: Path) -> None:
    """Here it pads with the end token; whoever trains on the export would mask every end."""
    folder = model_folder("gpt2", tmp_path / "model")
    place = folder / "tokenizer_config.json"
    settings = json.loads(place.read_text())
    settings.pop("pad_token")
    place.write_text(json.dumps(settings))
    one = Editable.load(folder, guard=QUIET)
    assert one.face.tokenizer.pad_token == one.face.tokenizer.eos_token
    one.edit(corrections_for(one.face)[:1], **FT)
    one.export(tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").pad_token is None


def test_an_edit_that_rounding_loses_ends_the_command_in_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Here the count alone is made up; that it is counted, other tests see."""
    folder = model_folder("gpt2", tmp_path / "model")
    one = Editable.load(folder, journal=beside(folder), guard=QUIET)
    one.edit(corrections_for(one.face)[:1], **FT)
    lost = replace(one.export(tmp_path / "one", dtype="bfloat16"), asked=1, held=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Editable, "export", lambda *_: lost)
        words = ["export", str(folder), str(tmp_path / "two"), "--to", "bfloat16"]
        assert main(words) == main([*words, "--json"]) == 1
    assert "of 1 corrections that the edited model makes 0 hold" in capsys.readouterr().out
    assert "found 1 of 1 lost by rounding" in caplog.messages[-1]


def test_a_full_disk_under_the_tokenizer_is_told(tmp_path: Path, edited: Editable) -> None:
    def full(*_: object) -> None:
        raise Exception("No space left on device (os error 28)")  # what tokenizers raises

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(edited.face.tokenizer), "save_pretrained", full)
        with pytest.raises(StorageError, match="No space left on device"):
            edited.export(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_enn_exports_its_model_merged(tmp_path: Path) -> None:
    folder = model_folder("bert", tmp_path / "model")
    one = Editable.load(folder, guard=QUIET)
    enn = fitted(one.face, "enn", folder, tmp_path / "enn")
    one.edit(corrections_for(one.face)[:1], editor=enn)
    with one.edited(), torch.no_grad():
        face = one._state.current
        expected = face.logits(face.encode(pairs_for(face)))
    one.save(tmp_path / "out")
    face = models.load(tmp_path / "out")
    with torch.no_grad():
        said = face.logits(face.encode(pairs_for(face)))
    torch.testing.assert_close(said, expected, atol=1e-4, rtol=0)
    assert make_face("bert").kind == face.kind
