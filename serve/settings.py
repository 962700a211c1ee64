"""Everything that an operator can set, from the environment. Recipes for processes are made of this."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from flotilla.core.api_keys import KeyLimits
from flotilla.core.errors import Misconfigured
from flotilla.core.ids import is_name
from flotilla.core.limits import LIMITS
from flotilla.core.policy.allowance import Allowance
from flotilla.core.versions import FLEET


class ApiKey(msgspec.Struct, frozen=True):
    """An operator may do what touches the whole fleet: see its hosts, drain them, move actors."""

    tenant: str
    operator: bool = False


PORT_MAX = 65535
# What a load test of one tenant on one machine stays below, and a program that runs wild doesn't for long.
GENEROUS = KeyLimits(
    messages_per_s=2_000.0, messages_burst=10_000, sessions_per_min=60_000, sockets=50_000, streams=20_000
)

# Kinds to try out; FLOTILLA_KINDS names your own instead.
EXAMPLES = "examples.counter,examples.team,examples.ticket"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Travels to every process of the fleet; sockets don't.

    `limits` are those of each tenant, `key_limits` those of each key that has none of its own; of
    `token_secrets` the first signs visitors' tokens, which are good for `token_s`.

    `keys` maps the SHA-256 of an API key (hex) to whose it is. `trace_share` of the turns are traced, if
    `traces` is not "none"; spans go to files, or to `otlp_endpoint` if there is one. `kinds` names modules
    with kinds of actors of your own, `judges` those with judges of answers; `embedders` is how many
    processes embed, 0 for the librarian's own; `reranker` is a folder with a cross-encoder's weights; past
    `host_memory_bytes` a host passivates the idle sooner. `allowance` bounds the tokens that each tenant may
    use through the OpenAI endpoint. `grpc_port` is 0 for a fleet without gRPC. Once turns
    wait for longer than `queue_target_s` new ones are refused; 0 refuses none.
    """

    home: str
    database_url: str = ""
    redis_url: str = ""
    lance_uri: str = ""
    token: str = ""
    secret: str = ""
    listen: str = ""
    bind: str = "127.0.0.1"
    port: int = 8080
    grpc_port: int = 0
    hosts: int = 1
    hosts_max: int = 1
    gateways: int = 1
    models: int = 1
    models_max: int = 1
    model: str = "smollm2"
    model_threads: int = 2
    embedder_threads: int = 1
    embedders: int = 0
    reranker: str = ""
    scripted_seed: int = 7
    scripted_token_s: float = 0.02
    scripted_first_token_s: float = 0.0
    scripted_tokens: int = 60
    keys: dict[str, ApiKey] = {}
    traces: str = "file"
    trace_share: float = 0.01
    otlp_endpoint: str = ""
    kinds: tuple[str, ...] = ()
    judges: tuple[str, ...] = ()
    host_memory_bytes: int = 0
    allowance: Allowance = Allowance()
    limits: KeyLimits = GENEROUS
    key_limits: KeyLimits = KeyLimits()
    token_secrets: tuple[str, ...] = ()
    token_s: float = LIMITS.visitor_token_s
    queue_target_s: float = 0.25
    ha_proxy: bool = True

    @property
    def on_loopback(self) -> bool:
        return self.bind in ("127.0.0.1", "localhost", "::1")

    @property
    def cache(self) -> Path:
        return Path(self.home) / "cache"

    @property
    def logs(self) -> Path:
        return Path(self.home) / "logs"


