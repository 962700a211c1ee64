"""Errors cross processes as problems and come out as what they were."""

from __future__ import annotations

import msgspec
import pytest

from flotilla.core import errors
from flotilla.core.errors import FlotillaError, Problem, Unavailable, error_of


def family(cls: type[FlotillaError]) -> list[type[FlotillaError]]:
    return [cls, *(kin for child in cls.__subclasses__() for kin in family(child))]


ALL = [
    cls for cls in family(FlotillaError) if cls.__module__ == errors.__name__
]  # others stay in their stores


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("extra", [{}, {"field": "text", "next": "Do this.", "retry_after_s": 1.5}])
def test_every_error_survives_the_wire(cls: type[FlotillaError], extra: dict) -> None:
    error = cls("What happened: 日本語 👍.", **extra)
    sent = msgspec.json.encode(error.problem())
    back = error_of(msgspec.json.decode(sent, type=Problem))
    assert type(back) is cls
    assert (back.detail, back.field, back.next, back.retry_after_s) == (
        error.detail,
        error.field,
        error.next,
        error.retry_after_s,
    )
    assert back.problem() == error.problem() and str(back) == str(error)


def test_every_type_is_stable_and_distinct() -> None:
    types = [cls("x").problem().type for cls in ALL]
    assert len(set(types)) == len(ALL)
    assert all(type.startswith(errors.TYPE_PREFIX) for type in types)


@pytest.mark.parametrize("cls", ALL)
def test_every_error_has_an_http_status_and_a_title(cls: type[FlotillaError]) -> None:
    problem = cls("x").problem()
    assert 400 <= problem.status < 600 and problem.title


def test_an_unknown_type_becomes_the_root_error() -> None:
    problem = Problem(type="https://elsewhere/x", title="X", status=418, detail="What?", next="Sit down.")
    back = error_of(problem)
    assert type(back) is FlotillaError and str(back) == "What? Sit down."


def test_a_problem_document_omits_what_it_does_not_have() -> None:
    sent = msgspec.json.decode(msgspec.json.encode(Unavailable("Gone.").problem()))
    assert set(sent) == {"type", "title", "status", "detail"}
