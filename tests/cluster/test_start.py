"""What can be wrong when a fleet starts: each gives one clear error, and leaves nothing running."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from flotilla.cli import up
from flotilla.core.errors import Misconfigured
from flotilla.stores.postgres import migrate, open_journal
from tests.fleet import TestFleet


@pytest.fixture
def stopped() -> Iterator[TestFleet]:
    fleet = TestFleet()
    try:
        yield fleet
    finally:
        fleet.down()


def failed_up(fleet: TestFleet, **settings: str) -> str:
    fleet._environ |= settings
    done = fleet.flotilla("up", check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "→" in done.stderr, "the error names the next move"
    assert not list(fleet.local.processes()) and not fleet.local.servers()
    assert not (fleet.local.logs / "ray-start.log").exists(), "told before Ray is started"
    return done.stderr


def test_port_in_use(stopped: TestFleet) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", stopped.port))
        taken.listen()
        said = failed_up(stopped)
    assert f"Port {stopped.port}" in said and "FLOTILLA_PORT" in said


def test_no_weights(stopped: TestFleet, tmp_path: Path) -> None:
    assert "FLOTILLA_MODEL" in failed_up(stopped, FLOTILLA_MODEL=str(tmp_path / "nothing"))


def test_a_folder_without_weights(stopped: TestFleet, tmp_path: Path) -> None:
    assert "config.json" in failed_up(stopped, FLOTILLA_MODEL=str(tmp_path))


def test_no_database(stopped: TestFleet) -> None:
    assert "DATABASE_URL" in failed_up(stopped, DATABASE_URL="postgresql://127.0.0.1:1/none")


def test_a_record_that_another_secret_sealed(stopped: TestFleet) -> None:
    local = stopped.local
    local.prepare()
    local.postgres.start()

    async def begun() -> None:
        await migrate(local.postgres.url)
        await (
            await open_journal(local.postgres.url, secret="a secret of somebody who was here before")
        ).close()

    asyncio.run(begun())
    local.postgres.stop()
    said = "".join(failed_up(stopped).split())
    assert f"`rm-r{local.postgres.data}`" in said and f"{local.home}/visitors.secret" in said


def test_no_redis(stopped: TestFleet) -> None:
    assert "REDIS_URL" in failed_up(stopped, REDIS_URL="redis://127.0.0.1:1/0")


def test_disk_full(stopped: TestFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped.local.prepare()
    monkeypatch.setattr(up, "DISK_FREE_MIN", 1 << 62)
    with pytest.raises(Misconfigured, match="are free") as error:
        up._check_disk(stopped.local)
    assert error.value.field == "FLOTILLA_HOME" and error.value.next


def test_a_home_that_can_not_be_written_to(stopped: TestFleet) -> None:
    said = failed_up(stopped, FLOTILLA_HOME="/proc/flotilla")
    assert "FLOTILLA_HOME" in said


def test_it_knows_itself_and_down_stops_all_of_it_and_nothing_else(
    fleet: TestFleet, stopped: TestFleet
) -> None:
    others = {process.pid for process in fleet.local.processes()}
    stopped.flotilla("up")
    known = stopped.http.get("/v1/knowledge/flotilla/documents").json()
    assert {"README.md", "ARCHITECTURE.md", "operating.md"} <= set(known["documents"])
    assert list(stopped.local.processes())
    stopped.flotilla("down")
    assert not list(stopped.local.processes()) and not stopped.local.servers()
    assert {process.pid for process in fleet.local.processes()} >= others
    assert fleet.http.get("/readyz").status_code == 200


def test_up_again_says_that_it_is_up(fleet: TestFleet) -> None:
    assert "already up" in fleet.flotilla("up").stdout


def test_doctor_and_status(fleet: TestFleet) -> None:
    assert "everything answers" in fleet.flotilla("doctor").stdout
    said = fleet.flotilla("status").stdout
    for name in ("redis", "postgres", "host", "knowledge", "model", "ray::Host", "valkey"):
        assert name in said


def test_chat_answers(fleet: TestFleet) -> None:
    said = fleet.flotilla("chat", "--agent", "bank", "How much does the Gold Card cost a year?").stdout
    assert "95 dollars" in said and "[1]" in said


def test_import_reports_what_it_can_not_read(fleet: TestFleet, tmp_path: Path) -> None:
    (tmp_path / "good.md").write_text("# Opening hours\n\nThe branch in Basel opens at eight.")
    (tmp_path / "bad.pdf").write_bytes(b"not a pdf")
    (tmp_path / "mixed.jsonl").write_text(
        '{"id": "a", "title": "A", "text": "Basel has two branches."}\n{broken\n'
    )
    said = fleet.flotilla("knowledge", "import", str(tmp_path), "--collection", "branches").stdout
    assert "2 new" in said and "bad.pdf" in said and "mixed.jsonl" in said
    again = fleet.flotilla("knowledge", "import", str(tmp_path), "--collection", "branches").stdout
    assert "0 new, 0 changed, 2 unchanged" in again
    (tmp_path / "good.md").unlink()
    pruned = fleet.flotilla("knowledge", "import", str(tmp_path), "--collection", "branches", "--prune")
    assert "1 removed" in pruned.stdout
