"""One run: a proxy, a scenario, figures."""

import json
import re
import resource
import subprocess
import time

import peers
from scenario import IN, SCENARIOS, hops
from system import CORE_LOAD, CORE_PROXY, busy_seconds, cpu_seconds, realtime, status_kb, stop, tree, wait_port

TRIES = 3  # a run that others disturbed is made again, so often


def measure(name, peer, args, bench, origin):
    """The figures of one run, or None where the peer cannot serve the scenario."""
    scenario = SCENARIOS[name]
    commands = peers.PEERS[peer](scenario, bench)
    if commands is None:
        return None
    started = [bench.start(argv, CORE_PROXY) for argv in reversed(commands)]
    try:
        for hop, process in zip(hops(scenario), reversed(started)):
            wait_port(hop[0], process)
        time.sleep(0.3)
        pids = [pid for process in started for pid in tree(process.pid)]
        run = Run(bench, args, scenario, pids, origin)
        if scenario.get("idle"):
            return run.idle()
        if scenario.get("tool"):
            return run.quiet(lambda: run.tool(scenario["tool"]))
        return run.load()
    finally:
        for process in started:
            stop(process)


class Run:
    """A proxy that runs, ready to be measured."""

    def __init__(self, bench, args, scenario, pids, origin):
        self.bench, self.args, self.scenario, self.pids, self.origin = bench, args, scenario, pids, origin
        self.base = [f"port={IN}", *scenario.get("load", []), *(bench.tls_load() if scenario.get("tls") else [])]

    def quiet(self, make):
        """A run that others disturbed is made again; the last one is kept and marked."""
        for _ in range(TRIES):
            result = make()
            if result["foreign"] <= self.args.foreign:
                break
        return result | {"noisy": int(result["foreign"] > self.args.foreign)}

    def idle(self):
        """Memory per connection that had one request and is open."""
        self.once([*self.base, "conns=1", "warm=0.1", "secs=0.2"])
        before = status_kb(self.pids, "VmRSS")
        count = self.scenario["idle"]
        load = self.bench.start([self.bench.program("load"), "load", *self.base, "idle=1", f"conns={count}", "secs=90"],
                                CORE_LOAD, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        said = json.loads(load.stdout.readline())
        time.sleep(1)
        after = status_kb(self.pids, "VmRSS")
        load.stdin.close()
        load.wait()
        return {"rss_idle_kb": before, "kb_per_conn": (after - before) / count, "err": said["err"], "foreign": 0, "noisy": 0}

    def load(self):
        """CPU per request as fast as it goes, then latency at a fixed rate."""
        args = self.args
        idle = status_kb(self.pids, "VmRSS")
        run = self.quiet(lambda: self.once([*self.base, f"warm={args.warm}", f"secs={args.secs}"]))
        result = {key: run[key] for key in ("rps", "cpu_us", "foreign", "noisy", "full", "resumed")}
        result["err"] = run["err"] + run["bad"]
        result["user_us"] = run["cpu_us"] * run["user"]
        result["load_us"] = run["own_cpu_s"] / max(run["done"], 1) * 1e6
        result["core"] = run["proxy_cpu_s"] / run["secs"]
        result["mb_per_s"] = run["bytes"] / run["secs"] / 1e6
        if self.scenario["rate"] and not args.no_latency:
            at_rate = [*self.base, f"warm={args.warm}", f"secs={args.lat_secs}", f"rate={self.scenario['rate']}"]
            run = self.quiet(lambda: self.once(at_rate, fifo=True))
            result |= {key: run[key] for key in ("p50", "p99", "p999")}
            result |= {"cpu_us_rate": run["cpu_us"], "err": result["err"] + run["err"] + run["bad"],
                       "noisy": result["noisy"] + run["noisy"]}
        return result | {"rss_idle_kb": idle, "rss_peak_kb": status_kb(self.pids, "VmHWM")}

    def once(self, options, fifo=False):
        """One run of our own load generator."""
        fifo = realtime([*self.pids, self.origin], fifo) and fifo
        command = [*(["chrt", "-f", "1"] if fifo else []), "taskset", "-c", str(CORE_LOAD), self.bench.program("load"), "load",
                   *options, "watch=" + ",".join(map(str, self.pids))]
        watched = [*self.pids, self.origin]
        busy, cpu, began = busy_seconds(), cpu_seconds(watched), time.time()
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        wall = time.time() - began
        try:
            result = json.loads(done.stdout)
        except ValueError:
            raise RuntimeError(f"load: {done.stdout[-300:]} {done.stderr[-300:]}") from None
        # A machine too busy to let the load run at all has measured nothing; `foreign` says so.
        result["secs"] = max(result["secs"], 1e-3)
        own = result["own_cpu_s"] * wall / result["secs"]
        return result | {"foreign": foreign(busy, cpu_seconds(watched) - cpu + own, wall)}

    def tool(self, tool):
        """The same with somebody else's load generator: warmed up by a run of its own."""
        url = f"http://127.0.0.1:{IN}/"

        def command(seconds):
            load = {"wrk": ["wrk", "-t1", "-c64", f"-d{seconds}s", url],
                    "h2load": ["h2load", "-t1", "-c1", "-m100", "-D", str(seconds), url]}[tool]
            return ["taskset", "-c", str(CORE_LOAD), *load]

        realtime([*self.pids, self.origin], False)
        subprocess.run(command(1), capture_output=True, check=True)
        busy, others, began = busy_seconds(), cpu_seconds([self.origin]), time.time()
        cpu = cpu_seconds(self.pids)
        seconds = max(1, round(self.args.secs))
        children = children_seconds()
        text = subprocess.run(command(seconds), capture_output=True, text=True, check=True).stdout
        wall, used = time.time() - began, cpu_seconds(self.pids) - cpu
        requests, errors = PARSE[tool](text)
        ours = used + cpu_seconds([self.origin]) - others + children_seconds() - children
        return {"rps": requests / seconds, "cpu_us": used / max(requests, 1) * 1e6, "err": errors + (requests == 0),
                "foreign": foreign(busy, ours, wall)}


def foreign(busy_before, ours, wall):
    """Share of both cores that went to processes that are not ours."""
    return round(max(0.0, busy_seconds() - busy_before - ours) / (2 * wall), 3)


def children_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def parse_wrk(text):
    requests = int(re.search(r"(\d+) requests in", text).group(1))
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    return requests, (sum(map(int, errors.groups())) if errors else 0) + (int(bad.group(1)) if bad else 0)


def parse_h2load(text):
    found = re.search(r"requests: .*? (\d+) succeeded, (\d+) failed, (\d+) errored", text)
    return int(found.group(1)), int(found.group(2)) + int(found.group(3))


PARSE = {"wrk": parse_wrk, "h2load": parse_h2load}
