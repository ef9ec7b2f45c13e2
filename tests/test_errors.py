"""A user's mistake reads the same in whatever process it is found."""

from __future__ import annotations

import pickle

import pytest

from pipeline import lanes
from pipeline.editable import failures
from pipeline.errors import ErrataError

MODULES = (lanes, failures)  # with errors of their own
KINDS = [*ErrataError.__subclasses__(), ErrataError]


@pytest.mark.parametrize("kind", KINDS)
def test_errors_can_be_sent_from_one_process_to_another(kind: type[ErrataError]) -> None:
    error = kind(expected="one", found="two", remedy="Do three.")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error) == "expected one; found two. Do three."
    assert (again.expected, again.found, again.remedy) == ("one", "two", "Do three.")


def test_what_another_program_says_stands_within_a_sentence() -> None:
    error = ErrataError(expected="a file", found="no such thing.\n", remedy="Give one.")
    assert str(error) == "expected a file; found no such thing. Give one."
    assert error.found == "no such thing"
