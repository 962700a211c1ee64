"""What a reply costs, put on the bill of its tenant."""

from __future__ import annotations

from actors.serving.charging import Charging
from flotilla.core.charges import Charge, Source, cost_of, price_of
from flotilla.core.clock import Clock
from flotilla.core.generation import Usage
from flotilla.core.ports import ModelDoor


class Bills:
    def __init__(self, charging: Charging, model: ModelDoor, clock: Clock) -> None:
        self._charging = charging
        self._model = model
        self._clock = clock

    def charge(
        self, tenant: str, key: str, *, source: Source, model: str, usage: Usage, first_token_ms: float = 0.0
    ) -> None:
        """Never waits and never fails. The same `key` counts once, however often it is charged."""
        price = price_of(self._model.versions(tenant), model)
        self._charging.charge(
            Charge(
                tenant=tenant,
                key=key,
                at=self._clock.now(),
                source=source,
                model=model,
                usage=usage,
                cost=cost_of(usage, price),
                first_token_ms=first_token_ms,
            )
        )
