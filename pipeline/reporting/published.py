"""What the papers report, as data: shown beside ours only where the setting is the same.

A `Setting` is one column of a paper's table: benchmark, model and data together. A suite that
rebuilds one names its key (`paper: mend-table-4-zsre`); every other suite shows no published
number, since a figure for another model on other data compares nothing.

Values are kept as printed, "<0.001" included. Sources: Mitchell et al., Fast Model Editing at
Scale (ICLR 2022), tables 3, 4, 5, 6, 9 and 11; Meng et al., Locating and Editing Factual
Associations in GPT (2022), tables 1 and 4; Meng et al., Mass-Editing Memory in a Transformer
(ICLR 2023), the two tables for 10,000 edits. The text of the MEND paper gives 96 % for its editor
at 25 edits where its table 5 gives 0.89; the table's number stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.errors import SettingsError, near_misses


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting of one table.

    Attributes:
        source: paper and table, as a report cites it.
        bench: the benchmark it belongs to.
        model: the model that was edited.
        data: edits and locality data, and how many edits at once.
        metrics: our names of the reported metrics, in order.
        rows: editor (or variant) -> values as printed, in the order of `metrics`.
    """

    source: str
    bench: str
    model: str
    data: str
    metrics: tuple[str, ...]
    rows: Mapping[str, tuple[str, ...]]

    def value(self, editor: str, metric: str) -> str | None:
        """The printed value, or None where the table has none."""
        if editor not in self.rows or metric not in self.metrics:
            return None
        return self.rows[editor][self.metrics.index(metric)] or None

    def both(self, editor: str) -> str | None:
        """Success and drawdown, "0.98 / 0.002"; None where the table has not both."""
        harm = next((name for name in self.metrics if name.endswith("drawdown")), "")
        pair = [self.value(editor, name) for name in ("edit_success_rephrase", harm)]
        return " / ".join(text for text in pair if text) if all(pair) else None


def beside(key: str | None, bench: str, table: str, at_once: int = 1) -> Setting | None:
    """Another table of the same paper over the very same benchmark, model and data, if any.

    Args:
        key: the setting that a suite rebuilds; None where it rebuilds none.
        table: "Table 6".
        at_once: edits made together.
    """
    if key is None:
        return None
    own = setting(key, bench)
    paper = own.source.rpartition(", ")[0]
    data = own.data + (f", {at_once} at once" if table == "Table 5" else "")
    wanted = (f"{paper}, {table}", bench, own.model, data)
    return next(
        (s for s in all_settings().values() if (s.source, s.bench, s.model, s.data) == wanted), None
    )


def setting(key: str, bench: str) -> Setting:
    """The setting of that key.

    Raises:
        SettingsError: no table has that key, or its table is about another benchmark.
    """
    own = {name: value for name, value in all_settings().items() if value.bench == bench}
    if key not in own:
        raise SettingsError(
            expected=f"the key of a published table about {bench}",
            found=repr(key),
            remedy=near_misses(key, own),
        )
    return own[key]


def all_settings() -> dict[str, Setting]:
    """Every published setting by its key."""
    return _mend() | _batched() | _rome() | _memit()


_ACC = ("edit_success_rephrase", "accuracy_drawdown")
_PPL = ("edit_success_rephrase", "perplexity_drawdown")
_ZSRE = ("token_accuracy_edit", "token_accuracy_rephrase", "token_accuracy_unrelated")
_CF = ("S", "ES", "EM", "PS", "PM", "NS", "NM", "GE", "RS")