def read_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Raises `Misconfigured` with the variable's name."""
    home = Path(environ.get("FLOTILLA_HOME", ".flotilla")).absolute()
    return Settings(
        home=str(home),
        database_url=environ.get("DATABASE_URL", ""),
        redis_url=environ.get("REDIS_URL", ""),
        lance_uri=environ.get("LANCE_URI", str(home / "knowledge")),
        token=environ.get("FLOTILLA_TOKEN", ""),
        secret=environ.get("FLOTILLA_SECRET", ""),
        listen=environ.get("FLOTILLA_LISTEN", ""),
        bind=environ.get("FLOTILLA_BIND", "127.0.0.1"),
        port=(port := _number(environ, "FLOTILLA_PORT", 8080)),
        grpc_port=_grpc_port(environ, port),
        hosts=(hosts := _hosts(environ)),
        hosts_max=_hosts_max(environ, hosts),
        gateways=_number(environ, "FLOTILLA_GATEWAYS", 1),
        models=(models := _number(environ, "FLOTILLA_MODELS", 1)),
        models_max=_number(environ, "FLOTILLA_MODELS_MAX", models),
        model=_one_of(environ, "FLOTILLA_MODEL", ("smollm2", "scripted"), or_folder=True),
        embedders=_number(environ, "FLOTILLA_EMBEDDERS", 0),
        reranker=_folder(environ, "FLOTILLA_RERANKER"),
        model_threads=_number(environ, "FLOTILLA_MODEL_THREADS", os.cpu_count() or 2),
        scripted_seed=_number(environ, "FLOTILLA_SCRIPTED_SEED", 7),
        scripted_token_s=_seconds(environ, "FLOTILLA_SCRIPTED_TOKEN_S", 0.02),
        scripted_first_token_s=_seconds(environ, "FLOTILLA_SCRIPTED_FIRST_TOKEN_S", 0.0),
        scripted_tokens=_number(environ, "FLOTILLA_SCRIPTED_TOKENS", 60),
        keys=_keys(environ.get("FLOTILLA_API_KEYS", "")),
        traces=_one_of(environ, "FLOTILLA_TRACES", ("file", "none"), or_folder=False),
        trace_share=_share(environ, "FLOTILLA_TRACE_SHARE", 0.01),
        otlp_endpoint=environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
        kinds=tuple(filter(None, environ.get("FLOTILLA_KINDS", EXAMPLES).split(","))),
        judges=tuple(filter(None, environ.get("FLOTILLA_JUDGES", "").split(","))),
        allowance=Allowance(
            tokens_per_day=_number(environ, "FLOTILLA_TOKENS_PER_DAY", 0),
            tokens_per_month=_number(environ, "FLOTILLA_TOKENS_PER_MONTH", 0),
        ),
        queue_target_s=_seconds(environ, "FLOTILLA_QUEUE_TARGET_S", 0.25),
        limits=_limits(environ, "FLOTILLA_LIMIT_", GENEROUS),
        key_limits=_limits(environ, "FLOTILLA_LIMIT_KEY_", KeyLimits()),
        token_secrets=_token_secrets(environ),
        token_s=_token_s(environ),
        host_memory_bytes=_number(environ, "FLOTILLA_HOST_MEMORY_MB", 2048) << 20,
        ha_proxy=environ.get("FLOTILLA_HA_PROXY", "1") != "0",
    )


def _grpc_port(environ: Mapping[str, str], port: int) -> int:
    """The next one to HTTP's, unless it is set; 0 for no gRPC."""
    found = _number(environ, "FLOTILLA_GRPC_PORT", port + 1)
    if found > PORT_MAX or found == port:
        raise Misconfigured(
            f"FLOTILLA_GRPC_PORT is {found}, and FLOTILLA_PORT {port}.",
            field="FLOTILLA_GRPC_PORT",
            next="Set it to a port of its own, or to 0 to switch gRPC off.",
        )
    return found


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, str(default))
    if not text.isdigit():
        raise Misconfigured(f"{name} must be a whole number, not {text!r}.", field=name)
    return int(text)


def _limits(environ: Mapping[str, str], prefix: str, default: KeyLimits) -> KeyLimits:
    return KeyLimits(
        messages_per_s=_positive(environ, f"{prefix}MESSAGES_PER_S", default.messages_per_s),
        messages_burst=_number(environ, f"{prefix}MESSAGES_BURST", default.messages_burst),
        sessions_per_min=_number(environ, f"{prefix}SESSIONS_PER_MIN", default.sessions_per_min),
        sockets=_number(environ, f"{prefix}SOCKETS", default.sockets),
        streams=_number(environ, f"{prefix}STREAMS", default.streams),
    )


