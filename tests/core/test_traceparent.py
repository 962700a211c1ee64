"""What is taken for a traceparent, and what is not."""

from __future__ import annotations

import pytest

from flotilla.core.tracing import sampled

GOOD = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (f"{GOOD}-01", True),
        (f"{GOOD}-00", False),
        (f"{GOOD}-03", True),
        (f"01{GOOD[2:]}-01-more", True),
        (f"ff{GOOD[2:]}-01", None),
        (f"{GOOD.upper()}-01", None),
        ("00-" + "0" * 32 + "-b7ad6b7169203331-01", None),
        (GOOD[:36] + "0" * 16 + "-01", None),
        (GOOD, None),
        ("nonsense", None),
        ("", None),
    ],
)
def test_only_what_w3c_trace_context_allows_counts(header: str, said: bool | None) -> None:
    assert sampled(header) is said
