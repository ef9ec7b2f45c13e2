"""Metrics against hand-worked numbers, the reference implementations' numbers, and the binomial."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fake_runs import exact_row, outcomes, row, timing

from pipeline import metrics
from pipeline.errors import DataError

GOLDEN = Path(__file__).parent / "golden" / "metrics"
TIMES = pd.DataFrame([timing()])


def value(rows: list[dict[str, Any]], name: str) -> float | None:
    return metrics.summarise(pd.DataFrame(rows), TIMES)[name]["value"]


def test_success_by_hand() -> None:
    rows = [
        exact_row("a", "edit", 0, 0, 1),
        exact_row("a", "rephrase", 0, 0, 1),
        exact_row("a", "rephrase", 1, 0, 0),
        exact_row("b", "edit", 0, 0, 1),
        exact_row("b", "rephrase", 0, 0, 0),
    ]
    assert value(rows, "edit_success_edit") == 1
    assert value(rows, "edit_success_rephrase") == 0.5
    assert value(rows, "generality_all_rephrases") == 0.25  # cases first: (1/2 + 0) / 2
    assert value(rows, "edit_success_eq1") == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_drawdown_by_hand() -> None:
    rows = [exact_row("a", "edit", 0, 0, 1)]
    rows += [exact_row("a", "unrelated", i, 1, float(i > 0)) for i in range(4)]
    rows += [exact_row("a", "neighbour", i, float(i > 1), float(i > 0)) for i in range(4)]
    assert value(rows, "accuracy_drawdown") == 0.25
    assert value(rows, "neighbour_drawdown") == -0.25  # an edit may also repair
    assert "hard_neighbour_drawdown" not in metrics.summarise(pd.DataFrame(rows), TIMES)


def test_perplexity_is_weighted_by_tokens_over_all_cases() -> None:
    def passage(case: str, tokens: int, before: float, after: float) -> dict[str, Any]:
        losses = {"pre_nll_true": before, "nll_true": after}
        return row(case, "unrelated", prompt="", n_tokens=tokens, tf_exact=0.0, **losses)

    rows = [passage("a", 30, 1.0, 1.5), passage("a", 10, 2.0, 2.0), passage("b", 60, 3.0, 4.0)]
    before, after = (30 + 20 + 180) / 100, (45 + 20 + 240) / 100
    assert value(rows, "perplexity_drawdown") == pytest.approx(math.exp(after) - math.exp(before))
    assert "accuracy_drawdown" not in metrics.summarise(pd.DataFrame(rows), TIMES)


def test_a_broken_model_fails_and_is_never_left_out() -> None:
    good = row("a", "rephrase", tf_exact=1.0, pre_tf_exact=0.0)
    nan = row("b", "rephrase", tf_exact=math.nan, pre_tf_exact=0.0)
    collapsed = row("c", "rephrase", tf_exact=1.0, pre_tf_exact=0.0, collapsed=True)
    summary = metrics.summarise(pd.DataFrame([good, nan, collapsed]), TIMES)
    assert summary["edit_success_rephrase"]["value"] == pytest.approx(1 / 3)
    assert summary["edit_success_rephrase"]["n"] == 3
    assert summary["collapsed"]["value"] == pytest.approx(1 / 3)


def test_what_was_not_measured_is_left_out() -> None:
    asked = row("a", "edit", gen_exact=1.0, pre_gen_exact=0.0)
    silent = row("b", "edit")  # nothing was generated for this case
    summary = metrics.summarise(pd.DataFrame([asked, silent]), TIMES)
    found = summary["generation_success_edit"]
    assert (found["value"], found["n"]) == (1, 1)
    assert math.isnan(found["low"])  # one case does not say how cases vary
    assert math.isnan(found["high"])


def test_a_metric_of_several_means_counts_the_fewest_cases() -> None:
    rows = outcomes("counterfact", "memit", 6, 0.9, 0.1)
    rows = rows[(rows["probe"] != "neighbour") | (rows["case_id"] == "counterfact-0003")]
    summary = metrics.summarise(rows, TIMES)
    assert [summary[name]["n"] for name in ("ES", "NS", "S")] == [6, 1, 1]
    assert math.isnan(summary["S"]["low"])


def test_the_unedited_model_has_no_original() -> None:
    rows = outcomes("zsre", "enn", 6, 0.9, 0.1)
    rows = rows.assign(orig_tf_exact=1.0, orig_tf_token_acc=1.0)
    assert "accuracy_drawdown_original" in metrics.summarise(rows, TIMES)
    assert "accuracy_drawdown_original" not in metrics.unedited(rows)


def test_a_broken_passage_has_infinite_perplexity_and_null_in_json() -> None:
    whole = row("a", "unrelated", prompt="", n_tokens=9, nll_true=1.0, pre_nll_true=1.0)
    broken = whole | {"case_id": "b", "nll_true": math.nan, "collapsed": True}
    summary = metrics.summarise(pd.DataFrame([whole, broken]), TIMES)
    assert summary["perplexity_drawdown"]["value"] == math.inf
    assert summary["perplexity_drawdown"]["low"] == 0  # some draws hold the whole case alone
    stored = metrics.plain(summary)["perplexity_drawdown"]
    assert stored == {"value": None, "low": 0, "high": None, "n": 2}
    assert json.dumps(stored, allow_nan=False)


def test_counterfact_scores_of_the_reference() -> None:
    golden = json.loads((GOLDEN / "counterfact_summary.json").read_text())
    rows = [item for record in golden["records"] for item in _counterfact_rows(record)]
    frame = pd.DataFrame(rows).assign(bench="counterfact")
    summaries = {"post": metrics.summarise(frame, TIMES), "pre": metrics.unedited(frame)}
    reference = {
        "ES": "rewrite_success", "PS": "paraphrase_success", "NS": "neighborhood_success",
        "EM": "rewrite_diff", "PM": "paraphrase_diff", "NM": "neighborhood_diff",
        "edit_success_edit": "rewrite_acc", "generality_all_rephrases": "paraphrase_acc",
        "accuracy_neighbour": "neighborhood_acc",
    }  # fmt: skip
    for when, summary in summaries.items():
        for ours, theirs in reference.items():
            found = summary[ours]["value"]
            mean, _ = golden["expected_unrounded_mean_std"][f"{when}_{theirs}"]
            rounded, _ = golden["expected_summary_x100_rounded2"][f"{when}_{theirs}"]
            assert found == pytest.approx(mean, abs=1e-12)
            assert round(100 * (found or 0), 2) == rounded
        score = summary["S"]["value"]
        assert 100 * (score or 0) == pytest.approx(golden["score_unrounded"][when], abs=1e-9)
        # The reference takes S from means that it has rounded already.
        printed, _ = golden["expected_summary_x100_rounded2"][f"{when}_score"]
        assert 100 * (score or 0) == pytest.approx(printed, abs=0.01)


def _counterfact_rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    kinds = {"edit": "rewrite", "rephrase": "paraphrase", "neighbour": "neighborhood"}
    rows = []
    for kind, theirs in kinds.items():
        probs = {when: record[when][f"{theirs}_prompts_probs"] for when in ("pre", "post")}
        right = {when: record[when][f"{theirs}_prompts_correct"] for when in ("pre", "post")}
        for i in range(len(probs["pre"])):
            measured = {
                f"{prefix}{ours}": probs[when][i][name]
                for prefix, when in (("pre_", "pre"), ("", "post"))
                for ours, name in (("nll_new", "target_new"), ("nll_true", "target_true"))
            }
            measured |= {
                "pre_tf_exact": float(right["pre"][i]),
                "tf_exact": float(right["post"][i]),
            }
            rows.append(row(f"case-{record['case_id']:02}", kind, index=i, **measured))
    return rows


def test_a_tie_fails_every_score() -> None:
    tie = {"nll_new": 1.0, "nll_true": 1.0, "pre_nll_new": 1.0, "pre_nll_true": 1.0}
    rows = [row("a", kind, bench="counterfact", **tie) for kind in ("edit", "rephrase")]
    rows += [row("a", "neighbour", bench="counterfact", **tie)]
    assert [value(rows, name) for name in ("ES", "PS", "NS", "S")] == [0, 0, 0, 0]


def test_scores_of_other_benchmarks_are_left_out() -> None:
    rows = [row("a", "edit", nll_new=1.0, nll_true=2.0, tf_exact=1.0)]
    assert "ES" not in metrics.summarise(pd.DataFrame(rows), TIMES)


def test_zsre_of_language_models_is_scored_by_shares_of_tokens() -> None:
    """Efficacy 3/4, paraphrase 1/2, specificity 1/4: the harmonic mean is 3 / (4/3 + 2 + 4)."""
    rows = []
    for case, shift in (("a", 0.25), ("b", -0.25)):
        kinds = (("edit", 0.75), ("rephrase", 0.5), ("unrelated", 0.25))
        for kind, share in kinds:
            rows.append(row(case, kind, tf_token_acc=share + shift, pre_tf_token_acc=0.0))
        agree = {"argmax_agree": 0.5 + shift, "tf_exact": 0.0, "pre_tf_exact": 0.0}
        rows.append(row(case, "unrelated", index=1, **agree))
        rows.append(row(case, "edit", index=1, gen_exact=0.5 + 2 * shift, pre_gen_exact=0.0))
    found = metrics.summarise(pd.DataFrame(rows), TIMES)
    names = ("edit", "rephrase", "unrelated")
    assert [found[f"token_accuracy_{n}"]["value"] for n in names] == [0.75, 0.5, 0.25]
    assert found["token_accuracy_score"]["value"] == pytest.approx(3 / (4 / 3 + 2 + 4))
    assert found["agreement_unrelated"]["value"] == 0.5
    assert found["generation_success_edit"]["value"] == 0.5


def test_averages_of_the_mend_reference() -> None:
    golden = json.loads((GOLDEN / "mend_metrics.json").read_text())
    rows: list[dict[str, Any]] = []
    for number, step in enumerate(golden["steps"]):
        case = f"step-{number}"
        rows.append(row(case, "rephrase", pre_tf_exact=0.0, tf_exact=step["edit/acc"]))
        losses = {"pre_nll_true": step["nll/pre"], "nll_true": step["nll/post"]}
        tokens = int(step["n_tokens/post"])
        rows.append(row(case, "unrelated", index=4, prompt="", n_tokens=tokens, **losses))
        for i in range(4):  # its accuracies are means over four examples
            before, after = (float(i < 4 * step[f"acc/{when}"]) for when in ("pre", "post"))
            rows.append(exact_row(case, "unrelated", i, before, after))
    assert value(rows, "edit_success_rephrase") == pytest.approx(golden["ES"], rel=1e-5)
    assert value(rows, "accuracy_drawdown") == pytest.approx(golden["acc_drawdown"], rel=1e-5)
    assert value(rows, "perplexity_drawdown") == pytest.approx(golden["ppl_drawdown"], rel=1e-5)


@pytest.mark.parametrize(("right", "cases"), [(30, 200), (100, 200), (190, 200), (7, 20)])
def test_intervals_are_those_of_the_binomial(right: int, cases: int) -> None:
    """Resampling n yes-or-no cases draws the count from a binomial, whose quantiles are exact."""
    rows = [exact_row(f"{i:03}", "rephrase", 0, 0, float(i < right)) for i in range(cases)]
    found = metrics.summarise(pd.DataFrame(rows), TIMES)["edit_success_rephrase"]
    share, below, quantiles = right / cases, 0.0, []
    for count in range(cases + 1):
        below += math.comb(cases, count) * share**count * (1 - share) ** (cases - count)
        quantiles += [count / cases] * ((below >= 0.025) + (below >= 0.975) - len(quantiles))
    assert found["low"] == pytest.approx(quantiles[0], abs=1.01 / cases)
    assert found["high"] == pytest.approx(quantiles[1], abs=1.01 / cases)


def test_same_seed_same_interval_whatever_the_order_of_rows() -> None:
    frame = outcomes("zsre", "mend", 30, 0.7, 0.2)
    shuffled = frame.sample(frac=1, random_state=1).reset_index(drop=True)
    assert metrics.summarise(frame, TIMES, 3) == metrics.summarise(frame, TIMES, 3)
    for name, numbers in metrics.summarise(shuffled, TIMES, 3).items():
        assert numbers == pytest.approx(metrics.summarise(frame, TIMES, 3)[name])
    other = metrics.summarise(frame, TIMES, 4)["kl_unrelated"]
    assert other["low"] != metrics.summarise(frame, TIMES, 3)["kl_unrelated"]["low"]


def test_costs_are_totals_over_shards_without_interval() -> None:
    times = pd.DataFrame(
        [
            timing(n_cases=30, edit_seconds=6.0, steps_mean=10.0, stopped_early=1.0),
            timing(n_cases=10, edit_seconds=2.0, steps_mean=30.0, stopped_early=0.2),
        ]
    )
    costs = metrics.costs(times)
    assert costs["seconds_per_edit"] == {"value": 0.2, "low": None, "high": None, "n": 40}
    assert costs["steps_mean"]["value"] == 15
    assert costs["stopped_early"]["value"] == pytest.approx(0.8)
    assert "steps_mean" not in metrics.costs(pd.DataFrame([timing(steps_mean=math.nan)]))


def test_paired_difference_by_hand() -> None:
    a = [exact_row(f"{i}", "rephrase", 0, 0, float(i < 3)) for i in range(4)]
    b = [exact_row(f"{i}", "rephrase", 0, 0, float(i < 1)) for i in range(4)]
    b.append(exact_row("only here", "rephrase", 0, 0, 1))
    found = metrics.compare(pd.DataFrame(a), pd.DataFrame(b), "edit_success_rephrase")
    assert found["difference"] == 0.5
    assert found["n"] == 4
    same = metrics.compare(pd.DataFrame(a), pd.DataFrame(a), "edit_success_rephrase")
    assert same == {"difference": 0, "low": 0, "high": 0, "n": 4}  # what pairing is for


def test_runs_of_other_groups_are_drawn_by_their_own() -> None:
    """Equal cases cancel out where both runs edited them together, and only there."""
    rows = [exact_row(f"{i}", "rephrase", 0, 0, float(i < 4)) for i in range(8)]
    a = pd.DataFrame(rows).assign(k=2)
    same = metrics.compare(a, a, "edit_success_rephrase")
    assert (same["low"], same["high"]) == (0, 0)
    b = pd.DataFrame([rows[i] for i in (0, 4, 1, 5, 2, 6, 3, 7)]).assign(k=2)
    found = metrics.compare(a, b, "edit_success_rephrase")
    assert found["difference"] == 0
    assert found["low"] < 0 < found["high"]


def test_pairs_must_be_the_same_edits() -> None:
    a = pd.DataFrame([exact_row("a", "edit", 0, 0, 1), exact_row("a", "rephrase", 0, 0, 1)])
    with pytest.raises(DataError, match="'a' the first"):
        metrics.compare(a, a.assign(target="Lisbon"), "edit_success_rephrase")
    with pytest.raises(DataError, match="0 case ids in common"):
        metrics.compare(a, a.assign(case_id="b"), "edit_success_rephrase")


def test_rows_of_two_runs_are_refused() -> None:
    rows = [exact_row("a", "edit", 0, 0, 1), exact_row("a", "edit", 0, 0, 1) | {"alg": "ft"}]
    with pytest.raises(DataError, match="2 different ones"):
        metrics.summarise(pd.DataFrame(rows), TIMES)
