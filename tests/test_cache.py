"""The caching editor: distances, answers and epsilon against what is computed by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cases import make_cases
from conftest import in_float64, make_face, pairs_for

from pipeline import measures, protocols, scoring
from pipeline.editing.editor import Material
from pipeline.editing.memory import Memory, nearest, recall, remember
from pipeline.editing.patch import applied, merge
from pipeline.editing.patch_file import save_patch
from pipeline.editors import cache
from pipeline.errors import EditorError, ModelError
from pipeline.models import Batch, Face
from pipeline.records import Probe, Request


def requests_for(face: Face) -> list[Request]:
    return [case.request() for case in make_cases(face, 4)]


def pairs_of(requests: list[Request]) -> list[tuple[str, str]]:
    return [(request.prompt, request.target) for request in requests]


def hidden_by_hand(face: Face, text: str) -> torch.Tensor:
    """All final hidden states of one text, with transformers' own output."""
    given = face.tokenizer([text], return_tensors="pt")
    if face.kind == "seq2seq":
        return face.model.get_encoder()(**given).last_hidden_state[0]
    return face.model(**given, output_hidden_states=True).hidden_states[-1][0]


@torch.no_grad()
def test_keys_and_distances_by_hand(face: Face) -> None:
    """In float64, but for T5's norms and GPT-Neo's attention, which are float32 always."""
    face.model.double()
    requests = requests_for(face)
    memory = remember(face, requests, 1, 1.0)
    for row, request in enumerate(requests):
        key = hidden_by_hand(face, request.prompt).mean(0)
        torch.testing.assert_close(memory.key_RKD[row, 0], key, atol=1e-5, rtol=1e-5)
    # Every question compared with the first edit: where its answer begins.
    batch = face.encode(pairs_of(requests))
    found = recall(face, batch, memory.select(torch.zeros(4, dtype=torch.long)))
    first = [batch.row_N.tolist().index(row) for row in range(4)]
    for row, at in enumerate(first):
        if face.kind == "causal" and row:
            continue  # compared at every step: the next test
        other = hidden_by_hand(face, requests[row].prompt).mean(0)
        expected = (other - memory.key_RKD[0, 0]).norm()
        torch.testing.assert_close(found.distance_N[at], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "opt"])
def test_a_language_models_means_are_those_of_its_prefixes(architecture: str) -> None:
    """Teacher forcing, padded, against one plain mean for each prefix."""
    face = make_face(architecture)
    texts = [prompt + target for prompt, target in pairs_for(face)]
    request = Request(prompt="The harbour", target=" was")
    batch = face.encode([("", text) for text in texts])
    with in_float64(face):
        memory = remember(face, [request], 1, 1.0)
        one = Memory(memory.key_RKD, memory.token_RKL[..., :1], 0, 1.0)  # steps by themselves
        found = recall(face, batch, one)
        direct = [hidden_by_hand(face, text) for text in texts]
    for row, states in enumerate(direct):
        steps = batch.select_N[batch.row_N == row] % batch.inputs["input_ids"].shape[1]
        means = torch.stack([states[: step + 1].mean(0) for step in steps.tolist()])
        expected = (means - memory.key_RKD[0, 0]).norm(dim=-1)
        torch.testing.assert_close(found.distance_N[batch.row_N == row], expected)


def test_the_nearest_entry_that_has_something_to_say_wins() -> None:
    infinity = math.inf
    distance = torch.tensor([[[5.0, 1.0, 4.0, 2.0, 9.0], [3.0, infinity, 0.5, 6.0, 7.0]]])
    token = torch.tensor([[[10, 11, 12], [20, 21, -1]]])
    best, said = nearest(distance, token)
    # Step 1: entry 0's match at 1 is nearest; step 2: entry 1 comes nearer and starts over; it has
    # two tokens, so that at step 4 entry 0's match at 3 speaks.
    assert said.tolist() == [[20, 10, 20, 21, 11]]
    assert best.tolist() == [[3.0, 1.0, 0.5, 0.5, 2.0]]


@torch.no_grad()
def test_of_k_entries_each_answers_its_own_question(face: Face) -> None:
    requests = requests_for(face)
    edits = cache.Editor(cache.Config(epsilon=1e-3)).edit(face, requests, k=4)
    assert edits.patch.rows == 1
    batch = face.encode(pairs_of(requests))
    with applied(face.model, edits.patch):
        assert measures.exact(face.logits(batch), batch).all()


