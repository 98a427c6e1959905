"""Runs one program locked down: a script of its own for `python -I -B`, which imports nothing of evalrun.

Input is one JSON document on stdin: `program`, `memory_bytes`, `cpu_s`, `file_bytes`, `uid` (None: stay who
we are), `readable` (folders), `token`. Only the working folder may be written. On file descriptor `report`
goes one JSON line with what is in force, before the program runs, and one with the token after the program
came to its end. Under the same rights as the program this token keeps nobody from cheating who sets out to.

In force where the system has it, each one said: resource limits; a network namespace without any network; a
user without rights (where we are root); Landlock (Linux 5.13), by which no file outside the named folders can
be read and none outside the working folder written; seccomp, by which no socket, no process and no signal to
others can be made; and Python's audit hooks, which give the clearer messages, and stand alone where the rest
is missing.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 1, 38, 22
_CLONE_NEWUSER, _CLONE_NEWNET, _CLONE_THREAD = 0x10000000, 0x40000000, 0x10000
_EPERM, _ENOSYS = 1, 38

# Landlock (include/uapi/linux/landlock.h): the rights of ABI 1, and the greatest right of each later one.
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}

# Numbers of the system calls that are refused, by machine (arch/x86, include/uapi/asm-generic/unistd.h).
# Network, processes, signals, and what changes namespaces, mounts, other processes or the kernel.
_REFUSED = {
    "x86_64": (
        "41 42 43 44 46 49 50 53 288 307 57 58 59 322 434 62 129 200 234 297 424 101 112 109 155 161 165 166 "
        "169 246 248 249 250 272 298 308 310 311 321 323 425 426 427 428 429 438"
    ),
    "aarch64": (
        "198 199 200 201 202 203 206 211 242 269 221 281 434 129 130 131 138 240 424 117 154 157 51 41 39 40 "
        "142 104 217 218 219 97 241 268 270 271 280 282 425 426 427 428 429 438"
    ),
}
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3 = 435


def main() -> None:
    """Read the order, lock this process down, run the program, report."""
    order = json.loads(sys.stdin.buffer.read())
    report = order["report"]
    in_force, missing = _lock_down(order)
    os.write(report, json.dumps({"in_force": in_force, "missing": missing}).encode() + b"\n")
    token = order.pop("token")
    _run(order.pop("program"))
    sys.stdout.flush()
    os.write(report, json.dumps({"token": token}).encode() + b"\n")
    os._exit(0)


def _run(program: str) -> None:
    """Run it as a script runs, in a namespace of its own; ending early is no success."""
    try:
        exec(compile(program, "<answer>", "exec"), {"__name__": "__main__"})  # noqa: S102 (what it is for)
    except SystemExit as error:
        sys.stderr.write(f"SystemExit: {error.code}\n")
        sys.stderr.flush()
        os._exit(1)
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _lock_down(order: dict[str, Any]) -> tuple[list[str], list[str]]:
    """(what is in force, what could not be had)."""
    steps: list[tuple[str, Callable[[], bool]]] = [
        ("resource limits", lambda: _limits(order)),
        ("no network namespace", _without_network),
        ("unprivileged user", lambda: _drop(order["uid"])),
        ("Landlock", lambda: _landlock(order["readable"])),
        ("seccomp", _seccomp),
        ("audit hooks", lambda: _audit(str(Path.cwd()))),
    ]
    in_force: list[str] = []
    missing: list[str] = []
    for name, step in steps:
        try:
            done = step()
        except (OSError, ValueError, AttributeError):
            done = False
        (in_force if done else missing).append(name)
    return in_force, missing


def _limits(order: dict[str, Any]) -> bool:
    import resource

    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0)
    wanted = {
        resource.RLIMIT_CPU: order["cpu_s"],
        resource.RLIMIT_FSIZE: order["file_bytes"],
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    if sys.platform == "linux":  # elsewhere the limit is not kept, or cannot be set
        wanted[resource.RLIMIT_AS] = order["memory_bytes"]
    for which, value in wanted.items():
        resource.setrlimit(which, (value, value))
    return True


def _without_network() -> bool:
    if sys.platform != "linux":
        return False
    flags = _CLONE_NEWNET if os.getuid() == 0 else _CLONE_NEWNET | _CLONE_NEWUSER
    return bool(_LIBC.unshare(flags) == 0)


def _drop(uid: int | None) -> bool:
    if uid is None:
        return os.getuid() != 0
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    if sys.platform == "linux":  # a change of user clears it
        _LIBC.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0)
    return True


def _landlock(readable: Sequence[str]) -> bool:
    if sys.platform != "linux":
        return False
    abi = _LIBC.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)
    if abi < 1:
        return False
    handled = _RIGHTS[min(abi, max(_RIGHTS))]
    rules = ctypes.create_string_buffer(struct.pack("Q", handled))
    ruleset = _LIBC.syscall(_LANDLOCK_CREATE, rules, ctypes.c_size_t(8), 0)
    if ruleset < 0:
        return False
    # By its relative name: an unprivileged user may not be let through the folders above it.
    _allow(ruleset, ".", handled & ~_EXECUTE)
    for folder in readable:
        _allow(ruleset, folder, _EXECUTE | _READ_FILE | _READ_DIR)
    for device in ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"):
        _allow(ruleset, device, _READ_FILE | _WRITE_FILE)
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    done = _LIBC.syscall(_LANDLOCK_RESTRICT, ruleset, 0) == 0
    os.close(ruleset)
    return bool(done)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not Path(path).is_dir():
        rights &= _EXECUTE | _READ_FILE | _WRITE_FILE
    rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, place))
    _LIBC.syscall(_LANDLOCK_ADD, ruleset, 1, rule, 0)
    os.close(place)


def _seccomp() -> bool:
    """A filter (BPF) that refuses the calls above, and `clone` unless it makes a thread."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in _REFUSED:
        return False
    architecture, refused = _ARCHITECTURE[machine], sorted(map(int, _REFUSED[machine].split()))
    allow, deny, absent = 0x7FFF0000, 0x00050000 | _EPERM, 0x00050000 | _ENOSYS
    code = [
        (0x20, 0, 0, 4),  # load the architecture; another one is refused whole
        (0x15, 1, 0, architecture),
        (0x06, 0, 0, deny),
        (0x20, 0, 0, 0),  # load the call's number
        (0x35, 0, 1, 0x40000000),  # x32 calls on x86_64
        (0x06, 0, 0, deny),
        (0x15, 0, 1, _CLONE3),  # its flags cannot be seen; without it clone is used
        (0x06, 0, 0, absent),
        (0x15, 0, 4, _CLONE[machine]),
        (0x20, 0, 0, 16),  # load the flags
        (0x45, 1, 0, _CLONE_THREAD),
        (0x06, 0, 0, deny),
        (0x06, 0, 0, allow),
    ]
    for number in refused:
        code += [(0x15, 0, 1, number), (0x06, 0, 0, deny)]
    code.append((0x06, 0, 0, allow))
    filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in code))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(filters)))
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return bool(_LIBC.prctl(_PR_SET_SECCOMP, 2, program, 0, 0) == 0)


_FORBIDDEN = (
    "socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty",
    "os.kill", "os.killpg", "os.chmod", "os.chown", "pty.", "ftplib.", "smtplib.", "urllib.Request",
)  # fmt: skip
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")


def _audit(folder: str) -> bool:
    inside = os.path.realpath(folder) + os.sep

    def within(path: object) -> bool:
        if not isinstance(path, str | bytes):
            return True
        return os.path.realpath(os.fsdecode(path)).startswith(inside)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event.startswith(_FORBIDDEN):
            raise PermissionError(f"{event} is not allowed here")
        if event == "open":
            path, mode, flags = args
            writes = bool((flags or 0) & _WRITES) or bool(set(str(mode or "")) & set("wax+"))
            if writes and not within(path) and path != os.devnull:
                raise PermissionError(f"writing {path!r} is not allowed: only in the working folder")
            if isinstance(path, str) and path.startswith("/proc/"):
                raise PermissionError(f"reading {path!r} is not allowed")
        elif event in _CHANGES and not all(map(within, args[:2])):
            raise PermissionError(f"{event} is not allowed outside of the working folder")

    sys.addaudithook(hook)
    return True


if __name__ == "__main__":
    main()
