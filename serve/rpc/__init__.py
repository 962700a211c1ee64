"""gRPC as the gateway's third door: what a call means is what the HTTP routes say it means.

A call with one answer is the HTTP call of the same name, made inside the process, so that keys, limits, checks
and errors are the same by construction. Streams go their own way, to the same functions as SSE and WebSocket.
"""