@torch.no_grad()
def test_answers_are_one_hot_and_silence_is_the_models_own(face: Face) -> None:
    requests = requests_for(face)
    batch = face.encode(pairs_of(requests))
    before = face.logits(batch)
    memory = remember(face, requests[:1], 1, 1e-3)
    with applied(face.model, memory):
        after = face.logits(batch)
    mine = batch.row_N == 0
    if face.kind == "classifier":
        assert after[mine].tolist() == [[0.0, 1.0]]
    else:
        one_hot = torch.nn.functional.one_hot(batch.label_N[mine], after.shape[-1])
        assert torch.equal(after[mine], one_hot.float())
    if face.kind == "classifier":  # its memory has the last MLP see all tokens, not one
        torch.testing.assert_close(after[~mine], before[~mine], rtol=1e-6, atol=1e-6)
    else:
        assert torch.equal(after[~mine], before[~mine])
    assert torch.equal(face.logits(batch), before)


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["gpt2", "opt", "bart", "bert"])
def test_rows_equal_singles_in_every_measure(architecture: str) -> None:
    """Scored and generated, at an epsilon that some probes are within."""
    face = make_face(architecture)
    cases = make_cases(face, 4)
    editor = cache.Editor(cache.Config(drawdown=0.1))
    editor.fit(face, Material(cases=cases, seed=0))
    together, _ = protocols.single(face, editor, cases, scoring.Config(cases=4, rows=7))
    alone, _ = protocols.single(face, editor, cases, scoring.Config(cases=1, rows=20))
    edits = together[together["probe"] == "edit"]
    assert (edits["tf_exact"] == 1).all()
    assert (edits["gen_contains"] == 1).all()
    for name in together:
        if together[name].dtype == float:
            left, right = (torch.tensor(frame[name].to_numpy()) for frame in (together, alone))
            torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-5, equal_nan=True)
        else:
            assert together[name].tolist() == alone[name].tolist(), name


def test_beams_see_their_rows_memory() -> None:
    face = make_face("bart")
    requests = requests_for(face)
    with applied(face.model, remember(face, requests, 1, 1e-3)):
        answers = face.beams([request.prompt for request in requests], 6, beams=3)  # type: ignore[attr-defined]
    assert [texts[0] for texts in answers] == [request.target for request in requests]


def test_a_text_begun_outside_is_refused() -> None:
    face = make_face("gpt2")
    ids = face.tokenizer("The harbour was", return_tensors="pt")["input_ids"]
    cached = face.model(input_ids=ids, use_cache=True).past_key_values
    memory = remember(face, requests_for(face)[:1], 1, 1.0)
    with applied(face.model, memory), pytest.raises(ModelError, match="of which 0 were seen"):
        face.model(input_ids=ids[:, :1], past_key_values=cached)
    with (
        applied(face.model, remember(face, requests_for(face)[:2], 1, 1.0)),
        pytest.raises(ModelError, match="multiple of 2 rows"),
    ):
        face.logits(face.encode(pairs_for(face)[:3]))


def test_a_memory_is_no_weights(tmp_path: Path) -> None:
    face = make_face("gpt2")
    memory = remember(face, requests_for(face)[:1], 1, 1.0)
    for refused in (
        lambda: merge(face.model, memory),
        lambda: save_patch(memory, tmp_path / "edit.safetensors"),
    ):
        with pytest.raises(EditorError, match="Memory, which has no weight factors"):
            refused()


def probes(
    distance: list[float], own: list[float], said: list[float], row: list[int], *, passages: bool
) -> cache.Probes:
    def numbers(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64)

    return cache.Probes(
        numbers(distance), numbers(own), numbers(said), torch.tensor(row), max(row) + 1, passages
    )


def test_epsilon_on_a_toy() -> None:
    """Five right probes; memory would spoil those at 3, 1 and 4, and say the same at 2."""
    toy = probes([3, 1, 2, 4, 5], [0] * 5, [1, 1, 0, 1, 0], [0, 1, 2, 3, 4], passages=False)
    assert [toy.drawdown(e) for e in (1.0, 1.5, 3.5, 9.0)] == pytest.approx([0, 0.2, 0.4, 0.6])
    assert toy.hit(2.5) == pytest.approx(0.4)
    assert toy.widest(0.0) == 1
    assert toy.widest(0.2) == 3
    assert toy.widest(0.5) == 4
    assert toy.widest(0.6) is None


