"""What a run is: who talks over which way, when, how long, what is done to the fleet, and what is asked of it.

A scenario is a TOML file in `scenarios/`; its name is the file's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from flotilla.core.errors import Misconfigured

FOLDER = Path(__file__).parent / "scenarios"

Count = Annotated[int, msgspec.Meta(ge=1)]
Share = Annotated[float, msgspec.Meta(ge=0.0)]
Positive = Annotated[float, msgspec.Meta(gt=0.0)]

Client = Literal["lean", "library"]
"""What plays it: the lean client, or `flotilla.client` (docs/decisions/0027)."""

WAYS = ("websocket", "sse", "http", "grpc")
"""In the order of the column `way` of `turns.npz`."""


class Ways(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shares of the conversations; they need not add up to 1."""

    websocket: Share = 0.0
    sse: Share = 0.0
    http: Share = 0.0
    grpc: Share = 0.0

    @property
    def shares(self) -> tuple[float, ...]:
        return tuple(float(getattr(self, way)) for way in WAYS)


class Every(msgspec.Struct, frozen=True, kw_only=True, tag="every", tag_field="mode"):
    """A turn of each conversation every so many seconds, the conversations spread evenly over them."""

    seconds: Positive = 30.0


class Think(msgspec.Struct, frozen=True, kw_only=True, tag="think", tag_field="mode"):
    """Log-normal pauses between a reply and the next message (docs/load.md says where they come from).

    `reply_s` is how long a reply takes by the scenario's settings. An open loop's next turn has its time
    before the reply is over, so this is what the pauses count from, not what the fleet makes of it.
    """

    median_s: Positive = 5.2
    sigma: Share = 1.0
    most_s: Positive = 120.0
    reply_s: Share = 1.0


class Rate(msgspec.Struct, frozen=True, kw_only=True, tag="rate", tag_field="mode"):
    """Turns that arrive by chance (a Poisson process), each at the conversation that has waited longest."""

    turns_per_s: Positive


Traffic = Every | Think | Rate


