"""What goes into the logs, and what never does."""

from __future__ import annotations

import json

import pytest

from serve.log import logger


def test_an_exception_is_logged_by_type_and_place_and_not_by_its_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    try:
        try:
            raise KeyError("my card number is 4111")
        except KeyError as error:
            raise ValueError("said: my card number is 4111") from error
    except ValueError:
        logger("tests").exception("broke", actor="demo/session/s_1")
    line = capsys.readouterr().err
    assert "4111" not in line
    said = json.loads(line)["exception"]
    assert [one["type"] for one in said] == ["ValueError", "KeyError"]
    assert said[0]["at"][0].startswith("test_log.py:")