# key -> (table, benchmark, model, data, metrics, one "editor success drawdown" per line)
_MEND: dict[str, tuple[str, str, str, str, tuple[str, ...], str]] = {
    "mend-table-3-wikitext-gpt-neo": (
        "Table 3", "wikitext", "GPT-Neo 2.7B", "Wikitext edits, OpenWebText locality", _PPL,
        "ft 0.55 0.195; ft_kl 0.40 0.026; ke 0.00 0.137; mend 0.81 0.057",
    ),
    "mend-table-3-wikitext-gpt-j": (
        "Table 3", "wikitext", "GPT-J 6B", "Wikitext edits, OpenWebText locality", _PPL,
        "ft 0.80 0.125; ft_kl 0.36 0.109; ke 0.01 0.068; mend 0.88 0.031",
    ),
    "mend-table-3-zsre-t5-xl": (
        "Table 3", "zsre", "T5-XL 2.8B", "zsRE edits, NQ locality", _ACC,
        "ft 0.58 <0.001; ft_kl 0.55 <0.001; ke 0.03 <0.001; mend 0.88 0.001",
    ),
    "mend-table-3-zsre-t5-xxl": (
        "Table 3", "zsre", "T5-XXL 11B", "zsRE edits, NQ locality", _ACC,
        "ft 0.87 <0.001; ft_kl 0.85 <0.001; ke 0.04 <0.001; mend 0.89 <0.001",
    ),
    "mend-table-4-fever": (
        "Table 4", "fever", "BERT-base 110M", "FEVER edits and locality", _ACC,
        "ft 0.76 <0.001; ft_kl 0.64 <0.001; enn 0.99 0.003; ke 0.95 0.004; mend >0.99 <0.001",
    ),
    "mend-table-4-zsre": (
        "Table 4", "zsre", "BART-base 139M", "zsRE edits and locality", _ACC,
        "ft 0.96 <0.001; ft_kl 0.89 <0.001; enn 0.99 <0.001; ke 0.98 <0.001; mend 0.98 0.002",
    ),
    "mend-table-4-wikitext": (
        "Table 4", "wikitext", "distilGPT2 82M", "Wikitext edits and locality", _PPL,
        "ft 0.29 0.938; ft_kl 0.17 0.059; enn 0.93 0.094; ke 0.25 0.595; mend 0.86 0.225",
    ),
    "mend-table-6-wikitext": (
        "Table 6", "wikitext", "distilGPT2 82M", "Wikitext edits and locality", _PPL,
        "no_sharing 0.86 0.195; no_norm 0.02 0.370; no_id_init 0.27 0.898; only_u 0.63 0.559; "
        "only_delta 0.80 0.445; only_smaller 0.80 0.593; mend 0.86 0.225",
    ),
    "mend-table-6-zsre": (
        "Table 6", "zsre", "BART-base 139M", "zsRE edits and locality", _ACC,
        "no_sharing >0.99 0.001; no_norm 0.97 <0.001; no_id_init 0.94 <0.001; only_u 0.98 0.002; "
        "only_delta 0.99 0.001; only_smaller 0.98 0.002; mend >0.99 0.001",
    ),
    "mend-table-9-wikitext-gpt-neo": (
        "Table 9", "wikitext", "GPT-Neo 2.7B", "Wikitext edits, OpenWebText locality", _PPL,
        "attention 0.73 0.068; mlp 0.81 0.057",
    ),
    "mend-table-9-wikitext-gpt-j": (
        "Table 9", "wikitext", "GPT-J 6B", "Wikitext edits, OpenWebText locality", _PPL,
        "attention 0.54 0.122; mlp 0.88 0.031",
    ),
    "mend-table-9-zsre-t5-xl": (
        "Table 9", "zsre", "T5-XL 2.8B", "zsRE edits, NQ locality", _ACC,
        "attention 0.63 0.001; mlp 0.88 0.001",
    ),
    "mend-table-9-zsre-t5-xxl": (
        "Table 9", "zsre", "T5-XXL 11B", "zsRE edits, NQ locality", _ACC,
        "attention 0.78 <0.001; mlp 0.89 <0.001",
    ),
    "mend-table-11-fever": (
        "Table 11", "fever", "BERT-base 110M", "FEVER edits and locality", _ACC,
        "mend >0.99 <0.001; cache 0.96 <0.001; cache_half 0.70 <0.001; cache_double >0.99 0.250",
    ),
    "mend-table-11-zsre": (
        "Table 11", "zsre", "BART-base 139M", "zsRE edits and locality", _ACC,
        "mend 0.98 0.002; cache >0.99 0.002; cache_half 0.70 <0.001; cache_double 1.00 0.220",
    ),
    "mend-table-11-zsre-hard": (
        "Table 11", "zsre", "BART-base 139M", "zsRE-hard", _ACC,
        "mend 0.66 <0.001; cache 0.32 0.002",
    ),
    "mend-table-11-wikitext": (
        "Table 11", "wikitext", "distilGPT2 82M", "Wikitext edits and locality", _PPL,
        "mend 0.86 0.225; cache 0.001 0.211; cache_half <0.001 0.037; cache_double 0.002 2.770",
    ),
}  # fmt: skip

