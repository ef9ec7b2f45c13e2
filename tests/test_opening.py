"""Models that are opened, and folders that are refused, in words that help."""

from __future__ import annotations

import hashlib
import io
import json
import ssl
import urllib.error
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
import torch
from models_on_disk import FT, QUIET, corrections_for, logits, model_folder
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from pipeline.editable import Editable, hub
from pipeline.editable.opening import identity
from pipeline.errors import EditorError, ModelError, SettingsError, StorageError
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


@pytest.mark.parametrize("end", ["</s>", "[END]"])
def test_a_padding_token_that_the_model_has_no_row_for(end: str, tmp_path: Path) -> None:
    """It was added, and the embeddings were not resized; the end token serves, if there is one."""
    folder = model_folder("gpt2", tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]", "eos_token": end})
    tokenizer.save_pretrained(folder)
    if end == "</s>":
        assert len(Editable.load(folder).ask(["The harbour", "Tom"])) == 2
        return
    with pytest.raises(ModelError, match=r"found '\[PAD\]' with number \d+.*Resize"):
        Editable.load(folder)


def test_a_dtype_is_a_name_too_and_a_name_may_be_too_long(tmp_path: Path) -> None:
    folder = model_folder("gpt2", tmp_path / "model")
    assert Editable.load(folder, dtype="bfloat16").face.model.dtype == torch.bfloat16
    with pytest.raises(SettingsError, match=r"a dtype; found 'bf16'.*bfloat16"):
        Editable.load(folder, dtype="bf16")
    with pytest.raises(ModelError, match="no owner"):
        Editable.load("x" * 300)


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


def asked_of_the_hub(monkeypatch: pytest.MonkeyPatch, answer: BaseException | None) -> list[str]:
    """Addresses asked; the cache is empty."""
    asked: list[str] = []

    def opened(request: Any, timeout: float) -> Any:
        del timeout
        asked.append(request.full_url)
        if answer:
            raise answer
        return io.BytesIO()

    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub.urllib.request, "urlopen", opened)
    return asked


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("nosuch", r"no owner as a hub name has \(owner/name\)"),
        ("./nosuch", "no such folder"),
        ("owner/nosuch", "out of reach"),
    ],
)
def test_what_can_be_nowhere_is_told_at_once(
    source: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = asked_of_the_hub(monkeypatch, urllib.error.URLError("no network"))
    with pytest.raises(ModelError, match=expected):
        Editable.load(source)
    assert len(asked) == (source == "owner/nosuch")


def test_hub_names_pass_where_the_hub_or_the_cache_may_have_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for answer in (
        None,
        urllib.error.HTTPError("", 405, "", Message(), None),
        urllib.error.URLError(ssl.SSLError("an unknown authority")),
    ):
        asked_of_the_hub(monkeypatch, answer)
        hub.refuse_unfound("owner/name")
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_: "config.json")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    hub.refuse_unfound("gpt2")


def test_without_the_hub_a_cached_model_is_opened_from_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No file is asked of the hub again and again; it is the same model as with it."""
    folder = model_folder("gpt2", tmp_path / "snapshots" / ("c" * 40))
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda _, name: str(folder / name))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    one = Editable.load("owner/name")
    assert one.base_hash == hashlib.sha256(f"owner/name@{'c' * 40}".encode()).hexdigest()
    monkeypatch.setattr(hub, "_in_reach", lambda _: True)
    assert hub.place_of("owner/name") == "owner/name"


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
