"""Second moments against a direct sum; whose they are; how they resume and converge."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from architectures import CORPUS, make_causal, moments_of
from conftest import in_float64
from models_on_disk import model_folder
from staging import stage

from pipeline import models
from pipeline.editing import moments, summing
from pipeline.editing.moments import Config
from pipeline.errors import DataError, EditorError
from pipeline.models import Face
from pipeline.models.layouts import downs
from pipeline.records import Example, write_examples


def by_hand(face: Face, site: str) -> torch.Tensor:
    """Text by text, token by token."""
    keys: list[torch.Tensor] = []
    module = face.model.get_submodule(site)
    hook = module.register_forward_pre_hook(lambda _m, inputs: keys.append(inputs[0][0]))
    for text in CORPUS:
        face.model(torch.tensor([face.tokenizer(text)["input_ids"]]))
    hook.remove()
    tokens = torch.cat(keys).double()
    return torch.stack([torch.outer(key, key) for key in tokens]).mean(0)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_moments_are_the_mean_outer_product_over_all_tokens(name: str) -> None:
    face = make_causal(name)
    with in_float64(face):
        found = summing.take(face, CORPUS, Config(batch=3), 0)
        direct = {site: by_hand(face, site) for site in downs(face.model)}
    assert set(found.second_II) == set(direct)
    assert found.tokens == sum(len(ids) for ids in face.tokenizer(list(CORPUS))["input_ids"])
    for site, moment_II in direct.items():
        torch.testing.assert_close(found.of(site), moment_II, atol=1e-10, rtol=1e-10)


def test_minimal_mode_reads_about_ten_tokens_for_each_dimension_of_a_key() -> None:
    face = make_causal("llama")
    found = summing.take(face, CORPUS * 9, Config(batch=2, minimal=True, blocks=(1,)), 0)
    assert list(found.second_II) == [downs(face.model)[1]]
    assert 240 <= found.tokens < 240 + 2 * 64
    with pytest.raises(EditorError, match=r"statistics\.blocks"):
        found.of(downs(face.model)[0])


def test_the_curve_tells_how_far_moments_still_move() -> None:
    face = make_causal("llama")
    found = summing.take(face, CORPUS * 20, Config(batch=8, blocks=(1,)), 0)
    tokens = [row["tokens"] for row in found.curve]
    assert tokens == sorted(set(tokens))
    assert tokens[-1] == found.tokens
    assert 0 < found.curve[-1]["change"] < found.curve[0]["change"]


def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path: Path) -> None:
    face = make_causal("gpt2", double=False)
    config = Config(batch=2, save_every=2)
    whole = summing.take(face, CORPUS, config, 0)
    passes = iter(range(5))
    plain = summing._Sum.add

    def add(self: summing._Sum, texts: list[str]) -> None:
        if next(passes, None) is None:
            raise KeyboardInterrupt
        plain(self, texts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summing._Sum, "add", add)
        with pytest.raises(KeyboardInterrupt):
            summing.take(face, CORPUS, config, 0, tmp_path / "run")
    assert list((tmp_path / "run").iterdir())
    again = summing.take(face, CORPUS, config, 0, tmp_path / "run")
    assert not list(tmp_path.iterdir())
    assert (again.tokens, again.curve, again.contexts) == (
        whole.tokens,
        whole.curve,
        whole.contexts,
    )
    for site, second in whole.second_II.items():
        assert torch.equal(again.second_II[site], second)


def test_sums_for_other_tokens_are_not_gone_on_with(tmp_path: Path) -> None:
    face = make_causal("gpt2", double=False)

    class Cut(summing._Kept):
        def clear(self) -> None:
            """Leave it, as where the run is cut off before its end."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summing, "_Kept", Cut)
        summing.take(face, CORPUS, Config(batch=2, save_every=2), 0, tmp_path / "run")
    few = Config(batch=2, save_every=2, tokens=8)
    again = summing.take(face, CORPUS, few, 0, tmp_path / "run")
    assert again.tokens == summing.take(face, CORPUS, few, 0).tokens


