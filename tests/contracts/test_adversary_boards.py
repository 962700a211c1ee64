"""A page that a newer release has written."""

from __future__ import annotations

from flotilla.core.tallies import Tally
from flotilla.stores import valkey
from flotilla.stores.embedded import Valkey
from flotilla.stores.valkey_boards import ValkeyTallyBoard

KEY = "flotilla:tallies"


async def test_a_page_that_can_not_be_read_hides_no_other(valkey_server: Valkey) -> None:
    """In the middle of an upgrade; else no swap could be watched."""
    client = valkey.connect(valkey_server.url)
    await client.delete(KEY)
    board = ValkeyTallyBoard(client)
    await board.post("p_1", {"m@1": Tally(replies=3)})
    await board._pages.put("p_2", b"\x81\xa3m@1\xa3new")
    assert await board.pages() == {"p_1": {"m@1": Tally(replies=3)}}
    await client.delete(KEY)
    await client.aclose()
