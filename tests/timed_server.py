"""A streaming server in a process of its own that writes chunks on a script and remembers when it wrote them.

    python timed_server.py        prints its port, serves until its standard input closes

The last message of a request is the script, as JSON: {"id": …, "steps": [[wait_s, kind, value], …]} with the
kinds role, text, reasoning, counted (text with the usage so far), finish, usage, done, error, break, whole.
GET /truth gives {id: {"received": ns, "writes": [[kind, ns], …]}} by the clock of `time.perf_counter_ns`,
which all processes of a machine share on Linux.
"""

from __future__ import annotations

import asyncio
import json
import sys
from time import perf_counter_ns
from typing import Any

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
TRUTH: dict[str, dict[str, Any]] = {}


def event(kind: str, value: Any) -> bytes:
    """The bytes of one event of the stream."""
    choice: dict[str, Any] = {"index": 0, "delta": {}, "finish_reason": None}
    chunk: dict[str, Any] = {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}
    if kind == "done":
        return b"data: [DONE]\n\n"
    if kind == "error":
        chunk = {"error": {"message": value, "type": "server_error", "code": 500}}
    elif kind == "role":
        choice["delta"] = {"role": "assistant", "content": ""}
    elif kind == "text":
        choice["delta"] = {"content": value}
    elif kind == "reasoning":
        choice["delta"] = {"reasoning_content": value}
    elif kind == "counted":
        choice["delta"] = {"content": value[0]}
        chunk["usage"] = {"prompt_tokens": 9, "completion_tokens": value[1], "total_tokens": 9 + value[1]}
    elif kind == "finish":
        choice["finish_reason"] = "stop"
    elif kind == "usage":
        chunk |= {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": value}}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


async def play(writer: asyncio.StreamWriter, truth: dict[str, Any], steps: list[list[Any]]) -> bool:
    """Write the steps of one answer; whether the connection lives on."""
    streaming = steps[0][1] != "whole"
    if streaming:
        writer.write(HEAD)
    start = asyncio.get_running_loop().time()
    due = 0.0
    for wait_s, kind, value in steps:
        due += wait_s
        await asyncio.sleep(start + due - asyncio.get_running_loop().time())
        if kind == "break":
            writer.transport.abort()
            return False
        if kind == "whole":
            message = {"role": "assistant", "content": value}
            choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
            usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
            body = json.dumps({"choices": choices, "usage": usage}).encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            data = head.encode() + body
        else:
            body = event(kind, value)
            data = b"%x\r\n%b\r\n" % (len(body), body)
        truth["writes"].append((kind, perf_counter_ns()))
        writer.write(data)
        await writer.drain()
    if streaming:
        writer.write(b"0\r\n\r\n")
    return True


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection."""
    alive = True
    try:
        while alive:
            head = await reader.readuntil(b"\r\n\r\n")
            length = 0
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            body = await reader.readexactly(length)
            received = perf_counter_ns()
            if head.startswith(b"GET"):
                answer = json.dumps(TRUTH if b"/truth" in head.split()[1] else {"data": []}).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                    % (len(answer), answer)
                )
                continue
            script = json.loads(json.loads(body)["messages"][-1]["content"])
            truth = TRUTH[script["id"]] = {"received": received, "writes": []}
            alive = await play(writer, truth, script["steps"])
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**22)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
