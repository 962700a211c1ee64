"""Keys over HTTP: made, listed, rotated, revoked; tokens; limits told; request ids; and nothing in the logs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import msgspec
import pytest

from flotilla.core.api_keys import KeyLimits
from flotilla.core.errors import Misconfigured, Unauthenticated
from flotilla.core.scopes import OF_A_TENANT
from serve import tokens
from serve.log import logger
from serve.settings import Settings, read_settings
from tests.serve.conftest import OPERATOR_KEY, SETTINGS, TENANT_KEY, Gateway
from tests.serve.guarding import MemoryGuards


@pytest.fixture
async def desk(gateway: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    """With a tenant's key of the environment."""
    async with gateway.with_key(TENANT_KEY) as client:
        yield client


async def create(desk: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await desk.post("/v1/keys", json={"name": "the desk"} | body)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def status(gateway: Gateway, key: str, path: str = "/v1/sessions") -> int:
    async with gateway.with_key(key) as client:
        return (await client.get(path)).status_code


async def test_a_key_is_shown_once_works_and_is_listed_without_its_secret(
    gateway: Gateway, desk: httpx2.AsyncClient
) -> None:
    made = await create(desk, scopes=["conversations:read"], expires_in_s=3600)
    assert await status(gateway, made["key"]) == 200
    assert await status(gateway, made["key"], "/v1/usage") == 403
    listed = await desk.get("/v1/keys")
    (shown,) = listed.json()["keys"]
    assert made["key"] not in listed.text and made["key"].startswith(shown["shown"].rstrip("…"))
    assert (shown["state"], shown["name"], shown["tenant"]) == ("live", "the desk", "demo")
    assert shown["created_by"].startswith("env_") and shown["expires"] > shown["created"]
    assert (await desk.get(f"/v1/keys/{made['id']}")).json() == shown


async def test_without_scopes_it_gets_those_of_a_tenant_that_its_maker_holds(
    desk: httpx2.AsyncClient, gateway: Gateway
) -> None:
    assert set((await create(desk))["scopes"]) == OF_A_TENANT
    async with gateway.with_key(OPERATOR_KEY) as operator:
        assert set((await create(operator))["scopes"]) == OF_A_TENANT
        assert (await create(operator, scopes=["operator"]))["scopes"] == ["operator"]


async def test_pages_of_keys(desk: httpx2.AsyncClient) -> None:
    made = [(await create(desk))["id"] for _ in range(3)]
    first = (await desk.get("/v1/keys", params={"limit": 2})).json()
    rest = (await desk.get("/v1/keys", params={"limit": 2, "cursor": first["next"]})).json()
    assert sorted(key["id"] for key in first["keys"] + rest["keys"]) == sorted(made)
    assert rest["next"] is None


async def test_a_rotated_key_goes_on_with_both_secrets_or_with_the_new_one_alone(
    gateway: Gateway, desk: httpx2.AsyncClient
) -> None:
    made = await create(desk, scopes=["conversations:read"])
    rotated = (await desk.post(f"/v1/keys/{made['id']}/rotate", json={})).json()
    assert rotated["id"] == made["id"] and rotated["former_until"]
    assert [await status(gateway, key) for key in (made["key"], rotated["key"])] == [200, 200]
    at_once = (await desk.post(f"/v1/keys/{made['id']}/rotate", json={"grace_s": 0})).json()
    used = [await status(gateway, key) for key in (made["key"], rotated["key"], at_once["key"])]
    assert used == [401, 401, 200]


async def test_a_revoked_key_is_refused_at_once_and_so_are_the_tokens_that_it_vouches_for(
    gateway: Gateway, desk: httpx2.AsyncClient
) -> None:
    made = await create(desk, scopes=["conversations:read", "conversations:write"])
    async with gateway.with_key(made["key"]) as mine:
        opened = (await mine.post("/v1/sessions", json={"agent": "bank"})).json()
    path = f"/v1/sessions/{opened['id']}"
    assert await status(gateway, opened["token"], path) == 200
    revoked = await desk.delete(f"/v1/keys/{made['id']}")
    assert revoked.json()["state"] == "revoked" and "note" not in revoked.json()
    assert await status(gateway, made["key"]) == 401
    assert await status(gateway, opened["token"], path) == 401
    assert (await desk.delete(f"/v1/keys/{made['id']}")).json()["revoked"] == revoked.json()["revoked"]
    assert (await desk.post(f"/v1/keys/{made['id']}/rotate", json={})).status_code == 422


async def test_nobody_gets_more_than_it_has(gateway: Gateway, desk: httpx2.AsyncClient) -> None:
    maker = await create(desk, scopes=["keys:write", "keys:read", "usage:read"])
    wide = await create(desk)
    async with gateway.with_key(maker["key"]) as client:
        assert set((await create(client))["scopes"]) == {"keys:write", "keys:read", "usage:read"}
        for refused in (
            await client.post("/v1/keys", json={"name": "n", "scopes": ["conversations:read"]}),
            await client.post("/v1/keys", json={"name": "n", "scopes": ["operator"]}),
            await client.post(f"/v1/keys/{wide['id']}/rotate", json={}),
        ):
            assert refused.status_code == 422 and refused.json()["field"] == "scopes", refused.text
        elsewhere = await client.post("/v1/keys?tenant=other", json={"name": "n"})
        assert elsewhere.status_code == 403


async def test_keys_of_other_tenants_are_not_there_but_for_operators(
    gateway: Gateway, desk: httpx2.AsyncClient
) -> None:
    mine = await create(desk)
    async with gateway.with_key(OPERATOR_KEY) as operator:
        path = f"/v1/keys/{mine['id']}"
        for answer in (
            await operator.get(path),
            await operator.post(f"{path}/rotate", json={}),
            await operator.delete(path),
        ):
            assert answer.status_code == 404 and answer.json()["field"] == "key"
        assert (await operator.get("/v1/keys")).json()["keys"] == []
        assert (await operator.get(path, params={"tenant": "demo"})).json()["id"] == mine["id"]
        made = (await operator.post("/v1/keys?tenant=acme", json={"name": "first"})).json()
        assert made["tenant"] == "acme" and await status(gateway, made["key"]) == 200
        assert (await operator.get("/v1/keys", params={"tenant": "no way"})).status_code == 422


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "n", "scopes": ["conversations"]}, "scopes"),
        ({"name": "n", "scopes": "operator"}, "scopes"),
        ({"name": "n", "expires_in_s": 0}, "expires_in_s"),
        ({"name": "n", "expires_in_s": 10**12}, "expires_in_s"),
        ({"name": "n", "limits": {"messages": 1}}, "limits.messages"),
        ({"name": "n", "limits": {"sockets": -1}}, "limits.sockets"),
        ({"name": "n", "limits": {"messages_per_s": "NaN"}}, "limits.messages_per_s"),
        ({"name": "n", "tenant": "other"}, "tenant"),
    ],
)
async def test_bad_orders_name_the_field(desk: httpx2.AsyncClient, body: dict[str, Any], field: str) -> None:
    answer = await desk.post("/v1/keys", json=body)
    assert answer.status_code == 422 and answer.json()["field"] == field, answer.text


