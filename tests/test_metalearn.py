"""The outer loop: resumes to the same bits, draws by seed alone, ends with its best."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cases import make_cases
from conftest import make_face

import stages
from pipeline.editing import checkpoints, draws, metalearn
from pipeline.editing.editor import Material
from pipeline.editing.patch import applied
from pipeline.editors import mend
from pipeline.errors import EditorError, SettingsError
from pipeline.models import Encoded, Face
from pipeline.records import Probe

OUTER = metalearn.Config(
    steps=8, batch=2, lr=1e-3, lr_alpha=1e-3, decay=True, heldout=2, validate_every=2, warm_up=4
)


def learner(face: Face) -> mend.Mend:
    return mend.Mend(face, mend.Config(rank=4, alpha=1e-2), seed=0)


class Stop(Exception):
    """The run is cut off here."""


def test_interrupted_training_resumes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    face = make_face("gpt2")
    cases = make_cases(face, 12)
    whole = learner(face)
    curve = metalearn.train(face, whole, Material(cases=cases, seed=3), OUTER)

    learn, calls = metalearn._learn, []

    def cut(*arguments: object) -> tuple[float, float]:
        calls.append(1)
        if len(calls) == 6:
            raise Stop
        return learn(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(metalearn, "_learn", cut)
    kept = Material(cases=cases, seed=3, checkpoints=tmp_path / "run")
    with pytest.raises(Stop):
        metalearn.train(face, learner(face), kept, OUTER)
    assert (tmp_path / "run" / "checkpoint.safetensors").is_file()
    resumed = learner(face)
    again = metalearn.train(face, resumed, kept, OUTER)

    assert len(calls) == 6 + 4  # steps 5 to 8 after the checkpoint at 4
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    timeless = [{k: v for k, v in row.items() if k != "seconds"} for row in curve]
    assert timeless == [{k: v for k, v in row.items() if k != "seconds"} for row in again]
    assert not list(tmp_path.iterdir())


def test_a_run_that_was_over_stays_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off between its last checkpoint and its end."""
    face, cases = make_face("gpt2"), make_cases(make_face("gpt2"), 12)
    outer = replace(OUTER, patience=2, lr=0.5, lr_alpha=0.5)
    whole = learner(face)
    curve = metalearn.train(face, whole, Material(cases=cases, seed=3), outer)
    assert len(curve) < 4, "patience ends it"

    def stop(_store: checkpoints.Store) -> None:
        raise Stop

    kept = Material(cases=cases, seed=3, checkpoints=tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Store, "clear", stop)
        with pytest.raises(Stop):
            metalearn.train(face, learner(face), kept, outer)
    resumed = learner(face)
    assert len(metalearn.train(face, resumed, kept, outer)) == len(curve)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_the_curve_holds_the_loss_and_its_parts() -> None:
    face = make_face("gpt2")
    rows = metalearn.train(face, learner(face), Material(cases=make_cases(face, 12), seed=3), OUTER)
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    for row in rows:
        assert row["loss"] == pytest.approx(OUTER.c_edit * row["loss_edit"] + row["loss_loc"])


def test_training_that_is_never_finite_says_so() -> None:
    face = make_face("gpt2")
    broken = learner(face)
    broken.alphas.data.fill_(float("nan"))
    with pytest.raises(EditorError, match="none in 8 steps"):
        metalearn.train(face, broken, Material(cases=make_cases(face, 12), seed=3), OUTER)


def test_an_unreadable_checkpoint_starts_over(tmp_path: Path) -> None:
    face = make_face("gpt2")
    (tmp_path / "checkpoint.safetensors").write_bytes(b"half a file")
    material = Material(cases=make_cases(face, 12), seed=3, checkpoints=tmp_path)
    assert len(metalearn.train(face, learner(face), material, OUTER)) == 4


