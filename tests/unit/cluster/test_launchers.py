"""The examples for launchers in docs/cluster.md: bash that parses, documents with the keys that matter."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import yaml

PAGE = (Path(__file__).parents[3] / "docs" / "cluster.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def block(language: str, first: str) -> str:
    """The block of that language that begins so."""
    (text,) = [text for name, text in BLOCKS if name == language and text.startswith(first)]
    return text


def parses(script: str) -> None:
    """As bash reads it."""
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def launches(command: str) -> None:
    """The launcher is Ray's, and runs evalrun on the cluster that it started."""
    ours = command.replace("\\\n", " ")
    address = re.search(r'ray symmetric-run --address "([^"]+)"', ours)
    on = re.search(r'-- +evalrun suite\.yaml --on "ray://([^"]+)" --at', ours)
    assert address and on and address[1] == on[1]


def test_slurm() -> None:
    script = block("bash", "#!/bin/bash\n#SBATCH")
    parses(script)
    launches(script)
    nodes = re.search(r"--nodes=(\d+)", script)
    assert nodes and f"--min-nodes {nodes[1]}" in script
    assert "--ntasks-per-node=1" in script


def test_kuberay() -> None:
    document = yaml.safe_load(block("yaml", "# RayJob"))
    assert (document["apiVersion"], document["kind"]) == ("ray.io/v1", "RayJob")
    assert document["spec"]["entrypoint"].startswith("evalrun /suites/suite.yaml --on ray --at s3://")
    cluster = document["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert group["template"]["spec"]["containers"][0]["image"]
        assert "rayStartParams" in group


def test_skypilot() -> None:
    document = yaml.safe_load(block("yaml", "# SkyPilot"))
    assert set(document) == {"name", "num_nodes", "resources", "workdir", "setup", "run"}
    parses(document["run"])
    parses(document["setup"])
    launches(document["run"])
