"""Every benchmark's two sides give one result; how long they take is no test's business."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import bound, clock, growth, report, training
from benchmarks.setup import Setup, setup, small
from benchmarks.sizes import SIZES

CPU = torch.device("cpu")


@pytest.fixture
def tiny() -> Setup:
    return setup(SIZES["tiny"], CPU, torch.float32, repeats=1)


@pytest.mark.parametrize("name", command.CONTESTS)
def test_both_sides_agree(tiny: Setup, name: str) -> None:
    for contest in command.CONTESTS[name](tiny):
        worst = clock.agree(contest)
        assert worst is not None, contest.name
        assert worst <= clock.TOLERANCE, contest.name


def test_training_of_an_encoder_decoder_agrees() -> None:
    """The T5-11B shape in small."""
    size = small(SIZES["t5-11b"])
    made = setup(size, CPU, torch.float32, repeats=1)
    for contest in training.contests(made):
        assert clock.agree(contest) is not None


def test_a_difference_is_found(tiny: Setup) -> None:
    (contest,) = (c for c in command.CONTESTS["moments"](tiny) if c.name == "moments")
    wrong = {name: 1.001 * value for name, value in contest.ours(contest.few).items()}
    broken = clock.Contest(
        name="wrong", what="", unit="", ours=lambda _: wrong, plain=contest.plain, count=1,
        few=contest.few,
    )  # fmt: skip
    with pytest.raises(AssertionError, match="wrong: the two sides disagree"):
        clock.agree(broken)


def test_a_dry_run_writes_a_report(tmp_path: Path) -> None:
    arguments = ["--size", "tiny", "--repeats", "1", "--threads", "1", "--device", "cpu"]
    assert command.main([*arguments, "--only", "ft", "moments", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "tiny-cpu.json").read_text())
    assert [contest["name"] for contest in found["contests"]] == ["ft rows", "moments"]
    assert all(len(contest["ours"]["wall"]) == 1 for contest in found["contests"])
    assert command.main([*arguments, "--only", "sizes", "--out", str(tmp_path)]) == 0
    sized = json.loads((tmp_path / "tiny-cpu.json").read_text())["memory_by_size"]
    assert [peak["name"] for peak in sized] == ["mend", "ke", "enn"]
    assert all(peak["peak_mb"] > 0 and peak["model_parameters"] > 0 for peak in sized)
    assert (tmp_path / "tiny-cpu-memory.svg").is_file()
    assert command.main([*arguments, "--only", "moments", "--out", str(tmp_path)]) == 0
    again = json.loads((tmp_path / "tiny-cpu.json").read_text())
    assert again["contests"][0] == found["contests"][0]  # what was not asked for is kept
    assert again["memory_by_size"] == sized
    text = (tmp_path / "tiny-cpu.md").read_text()
    assert found["device"] in text
    assert "second moments of 2 MLPs" in text


def test_flops_of_a_step_are_counted(tiny: Setup) -> None:
    """At least what the first edited block's MLP needs for the edits, forward and backward."""
    work, size = tiny.work, tiny.size
    tokens = work.edits * (work.prompt + work.target - 1)
    assert bound.count_flops(tiny, "mend") > 2 * 2 * 2 * tokens * size.width * size.inner


def test_exponents_are_fitted() -> None:
    line = growth.Line("x", "rows", (1, 2, 4, 8), (3.0, 6.0, 12.0, 24.0))
    assert line.exponent == pytest.approx(1)
    rates = growth.Line("x", "rows", (1, 2, 4, 8), (1.0, 1.0, 1.0, 2.0))
    assert growth.saturation(rates) == (pytest.approx(1), 2)
    assert "best at 2 rows; it grows as rows to the power of 1.00" in report.reach(rates)


def test_throughput_that_never_grew_has_no_exponent() -> None:
    flat = growth.Line("x", "rows", (1, 2, 4), (1.0, 2.0, 3.0))
    exponent, rows = growth.saturation(flat)
    assert rows == 1
    assert math.isnan(exponent)
    assert report.reach(flat).endswith("half of its best at 1 rows.")
