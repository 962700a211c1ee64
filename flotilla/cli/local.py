"""The fleet on this machine: where its files are, what of it runs, and how to stop just that."""

from __future__ import annotations

import hashlib
import os
import random
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil

from flotilla.core.errors import Misconfigured, Unavailable
from flotilla.stores.embedded import Postgres, Valkey

MARK = "FLOTILLA_RUN"
"""Every process of a fleet has this variable, with the fleet's name, so that `down` stops those alone."""
# GCS takes longer than this to say good-bye, and has nothing to lose.
STOP_TIMEOUT_S = 3.0


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What `up` started. `grpc` is HOST:PORT, "" without that door."""

    name: str
    address: str
    ray_address: str
    grpc: str = ""
    embedded_postgres: bool
    embedded_valkey: bool


class Local:
    def __init__(self, home: Path | None = None) -> None:
        self.home = (home or Path(os.environ.get("FLOTILLA_HOME", ".flotilla"))).absolute()
        self.name = hashlib.sha256(f"{os.getuid()} {self.home}".encode()).hexdigest()[:8]
        # Unix sockets want short paths (97 bytes for HAProxy's, of which Serve takes 69), so they
        # lie neither in the home nor under a long TMPDIR.
        self.sockets = Path("/tmp") / f"flotilla-{self.name}"
        self.logs = self.home / "logs"
        self.postgres = Postgres(self.home, self.sockets, self.name)
        self.valkey = Valkey(self.home, self.sockets)

    def prepare(self) -> None:
        """Makes the folders. Raises `Misconfigured` if they can't be written to."""
        try:
            for folder in (self.home, self.logs, self.sockets):
                folder.mkdir(parents=True, exist_ok=True)
            # Entered by the database's own user too; what lies in it is closed to others.
            self.sockets.chmod(0o711)
            (self.home / ".write").write_text("")
        except OSError as error:
            raise Misconfigured(
                f"{self.home} can't be written to: {error.strerror}.",
                field="FLOTILLA_HOME",
                next="Free disk space, or set FLOTILLA_HOME to a folder that you may write to.",
            ) from None

    # -- what is running

    @property
    def run(self) -> Run | None:
        try:
            return msgspec.json.decode((self.home / "run.json").read_bytes(), type=Run)
        except (OSError, msgspec.DecodeError):
            return None

    def remember(self, run: Run) -> None:
        (self.home / "run.json").write_bytes(msgspec.json.encode(run))

    def processes(self) -> Iterator[psutil.Process]:
        """Ray's processes of this fleet, and all that they started."""
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and process.environ().get(MARK) == self.name:
                    yield process
            except (psutil.Error, OSError):
                continue

    def servers(self) -> dict[str, int]:
        """Process ids of the embedded servers that run."""
        found = {"postgres": self.postgres.pid, "valkey": self.valkey.pid}
        return {name: pid for name, pid in found.items() if pid is not None}

    # -- stopping

    def stop_ray(self) -> int:
        """How many processes were stopped."""
        running = list(self.processes())
        for process in running:
            _quietly(process.terminate)
        _, alive = psutil.wait_procs(running, timeout=STOP_TIMEOUT_S)
        for process in alive:
            _quietly(process.kill)
        # What was being started just then has shown up by now.
        for process in self.processes():
            _quietly(process.kill)
        shutil.rmtree(self.sockets / "ray", ignore_errors=True)
        return len(running)

    def stop(self) -> dict[str, int]:
        """Stops all that `up` started and nothing else; what, and how many processes of it."""
        stopped = {"ray": self.stop_ray()}
        if self.valkey.stop():
            stopped["valkey"] = 1
        if self.postgres.stop():
            stopped["postgres"] = 1
        (self.home / "run.json").unlink(missing_ok=True)
        return stopped

    # -- secrets

    def secret(self, name: str) -> str:
        """Made once, kept in the home, readable by its owner alone."""
        path = self.home / f"{name}.secret"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_hex(32))
        return path.read_text()


def _quietly(stop: object) -> None:
    try:
        stop()  # type: ignore[operator]
    except psutil.Error:
        return


PORTS = range(20_000, 30_000)
"""Below those that the system gives to outgoing connections: one of those could be taken again by the time that
whoever it is for listens, with all that a fleet connects while it starts. Above the ports of Ray's workers (10,002
to 19,999), below those of Serve's replicas (30,000)."""


def free_port() -> int:
    """Not one of those that this fleet's doors are going to open. Raises `Unavailable` if none of a hundred that
    were tried is free."""
    doors = {os.environ.get("FLOTILLA_PORT"), os.environ.get("FLOTILLA_GRPC_PORT")}
    for _ in range(100):
        port = random.choice(PORTS)
        if str(port) in doors:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise Unavailable("No port is free.", next=f"Free some between {PORTS.start} and {PORTS.stop}.")


def check_port(host: str, port: int, field: str = "FLOTILLA_PORT") -> None:
    """Raises `Misconfigured` if something listens there already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Misconfigured(
                f"Port {port} on {host} can't be used: {error.strerror}.",
                field=field,
                next=f"Stop what listens there, or set {field} to a free port.",
            ) from None


def wait_port_free(host: str, port: int, field: str = "FLOTILLA_PORT", *, timeout_s: float = 5.0) -> None:
    until = time.monotonic() + timeout_s
    while True:
        try:
            return check_port(host, port, field)
        except Misconfigured:
            if time.monotonic() > until:
                raise
        time.sleep(0.1)
