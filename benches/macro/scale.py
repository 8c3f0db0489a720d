"""One worker against two: does a second one cost the first anything?

With two cores the load has to share them with the workers, so the figure that counts is CPU per request: what workers share
(a lock, a cache line that both write) shows there, and in the switches that a thread makes because it waited for another.

* `1`: one worker on core 0, load and origin on core 1 (the ordinary measurement).
* `2`: two workers, one per core, load and origin on both; what differs from `1` is sharing, and the load's use of the same
  caches. To tell them apart:
* `1+1`: two proxies of one worker each, which share nothing, one per core; the load goes to both as in `2`.

A shared line costs `2` more than `1+1`.
"""

import json
import os
import statistics
import subprocess
import time

from peers import features
from peers.envoy import FLAGS
from scenario import IN, SCENARIOS
from system import cpu_seconds, stop, wait_port

VARIANTS = ["1", "2", "1+1"]
SCENARIO_NAMES = ["S1", "S4c8"]


def run(bench, args, origin):
    found = {}
    for name in SCENARIO_NAMES:
        for number in range(args.rounds):
            for variant in VARIANTS[number % 3:] + VARIANTS[:number % 3]:
                result = measure(bench, args, SCENARIOS[name], variant, origin)
                found.setdefault((name, variant), []).append(result)
                print(number, name, variant, {key: round(value, 2) for key, value in result.items()}, flush=True)
    print("\n| scenario | workers | CPU µs per request | against one | requests/s | switches of a thread per 1,000 requests, involuntary + voluntary |")
    print("|---|---|---|---|---|---|")
    for (name, variant), results in found.items():
        middle = {key: statistics.median(result[key] for result in results) for key in results[0]}
        one = statistics.median(result["cpu_us"] for result in found[name, "1"])
        print(f"| {name} | {variant} | {middle['cpu_us']:.2f} | {middle['cpu_us'] / one:.2f} | {middle['rps']:,.0f} | "
              f"{middle['involuntary']:.1f} + {middle['voluntary']:.1f} |")
    if args.output:
        with open(args.output, "w") as file:
            json.dump({f"{name} {variant}": results for (name, variant), results in found.items()}, file, indent=1)


def measure(bench, args, scenario, variant, origin):
    """CPU per request and requests per second of all proxies together."""
    file = bench.write("scale.json", features.configurations(scenario, bench, True)[0])
    other = features.configurations(scenario, bench, True)[0]
    other["static_resources"]["listeners"][0]["address"] = features.address(IN + 1)
    second = bench.write("scale-second.json", other)
    program = bench.program("outrigger")
    workers = "2" if variant == "2" else "1"
    flags = [*FLAGS[2:], "--concurrency", workers]
    started = [bench.start([program, "-c", file, *flags], "0" if variant != "2" else "0,1")]
    ports = [IN]
    try:
        wait_port(IN, started[0])
        if variant == "1+1":
            started.append(bench.start([program, "-c", second, *flags], "1"))
            wait_port(IN + 1, started[1])
            ports.append(IN + 1)
        if variant == "2":
            pin_workers(started[0].pid)
        cores = {1} if variant == "1" else {0, 1}
        os.sched_setaffinity(origin, cores)
        time.sleep(0.3)
        return load(bench, args, scenario, [process.pid for process in started], ports, cores)
    finally:
        for process in started:
            stop(process)


def pin_workers(pid):
    """Each data thread gets a core of its own, as it would have on a machine with more of them."""
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/comm") as file:
            name = file.read().strip()
        if name in ("outrigger-0", "outrigger-1"):
            os.sched_setaffinity(int(task), {int(name[-1])})


def load(bench, args, scenario, pids, ports, cores):
    """Load on every port at once; for a fair comparison always two generators, each with half of the connections."""
    targets = (ports * 2)[:2]
    counts = [int(option.split("=")[1]) for option in scenario["load"] if option.startswith("conns=")][0]
    options = [option for option in scenario["load"] if not option.startswith("conns=")]
    before, switches = cpu_seconds(pids), context_switches(pids)
    clients = [subprocess.Popen(["taskset", "-c", ",".join(map(str, sorted(cores))), bench.program("load"), "load", f"port={port}", *options,
                                 f"conns={counts // 2}", "warm=0", f"secs={args.secs + args.warm}"], stdout=subprocess.PIPE, text=True)
               for port in targets]
    results = [json.loads(client.communicate()[0]) for client in clients]
    done = sum(result["done"] for result in results)
    failed = sum(result["err"] + result["bad"] for result in results)
    if failed or not done:
        raise SystemExit(f"{failed} of {done} requests failed")
    voluntary, involuntary = (after - was for after, was in zip(context_switches(pids), switches))
    return {"cpu_us": (cpu_seconds(pids) - before) / done * 1e6, "rps": sum(result["rps"] for result in results),
            "voluntary": voluntary / done * 1000, "involuntary": involuntary / done * 1000}


def context_switches(pids):
    """(voluntary, involuntary) of all threads."""
    totals = {"voluntary_ctxt_switches": 0, "nonvoluntary_ctxt_switches": 0}
    for pid in pids:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/status") as file:
                for line in file:
                    name, _, value = line.partition(":")
                    if name in totals:
                        totals[name] += int(value)
    return totals["voluntary_ctxt_switches"], totals["nonvoluntary_ctxt_switches"]
