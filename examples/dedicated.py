"""The counter of examples/counter.py, with a process to itself: each of its actors is a Ray actor with its
own CPUs, GPU or memory. The class is the same; only where it lives differs.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from examples.counter import Counter
from flotilla.core.actor import Kind, Resources


class Alone(Counter):
    kind: ClassVar[Kind] = msgspec.structs.replace(
        Counter.kind, name="alone", dedicated=Resources(memory_bytes=64 << 20)
    )