# -- tokens


async def test_a_token_is_renewed_by_itself_or_by_a_key_until_its_session_is_closed(gateway: Gateway) -> None:
    opened = (await gateway.desk.post("/v1/sessions", json={"agent": "bank"})).json()
    path = f"/v1/sessions/{opened['id']}"
    async with gateway.with_key(opened["token"]) as visitor:
        renewed = await visitor.post(f"{path}/token")
        assert renewed.status_code == 201 and renewed.json()["expires_at"] >= opened["expires_at"]
        assert (await visitor.post("/v1/sessions/s_other/token")).status_code == 403
        assert (await gateway.desk.post(f"{path}/token")).status_code == 201
        assert await status(gateway, renewed.json()["token"], path) == 200
        await visitor.delete(path)
    for token in (opened["token"], renewed.json()["token"]):
        assert await status(gateway, token, path) == 401
    refused = await gateway.desk.post(f"{path}/token")
    assert refused.status_code == 409 and refused.json()["next"]


def with_secrets(*secrets: str, **more: Any) -> Settings:
    return msgspec.structs.replace(SETTINGS, token_secrets=secrets, **more)


def test_a_secret_is_rotated_by_putting_another_before_it() -> None:
    old, new = "o" * 32, "n" * 32
    token, _ = tokens.issue(with_secrets(old), "demo", "s_1", "dev")
    visit = tokens.read(with_secrets(new, old), token)
    assert (visit.tenant, visit.session, visit.key) == ("demo", "s_1", "dev")
    latter, _ = tokens.issue(with_secrets(new, old), "demo", "s_1")
    assert tokens.read(with_secrets(new), latter).session == "s_1"
    for made, given in ((token, with_secrets(new)), (latter, with_secrets(old)), (token, SETTINGS)):
        with pytest.raises(Unauthenticated):
            tokens.read(given, made)