def test_a_checkpoint_of_another_shape_starts_over(tmp_path: Path) -> None:
    face, adam = make_face("gpt2"), torch.optim.Adam
    for rank, found in ((4, True), (2, False)):
        module = mend.Mend(face, mend.Config(rank=rank, alpha=1e-2), seed=0)
        store = checkpoints.Store(tmp_path / "run", module, adam(module.groups(OUTER)))
        if rank == 4:
            store.save({"step": 2}, {})
        assert (store.load() is not None) == found
    store.clear()
    assert not (tmp_path / "run").exists()


def test_training_resumes_under_its_own_settings_alone() -> None:
    def folder(**settings: float) -> Path:
        return stages.checkpoints("zsre-mend", [settings, 0, "base"])

    assert folder(lr=1e-2, rank=4) == folder(rank=4, lr=1e-2)
    assert len({folder(lr=1e-2, rank=4), folder(lr=1e-5, rank=4), folder(lr=1e-2, rank=2)}) == 3


def test_every_parameter_learns() -> None:
    face = make_face("gpt2")
    trained = learner(face)
    before = {name: value.clone() for name, value in trained.named_parameters()}
    config = metalearn.Config(
        steps=4, batch=4, lr=1e-2, lr_alpha=1e-2, heldout=2, validate_every=4, warm_up=4
    )
    metalearn.train(face, trained, Material(cases=make_cases(face, 12), seed=0), config)
    for name, value in trained.named_parameters():
        assert not torch.equal(value, before[name]), f"{name} did not move"


def test_draws_depend_on_seed_epoch_and_case_only() -> None:
    face = make_face("gpt2")
    cases = make_cases(face, 6)
    one = draws.draw(draws.Reader(face), cases, seed=1, epoch=2)
    torch.manual_seed(99)
    two = draws.draw(draws.Reader(face), cases, seed=1, epoch=2)
    assert torch.equal(one.bystanders.label_N, two.bystanders.label_N)
    epochs = [draws.draw(draws.Reader(face), cases, seed=1, epoch=e).bystanders for e in range(6)]
    assert len({tuple(batch.label_N.tolist()) for batch in epochs}) > 1


def test_hard_locality_draws_from_what_is_close_too() -> None:
    face = make_face("gpt2")
    (case, *_) = make_cases(face, 1)
    pairs = [("One", " a"), ("Two", " b"), ("Three", " c"), ("Four", " d")]
    case = replace(
        case,
        unrelated=(Probe(*pairs[0]), Probe(*pairs[1])),
        neighbours=(Probe(*pairs[2]),),
        hard_neighbours=(Probe(*pairs[3]),),
    )
    labels = [tuple(face.encode([pair]).label_N.tolist()) for pair in pairs]

    def drawn(hard: bool) -> set[tuple[int, ...]]:
        reader = draws.Reader(face)
        found = (metalearn.draw(reader, [case], seed=0, epoch=e, hard=hard) for e in range(40))
        return {tuple(batch.bystanders.label_N.tolist()) for batch in found}

    assert drawn(hard=False) == set(labels[:2])
    assert drawn(hard=True) == set(labels)


def test_labels_are_drawn_anew_where_answers_are_labels() -> None:
    face = make_face("bert")
    no, yes = face.labels
    known = [replace(case, prediction=yes, target_new=yes) for case in make_cases(face, 40)]
    cases = [replace(case, id=f"{case.id}/{n}") for n, case in enumerate(known)]
    reader = draws.Reader(face)

    def against(flips: float, epoch: int) -> list[bool]:
        drawn = draws.draw(reader, cases, seed=0, epoch=epoch, flips=flips)
        said = [request.target == no for request in drawn.edits.requests]
        wanted = face.encode([("", request.target) for request in drawn.edits.requests])
        assert torch.equal(drawn.rephrases.label_N, wanted.label_N)  # judged by what was asked for
        assert torch.equal(drawn.edits.batch.label_N, wanted.label_N)
        return said

    assert not any(against(0.0, 1))
    assert all(against(1.0, 1))
    shares = [sum(against(0.7, epoch)) / 40 for epoch in range(20)]
    assert abs(sum(shares) / 20 - 0.7) < 0.05  # of 800 draws, three standard deviations
    assert against(0.7, 1) == against(0.7, 1) != against(0.7, 2)


