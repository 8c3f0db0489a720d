#!/usr/bin/env python3
"""Outrigger beside other proxies: every scenario, in one run, proxies taking turns within each round.

    cargo bench-proxy [-s S1,S4] [-p outrigger,haproxy,envoy,nginx,traefik,caddy,floor,…] [-r ROUNDS] [-o FILE.json]

Rounds are outermost: after each, every scenario has a result of every peer, so that a run may be ended at any time; with
the same -o it goes on where it was. How it is measured: benches/README.md.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import chart
import install
import report
from measure import measure
from peers import PEERS
from scenario import BACK, ORIGIN, SCENARIOS, USUAL
from system import Bench, CORE_LOAD, isolate, stop, wait_port


def arguments():
    parser = argparse.ArgumentParser(prog="cargo bench-proxy", description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("-s", "--scenarios", default=None, help="default " + ",".join(USUAL) + "; others: " + ",".join(name for name in SCENARIOS if name not in USUAL))
    add("-p", "--peers", default="outrigger,haproxy,envoy", help=f"of {','.join(PEERS)}; default %(default)s")
    add("-r", "--rounds", type=int, default=5, help="default %(default)s")
    add("-o", "--output", help="JSON of all runs; an existing one is continued")
    add("--svg", help="chart of the medians")
    add("--warm", type=float, default=0.5, help="seconds of load before each measurement; default %(default)s")
    add("--secs", type=float, default=1.2, help="seconds of each CPU measurement; default %(default)s")
    add("--lat-secs", type=float, default=2.0, help="seconds of each latency measurement; default %(default)s")
    add("--no-latency", action="store_true", help="CPU only")
    add("--minutes", type=float, help="begin no further run after so many minutes")
    add("--foreign", type=float, default=0.04, help="share of both cores that others may use before a run is made again; default %(default)s")
    add("--no-build", action="store_true", help="take the binaries as they are")
    add("--show", metavar="FILE.json", help="only print the table of an earlier run, or those rows of it that -s names")
    add("--markdown", nargs="?", const=os.path.join(HERE, "../README.md"), metavar="FILE.md",
        help="write the table between the markers of benches/README.md (or FILE.md)")
    add("--memory", action="store_true", help="measure memory instead: idle, per route, endpoint, cluster, connection")
    add("--updates", action="store_true", help="compare latency with and without 1,000 changes of endpoints a second instead")
    add("--scale", action="store_true", help="compare one worker with two instead")
    args = parser.parse_args()
    # What is shown is all there is, unless said otherwise.
    given = args.scenarios.split(",") if args.scenarios else list(SCENARIOS) if args.show else USUAL
    args.scenarios, args.peers = given, args.peers.split(",")
    unknown = [name for name in args.scenarios if name not in SCENARIOS] + [name for name in args.peers if name not in PEERS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; scenarios: {', '.join(SCENARIOS)}; peers: {', '.join(PEERS)}")
    return args


def main():
    args = arguments()
    if args.show:
        with open(args.show) as file:
            data = json.load(file)
        data["runs"] = [run for run in data["runs"] if run["scenario"] in args.scenarios]
        return finish(data, args)
    if os.cpu_count() < 2:
        sys.exit("needs two cores: one for the proxy, one for load and origin")
    tools = {SCENARIOS[name]["tool"] for name in args.scenarios if SCENARIOS[name].get("tool")}
    if args.updates and "BENCH_NAMESPACE" not in os.environ:
        install.python("grpcio")
    # The namespace has no way out, so everything is fetched before.
    programs = {} if "BENCH_NAMESPACE" in os.environ else install.find(args.peers, tools, not args.no_build)
    programs = json.loads(os.environ.setdefault("BENCH_PROGRAMS", json.dumps(programs)))
    isolate()
    bench = Bench(os.environ.get("BENCH_WORK", install.TARGET + "/bench/work"), programs)
    bench.make_certificates()
    origin = bench.start([bench.program("load"), "origin", *ORIGIN], CORE_LOAD)
    try:
        wait_port(BACK["h1"], origin)
        if args.memory:
            import memory
            return memory.run(bench, args)
        if args.updates:
            import updates
            return updates.run(bench, args)
        if args.scale:
            import scale
            return scale.run(bench, args, origin.pid)
        data = runs(bench, args, origin.pid)
    finally:
        stop(origin)
    finish(data, args)
    errors = sum(run.get("err", 0) for run in data["runs"])
    # A table with failed requests is no result.
    sys.exit(f"{errors} requests failed" if errors else 0)


def runs(bench, args, origin):
    """Makes all runs that are not there yet."""
    data = {"meta": meta(bench), "peers": args.peers, "runs": []}
    if args.output and os.path.exists(args.output):
        with open(args.output) as file:
            data = json.load(file)
        data["peers"] = list(dict.fromkeys(data["peers"] + args.peers))
    there = {(run["round"], run["scenario"], run["peer"]) for run in data["runs"]}
    end = time.time() + args.minutes * 60 if args.minutes else float("inf")
    for number in range(args.rounds):
        for name in args.scenarios:
            os.sched_setaffinity(origin, {SCENARIOS[name].get("back_core", CORE_LOAD)})
            turn = number % len(args.peers)
            for peer in args.peers[turn:] + args.peers[:turn]:
                if (number, name, peer) in there or time.time() > end:
                    continue
                try:
                    result = measure(name, peer, args, bench, origin)
                except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                    print(f"{name} {peer}: {error}", file=sys.stderr)
                    result = None
                if result is None:
                    continue
                data["runs"].append({"round": number, "scenario": name, "peer": peer} | result)
                print(number, name, peer, {key: round(value, 2) for key, value in result.items()}, file=sys.stderr, flush=True)
            save(data, args.output)
    return data


def save(data, path):
    """Whole or not at all, so that an interrupted run can be continued."""
    if path:
        with open(path + ".new", "w") as file:
            json.dump(data, file, indent=1)
        os.replace(path + ".new", path)


def finish(data, args):
    """Table, chart, markdown."""
    if not data["runs"]:
        return print("no runs")
    print(report.text(data))
    if args.svg:
        with open(args.svg, "w") as file:
            file.write(chart.svg(data))
    if args.markdown:
        report.write_markdown(data, args.markdown)


def meta(bench):
    """Machine and versions."""
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE).stdout.strip()
    return {"machine": f"{model}, {os.cpu_count()} cores, Linux {platform.release()}", "commit": commit or "unknown",
            "versions": install.versions(bench.programs), "began": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}


if __name__ == "__main__":
    main()
