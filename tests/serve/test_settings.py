"""What an operator sets is read or refused with the name of the variable."""

from __future__ import annotations

import pytest

from flotilla.core.errors import Misconfigured
from serve.settings import read_settings


def test_as_many_hosts_as_at_the_start_unless_more_are_allowed() -> None:
    assert (read_settings({}).hosts, read_settings({}).hosts_max) == (1, 1)
    few = read_settings({"FLOTILLA_HOSTS": "3"})
    assert (few.hosts, few.hosts_max) == (3, 3)
    more = read_settings({"FLOTILLA_HOSTS": "3", "FLOTILLA_HOSTS_MAX": "8"})
    assert (more.hosts, more.hosts_max) == (3, 8)


@pytest.mark.parametrize(
    ("variables", "field"),
    [
        ({"FLOTILLA_HOSTS": "0"}, "FLOTILLA_HOSTS"),
        ({"FLOTILLA_HOSTS": "-1"}, "FLOTILLA_HOSTS"),
        ({"FLOTILLA_HOSTS": "two"}, "FLOTILLA_HOSTS"),
        ({"FLOTILLA_HOSTS": "4", "FLOTILLA_HOSTS_MAX": "3"}, "FLOTILLA_HOSTS_MAX"),
        ({"FLOTILLA_HOSTS_MAX": "many"}, "FLOTILLA_HOSTS_MAX"),
    ],
)
def test_bounds_that_cannot_be_are_refused(variables: dict[str, str], field: str) -> None:
    with pytest.raises(Misconfigured, match=field) as refused:
        read_settings(variables)
    assert refused.value.field == field