def test_where_words_are_free_no_label_is_drawn() -> None:
    face = make_face("gpt2")
    cases = make_cases(face, 6)
    one, two = (
        draws.draw(draws.Reader(face), cases, seed=0, epoch=1, flips=flips) for flips in (0, 1)
    )
    assert one.edits.requests == two.edits.requests
    assert torch.equal(one.bystanders.label_N, two.bystanders.label_N)


@pytest.mark.parametrize("flips", [-0.1, 1.5])
def test_a_share_of_flips_that_is_none_is_refused(flips: float) -> None:
    with pytest.raises(SettingsError, match="between 0 and 1"):
        metalearn.Config(flips=flips)


def test_pairs_are_read_once_and_as_the_face_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    face = make_face("bart")
    pairs = [("One", " a"), ("Two", " b"), ("One", " a"), ("One", " b")]
    reader, asked = draws.Reader(face), []
    read = face.tokenise

    def tokenise(some: list[tuple[str, str]]) -> list[Encoded]:
        asked.extend(some)
        return read(some)

    monkeypatch.setattr(face, "tokenise", tokenise)
    for part in (pairs, pairs[:2], pairs):
        found, straight = reader.encode(part), face.collate(read(part))
        assert found.inputs.keys() == straight.inputs.keys()
        assert all(torch.equal(found.inputs[name], straight.inputs[name]) for name in found.inputs)
        assert torch.equal(found.label_N, straight.label_N)
    assert asked == [("One", " a"), ("Two", " b"), ("One", " b")]
    monkeypatch.setattr(draws.Reader, "_MOST", 2)
    reader.encode(pairs)
    assert len(asked) == 6  # forgotten, and read again


def test_the_outer_loop_draws_as_its_locality_says(monkeypatch: pytest.MonkeyPatch) -> None:
    face = make_face("gpt2")
    draw, hard = metalearn.draw, []

    def seen(*arguments: object, **named: object) -> object:
        hard.append(named["hard"])
        return draw(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(metalearn, "draw", seen)
    material = Material(cases=make_cases(face, 6), seed=3)
    for locality in ("unrelated", "hard"):
        hard.clear()
        config = replace(OUTER, steps=2, locality=locality)
        metalearn.train(face, learner(face), material, config)
        assert set(hard) == {locality == "hard"}


def test_held_out_cases_are_never_trained_on() -> None:
    face = make_face("gpt2")
    taught, kept = metalearn._hold_out(make_cases(face, 12), 2, seed=0)
    assert len(kept) == 2
    assert not {case.id for case in taught} & {case.id for case in kept}
    config = metalearn.Config(steps=50, batch=2)
    seen = {case.id for _, _, part in metalearn._steps(taught, config, 0, 0) for case in part}
    assert seen == {case.id for case in taught}


def test_losses_are_the_papers_by_hand() -> None:
    """L = c_edit L_e + L_loc on one frozen draw, against the formula in plain torch."""
    face = make_face("gpt2")
    cases = make_cases(face, 2)
    model = learner(face)
    drawn = draws.draw(draws.Reader(face), cases, seed=0, epoch=0)
    model.observe(face, drawn.edits)
    model.eval()
    config = metalearn.Config(c_edit=0.1)
    found = metalearn.validate(face, model, [drawn], config)
    p = torch.log_softmax(face.logits(drawn.bystanders), -1)
    with applied(face.model, model.patch(face, drawn.edits).detach()):
        edited = torch.log_softmax(face.logits(drawn.rephrases), -1)
        q = torch.log_softmax(face.logits(drawn.bystanders), -1)
    total = 0.0
    for row in range(2):
        own = drawn.rephrases.row_N == row
        labels = drawn.rephrases.label_N[own]
        total += -0.1 * edited[own].gather(1, labels[:, None]).mean().item()
        loc = drawn.bystanders.row_N == row
        total += torch.nn.functional.kl_div(
            q[loc], p[loc], log_target=True, reduction="batchmean"
        ).item()
    assert found["val_loss"] == pytest.approx(total / 2, rel=1e-5)