class Action(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is done to the fleet (`benchmarks.load.actions`), seconds after its phase began."""

    do: str
    at_s: Share


class _Phase(
    msgspec.Struct, frozen=True, kw_only=True, tag=str.lower, tag_field="kind", forbid_unknown_fields=True
):
    name: str = ""
    actions: tuple[Action, ...] = ()

    @property
    def title(self) -> str:
        return self.name or str(self.__struct_config__.tag)


class Ramp(_Phase, frozen=True, kw_only=True):
    """Connects all conversations. `rest_s` is how long they are quiet then, for the memory to be read."""

    per_s: Positive = 200.0
    rest_s: Share = 2.0


class Steady(_Phase, frozen=True, kw_only=True):
    """`load` times the scenario's traffic; or `knees` times the knee that was found before. A spike and a soak
    are steady phases, with a higher load and with more seconds."""

    seconds: Positive
    load: Positive = 1.0
    knees: Share = 0.0


class Storm(_Phase, frozen=True, kw_only=True):
    """So many sockets (0: all) are cut at once with a reset and come back with their place, while the traffic
    goes on."""

    seconds: Positive
    sockets: int = 0
    load: Share = 1.0
    within_s: Positive = 30.0


class CatchUp(_Phase, frozen=True, kw_only=True):
    """Connects `times` times to each of `sessions` conversations that are `events` ahead."""

    sessions: Count = 4
    events: Count = 1000
    times: Count = 25


class Knee(_Phase, frozen=True, kw_only=True):
    """Raises the load by `factor`, step by step, until fewer than `share` of a step's turns keep the SLO."""

    load: Positive = 1.0
    factor: Positive = 1.25
    step_s: Positive = 10.0
    steps: Count = 20
    share: Positive = 0.95


Phase = Ramp | Steady | Storm | CatchUp | Knee


class Slo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A turn is good if its first token came in time, and its end did."""

    first_ms: Positive = 250.0


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`measure` is one of `benchmarks.load.measures`; of the turns of one `phase` alone if it names one."""

    measure: str
    target: float
    better: Literal["lower", "higher"] = "lower"
    phase: str = ""


class Bounds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of the generator itself; a run beyond them is not valid."""

    lag_p99_ms: Positive = 25.0
    cpu_share: Positive = 0.9


class Short(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `--short` makes of it: fewer conversations, and no phase or step longer than `seconds`."""

    conversations: Count = 200
    seconds: Positive = 10.0


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`settings` are the environment of a fleet that is started for it. The agent `chat` looks nothing up;
    `documents` puts a few into the knowledge of one that does. `checked` is the share of replies whose text is
    compared word for word; `drain_s` is how long replies may take that run when the last phase is over; `client` is
    whose conversations they are."""

    about: str
    conversations: Count
    agent: str = "chat"
    documents: bool = False
    ways: Ways = Ways(websocket=1.0)
    traffic: Traffic = Every()
    phases: tuple[Phase, ...]
    slo: Slo = Slo()
    targets: tuple[Target, ...] = ()
    bounds: Bounds = Bounds()
    settings: dict[str, str] = {}
    processes: Count = 1
    client: Client = "lean"
    checked: Share = 0.02
    drain_s: Positive = 30.0
    short: Short = Short()

    @property
    def turns_per_s(self) -> float:
        """At load 1, in the mean."""
        match self.traffic:
            case Every(seconds=seconds):
                return self.conversations / seconds
            case Rate(turns_per_s=rate):
                return rate
            case Think() as think:
                mean_s = think.reply_s + think.median_s * 2.718281828 ** (think.sigma**2 / 2)
                return self.conversations / mean_s


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read(name: str) -> Scenario:
    """A scenario by its name, or by the path of a file. Raises `Misconfigured` with what is wrong in it."""
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise Misconfigured(
            f"There is no scenario {name!r}.", field="scenario", next=f"Known: {', '.join(names())}."
        )
    try:
        scenario = msgspec.toml.decode(path.read_bytes(), type=Scenario)
    except msgspec.DecodeError as error:
        raise Misconfigured(f"{path.name} can't be read: {error}", field="scenario") from None
    return checked(scenario, path.name)


def checked(scenario: Scenario, file: str) -> Scenario:
    """Raises `Misconfigured` for what no type can say."""
    if not sum(scenario.ways.shares):
        raise Misconfigured(f"{file} has no way in.", field="ways", next="Give one of them a share.")
    if not any(isinstance(phase, Ramp) for phase in scenario.phases[:1]):
        raise Misconfigured(f"{file} does not begin with a ramp.", field="phases", next="Put one first.")
    knee = next((n for n, phase in enumerate(scenario.phases) if isinstance(phase, Knee)), None)
    for n, phase in enumerate(scenario.phases):
        if isinstance(phase, Steady) and phase.knees and (knee is None or knee > n):
            raise Misconfigured(
                f"{file} has a phase at {phase.knees:g} knees and no knee before it.",
                field=f"phases[{n}].knees",
                next="Put a phase of kind `knee` in front, or give a `load`.",
            )
    titles = [phase.title for phase in scenario.phases]
    for target in scenario.targets:
        if target.phase and target.phase not in titles:
            raise Misconfigured(
                f"{file} has a target for the phase {target.phase!r}.",
                field="targets.phase",
                next=f"Its phases are {', '.join(titles)}.",
            )
    return scenario


def shortened(scenario: Scenario) -> Scenario:
    """For a look, and for tests: the same shape at a smaller size. Rates shrink with the conversations."""
    short = scenario.short
    share = min(1.0, short.conversations / scenario.conversations)
    traffic = scenario.traffic
    if isinstance(traffic, Rate):
        traffic = Rate(turns_per_s=traffic.turns_per_s * share)
    phases = tuple(_shortened(phase, short.seconds, share) for phase in scenario.phases)
    conversations = min(short.conversations, scenario.conversations)
    return msgspec.structs.replace(scenario, conversations=conversations, traffic=traffic, phases=phases)


def _shortened(phase: Phase, seconds: float, share: float) -> Phase:
    match phase:
        case Ramp():
            return phase
        case Steady():
            late = [action for action in phase.actions if action.at_s < min(seconds, phase.seconds)]
            return msgspec.structs.replace(phase, seconds=min(seconds, phase.seconds), actions=tuple(late))
        case Storm():
            sockets = round(phase.sockets * share)
            return msgspec.structs.replace(phase, seconds=min(seconds, phase.seconds), sockets=sockets)
        case CatchUp():
            return msgspec.structs.replace(phase, sessions=1, times=min(5, phase.times))
        case Knee():
            return msgspec.structs.replace(phase, step_s=min(seconds, phase.step_s))


def with_processes(scenario: Scenario, processes: int) -> Scenario:
    return msgspec.structs.replace(scenario, processes=processes)


def with_client(scenario: Scenario, client: Client) -> Scenario:
    return msgspec.structs.replace(scenario, client=client)
