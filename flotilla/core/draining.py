"""How long a gateway takes to go away. Serve is told by the environment, so the command line knows it too."""

from __future__ import annotations

DEREGISTERED_S = 2.0
"""Until HAProxy sends nobody to it any more."""
SPREAD_S = 5.0
"""Over this its sockets are closed: ten thousand clients that come back at once would be a storm."""
DRAIN_S = DEREGISTERED_S + SPREAD_S + 1.0
"""From then on it takes no connection, and waits for the turns that are streamed to their end."""
GONE_S = 60.0
"""What is open then is cut."""
