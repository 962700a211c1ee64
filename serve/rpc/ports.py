"""A port that is this gateway's alone."""

from __future__ import annotations

from typing import Any

from ray.serve._private import grpc_util


def own_ports() -> None:
    """For this process: ports that somebody else has are passed over, as Serve means it.

    Serve says `grpc.so_reuseport` in text, which gRPC doesn't read (Ray 2.60, gRPCGenericServer): gateways of two
    fleets on one machine then listen on the same port, and each gets calls of the other's clients.
    """
    server: Any = grpc_util.gRPCGenericServer
    made = server.__init__

    def init(self: Any, service_handler_factory: Any, *, extra_options: Any = None) -> None:
        options = [(name, int(value)) for name, value in extra_options or ()]
        made(self, service_handler_factory, extra_options=options)

    server.__init__ = init