def _positive(environ: Mapping[str, str], name: str, default: float) -> float:
    number = _seconds(environ, name, default)
    if not 0.0 <= number < float("inf"):
        raise Misconfigured(f"{name} must be 0 or more.", field=name, next="Set 0 for no limit.")
    return number


def _token_secrets(environ: Mapping[str, str]) -> tuple[str, ...]:
    name = "FLOTILLA_TOKEN_SECRETS"
    found = tuple(filter(None, (part.strip() for part in environ.get(name, "").split(","))))
    if any(len(secret) < 32 for secret in found):
        raise Misconfigured(
            f"{name} has a secret of fewer than 32 characters.",
            field=name,
            next="Make one with `openssl rand -hex 32`, and put it before the ones that go on until their tokens end.",
        )
    return found


def _token_s(environ: Mapping[str, str]) -> float:
    name = "FLOTILLA_TOKEN_S"
    seconds = _seconds(environ, name, LIMITS.visitor_token_s)
    if not 10.0 <= seconds <= 24 * 3600.0:
        raise Misconfigured(f"{name} must be from 10 to 86400 seconds.", field=name)
    return seconds


def _folder(environ: Mapping[str, str], name: str) -> str:
    """Empty if it isn't set."""
    folder = environ.get(name, "")
    if folder and not Path(folder).is_dir():
        raise Misconfigured(f"{name} is {folder!r}, which is no folder.", field=name)
    return str(Path(folder).absolute()) if folder else ""


def _hosts(environ: Mapping[str, str]) -> int:
    hosts = _number(environ, "FLOTILLA_HOSTS", 1)
    if hosts < 1:
        raise Misconfigured("FLOTILLA_HOSTS must be 1 or more.", field="FLOTILLA_HOSTS")
    return hosts


def _hosts_max(environ: Mapping[str, str], hosts: int) -> int:
    """As many as there are from the start, unless the controller may start more."""
    most = _number(environ, "FLOTILLA_HOSTS_MAX", hosts)
    if most < hosts:
        raise Misconfigured(
            f"FLOTILLA_HOSTS_MAX is {most}, and FLOTILLA_HOSTS is {hosts}.",
            field="FLOTILLA_HOSTS_MAX",
            next="Make it as high as FLOTILLA_HOSTS, or higher.",
        )
    return most


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    try:
        return float(environ.get(name, default))
    except ValueError:
        raise Misconfigured(f"{name} must be a number of seconds.", field=name) from None


def _share(environ: Mapping[str, str], name: str, default: float) -> float:
    try:
        share = float(environ.get(name, default))
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise Misconfigured(f"{name} must be a share between 0 and 1.", field=name)
    return share


def _one_of(environ: Mapping[str, str], name: str, choices: tuple[str, ...], *, or_folder: bool) -> str:
    value = environ.get(name, choices[0])
    if value in choices or (or_folder and Path(value).is_dir()):
        return value
    raise Misconfigured(
        f"{name} is {value!r}.",
        field=name,
        next=f"Use {' or '.join(choices)}"
        + (", or a folder with weights in Hugging Face's layout." if or_folder else "."),
    )


def _keys(text: str) -> dict[str, ApiKey]:
    """`TENANT:KEY,TENANT:KEY:operator`: only the hashes are kept."""
    keys: dict[str, ApiKey] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        tenant, _, key = pair.removesuffix(":operator").partition(":")
        if not is_name(tenant) or tenant == FLEET or len(key) < 16:
            raise Misconfigured(
                "FLOTILLA_API_KEYS is TENANT:KEY,TENANT:KEY:operator with keys of 16 characters or more.",
                field="FLOTILLA_API_KEYS",
            )
        keys[hashlib.sha256(key.encode()).hexdigest()] = ApiKey(tenant, pair.endswith(":operator"))
    return keys
