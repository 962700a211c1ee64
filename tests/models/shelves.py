"""Places with weights, small: a server that speaks the part of S3 that a reader needs, and a model hub."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape


class _Shelf:
    """A server of a folder, on a port of its own. `asked` are the paths of its requests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.bytes_sent = 0
        self.status = 200  # another one is all the answer
        self.dies_after: int | None = None  # after so many files or parts it hesitates
        self.dying = threading.Event()
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        shelf = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                shelf.asked.append(self.path.partition("?")[0])
                shelf.answer(self)

            do_HEAD = do_GET

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, to: BaseHTTPRequestHandler) -> None:
        raise NotImplementedError

    def send(
        self,
        to: BaseHTTPRequestHandler,
        body: bytes,
        status: int = 200,
        headers: dict[str, str] | None = None,
    ) -> None:
        to.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            to.send_header(name, value)
        to.end_headers()
        if to.command != "HEAD":
            to.wfile.write(body)

    def send_file(self, to: BaseHTTPRequestHandler, path: Path, headers: dict[str, str]) -> None:
        """All of it, or the range that was asked for."""
        if self.dies_after is not None:
            self.dies_after -= 1
            if self.dies_after < 0:
                self.dying.set()
                self._closed.wait(60)
                return
        body, status = path.read_bytes(), 200
        if asked := to.headers.get("Range"):
            start, _, end = asked.removeprefix("bytes=").partition("-")
            last = int(end) if end else len(body) - 1
            headers = headers | {"Content-Range": f"bytes {start}-{last}/{len(body)}"}
            body, status = body[int(start) : last + 1], 206
        self.bytes_sent += len(body)
        self.send(to, body, status, headers)


def tag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


class ObjectStore(_Shelf):
    """`/BUCKET?list-type=2&prefix=…&delimiter=/` and `/BUCKET/KEY`; the folder is the one bucket."""

    def answer(self, to: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(to.path)
        path = self.folder / parts.path.removeprefix("/bucket").lstrip("/")
        if self.status != 200:
            code = {403: "AccessDenied", 404: "NoSuchBucket"}.get(self.status, "SlowDown")
            self.send(to, f"<Error><Code>{code}</Code></Error>".encode(), self.status)
        elif parts.query:
            self.send(to, self._list(parse_qs(parts.query)["prefix"][0]), 200)
        elif not path.is_file():
            self.send(to, b"<Error><Code>NoSuchKey</Code></Error>", 404)
        else:
            modified = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(path.stat().st_mtime))
            self.send_file(to, path, {"ETag": f'"{tag(path)}"', "Last-Modified": modified})

    def _list(self, prefix: str) -> bytes:
        folder = self.folder / prefix
        found = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
        rows = [
            f"<Contents><Key>{escape(prefix + path.name)}</Key><Size>{path.stat().st_size}</Size>"
            f'<ETag>"{tag(path)}"</ETag><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>'
            for path in found
        ]
        head = f"<Name>bucket</Name><Prefix>{escape(prefix)}</Prefix><IsTruncated>false</IsTruncated>"
        return f"<ListBucketResult>{head}{''.join(rows)}</ListBucketResult>".encode()


class Hub(_Shelf):
    """One model: `/api/models/NAME/revision/REV` and `/NAME/resolve/COMMIT/FILE`."""

    commit = "c0ffee" + "0" * 34

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder)
        self.name = name

    def answer(self, to: BaseHTTPRequestHandler) -> None:
        path = urlsplit(to.path).path
        file = self.folder / path.rpartition("/")[2]
        if path.startswith(f"/api/models/{self.name}"):
            files = [
                {"rfilename": p.name, "size": p.stat().st_size, "blobId": tag(p)}
                for p in sorted(self.folder.iterdir())
            ]
            body = json.dumps({"id": self.name, "sha": self.commit, "siblings": files}).encode()
            self.send(to, body, 200, {"Content-Type": "application/json"})
        elif path.startswith(f"/{self.name}/resolve/") and file.is_file():
            self.send_file(to, file, {"ETag": f'"{tag(file)}"', "X-Repo-Commit": self.commit})
        else:
            self.send(to, b"{}", 401, {"X-Error-Code": "RepoNotFound"})
