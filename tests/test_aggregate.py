"""Joint edits by least squares, against torch.linalg.lstsq on the dense problem."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cases import make_cases
from conftest import make_face
from torch import Tensor

from pipeline.editing import aggregate, metalearn
from pipeline.editing.editor import Material, restore, save
from pipeline.editing.patch import Patch
from pipeline.editing.updates import Dense, Factors
from pipeline.editors import mend

SHAPES = [(3, 7, 5), (9, 7, 5), (6, 7, 50), (40, 6, 4)]  # T, I, O: few tokens, many, many outputs


def problem(tokens: int, inputs: int, outputs: int, rows: int = 2) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(tokens)
    keys_RTI = torch.randn(rows, tokens, inputs, generator=draws, dtype=torch.float64)
    values_RTO = torch.randn(rows, tokens, outputs, generator=draws, dtype=torch.float64)
    return keys_RTI, values_RTO


def penalised(keys_TI: Tensor, values_TO: Tensor, root_II: Tensor) -> Tensor:
    """argmin |U Wᵀ - V|² + |root Wᵀ|², by stacking both."""
    stacked = torch.cat([keys_TI, root_II])
    wanted = torch.cat([values_TO, values_TO.new_zeros(len(root_II), values_TO.shape[1])])
    return torch.linalg.lstsq(stacked, wanted, driver="gelsd").solution.T


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ridge", [1e-3, 2.0])
def test_it_is_ridge_regression(shape: tuple[int, int, int], ridge: float) -> None:
    keys, values = problem(*shape)
    found = aggregate.solve(keys, values, torch.tensor(ridge, dtype=torch.float64))
    root = ridge**0.5 * torch.eye(shape[1], dtype=torch.float64)
    for row in range(2):
        expected = penalised(keys[row], values[row], root)
        torch.testing.assert_close(found.dense_ROI()[row], expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_moment_takes_the_place_of_the_identity(shape: tuple[int, int, int]) -> None:
    keys, values = problem(*shape)
    root = torch.randn(20, shape[1], generator=torch.Generator().manual_seed(1)).double()
    found = aggregate.solve(keys, values, torch.tensor(0.3, dtype=torch.float64), root.T @ root)
    expected = penalised(keys[1], values[1], 0.3**0.5 * root)
    torch.testing.assert_close(found.dense_ROI()[1], expected, rtol=1e-8, atol=1e-8)


def test_single_precision_keys_keep_their_digits() -> None:
    """Nearly equal keys and a small λ: rounding the inverse's result would lose four digits."""
    ridge = 1e-4
    keys, values = problem(8, 64, 80, rows=1)
    keys[:, 1] = keys[:, 0] + 1e-3 * keys[:, 1]
    keys, values = keys.float(), values.float()
    found = aggregate.solve(keys, values, torch.tensor(ridge)).dense_ROI()[0]
    root = ridge**0.5 * torch.eye(64, dtype=torch.float64)
    expected = penalised(keys[0].double(), values[0].double(), root)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


def test_small_edits_stay_factors_and_large_ones_are_written_out() -> None:
    assert isinstance(aggregate.solve(*problem(2, 7, 5), torch.tensor(1.0)), Factors)
    assert isinstance(aggregate.solve(*problem(5, 7, 5), torch.tensor(1.0)), Dense)
    assert isinstance(aggregate.solve(*problem(9, 7, 5), torch.tensor(1.0)), Dense)


def test_without_penalty_tokens_get_what_they_want() -> None:
    keys, values = problem(4, 9, 5)
    found = aggregate.solve(keys, values, torch.tensor(1e-12))
    torch.testing.assert_close(found.act(keys), values, rtol=1e-6, atol=1e-6)


def test_groups_are_solved_by_themselves_and_padding_changes_nothing() -> None:
    keys, values = problem(3, 7, 5, rows=4)
    solver = aggregate.LeastSquares({"site": 7}, 0.5, moments=False).double()
    found = solver.joined(Patch({"site": Factors(values, keys)}), 2).updates["site"].dense_ROI()
    assert found.shape == (2, 5, 7)
    ridge = torch.tensor(0.5, dtype=torch.float64)
    alone = aggregate.solve(keys[2:].reshape(1, 6, 7), values[2:].reshape(1, 6, 5), ridge)
    torch.testing.assert_close(found[1:], alone.dense_ROI(), rtol=1e-6, atol=1e-6)
    padded = Factors(*(torch.cat([x, torch.zeros_like(x)], 1) for x in (values, keys)))
    again = solver.joined(Patch({"site": padded}), 2).updates["site"].dense_ROI()
    torch.testing.assert_close(again, found)