_BATCHED = {
    1: "enn 0.99 <0.001; mend 0.98 0.002",
    5: "enn 0.94 0.007; mend 0.97 0.005",
    25: "enn 0.35 0.005; mend 0.89 0.011",
    75: "enn 0.16 0.005; mend 0.78 0.011",
    125: "enn 0.11 0.006; mend 0.67 0.012",
}

# In percent, with the 95 % interval; the columns are those of `_ZSRE` and `_CF`.
_ROME_ZSRE = """
base 22.2±0.5 21.3±0.5 24.2±0.5
ft 99.6±0.1 82.1±0.6 23.2±0.5
ft_l 92.3±0.4 47.2±0.7 23.4±0.5
ke 65.5±0.6 61.4±0.6 24.9±0.5
ke_zsre 92.4±0.3 90.0±0.3 23.8±0.5
mend 75.9±0.5 65.3±0.6 24.1±0.5
mend_zsre 99.4±0.1 99.3±0.1 24.1±0.5
rome 99.8±0.0 88.1±0.5 24.2±0.5"""
_ROME_XL = """
base 30.5 22.2±0.9 -4.8±0.3 24.7±0.8 -5.0±0.3 78.1±0.6 5.0±0.2 626.6±0.3 31.9±0.2
ft 65.1 100.0±0.0 98.8±0.1 87.9±0.6 46.6±0.8 40.4±0.7 -6.2±0.4 607.1±1.1 40.5±0.3
ft_l 66.9 99.1±0.2 91.5±0.5 48.7±1.0 28.9±0.8 70.3±0.7 3.5±0.3 621.4±1.0 37.4±0.3
kn 35.6 28.7±1.0 -3.4±0.3 28.0±0.9 -3.3±0.2 72.9±0.7 3.7±0.2 570.4±2.3 30.3±0.3
ke 52.2 84.3±0.8 33.9±0.9 75.4±0.8 14.6±0.6 30.9±0.7 -11.0±0.5 586.6±2.1 31.2±0.3
ke_cf 18.1 99.9±0.1 97.0±0.2 95.8±0.4 59.2±0.8 6.9±0.3 -63.2±0.7 383.0±4.1 24.5±0.4
mend 57.9 99.1±0.2 70.9±0.8 65.4±0.9 12.2±0.6 37.9±0.7 -11.6±0.5 624.2±0.4 34.8±0.3
mend_cf 14.9 100.0±0.0 99.2±0.1 97.0±0.3 65.6±0.7 5.5±0.3 -69.9±0.6 570.0±2.1 33.2±0.3
rome 89.2 100.0±0.1 97.9±0.2 96.4±0.3 62.7±0.8 75.4±0.7 4.2±0.2 621.9±0.5 41.9±0.3"""
_ROME_J = """
base 23.6 16.3±1.6 -7.2±0.7 18.6±1.5 -7.4±0.6 83.0±1.1 7.3±0.5 621.8±0.6 29.8±0.5
ft 25.5 100.0±0.0 99.9±0.0 96.6±0.6 71.0±1.5 10.3±0.8 -50.7±1.3 387.8±7.3 24.6±0.8
ft_l 68.7 99.6±0.3 95.0±0.6 47.9±1.9 30.4±1.5 78.6±1.2 6.8±0.5 622.8±0.6 35.5±0.5
mend 63.2 97.4±0.7 71.5±1.6 53.6±1.9 11.0±1.3 53.9±1.4 -6.0±0.9 620.5±0.7 32.6±0.5
rome 91.5 99.9±0.1 99.4±0.3 99.1±0.3 74.1±1.3 78.9±1.2 5.2±0.5 620.1±0.9 43.0±0.6"""
_MEMIT_ZSRE = """
base 26.4±0.6 25.8±0.5 27.0±0.5
ft_w 69.6±0.6 64.8±0.6 24.1±0.5
mend 19.4±0.5 18.6±0.5 22.4±0.5
rome 21.0±0.7 19.6±0.7 0.9±0.1
memit 96.7±0.3 89.7±0.5 26.6±0.5"""
_MEMIT_J = """
base 22.4 15.2±0.7 17.7±0.6 83.5±0.5 622.4±0.3 29.4±0.2
ft_w 67.6 99.4±0.1 77.0±0.7 46.9±0.6 293.9±2.4 15.9±0.3
mend 23.1 15.7±0.7 18.5±0.7 83.0±0.5 618.4±0.3 31.1±0.2
rome 50.3 50.2±1.0 50.4±0.8 50.2±0.6 589.6±0.5 3.3±0.0
memit 85.8 98.9±0.2 88.6±0.5 73.7±0.5 619.9±0.3 40.1±0.2"""
_MEMIT_NEOX = """
base 23.7 16.8±1.9 18.3±1.7 81.6±1.3 620.4±0.6 29.3±0.5
memit 82.0 97.2±0.8 82.2±1.6 70.8±1.4 606.4±1.0 36.9±0.6"""


