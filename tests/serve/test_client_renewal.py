"""The client library renews a visitor's token at a real door: what it reads in a token is what the door wrote there."""

from __future__ import annotations

import time

import pytest

from flotilla.client import AsyncClient
from flotilla.client.credential import visit_of
from flotilla.client.rpc import RpcClient
from flotilla.core.errors import Forbidden
from flotilla.core.limits import LIMITS
from tests.serve.conftest import Gateway
from tests.serve.rpc_world import serving


@pytest.mark.parametrize("wire", ["http", "grpc"])
async def test_a_visitors_token_gets_another_one(gateway: Gateway, wire: str) -> None:
    opened = (await gateway.desk.post("/v1/sessions", json={"agent": "bank"})).json()
    token, other = opened["token"], await gateway.session()
    async with (
        serving(gateway.app) as rpc,
        AsyncClient(f"http://{gateway.address}", token) as by_http,
        RpcClient(rpc.address, token) as by_grpc,
    ):
        mine = by_http if wire == "http" else by_grpc
        session = mine.sessions.at(opened["id"])
        visit = visit_of(await session.renew_token())
        assert visit is not None and visit.sub == opened["id"]
        assert abs(visit.exp - time.time() - LIMITS.visitor_token_s) < 60
        async with RpcClient(rpc.address, session.token) as renewed:
            assert await renewed.sessions.at(opened["id"]).events()
        with pytest.raises(Forbidden):
            await mine.sessions.at(other).renew_token()
