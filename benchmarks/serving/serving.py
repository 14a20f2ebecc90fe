"""A server on this machine against `predict_many` on the same clips; more load than it bears; stopping and starting under load.

    python -m benchmarks.serving.serving > benchmarks/serving/serving.json

The server is a process of its own, asked over the loopback by this one. Rounds of both are interleaved. Takes about three minutes.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import httpx2

import fewframes
from benchmarks.harness import ROOT, least_median_most, ratios, resident_bytes, write_result
from fewframes.core.process import keep_memory

CLIPS = [ROOT / "examples" / name for name in ("hug.mp4", "kick.mp4")]
ROUNDS, CLIPS_A_ROUND, CLIENTS = 4, 12, 6
WORKERS, WAITING, MANY_CLIENTS, OVERLOAD_S = 4, 8, 30, 30.0
OPTIONS = ("--device", "cpu", "--dtype", "float32", "--workers", str(WORKERS), "--max-waiting", str(WAITING))
STOPPED_REQUESTS = 30
PORT = 18765
"""Below those that systems give to clients: one that knocks while nobody listens may be connected to itself."""
TICKS = os.sysconf("SC_CLK_TCK")


class Server:
    """`fewframes serve` in a process of its own."""

    def __init__(self, port: int, options: Sequence[str] = OPTIONS) -> None:
        words = ["serve", "--port", str(port), *options]
        command = [sys.executable, "-c", "from fewframes.cli.main import main; main()", *words]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self.url = ""
        while not self.url:
            line = self.process.stderr.readline()
            assert line, "the server did not start"
            self.url = found[0] if (found := re.findall(r"http://[\d.:]+", line)) else ""

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def cpu_s(self) -> float:
        parts = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(parts[11]) + int(parts[12])) / TICKS

    def resident_mb(self) -> float:
        return resident_bytes(self.process.pid) / 1e6

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


async def ask(client: httpx2.AsyncClient, number: int) -> httpx2.Response:
    clip = CLIPS[number % len(CLIPS)]
    return await client.post("/v1/predict", files={"file": (clip.name, clip.read_bytes())})


def client_of(url: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=url, timeout=120, trust_env=False)


async def in_parallel(num_clients: int, work: Callable[[int], Awaitable[bool]]) -> None:
    """Clients that each do the next piece of work until one says that there is none."""
    numbers = iter(range(10**9))

    async def one() -> None:
        while await work(next(numbers)):
            pass

    await asyncio.gather(*(one() for _ in range(num_clients)))


async def sustained(server: Server) -> None:
    async with client_of(server.url) as client:

        async def work(number: int) -> bool:
            if number < CLIPS_A_ROUND:
                assert (await ask(client, number)).status_code == 200
            return number < CLIPS_A_ROUND

        await in_parallel(CLIENTS, work)


def throughput(server: Server) -> dict[str, object]:
    keep_memory()  # as the command does
    predictor = fewframes.load(device="cpu", dtype="float32")
    clips = [str(CLIPS[number % len(CLIPS)]) for number in range(CLIPS_A_ROUND)]
    list(predictor.predict_many(clips[:4]))
    asyncio.run(sustained(server))
    wall: dict[str, list[float]] = {"offline": [], "served": []}
    cpu: dict[str, list[float]] = {"offline": [], "served": []}
    for _ in range(ROUNDS):
        began, began_cpu = time.perf_counter(), time.process_time()
        assert len(list(predictor.predict_many(clips))) == len(clips)
        wall["offline"].append(len(clips) / (time.perf_counter() - began))
        cpu["offline"].append((time.process_time() - began_cpu) / len(clips))
        began, began_cpu = time.perf_counter(), server.cpu_s()
        asyncio.run(sustained(server))
        wall["served"].append(len(clips) / (time.perf_counter() - began))
        cpu["served"].append((server.cpu_s() - began_cpu) / len(clips))
    return {
        "rounds": ROUNDS,
        "clips a round": CLIPS_A_ROUND,
        "clients": CLIENTS,
        "videos/s offline": least_median_most(wall["offline"]),
        "videos/s served": least_median_most(wall["served"]),
        "served / offline, by the clock": least_median_most(ratios(wall["served"], wall["offline"])),
        "processor s a video offline": least_median_most(cpu["offline"]),
        "processor s a video served": least_median_most(cpu["served"]),
        "served / offline, processor time": least_median_most(ratios(cpu["served"], cpu["offline"])),
    }


async def overload(server: Server) -> dict[str, object]:
    seconds: dict[int, list[float]] = {}
    memory = [server.resident_mb()]
    ends = time.perf_counter() + OVERLOAD_S
    async with client_of(server.url) as client:

        async def work(number: int) -> bool:
            began = time.perf_counter()
            answer = await ask(client, number)
            seconds.setdefault(answer.status_code, []).append(time.perf_counter() - began)
            if answer.status_code == 429:
                await asyncio.sleep(0.5)
            elif len(seconds[200]) % 20 == 0:
                memory.append(server.resident_mb())
            return time.perf_counter() < ends

        await in_parallel(MANY_CLIENTS, work)
    memory.append(server.resident_mb())
    total = sum(map(len, seconds.values()))
    return {
        "clients": MANY_CLIENTS,
        "workers": WORKERS,
        "may wait": WAITING,
        "requests": total,
        "answers": {str(status): len(found) for status, found in sorted(seconds.items())},
        "refused share": round(len(seconds.get(429, [])) / total, 3),
        "answered a second": round(len(seconds[200]) / OVERLOAD_S, 2),
        **{f"{name} s": quantiles(seconds[status]) for status, name in ((200, "answered"), (429, "refused"))},
        "resident MB": [round(value) for value in memory],
    }


def quantiles(seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {"p50": round(cuts[49], 3), "p99": round(cuts[98], 3), "max": round(max(seconds), 3)}


async def restarted(first: Server, number: signal.Signals) -> tuple[dict[str, object], Server]:
    """Every client asks again what was refused or broke off; the server is stopped in the middle and started anew."""
    tries: Counter[str] = Counter()
    servers = [first]
    done = 0
    async with client_of(first.url) as client:

        async def work(number_asked: int) -> bool:
            nonlocal done
            while number_asked < STOPPED_REQUESTS:
                try:
                    status = (await ask(client, number_asked)).status_code
                    tries[str(status)] += 1
                    if status == 200:
                        done += 1
                        return True
                except httpx2.ConnectError:
                    tries["nobody listens"] += 1
                except httpx2.TransportError as error:
                    tries[f"broken off ({type(error).__name__})"] += 1
                await asyncio.sleep(0.3)
            return False

        async def restart() -> None:
            while done < STOPPED_REQUESTS // 4:
                await asyncio.sleep(0.05)
            began = time.perf_counter()
            code = await asyncio.to_thread(first.stop, number)
            tries["exit code"] = code
            tries["ms to stop"] = round(1000 * (time.perf_counter() - began))
            servers.append(await asyncio.to_thread(Server, first.port))

        await asyncio.gather(in_parallel(CLIENTS, work), restart())
    return {"requests": STOPPED_REQUESTS, "answered in the end": done, **tries}, servers[-1]


def main() -> None:
    found: dict[str, object] = {}

    def keep(name: str, values: dict[str, object]) -> None:
        found[name] = values | {"load of the machine": round(os.getloadavg()[0], 1)}
        print(name, json.dumps(found[name]), file=sys.stderr, flush=True)

    server = Server(PORT)
    try:
        keep("throughput", throughput(server))
        keep("overload", asyncio.run(overload(server)))
        for number in (signal.SIGTERM, signal.SIGKILL):
            values, server = asyncio.run(restarted(server, number))
            keep(f"{number.name} under load", values)
    finally:
        server.stop()
    write_result(**found)


if __name__ == "__main__":
    main()
