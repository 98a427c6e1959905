"""What answers were computed on, beyond the processor's name: its abilities, its governor, the GPUs."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FLAGS = (
    "avx", "avx2", "fma", "f16c", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_tile", "amx_bf16",
    "amx_int8", "sse4_2", "neon", "asimd", "asimddp", "sve", "sve2", "i8mm", "bf16",
)  # fmt: skip
"""Abilities of a processor by which engines choose their code, and so their rounding."""

_GPU_FIELDS = (
    "name",
    "uuid",
    "memory.total",
    "driver_version",
    "power.limit",
    "clocks.max.sm",
    "ecc.mode.current",
)
_TIMEOUT_S = 5.0


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Those of FLAGS that the first processor has, in the order of the list."""
    with contextlib.suppress(OSError), cpuinfo.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features"):
                has = set(value.split())
                return [each for each in FLAGS if each in has]
    return []


def governors(root: Path = Path("/sys/devices/system/cpu")) -> list[str]:
    """The frequency governors in use; empty where the machine does not tell (most virtual ones)."""
    found = set()
    for path in root.glob("cpu[0-9]*/cpufreq/scaling_governor"):
        with contextlib.suppress(OSError):
            found.add(path.read_text().strip())
    return sorted(found)


def gpus(program: str = "nvidia-smi") -> list[dict[str, Any]]:
    """The NVIDIA GPUs as the driver tells them, their serial ids hashed; empty without a driver.

    Memory in MiB, power limit in W, clock in MHz.
    """
    found = shutil.which(program)
    if found is None:
        return []
    command = [found, f"--query-gpu={','.join(_GPU_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return (
        [_gpu(line) for line in done.stdout.splitlines() if line.count(",") >= 1]
        if not done.returncode
        else []
    )


def _gpu(line: str) -> dict[str, Any]:
    values = dict(zip(_GPU_FIELDS, (each.strip() for each in line.split(",")), strict=False))
    return {
        "name": values.get("name", ""),
        "uuid": hashlib.sha256(values.get("uuid", "").encode()).hexdigest()[:16],
        "memory_mib": _number(values, "memory.total"),
        "driver": values.get("driver_version", ""),
        "power_limit_w": _number(values, "power.limit"),
        "clock_max_mhz": _number(values, "clocks.max.sm"),
        "ecc": values.get("ecc.mode.current", ""),
    }


def _number(values: Mapping[str, str], name: str) -> float | None:
    try:
        return float(values.get(name, ""))
    except ValueError:
        return None


LOCK_FILES: Sequence[str] = (
    "uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "pylock.toml", "conda-lock.yml", "environment.yml",
    "requirements.txt", "requirements.lock", "package-lock.json",
)  # fmt: skip


def lock_files(folder: Path, levels: int = 6) -> dict[str, str]:
    """SHA-256 of the files that pin packages, in the folder and those above it up to the repository's root:
    the nearest of each name."""
    found: dict[str, str] = {}
    for each in [folder, *folder.parents][:levels]:
        for name in LOCK_FILES:
            with contextlib.suppress(OSError):
                if name not in found and (each / name).is_file():
                    found[name] = hashlib.sha256((each / name).read_bytes()).hexdigest()
        if (each / ".git").exists():
            break
    return found


def sources_sha256(package: Path) -> str:
    """A digest over all Python files of a package: which code ran, also where it was installed editable."""
    total = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        with contextlib.suppress(OSError):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            total.update(f"{path.relative_to(package).as_posix()}\0{digest}\n".encode())
    return total.hexdigest()
