"""Requests as people write them: nothing dropped without a word, and each mistake named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import make_face

from pipeline.editable import Correction
from pipeline.editable.corrections import checked, corrections, read
from pipeline.errors import DataError
from pipeline.models import Face
from pipeline.records import Probe, Request

TOM = {"prompt": "Tom works for", "target": "a guild"}


@pytest.fixture(scope="module")
def causal() -> Face:
    return make_face("gpt2")


def written(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode())
    return path


# ---------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.csv", "Tom works for,a guild\nAda,b\n", r"a header in the first.*'Tom works for"),
        ("a.csv", "prompt;target\nTom;a\n", r"found 'prompt;target', with ';' for commas"),
        ("a.csv", "prompt\ttarget\nTom\ta\n", r"with '\\t' for commas"),
        ("a.jsonl", f"[{json.dumps(TOM)}]", r"one JSON object on each line.*one array of 1"),
        ("a.jsonl", json.dumps([TOM, TOM], indent=1), r"found one array of 2.*jq -c"),
        ("a.jsonl", json.dumps(TOM, indent=1), r"found one value over several lines"),
    ],
)
def test_files_of_another_form_are_told_as_such(
    name: str, text: str, expected: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=expected):
        read(written(tmp_path, name, text))


def test_a_line_may_be_a_pair(tmp_path: Path) -> None:
    (found,) = read(written(tmp_path, "a.jsonl", json.dumps(list(TOM.values()))))
    assert found.pair == ("Tom works for", "a guild")


def test_a_csv_keeps_every_cell(tmp_path: Path) -> None:
    """Line breaks in quotes, commas in quotes, blank lines, short rows, a byte order mark."""
    path = written(
        tmp_path,
        "some.CSV",
        "\ufeff\r\nprompt, target,rephrase,\r\n"
        '"Tom,\r\nas they say, works for", "a guild",Say it||Tell me,\r\n'
        ",,,\r\n\r\nAda was born in,Oslo\r\n",
    )
    first, second = read(path)
    assert first.prompt == "Tom,\r\nas they say, works for"
    assert first.target == "a guild"  # a blank before a quote is no part of it
    assert first.rephrases == ("Say it", "Tell me")
    assert second == Correction(prompt="Ada was born in", target="Oslo")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prompt,target\nTom,a\n\nTom works for,Kim, Ltd\n", r"line 4.*cell with commas in quotes"),
        ("prompt,target,\nTom,a,b\n", r"line 2.*'b' in a column without one"),
        ("prompt,target,target_new\nTom,a,\n", r"line 2.*'target' and 'target_new'"),
        ("prompt,target,rephrase,rephrase\nTom,a,b,c\n", "rephrase twice"),
        ('prompt,target\nTom,"a\nAda,b\n', "unexpected end of data"),
        ("prompt,target\nTom\n", r"'target' of .*line 2; found ''"),
        ("prompt,target\n", "found none"),
        ("", "found none"),
    ],
)
def test_a_csv_that_would_lose_something_is_refused(
    text: str, expected: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=f"(?s){expected}"):
        read(written(tmp_path, "some.csv", text))


def test_lines_of_json_end_at_line_feeds_alone(tmp_path: Path) -> None:
    prompt = "Tom\u2028works\u0085for"
    line = json.dumps({"prompt": prompt, "target": "a"}, ensure_ascii=False)
    (found,) = read(written(tmp_path, "some.jsonl", f"\ufeff{line}\r\n\r\n"))
    assert found.prompt == prompt


@pytest.mark.parametrize(
    "line",
    [
        '{"prompt": "Tom", "prompt": "Ada", "target": "a"}',
        '{"prompt": "Tom", "target": "a", "answer": "b"}',
        '{"prompt": "Tom", "target": "\\ud800"}',
        "[" * 100_000,
        '"Tom"',
    ],
)
def test_a_broken_line_of_json_is_named(line: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"some\.jsonl, line 2"):
        read(written(tmp_path, "some.jsonl", f"{json.dumps(TOM)}\n{line}\n"))


# ---------------------------------------------------------------------- fields


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (Correction(prompt=5, target="a"), "'prompt' of request 1; found 5"),  # type: ignore[arg-type]
        (Correction(prompt="Tom", target=None), "'target' of request 1; found None"),  # type: ignore[arg-type]
        (Request(prompt="Tom", target=" "), "'target' of request 1; found ' '"),
        (("", "a"), "'prompt' of request 1; found ''"),
        (TOM | {"target_new": "b"}, "one field for the target in request 1"),
        (TOM | {"prompt": True}, "'prompt' of request 1; found True"),
        (TOM | {"rephrases": True}, "a list of prompts in the field 'rephrases'"),
        (TOM | {"rephrases": [True]}, "'rephrases' of request 1; found True"),
        (TOM | {"neighbours": [{"target": "c"}]}, r"'neighbours' of request 1; found \{'target'"),
        (TOM | {"neighbours": ["Ada \udce9"]}, r"UTF-8 .*'neighbours' of request 1"),
        (("Tom", "\ud800"), "UTF-8 can hold in the field 'target' of request 1"),
        ("Tom", "a prompt and a target in request 1; found 'Tom'"),
        (5, "a prompt and a target in request 1; found 5"),
    ],
)
def test_fields_are_looked_at_alike_in_every_form(asked: object, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        corrections(asked)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "rephrases", ["Ada|Say it|", ["Ada", " ", "Say it"], [{"prompt": "Ada"}, Probe("Say it", "")]]
)
def test_rephrases_come_as_a_text_or_a_list(rephrases: object) -> None:
    (plain,) = corrections(TOM | {"rephrases": rephrases})
    (again,) = corrections(Correction(**TOM, rephrases=rephrases))  # type: ignore[arg-type]
    assert plain == again == Correction(**TOM, rephrases=("Ada", "Say it"))


# ---------------------------------------------------------------------- as a model reads them


@pytest.mark.parametrize("field", ["rephrases", "neighbours"])
@pytest.mark.parametrize(("text", "expected"), [("Tom " * 70, "room for an answer"), ("", "text")])
def test_a_prompt_to_look_at_that_cannot_be_asked_is_named_before_any_edit(
    field: str, text: str, expected: str, causal: Face
) -> None:
    asked = [Correction(**TOM), Correction(prompt="Ada", target="b", **{field: (text,)})]  # type: ignore[arg-type]
    with pytest.raises(DataError, match=expected):
        checked(causal, asked)


def test_a_prompt_without_room_for_an_answer_is_named(causal: Face) -> None:
    """Its target would fit the context, and what is asked around the edit would not."""
    prompt = "Tom"
    while len(causal.tokenizer(prompt)["input_ids"]) < causal.context - 1:
        prompt += " a"
    causal.tokenise([(prompt, " a")])
    with pytest.raises(DataError, match="room for an answer"):
        checked(causal, [Correction(prompt=prompt, target=" a")])


@pytest.mark.parametrize(
    ("prompt", "target", "expected"),
    [
        ("Tom works for", "a guild", " a guild"),
        ("Tom works for ", "a guild", " a guild"),
        ("The price is", "$5", " $5"),
        ("The price is $", "5", "5"),
        ('He wrote "', "Dune", "Dune"),
        ('He wrote "Dune"', "in 1965", " in 1965"),
        ("x = foo(", "bar", "bar"),
        ("a twenty-", "five", "five"),
        ("He said -", "five", " five"),
        ("Tom works for", " a guild", " a guild"),
        ("Tom works for", ", he says", ", he says"),
        ("日本の首都は", "東京", "東京"),
        ("首都は「", "Tokyo", "Tokyo"),
        ("เมืองหลวงคือ", "กรุงเทพ", "กรุงเทพ"),
        ("대한민국의 수도는", "서울", " 서울"),
        ("Столица —", "Москва", " Москва"),
        ("Tom likes 🍕", "most", " most"),
    ],
)
def test_a_space_goes_between_where_the_script_has_spaces(
    prompt: str, target: str, expected: str, causal: Face
) -> None:
    (found,) = checked(causal, [Correction(prompt=prompt, target=target)])
    assert found.target == expected