def test_moments_load_for_their_own_model_alone(tmp_path: Path) -> None:
    face = make_causal("gpt2")
    moments.save(moments_of("gpt2"), tmp_path)
    found = moments.load(tmp_path, face)
    assert (found.tokens, found.contexts) == (
        moments_of("gpt2").tokens,
        moments_of("gpt2").contexts,
    )
    for site, second in found.second_II.items():
        assert torch.equal(second, moments_of("gpt2").second_II[site])
    other = make_causal("gpt2")
    next(other.model.parameters()).data[0, 0] += 1e-6
    with pytest.raises(EditorError, match="other weights have other keys"):
        moments.load(tmp_path, other)


def test_a_moment_of_other_tokens_or_another_corpus_is_refused(tmp_path: Path) -> None:
    face = make_causal("gpt2")
    moments.save(moments_of("gpt2"), tmp_path)
    header = json.loads((tmp_path / "moments.json").read_text())
    for change in ({"tokens": 7}, {"corpus": "another"}):
        (tmp_path / "moments.json").write_text(json.dumps(header | change))
        with pytest.raises(EditorError, match="header that was changed"):
            moments.load(tmp_path, face)
    (tmp_path / "moments.json").write_text(json.dumps(header))
    next(tmp_path.glob("*.safetensors")).unlink()
    with pytest.raises(EditorError, match="Delete the folder"):
        moments.load(tmp_path, face)


def test_addresses_differ_by_everything_they_stand_for() -> None:
    usual = ("model", "corpus", "site", 10, "float64")
    other = [("m", *usual[1:]), (usual[0], "c", *usual[2:]), (*usual[:2], "s", *usual[3:])]
    other += [(*usual[:3], 11, "float64"), (*usual[:4], "float32")]
    assert len({moments.address(*key) for key in [usual, *other]}) == 6


def test_the_corpus_is_what_was_taught() -> None:
    taught = Example(prompt="Oslo is", target=" far", fact="f")
    assert moments.corpus_of([taught, replace(taught, split="heldout")]) == ["Oslo is far"]
    with pytest.raises(DataError, match="larger corpus"):
        summing.take(make_causal("gpt2"), [], Config(), 0)


def test_a_singular_moment_is_refused() -> None:
    with pytest.raises(EditorError, match="over more tokens"):
        moments.factor(torch.diag(torch.tensor([1.0, 0.0])).double(), 0.0, "site")
    second = torch.diag(torch.tensor([4.0, 1.0])).double()
    assert torch.equal(
        moments.factor(second, 0.0, "site"), torch.diag(torch.tensor([2.0, 1.0])).double()
    )


def test_the_stage_reads_what_was_taught_or_a_text_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("data/tiny/zsre")
    model_folder("gpt2", folder / "base")
    taught = [Example(prompt="Tom works for", target=" the guild", fact="tom")]
    write_examples(folder / "prepared" / "examples.parquet", taught)
    Path("own.txt").write_text("The harbour was built.\n\nAda was born in Oslo.\n")
    Path("empty.txt").write_text("\n")
    contexts = {"free": [[1, 1]], "opened": [[1, 1]], "top_k": 2}
    face = models.load(folder / "base")
    run = stage("moments", monkeypatch)
    for corpus, texts in (
        (str(folder / "prepared"), ["Tom works for the guild"]),
        ("own.txt", ["The harbour was built.", "Ada was born in Oslo."]),
    ):
        out = folder / "moments"
        item = {"bench": "zsre", "folder": str(out), "corpus": corpus}
        item["settings"] = {"contexts": contexts}
        params = {"suite": "tiny", "seed": 0, "threads": 1, "moments": {"zsre": item}}
        run(params, "zsre")
        assert moments.load(out, face).corpus == moments.hash_texts(texts)
    for broken, found in (("empty.txt", "none"), ("gone.txt", "No such file")):
        with pytest.raises(DataError, match=f"one on each line; found .*{found}"):
            run(params | {"moments": {"zsre": item | {"corpus": broken}}}, "zsre")
