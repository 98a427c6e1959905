"""A real Ray cluster of two nodes on this machine, begun once for all tests of this folder."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.cluster.faulty_store import FaultyStore

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
STORE_BYTES = 100 * 2**20


BUCKET = "segments-of-tests"


@pytest.fixture(scope="session")
def bucket() -> Iterator[FaultyStore]:
    """An S3 server behind something that lets it fail. The nodes know it by their environment."""
    pytest.importorskip("moto", reason="needs moto[s3,server]")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    with FaultyStore(f"http://127.0.0.1:{port}") as store:
        os.environ |= {
            "AWS_ENDPOINT_URL": store.url,
            "AWS_ACCESS_KEY_ID": "AKIAOFTESTS00000",
            "AWS_SECRET_ACCESS_KEY": "very-secret-of-tests",
            "AWS_REGION": "us-east-1",
        }
        urllib.request.urlopen(urllib.request.Request(f"{store.url}/{BUCKET}", method="PUT"))
        yield store
    server.stop()


@pytest.fixture(scope="session")
def cluster(bucket: FaultyStore) -> Iterator[Any]:
    """Two nodes with one core each. This process is a driver of it, so each sweep need not join anew."""
    import ray
    from ray.cluster_utils import Cluster

    options = {"num_cpus": 1, "object_store_memory": STORE_BYTES}
    made = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
    try:
        made.add_node(**options)
        made.wait_for_nodes()
        ray.init(address=made.address, namespace="evalrun", log_to_driver=False)
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


@pytest.fixture
def on(cluster: Any) -> str:
    """What `--on` says of the cluster."""
    return f"ray://{cluster.address}"


@contextlib.contextmanager
def another_node(cluster: Any) -> Iterator[Any]:
    """One node more, for as long as it is needed."""
    node = cluster.add_node(num_cpus=2, object_store_memory=STORE_BYTES)
    cluster.wait_for_nodes()
    try:
        yield node
    finally:
        with contextlib.suppress(Exception):
            cluster.remove_node(node, allow_graceful=False)


def write_suite(folder: Path, url: str, rows: int, **more: Any) -> Path:
    """A suite of one model and one prompt over so many rows."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "rows.jsonl").open("w") as file:
        for number in range(rows):
            row = {"id": f"r{number}", "q": f"question {number}", "a": "42" if number % 3 else "7"}
            file.write(json.dumps({**row, "group": "ab"[number % 2]}) + "\n")
    model: dict[str, Any] = {
        "id": "served", "provider": "openai_compatible", "base_url": url, "model": "m",
        "params": {"temperature": 0, "max_tokens": 16},
    }  # fmt: skip
    model |= more.pop("model", {})
    data = {
        "name": "scaled",
        "seed": 5,
        "models": [model],
        "prompts": [{"id": "direct", "text": "{{ q }}?"}],
        "datasets": [
            {"id": "rows", "path": "rows.jsonl", "key": "id", "target": "{{ a }}", "sensitive": ["group"]}
        ],
        "parse": ["last_number"],
        "scorers": ["exact_match"],
        "performance": {"concurrency": 4},
        **more,
    }
    path = folder / "suite.yaml"
    path.write_text(json.dumps(data))
    return path


def runs_of(store: Path) -> list[Path]:
    """The folders of the finished runs of the newest sweep in a store."""
    sweep = max((store / "sweeps").iterdir())
    return sorted(path.parent for path in sweep.glob("runs/*/run.json"))


def manifest_of(store: Path) -> dict[str, Any]:
    """The manifest of the newest sweep in a store."""
    manifest: dict[str, Any] = json.loads((max((store / "sweeps").iterdir()) / "sweep.json").read_text())
    return manifest


def process(*words: str | Path, cwd: Path, **env: str) -> subprocess.Popen[str]:
    """`evalrun WORDS` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "evalrun", *map(str, words)],
        cwd=cwd,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
