"""WebSockets, ten thousand to a gateway: no task, no ASGI messages and no compression for each.

Serve's replica runs uvicorn, and uvicorn hands a connection that asks for a WebSocket to a protocol class:
ours. It speaks RFC 6455 through the sans-I/O half of `websockets` (docs/decisions/0025).
"""
