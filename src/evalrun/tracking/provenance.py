"""Where a sweep came from: code, packages, machine, process. Collected in a few dozen milliseconds.

Environment variables are taken by a list of names, never by what is there; everything is scrubbed of
secrets. What cannot be read is left out or recorded as unavailable; collecting never fails.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evalrun._version import __version__
from evalrun.secrets import scrub_json, scrub_url
from evalrun.tracking.events import user_name
from evalrun.tracking.git_state import git_state
from evalrun.tracking.plain import plain

ENVIRONMENT: tuple[str, ...] = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS", "TOKENIZERS_PARALLELISM", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "VLLM_ATTENTION_BACKEND", "VLLM_BATCH_INVARIANT", "GOMP_SPINCOUNT",
    "PYTHONHASHSEED", "PYTHONUTF8", "PYTHONOPTIMIZE", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "CI",
    "GITHUB_ACTIONS", "GITLAB_CI", "HF_HUB_OFFLINE", "HF_ENDPOINT", "TRANSFORMERS_OFFLINE", "VIRTUAL_ENV",
    "CONDA_DEFAULT_ENV", "SLURM_JOB_ID", "SLURM_CPUS_PER_TASK", "EVALRUN_STORE", "EVALRUN_CACHE",
)  # fmt: skip
"""The environment variables that shape results or say where they were made; no others are kept."""

_CI_URLS = (
    "CI_JOB_URL", "BUILD_URL", "CIRCLE_BUILD_URL", "BUILDKITE_BUILD_URL", "TRAVIS_BUILD_WEB_URL",
    "DRONE_BUILD_LINK", "CI_PIPELINE_URL",
)  # fmt: skip
_DISTRIBUTION = re.compile(r"(.+?)-([^-]+)(?:-py\d[\w.]*)?\.(?:dist|egg)-info$")


def collect(argv: Sequence[str], suite_folder: Path) -> dict[str, Any]:
    """Everything about this process and the code around `suite_folder`, as JSON without secrets.

    Safe to call in a thread; most of the time is spent waiting for git.
    """
    parts: dict[str, Any] = {
        "evalrun": __version__,
        "evalrun_sha256": _attempt(lambda: sources_sha256(Path(__file__).parents[1])),
        "argv": [os.fsdecode(os.fsencode(each)) for each in argv],
        "python": _python(),
        "machine": _attempt(machine),
        "gpus": _attempt(gpus),
        "packages": _attempt(packages),
        "llama_cpp": _attempt(llama_cpp_build),
        "lock_files": _attempt(lambda: lock_files(suite_folder)),
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        "ci_url": ci_url(os.environ),
        "user": _attempt(user_name),
        "host": hashlib.sha256(platform.node().encode("utf-8", "replace")).hexdigest()[:16],
        "git": _attempt(lambda: git_state(suite_folder)),
    }
    scrubbed: dict[str, Any] = scrub_json(plain(parts))
    return scrubbed


def packages(path: Sequence[str] | None = None) -> list[dict[str, str]]:
    """Name, version and (where it did not come from an index) source of every installed package, sorted.

    Read from the names of the metadata folders: opening each one's metadata takes ten times as long.
    """
    found: dict[str, dict[str, str]] = {}
    for folder in sys.path if path is None else path:
        with contextlib.suppress(OSError), os.scandir(folder or ".") as entries:
            for entry in entries:
                match = _DISTRIBUTION.match(entry.name)
                if match is None:
                    continue
                name = re.sub(r"[-_.]+", "-", match[1]).lower()
                # The first on the path is the one that is imported.
                found.setdefault(name, {"name": name, "version": match[2], **_source(Path(entry.path))})
    return [found[name] for name in sorted(found)]


def llama_cpp_build() -> dict[str, str] | None:
    """The commit of xllamacpp that the installed wheel was built from; None without it.

    It holds llama.cpp as a submodule, so its commit names llama.cpp's, which the wheels themselves call
    unknown. Read as a text: importing the engine takes long, and it runs in a process of its own.
    """
    spec = importlib.util.find_spec("xllamacpp")
    if spec is None or spec.origin is None:
        return None
    told = dict(re.findall(r'"([\w-]+)": "([^"]*)"', _read_text(Path(spec.origin).with_name("_version.py"))))
    known = {"xllamacpp": told.get("version"), "xllamacpp_commit": told.get("full-revisionid")}
    return {name: value for name, value in known.items() if value}


def machine() -> dict[str, Any]:
    """Processor, memory, operating system, and the limits that a container sets."""
    with contextlib.suppress(OSError):
        system = platform.freedesktop_os_release().get("PRETTY_NAME", "")
        return _hardware() | {"os": system or platform.system()}
    return _hardware() | {"os": platform.platform(terse=True)}


def ci_url(environment: Mapping[str, str]) -> str | None:
    """The address of the CI job that this process runs in, from the variables of the common services."""
    if "GITHUB_RUN_ID" in environment:
        server = environment.get("GITHUB_SERVER_URL", "https://github.com")
        repository = environment.get("GITHUB_REPOSITORY", "")
        return scrub_url(f"{server}/{repository}/actions/runs/{environment['GITHUB_RUN_ID']}")
    if "SYSTEM_TEAMFOUNDATIONSERVERURI" in environment and "BUILD_BUILDID" in environment:
        base = environment["SYSTEM_TEAMFOUNDATIONSERVERURI"].rstrip("/")
        project = environment.get("SYSTEM_TEAMPROJECT", "")
        return scrub_url(f"{base}/{project}/_build/results?buildId={environment['BUILD_BUILDID']}")
    return next((scrub_url(environment[name]) for name in _CI_URLS if environment.get(name)), None)


def cgroup_limits(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> dict[str, Any]:
    """The tightest limits on CPU (in cores) and memory (bytes) from our cgroup up; empty if none are set."""
    group = Path()
    with contextlib.suppress(OSError):
        for line in own.read_text().splitlines():
            number, _, rest = line.partition(":")
            if number == "0":
                group = Path(rest.partition(":")[2].lstrip("/"))
    cpus: list[float] = []
    memory: list[int] = []
    for folder in (root / group, *(root / parent for parent in group.parents)):
        quota, _, period = _read_text(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit():
            cpus.append(int(quota) / int(period))
        limit = _read_text(folder / "memory.max")
        if limit.isdigit():
            memory.append(int(limit))
    old_quota = _read_text(root / "cpu/cpu.cfs_quota_us")
    old_period = _read_text(root / "cpu/cpu.cfs_period_us")
    if old_quota.isdigit() and old_period.isdigit():
        cpus.append(int(old_quota) / int(old_period))
    old_memory = _read_text(root / "memory/memory.limit_in_bytes")
    if old_memory.isdigit() and int(old_memory) < 1 << 60:
        memory.append(int(old_memory))
    limits: dict[str, Any] = {"cpus": min(cpus)} if cpus else {}
    return limits | ({"memory_bytes": min(memory)} if memory else {})


def _hardware() -> dict[str, Any]:
    facts: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cpu_flags": cpu_flags(),
        "governors": governors(),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "architecture": platform.machine(),
        "kernel": f"{platform.system()} {platform.release()}",
        "container": _container(),
        "cgroup_limits": cgroup_limits(),
    }
    with contextlib.suppress(ValueError, OSError):
        facts["memory_bytes"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return facts


def _cpu_model() -> str | None:
    for line in _read_text(Path("/proc/cpuinfo")).splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"model name", "Model", "Hardware"}:
            return value.strip()
    return platform.processor() or None


def _container() -> str | None:
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    if Path("/.dockerenv").exists():
        return "docker"
    return "podman" if Path("/run/.containerenv").exists() else None


def _python() -> dict[str, str]:
    return {
        "version": platform.python_version(),
        "implementation": platform.python_implementation(),
        "executable": sys.executable,
        "build": " ".join(platform.python_build()),
    }


def _source(metadata: Path) -> dict[str, str]:
    with contextlib.suppress(OSError, ValueError):
        direct = json.loads((metadata / "direct_url.json").read_bytes())
        url = direct.get("url") if isinstance(direct, dict) else None
        return {"source": scrub_url(url)} if isinstance(url, str) else {}
    return {}


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def _attempt(collector: Any) -> Any:
    """What the collector finds, or why it could not: a fact that is missing must not cost a sweep."""
    try:
        return collector()
    except Exception as error:
        return {"unavailable": f"{type(error).__name__}: {error}"}


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
