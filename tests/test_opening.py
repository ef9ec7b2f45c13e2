"""Models that are opened, and folders that are refused, in words that help."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from models_on_disk import FT, QUIET, corrections_for, logits, model_folder
from safetensors.torch import load_file, save_file

from pipeline.editable import Editable
from pipeline.editable.opening import identity
from pipeline.errors import EditorError, ModelError, StorageError
from pipeline.storage import hash_folder


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt", "t5", "bart", "bert"])
def test_whole_models_are_opened(name: str, tmp_path: Path) -> None:
    one = Editable.load(model_folder(name, tmp_path / "model"))
    assert one.base_hash == hash_folder(tmp_path / "model")


def test_weights_that_are_missing_are_not_made_up(tmp_path: Path) -> None:
    folder = model_folder("gpt2", tmp_path / "model")
    path = folder / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if ".h.2." not in name}
    save_file(kept, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"12 missing, such as transformer\.h\.2\.attn"):
        Editable.load(folder)
    deeper = model_folder("gpt2", tmp_path / "deeper")
    change_config(deeper, n_layer=4)
    with pytest.raises(ModelError, match="Random numbers would stand in"):
        Editable.load(deeper)


@pytest.mark.parametrize("values", [{"n_embd": 32}, {"vocab_size": 7}, {"n_embd": "16"}])
def test_a_config_that_does_not_fit_the_weights_is_named(
    values: dict[str, object], tmp_path: Path
) -> None:
    folder = model_folder("gpt2", tmp_path / "model")
    change_config(folder, **values)
    with pytest.raises(ModelError, match="fit each other"):
        Editable.load(folder)


def test_a_model_without_its_tokenizer_is_named(tmp_path: Path) -> None:
    folder = model_folder("gpt2", tmp_path / "model")
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        Editable.load(folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="tokenizer"):
        Editable.load(folder)


@pytest.mark.parametrize("device", ["nowhere", "cuda:77"])
def test_a_device_that_is_not_there_is_named(device: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"on {device}"):
        Editable.load(model_folder("gpt2", tmp_path / "model"), device=device)


def test_hidden_files_are_not_the_models(tmp_path: Path) -> None:
    folder = model_folder("gpt2", tmp_path / "model")
    before = identity(folder)
    (folder / ".DS_Store").write_text("a finder was here")
    (folder / ".git").mkdir()
    (folder / ".git" / "index").write_text("and git")
    assert identity(folder) == before
    (folder / "README.md").write_text("A model.")
    assert identity(folder) != before


def test_nothing_of_ours_lies_in_the_models_folder(tmp_path: Path) -> None:
    folder = model_folder("gpt2", tmp_path / "model")
    with pytest.raises(StorageError, match="a journal to lie outside"):
        Editable.load(folder, journal=folder / "journal")
    one = Editable.load(folder, guard=QUIET)
    one.edit(corrections_for(one.face)[:1], **FT)
    with pytest.raises(StorageError, match="an export to lie outside"):
        one.export(folder / "edited")


def test_inside_edited_the_model_is_edited_once(tmp_path: Path) -> None:
    one = Editable.load(model_folder("gpt2", tmp_path / "model"), guard=QUIET)
    pair = corrections_for(one.face)[0]
    one.edit([pair], **FT)
    expected, said = logits(one.face, one), one.ask(pair[0])
    with one.edited():
        assert torch.equal(logits(one.face, one), expected)
        assert one.ask(pair[0]) == said
        for call in (
            lambda: one.edit([pair], **FT),
            lambda: one.compare(pair[0]),
            lambda: one.undo(1),
            one.health,
        ):
            with pytest.raises(EditorError, match="block to be over"):
                call()
    one.undo(1)
    assert not torch.equal(logits(one.face, one), expected)
