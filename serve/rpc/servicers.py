"""The services, as Ray Serve takes them: functions that add handlers to its gRPC server, wherever that runs.

Serve looks a method up on the deployment by its bare name (`Get`), of which two services may have one, and lets
its server parse the request, which answers INTERNAL to what can't be parsed. So requests are handed on as they
came, with their full name.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

import grpc
import msgspec
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2

from flotilla.rpc import v1_pb2

FUNCTIONS = ["serve.rpc.servicers.add_flotilla", "serve.rpc.servicers.add_health"]


class Incoming(msgspec.Struct, frozen=True, gc=False):
    """A request on its way to the gateway: `method` is `/PACKAGE.SERVICE/METHOD`."""

    method: str
    body: bytes


class Server(Protocol):
    def add_generic_rpc_handlers(self, generic_rpc_handlers: Any) -> None: ...


def add_flotilla(_: object, server: Server) -> None:
    _add(server, v1_pb2.DESCRIPTOR)


def add_health(_: object, server: Server) -> None:
    _add(server, health_pb2.DESCRIPTOR)


def _add(server: Server, file: Any) -> None:
    for service in file.services_by_name.values():
        name = service.full_name
        handlers = {method.name: _handler(f"/{name}/{method.name}", method) for method in service.methods}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))


def _handler(method: str, descriptor: MethodDescriptor) -> grpc.RpcMethodHandler[Any, Any]:
    """Its behaviour is put in by Serve."""
    make = grpc.unary_unary_rpc_method_handler
    if descriptor.server_streaming:
        make = grpc.unary_stream_rpc_method_handler
    return make(_never, request_deserializer=partial(Incoming, method))


def _never(*_: Any) -> Any:
    raise NotImplementedError("Ray Serve answers calls.")
