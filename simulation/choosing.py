"""Who is to answer whom, as each process says it: the real catalogue, overheard."""

from __future__ import annotations

from collections.abc import Callable

from actors.serving.catalogue import Catalogue
from flotilla.core.generation import Origin
from flotilla.core.versions import FLEET, Version

Chosen = Callable[[int, str, str], None]
"""The revision of the plan, a conversation, and the version that is to answer it."""


class Choosing(Catalogue):
    """`chose` hears of each choice for a customer's conversation that asks for no version by its id."""

    def __init__(self, default: str, chose: Chosen) -> None:
        super().__init__(default)
        self._chose = chose

    def choose(self, origin: Origin, wanted: str = "") -> Version:
        version = super().choose(origin, wanted)
        if "@" not in wanted and origin.tenant != FLEET:
            revision = self.plans[version.model].revision
            self._chose(revision, origin.conversation, version.id)
        return version