@pytest.mark.parametrize("moments", [False, True])
def test_ridge_is_counted_in_inputs(moments: bool) -> None:
    """λ = n weighs as much as n inputs that should stay where they are, up to C's floor."""
    keys, values = problem(9, 7, 5)
    draws = torch.Generator().manual_seed(2)
    stay = torch.linalg.qr(torch.randn(400, 7, generator=draws, dtype=torch.float64)).Q * 20
    if moments:
        stay = stay * torch.linspace(1, 3, 7)  # directions that inputs take more than others
    solver = aggregate.LeastSquares({"site": 7}, 400.0, moments=moments).double()
    solver.observe("site", stay[:150])
    solver.observe("site", stay[150:])
    found = solver.joined(Patch({"site": Factors(values, keys)}), 1).updates["site"].dense_ROI()
    expected = penalised(keys[0], values[0], stay)
    assert torch.linalg.norm(found[0] - expected) < 0.05 * torch.linalg.norm(expected)


def test_what_a_term_wants_of_its_own_input() -> None:
    u, left = problem(4, 7, 5)
    right, _ = problem(4, 7, 5, rows=2)
    left[:, 3] = 0
    found = aggregate.wanted(Factors(left, right), u)
    for token in range(3):
        own = torch.outer(left[0, token], right[0, token]) @ u[0, token]
        torch.testing.assert_close(found.left_RKO[0, token], own)
        assert torch.equal(found.right_RKI[0, token], u[0, token])
    assert not found.right_RKI[:, 3].any()


@pytest.mark.parametrize("moments", [False, True])
@pytest.mark.parametrize("name", ["gpt2", "bart"])
def test_mend_learns_through_it_and_comes_back_from_files(
    name: str, moments: bool, tmp_path: Path
) -> None:
    face = make_face(name)
    cases = [replace(c, subject="", prompt=f"{c.prompt} {c.id}") for c in make_cases(face, 10)]
    outer = metalearn.Config(
        steps=3, batch=2, k=2, lr=1e-3, lr_alpha=1e-3, heldout=2, validate_every=3, warm_up=4
    )
    config = mend.Config(
        rank=4, alpha=1e-2, ridge=3.0, aggregate="least_squares", moments=moments, outer=outer
    )
    fitted = mend.Editor(config)
    fitted.fit(face, Material(cases=cases, seed=0))
    assert all(ridge != pytest.approx(3.0, rel=1e-4) for ridge in fitted.notes()["ridge"].values())
    save(fitted, tmp_path, "hash of the base")
    loaded = mend.Editor(config)
    restore(loaded, face, tmp_path, "hash of the base")
    requests = [case.request() for case in cases[:4]]
    one, two = fitted.edit(face, requests, 2).patch, loaded.edit(face, requests, 2).patch
    assert one.rows == 2
    for site, update in one.updates.items():
        assert torch.equal(update.dense_ROI(), two.updates[site].dense_ROI())


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_differentiable_in_keys_values_and_ridge(shape: tuple[int, int, int]) -> None:
    keys, values = problem(*shape, rows=1)
    inputs = (keys, values, torch.tensor(0.7, dtype=torch.float64))

    def delta(*parts: Tensor) -> Tensor:
        return aggregate.solve(*parts).dense_ROI().square().sum()

    assert torch.autograd.gradcheck(delta, [part.requires_grad_() for part in inputs])


@pytest.mark.parametrize("outputs", [16, 200])
def test_many_single_precision_tokens_are_multiplied_in_double(outputs: int) -> None:
    """More tokens than inputs, of low rank, and a small λ."""
    draws = torch.Generator().manual_seed(0)
    keys = (torch.randn(200, 4, generator=draws) @ torch.randn(4, 32, generator=draws))[None]
    values, ridge = torch.randn(1, 200, outputs, generator=draws), torch.tensor(1e-2)
    found = aggregate.solve(keys, values, ridge).dense_ROI()
    exact = aggregate.solve(keys.double(), values.double(), ridge.double()).dense_ROI()
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)
