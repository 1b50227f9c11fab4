"""Many clients of ``family serve`` at once: are all answered, how fast, and in how much memory?

    python benchmarks/serve.py RUN [--clients 200] [--seconds 60]

Starts the server at a free port of loopback; each client sends a text, waits for the answer, and sends the next. RUN
is one that classifies texts. Ends with 1 if a request failed or an answer differs from that of one request alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2

TEXTS = [
    f"a {size} {colour} {one} {place} a {other}"
    for size, colour, one, place, other in itertools.product(
        ["small", "large"],
        ["red", "blue", "green"],
        ["circle", "star", "heart"],
        ["left of", "above", "below"],
        ["square", "cross"],
    )
]


def memory_of(pid: int) -> int:
    """Resident megabytes of a process, by Linux."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


async def ask(client: httpx2.AsyncClient, text: str) -> dict[str, Any]:
    answer = await client.post("/api/classify", json={"texts": [text]})
    answer.raise_for_status()
    return answer.json()["answers"][0]


async def measure(address: str, pid: int, clients: int, seconds: float) -> int:
    """Print what came of it; the number of faults."""
    limits = httpx2.Limits(max_connections=clients, max_keepalive_connections=clients)
    took: list[float] = []
    faults: list[str] = []
    memory = [memory_of(pid)]
    async with httpx2.AsyncClient(base_url=address, limits=limits, timeout=60) as client:
        alone = {text: (await ask(client, text)) for text in TEXTS}
        end = time.monotonic() + seconds

        async def work(number: int) -> None:
            for text in itertools.islice(itertools.cycle(TEXTS), number, None):
                if time.monotonic() > end:
                    return
                begun = time.monotonic()
                try:
                    found = await ask(client, text)
                except httpx2.HTTPError as error:
                    faults.append(f"{type(error).__name__} {error}")
                    continue
                took.append(time.monotonic() - begun)
                wanted = alone[text]
                if (
                    found["label"] != wanted["label"]
                    or abs(found["score"] - wanted["score"]) > 1e-4
                ):
                    faults.append(f"{text}: {found} is not {wanted}")

        async def watch() -> None:
            while True:
                await asyncio.sleep(1)
                memory.append(memory_of(pid))

        watching = asyncio.create_task(watch())
        await asyncio.gather(*map(work, range(clients)))
        watching.cancel()
    took.sort()
    print(f"{clients} clients, {seconds:.0f} s: {len(took)} answers, {len(faults)} faults")
    print(
        f"seconds of an answer: median {statistics.median(took):.3f}, 99 % {took[len(took) * 99 // 100]:.3f}"
    )
    print(
        f"memory in MB: {memory[0]} before, {memory[len(memory) // 2]} halfway, {memory[-1]} in the end, {max(memory)} at most"
    )
    print(*faults[:5], sep="\n", end="")
    return len(faults)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    command = [sys.executable, "-m", "tasks.cli", "serve", options.run, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().split()[0]
        try:
            faults = asyncio.run(measure(address, server.pid, options.clients, options.seconds))
        finally:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(20)
            server.kill()
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
