"""Every bound of the fleet, with its name and unit. Past a limit there is an error, never a silent loss."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    # What a client may send.
    message_bytes_max: int = 64 * 1024
    metadata_bytes_max: int = 8 * 1024
    body_bytes_max: int = 256 * 1024
    models_body_bytes_max: int = 2 * 1024 * 1024  # a gate set may have a mebibyte
    openai_body_bytes_max: int = 4 * 1024 * 1024
    grpc_message_bytes_max: int = 4 * 1024 * 1024  # either way
    documents_body_bytes_max: int = 16 * 1024 * 1024
    documents_per_call_max: int = 500
    query_bytes_max: int = 16 * 1024
    search_hits_max: int = 100
    page_max: int = 500
    unreadable_frames_max: int = 5
    socket_inbox_max: int = 64  # frames that wait at a socket; past it nothing more is read from it
    sockets_max: int = 20_000  # at one gateway
    typing_every_s: float = 1.0  # of a socket; what is said oftener goes nowhere

    # What a session holds.
    pending_turns_max: int = 16
    messages_per_session_max: int = 10_000

    # What waits for whom.
    mailbox_signals_max: int = 256
    follower_events_max: int = 2_000
    link_window_items: int = 256
    link_frame_bytes_max: int = 32 * 1024 * 1024
    link_calls_max: int = 50_000
    link_out_bytes_max: int = 64 * 1024 * 1024  # what waits to be sent to a peer that doesn't read
    activations_max: int = 100_000
    pins_max: int = 10_000
    door_waiting_max: int = 256  # prompts at a replica whose weights are being swapped
    failure_reason_max: int = 2_000  # characters
    keys_per_tenant_max: int = 500
    watched_subjects_max: int = 100_000  # keys and tenants whose limits a gateway counts
    closed_sessions_max: int = 200_000  # whose tokens a gateway knows to be void

    # Time.
    request_head_s: int = 10  # to send all of a request's head in
    client_silent_s: int = 75  # that a client may be silent, and every open stream is kept alive within
    body_s: float = 10.0  # for a body, and more for those that may be large:
    body_bytes_per_s_least: int = 512 * 1024
    ask_timeout_s: float = 15.0
    model_patience_s: float = 120.0
    openai_patience_s: float = 20.0
    retrieval_patience_s: float = 30.0
    recover_every_s: float = 2.0
    idle_after_s: float = 300.0
    keep_open_every_s: float = 15.0
    socket_ping_after_s: float = 50.0  # of silence; HAProxy would hold a vanished client for an hour
    socket_dead_s: float = 120.0
    socket_stuck_s: float = 15.0  # a reader that reads nothing
    socket_close_s: float = 5.0  # to say goodbye
    visitor_token_s: float = 30 * 60.0  # unless the operator sets another
    key_fresh_s: float = 30.0  # how long a gateway believes what it has looked up of a key
    key_grace_s: float = 24 * 3600.0  # how long a rotated secret goes on, unless its owner says otherwise
    idempotency_s: float = 24 * 3600.0
    tallies_kept_s: float = 15.0  # of a host that died: others have gone on with its replies by then
    failures_kept_s: float = 600.0


LIMITS = Limits()