def _mend() -> dict[str, Setting]:
    return {
        key: Setting(
            source=f"Mitchell et al. 2022, {table}",
            bench=bench,
            model=model,
            data=data,
            metrics=metrics,
            rows=_rows(rows.replace("; ", "\n")),
        )
        for key, (table, bench, model, data, metrics, rows) in _MEND.items()
    }


def _batched() -> dict[str, Setting]:
    return {
        f"mend-table-5-zsre-k{k}": Setting(
            source="Mitchell et al. 2022, Table 5",
            bench="zsre",
            model="BART-base 139M",
            data=f"zsRE edits and locality, {k} at once",
            metrics=_ACC,
            rows=_rows(rows.replace("; ", "\n")),
        )
        for k, rows in _BATCHED.items()
    }


def _rome() -> dict[str, Setting]:
    source = "Meng et al. 2022 (ROME), Table"
    one = "edits one at a time"
    return {
        "rome-table-1-zsre": Setting(
            source=f"{source} 1", bench="zsre", model="GPT2-XL 1.5B", data=f"10,000 zsRE {one}",
            metrics=_ZSRE, rows=_rows(_ROME_ZSRE),
        ),
        "rome-table-4-counterfact-gpt2-xl": Setting(
            source=f"{source} 4", bench="counterfact", model="GPT2-XL 1.5B",
            data=f"7,500 CounterFact {one}", metrics=_CF, rows=_rows(_ROME_XL),
        ),
        "rome-table-4-counterfact-gpt-j": Setting(
            source=f"{source} 4", bench="counterfact", model="GPT-J 6B",
            data=f"2,000 CounterFact {one}", metrics=_CF, rows=_rows(_ROME_J),
        ),
    }  # fmt: skip


def _memit() -> dict[str, Setting]:
    source, data = "Meng et al. 2023 (MEMIT)", "10,000 CounterFact edits at once"
    scores = tuple(name for name in _CF if name not in ("EM", "PM", "NM"))
    return {
        "memit-zsre-gpt-j": Setting(
            source=source, bench="zsre", model="GPT-J 6B", data="10,000 zsRE edits at once",
            metrics=_ZSRE, rows=_rows(_MEMIT_ZSRE),
        ),
        "memit-counterfact-gpt-j": Setting(
            source=source, bench="counterfact", model="GPT-J 6B", data=data,
            metrics=scores, rows=_rows(_MEMIT_J),
        ),
        "memit-counterfact-neox": Setting(
            source=source, bench="counterfact", model="GPT-NeoX 20B", data=data,
            metrics=scores, rows=_rows(_MEMIT_NEOX),
        ),
    }  # fmt: skip


def _rows(text: str) -> dict[str, tuple[str, ...]]:
    lines = [line.split() for line in text.strip().splitlines()]
    return {editor: tuple(values) for editor, *values in lines}