@pytest.mark.parametrize("token", ["a.b.c", "..", "e30.e30.e30", "é.é.é", "a.b.c.d", " "])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(Unauthenticated):
        tokens.read(SETTINGS, token)


def test_a_token_that_is_over_or_says_too_little_is_refused() -> None:
    over, _ = tokens.issue(msgspec.structs.replace(SETTINGS, token_s=-1.0), "demo", "s_1")
    with pytest.raises(Unauthenticated):
        tokens.read(SETTINGS, over)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FLOTILLA_TOKEN_SECRETS", "short"),
        ("FLOTILLA_TOKEN_S", "1"),
        ("FLOTILLA_TOKEN_S", "nan"),
        ("FLOTILLA_LIMIT_MESSAGES_PER_S", "-1"),
        ("FLOTILLA_LIMIT_MESSAGES_PER_S", "inf"),
        ("FLOTILLA_LIMIT_SOCKETS", "many"),
        ("FLOTILLA_LIMIT_KEY_STREAMS", "-1"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(Misconfigured, match=name):
        read_settings({name: value})


def test_limits_are_read_from_the_environment() -> None:
    read = read_settings({"FLOTILLA_LIMIT_MESSAGES_PER_S": "2.5", "FLOTILLA_LIMIT_KEY_SOCKETS": "7"})
    assert (
        read.limits.messages_per_s == 2.5 and read.limits.sockets and read.key_limits == KeyLimits(sockets=7)
    )


# -- limits, as clients hear of them


@asynccontextmanager
async def bounded(gateway: Gateway, **bounds: Any) -> AsyncGenerator[Gateway]:
    doors: Any = gateway.app.state.doors
    made = msgspec.structs.replace(SETTINGS, limits=KeyLimits(**bounds))
    doors.limits = MemoryGuards(made, doors.clock).limits
    yield gateway


async def test_answers_of_limited_routes_tell_where_the_caller_stands(gateway: Gateway) -> None:
    async with bounded(gateway, messages_per_s=0.01, messages_burst=2, sessions_per_min=60):
        opened = await gateway.desk.post("/v1/sessions", json={"agent": "bank"})
        assert opened.headers["ratelimit-policy"] == '"sessions";q=60;w=60'
        assert opened.headers["ratelimit"] == '"sessions";r=59;t=1'
        path = f"/v1/sessions/{opened.json()['id']}"
        said = [
            await gateway.desk.post(f"{path}/messages", json={"id": f"m-{n}", "text": "hello"})
            for n in range(3)
        ]
        assert [one.status_code for one in said] == [202, 202, 429]
        assert [one.headers["ratelimit"].split(";")[1] for one in said] == ["r=1", "r=0", "r=0"]
        problem = said[2].json()
        assert problem["field"] == "limits.messages" and 90 < problem["retry_after_s"] <= 100
        assert 90 < int(said[2].headers["retry-after"]) <= 100
        assert "ratelimit" not in (await gateway.desk.get(path)).headers


async def test_streams_are_bounded_and_their_slots_are_free_when_they_end(gateway: Gateway) -> None:
    session = await gateway.session()
    path = f"/v1/sessions/{session}/stream"
    async with bounded(gateway, streams=1):
        limits: Any = gateway.app.state.doors.limits
        for _ in range(3):
            async with gateway.desk.stream("GET", path) as first:
                assert first.status_code == 200
                assert (await gateway.desk.get(path)).status_code == 429
            await gateway.cluster.until(lambda: not any(s.used for s in limits._slots.values()))


async def test_a_stream_ends_when_its_key_is_revoked(gateway: Gateway, desk: httpx2.AsyncClient) -> None:
    made = await create(desk, scopes=["conversations:read"])
    session = await gateway.session()
    async with (
        gateway.with_key(made["key"]) as mine,
        mine.stream("GET", f"/v1/sessions/{session}/stream") as stream,
    ):
        lines = stream.aiter_lines()
        assert (await anext(lines)).startswith("id: 1")
        await desk.delete(f"/v1/keys/{made['id']}")
        assert [line async for line in lines if line.startswith("id:")] == []


async def test_a_stream_ends_with_the_token_that_opened_it(gateway: Gateway) -> None:
    session = await gateway.session()
    token, _ = tokens.issue(msgspec.structs.replace(SETTINGS, token_s=2.0), "demo", session)
    doors: Any = gateway.app.state.doors
    async with (
        gateway.with_key(token) as visitor,
        visitor.stream("GET", f"/v1/sessions/{session}/stream") as stream,
    ):
        lines = stream.aiter_lines()
        assert (await anext(lines)).startswith("id: 1")
        await doors.revocations.sweep()
        assert any(doors.revocations._watches.values())  # not before its time
        await asyncio.sleep(2.0)
        await doors.revocations.sweep()
        assert not [line async for line in lines if line.startswith("id:")]


# -- request ids


async def test_every_answer_has_a_request_id_the_clients_own_if_it_is_a_name(gateway: Gateway) -> None:
    for path in ("/healthz", "/v1/sessions", "/nothing", "/v1/sessions/s_none", "/openai/v1/nothing"):
        own = await gateway.desk.get(path, headers={"X-Request-Id": "mine-1"})
        assert own.headers.get_list("x-request-id") == ["mine-1"], path
        (made,) = (await gateway.desk.get(path)).headers.get_list("x-request-id")
        assert made.startswith("req_"), path
        odd = await gateway.desk.get(path, headers={"X-Request-Id": "two words" + "x" * 200})
        assert odd.headers["x-request-id"].startswith("req_")
        if own.status_code >= 400 and "openai" not in path:
            assert own.json()["request_id"] == "mine-1"


async def test_a_body_that_is_refused_before_it_is_read_has_one_too(gateway: Gateway) -> None:
    answer = await gateway.desk.post(
        "/v1/sessions", content=b"x" * 300_000, headers={"X-Request-Id": "mine-2"}
    )
    assert answer.status_code == 413 and answer.json()["request_id"] == "mine-2"
    assert answer.headers["x-request-id"] == "mine-2"


async def test_what_breaks_is_logged_with_the_request_id_that_the_client_was_told(
    gateway: Gateway, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    doors: Any = gateway.app.state.doors
    monkeypatch.setattr(doors, "log", logger("gateway"))

    async def broken() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(doors, "journal", broken)
    answer = await gateway.desk.get("/v1/sessions", headers={"X-Request-Id": "mine-3"})
    assert answer.status_code == 500 and answer.json()["request_id"] == "mine-3"
    assert answer.headers["x-request-id"] == "mine-3"
    assert '"request_id": "mine-3"' in capsys.readouterr().err


# -- secrets


async def test_no_secret_is_logged_or_answered_in_an_error(
    gateway: Gateway,
    desk: httpx2.AsyncClient,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Everything that writes a log or an error is provoked, with secrets in all the places they go."""
    doors: Any = gateway.app.state.doors
    monkeypatch.setattr(doors, "log", logger("gateway"))
    made = await create(desk)
    rotated = (await desk.post(f"/v1/keys/{made['id']}/rotate", json={})).json()
    token = gateway.token(await gateway.session())
    said: list[str] = []
    for secret in (made["key"], rotated["key"], token, TENANT_KEY, made["key"][:-1], f"{token}x"):
        async with gateway.with_key(secret) as client:
            for path in ("/v1/sessions", "/nothing", f"/v1/keys/{secret}", "/openai/v1/models", "/v1/usage"):
                answer = await client.get(path)
                said.append(answer.text if secret not in path else "")
            said.append((await client.post("/v1/keys", json={"name": secret, "x": secret})).text)
    await desk.delete(f"/v1/keys/{made['id']}")
    logger("gateway").warning("someone.logs", key=made["key"], token=token, authorization=made["key"])
    logged = "".join(capfd.readouterr())
    assert "someone.logs" in logged
    for secret in (made["key"], rotated["key"], token, TENANT_KEY):
        assert secret[40:] not in logged or len(secret) < 40
        assert secret not in logged
        assert all(secret not in text for text in said)
