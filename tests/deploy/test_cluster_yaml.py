"""`cluster.yaml` is what Ray accepts, and offers what the recipes ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from flotilla.cli.raynode import RESOURCES
from serve.settings import Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def test_ray_accepts_it(config: dict[str, Any]) -> None:
    validate_config(prepare_config(config))


def test_ray_would_refuse_a_broken_one(config: dict[str, Any]) -> None:
    config["available_node_types"]["host"]["resources"] = "four"
    with pytest.raises(Exception, match="four"):
        validate_config(prepare_config(config))


def test_every_role_has_a_node_that_offers_it(config: dict[str, Any]) -> None:
    types = config["available_node_types"].values()
    offered = {name for node in types for name in node["resources"]}
    assert {*RESOURCES, "GPU"} <= offered


def test_the_hosts_and_gateways_it_asks_for_fit(config: dict[str, Any]) -> None:
    words = " ".join(config["initialization_commands"]).split()
    wanted = dict(word.split("=", 1) for word in words if word.startswith("FLOTILLA_"))
    types = config["available_node_types"]
    for role, number in (("host", "FLOTILLA_HOSTS_MAX"), ("gateway", "FLOTILLA_GATEWAYS")):
        assert int(wanted[number]) <= types[role]["resources"][role] * types[role]["max_workers"]


def test_it_sets_only_what_is_read(config: dict[str, Any]) -> None:
    from serve.settings import read_settings

    words = " ".join(config["initialization_commands"]).split()
    environ = dict(word.split("=", 1) for word in words if "=" in word)
    settings = read_settings(environ)
    default = Settings(home="")
    assert settings.database_url and settings.redis_url and settings.lance_uri.startswith("s3://")
    assert settings.token and settings.secret and settings.keys
    assert not settings.on_loopback and settings.hosts_max > settings.hosts > default.hosts
