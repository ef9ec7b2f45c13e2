"""Broken raw files of any benchmark: each is refused by name and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import raw_files
from bench_cases import again

from pipeline import tasks
from pipeline.errors import DataError, SettingsError


@pytest.mark.parametrize("bench", tasks.NAMES)
def test_a_missing_file_is_named(bench: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=bench.removesuffix("-2")):
        again(tmp_path, bench)


def test_a_broken_line_is_named_with_its_number(tmp_path: Path) -> None:
    raw_files.fever(tmp_path)
    path = tmp_path / "fever/paper_dev.jsonl"
    lines = path.read_text().split("\n")
    path.write_text("\n".join([*lines[:3], '{"id": 3, "label"', *lines[4:]]))
    with pytest.raises(DataError, match=r"paper_dev\.jsonl, line 4"):
        again(tmp_path, "fever")


def test_a_truncated_list_is_named_with_its_last_line(tmp_path: Path) -> None:
    raw_files.zsre(tmp_path)
    path = tmp_path / "zsre/zsre_mend_train_10000.json"
    text = path.read_text()[:400]
    path.write_text(text)
    last = text.count("\n") + 1
    with pytest.raises(DataError, match=rf"line {last}; .*truncated"):
        again(tmp_path, "zsre")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"alt": None}, r"record 2; found NoneType"),
        ({"alt": " "}, r"text in the field 'alt' in .*record 2"),
        ({"subject": "Someone Else"}, r"names its subject 'Someone Else' in .*record 2"),
        ({"case_id": 0}, r"of its own in 'case_id' in .*record 2; found 0, as in .*record 1"),
        ({"alt": "\ud800"}, r"text in the field 'alt' in .*record 2"),
    ],
)
def test_a_defective_record_is_named(
    change: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    record = {"case_id": 0, "subject": "A", "src": "Where is A?", "rephrase": "A is where?"}
    records = [{**record, "alt": "B"}, {**record, "case_id": 1, "alt": "B", **change}]
    raw_files.write_list(tmp_path / "zsre/zsre_mend_train_10000.json", records)
    with pytest.raises(DataError, match=complaint):
        again(tmp_path, "zsre")


def test_a_missing_field_is_named_with_its_line(tmp_path: Path) -> None:
    raw_files.fever(tmp_path)
    raw_files.write_lines(tmp_path / "fever/paper_test.jsonl", [{"id": 1000, "label": "SUPPORTS"}])
    with pytest.raises(DataError, match=r"'claim' in fever/paper_test\.jsonl, line 1"):
        again(tmp_path, "fever")


@pytest.mark.parametrize("text", ["", " \n\n", "[]", "{}", "[3]"])
def test_a_file_without_records_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "zsre/zsre_mend_train_10000.json"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises((DataError, SettingsError)):
        again(tmp_path, "zsre")


def test_text_that_is_not_unicode_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wikitext-2/test.txt"
    path.parent.mkdir()
    path.write_bytes(b" = T = \n\xff\xfe\n")
    with pytest.raises(DataError, match="UTF-8"):
        again(tmp_path, "wikitext")