@pytest.mark.parametrize("passages", [False, True])
@pytest.mark.parametrize("allowed", [0.0, 0.1, 0.3])
def test_epsilon_is_the_last_that_scoring_again_would_allow(passages: bool, allowed: float) -> None:
    """Against trying every distance, on probes of several tokens, with ties."""
    draws = torch.Generator().manual_seed(3)
    row = torch.arange(40).repeat_interleave(3)
    distance = torch.randint(1, 30, (120,), generator=draws).double()
    own = torch.rand(120, generator=draws).double()
    said = torch.rand(120, generator=draws).double() * 2
    if not passages:
        own, said = (own > 0.9).double(), (said > 1).double()
    toy = cache.Probes(distance, own, said, row, 40, passages)
    tried = [float(step) for step in range(1, 31)]
    over = [epsilon for epsilon in tried if toy.drawdown(epsilon) > allowed]
    assert toy.widest(allowed) == over[0] - 1 if over[0] > 1 else over == []


def test_the_curve_is_what_scoring_measures() -> None:
    """Drawdown and success at epsilon, from distances alone, equal those of scored cases."""
    for architecture in ("bart", "bert", "gpt2"):
        face = make_face(architecture)
        cases = make_cases(face, 6)
        editor = cache.Editor(cache.Config(drawdown=0.2, scale=0.7))
        editor.fit(face, Material(cases=cases, seed=0))
        notes = editor.notes()
        at = notes["curve"]["epsilon"].index(pytest.approx(notes["epsilon"]))
        frame, _ = protocols.single(face, editor, cases, scoring.Config(generate=False))
        again, other = (frame[frame["probe"] == kind] for kind in ("rephrase", "unrelated"))
        assert again["tf_exact"].mean() == pytest.approx(notes["curve"]["success"][at])
        lost = (other["pre_tf_exact"] - other["tf_exact"]).mean()
        assert lost == pytest.approx(notes["curve"]["drawdown"][at])


def right_passage(face: Face) -> str:
    """A text of two tokens, the second of which the model expects after the first."""
    ids_BT = torch.arange(len(face.tokenizer))[:, None]
    with torch.no_grad():
        next_B = face.model(input_ids=ids_BT).logits[:, 0].argmax(-1)
    texts = face.tokenizer.batch_decode(torch.cat([ids_BT, next_B[:, None]], dim=1))
    found = face.tokenizer(texts)["input_ids"]
    return next(
        text
        for text, ids, first, second in zip(texts, found, *(ids_BT[:, 0], next_B), strict=True)
        if ids == [first, second]
    )


def test_passages_among_questions_are_questions_whatever_goes_together() -> None:
    face = make_face("gpt2")
    cases = make_cases(face, 6)
    cases[0] = replace(cases[0], unrelated=(Probe("", right_passage(face)),))
    found = []
    for together in (1, 6):  # alone, the passage might be taken for a text to be read
        editor = cache.Editor(cache.Config(cases=together))
        editor.fit(face, Material(cases=cases, seed=0))
        found.append(editor.notes()["curve"]["drawdown"])
    assert found[0] == pytest.approx(found[1])
    assert max(found[0]) == pytest.approx(1 / 11)  # it alone was right, of eleven bystanders


def test_passages_are_judged_by_their_perplexity() -> None:
    face = make_face("gpt2")
    texts = [prompt + target for prompt, target in pairs_for(face)]
    memory = remember(face, requests_for(face)[:1], 1, 0.0)
    found = cache._look(face, memory, [(0, "", text) for text in texts], passages=True)
    epsilon = found.distance_N.median().item()
    batch: Batch = face.encode([("", text) for text in texts])
    with applied(face.model, Memory(memory.key_RKD, memory.token_RKL, 0, epsilon)):
        loss = torch.nn.functional.cross_entropy(face.logits(batch), batch.label_N)
    assert found.quality(epsilon) == pytest.approx(loss.exp().item(), rel=1e-5)
    assert 0 < found.hit(epsilon) <= 1
