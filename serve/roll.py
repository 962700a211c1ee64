"""Replaces the gateways of a fleet, one by one: `python -m serve.roll`, with its settings in the environment.

What they load is what lies on the disk now, and their settings are those of the environment.
"""

from __future__ import annotations

import sys

from flotilla.core.errors import FlotillaError
from flotilla.core.ids import new_id
from serve import gateway
from serve.deploy import connect
from serve.settings import read_settings


def main() -> None:
    try:
        settings = read_settings()
        connect()
        gateway.run(settings, new_id("life"))
    except FlotillaError as error:
        sys.exit(f"{error.field}: {error}" if error.field else str(error))


if __name__ == "__main__":
    main()
