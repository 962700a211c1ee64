"""Who may see and do what, and what becomes of dead letters over HTTP."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from flotilla.core.errors import Misconfigured
from flotilla.core.ids import ActorId
from flotilla.core.journal import Letter
from serve.settings import ApiKey, read_settings
from tests.actors.kinds import Burst, Note
from tests.serve.conftest import OPERATOR_KEY, TENANT_KEY, Gateway

WHOLE_FLEET = [
    ("GET", "/v1/hosts"),
    ("POST", "/v1/hosts/a/drain"),
    ("POST", "/v1/actors/clerk/c/move"),
    ("DELETE", "/v1/actors/clerk/c/pin"),
]
OF_A_TENANT = [
    ("GET", "/v1/actors"),
    ("GET", "/v1/actors/clerk/c"),
    ("GET", "/v1/actors/clerk/c/journal"),
    ("GET", "/v1/letters"),
    ("POST", "/v1/actors/clerk/c/passivate"),
    ("POST", "/v1/letters/x/replay"),
    ("DELETE", "/v1/letters/x"),
]
CLERK = ActorId("demo", "clerk", "c")


@pytest.mark.parametrize(("method", "path"), WHOLE_FLEET)
async def test_a_tenants_key_does_not_touch_the_fleet(gateway: Gateway, method: str, path: str) -> None:
    body = {"host": "a"} if path.endswith("move") else None
    async with gateway.with_key(TENANT_KEY) as tenant:
        answer = await tenant.request(method, path, json=body)
    assert answer.status_code == 403 and "operator" in answer.json()["next"]
    assert not gateway.cluster.hosts["a"].draining


@pytest.mark.parametrize(("method", "path"), [*OF_A_TENANT, *WHOLE_FLEET])
async def test_a_visitor_sees_and_does_nothing(gateway: Gateway, method: str, path: str) -> None:
    async with gateway.visitor(await gateway.session()) as visitor:
        answer = await visitor.request(method, path, json={"host": "a"} if path.endswith("move") else None)
    assert answer.status_code == 403 and answer.json()["type"].endswith("/forbidden")


async def test_a_tenant_sees_its_own_actors_and_letters_alone(gateway: Gateway) -> None:
    fleet = gateway.cluster.fleet
    await fleet.ask(CLERK, Note(text="a"))
    with pytest.raises(Exception, match="set aside"):
        await fleet.ask(CLERK, Burst())
    async with gateway.with_key(OPERATOR_KEY) as other:
        assert (await other.get("/v1/actors")).json()["actors"] == []
        assert (await other.get("/v1/letters")).json()["letters"] == []
        (letter,) = (await gateway.desk.get("/v1/letters")).json()["letters"]
        assert (await other.delete(f"/v1/letters/{letter['id']}")).status_code == 404
        assert (await other.post(f"/v1/letters/{letter['id']}/replay")).status_code == 404
        assert (await other.get("/v1/actors/clerk/c")).status_code == 404
        assert (await other.get("/v1/actors/clerk/c/journal")).status_code == 404
    assert len((await gateway.desk.get("/v1/actors")).json()["actors"]) == 1
    async with gateway.with_key(TENANT_KEY) as tenant:
        seen = (await tenant.get("/v1/actors/clerk/c")).json()
    assert seen["awake"]["state"]["notes"] == ["a"] and seen["last"][0]["type"] == "noted"


async def test_a_letter_is_listed_without_what_it_says(gateway: Gateway) -> None:
    await put(gateway, Note(text="secret words"))
    answer = await gateway.desk.get("/v1/letters", params={"actor": "clerk/c"})
    (letter,) = answer.json()["letters"]
    assert (letter["actor"], letter["message"], letter["tries"]) == ("clerk/c", "note", 3)
    assert "secret" not in answer.text


async def test_a_letter_that_is_taken_is_gone(gateway: Gateway) -> None:
    id = await put(gateway, Note(text="a"))
    answer = await gateway.desk.post(f"/v1/letters/{id}/replay")
    assert answer.json() == {"letter": id, "actor": "clerk/c", "outcome": "taken"}
    assert (await gateway.desk.get("/v1/letters")).json()["letters"] == []
    facts = (await gateway.desk.get("/v1/actors/clerk/c/journal", params={"bodies": True})).json()["facts"]
    assert [fact["body"]["text"] for fact in facts] == ["a"]
    assert (await gateway.desk.post(f"/v1/letters/{id}/replay")).status_code == 404


@pytest.mark.parametrize(("message", "status"), [(Note(text="refuse"), 422), (Burst(), 500)])
async def test_a_letter_that_is_not_taken_stays(gateway: Gateway, message: Note | Burst, status: int) -> None:
    id = await put(gateway, message)
    answer = await gateway.desk.post(f"/v1/letters/{id}/replay")
    assert answer.status_code == status and f"The letter {id} stays." in answer.json()["detail"]
    assert [one["id"] for one in (await gateway.desk.get("/v1/letters")).json()["letters"]] == [id]


async def test_a_letter_is_discarded_once(gateway: Gateway) -> None:
    id = await put(gateway, Note(text="a"))
    assert (await gateway.desk.delete(f"/v1/letters/{id}")).status_code == 204
    assert (await gateway.desk.delete(f"/v1/letters/{id}")).status_code == 404


@pytest.mark.parametrize("path", ["/v1/actors/clerk/with space", "/v1/letters?actor=nobody"])
async def test_what_names_no_actor_is_refused(gateway: Gateway, path: str) -> None:
    answer = await gateway.desk.get(path)
    assert answer.status_code == 422 and answer.json()["field"] == "actor"


async def test_while_the_record_is_down_an_actor_is_still_shown(gateway: Gateway) -> None:
    await gateway.cluster.fleet.ask(CLERK, Note(text="a"))
    gateway.cluster.journal.down = True
    seen = (await gateway.desk.get("/v1/actors/clerk/c")).json()
    assert seen["awake"]["listed"]["seq"] == 1 and seen["last"] == []
    assert "out of reach" in seen["notes"][0]
    assert (await gateway.desk.get("/v1/actors/clerk/c/journal")).status_code == 503


def test_keys_of_operators_are_told_from_those_of_tenants() -> None:
    keys = read_settings({"FLOTILLA_API_KEYS": "t1:0123456789abcdef,t2:fedcba9876543210:operator"}).keys

    def of(key: str) -> ApiKey | None:
        return keys.get(hashlib.sha256(key.encode()).hexdigest())

    assert of("0123456789abcdef") == ApiKey("t1")
    assert of("fedcba9876543210") == ApiKey("t2", operator=True)
    with pytest.raises(Misconfigured, match="16 characters"):
        read_settings({"FLOTILLA_API_KEYS": "t1:short:operator"})


@pytest.mark.parametrize("share", ["-0.1", "1.1", "some", "nan"])
def test_a_share_of_traces_is_between_0_and_1(share: str) -> None:
    with pytest.raises(Misconfigured, match="FLOTILLA_TRACE_SHARE"):
        read_settings({"FLOTILLA_TRACE_SHARE": share})


async def put(gateway: Gateway, message: Note | Burst) -> str:
    """The id of a dead letter that holds `message`."""
    letter = Letter(
        id="x_1",
        actor=CLERK,
        at=gateway.cluster.clock.now(),
        message=msgspec.msgpack.encode(message),
        problem="ValueError in Note",
        tries=3,
    )
    await gateway.cluster.letters.put(letter)
    return letter.id
