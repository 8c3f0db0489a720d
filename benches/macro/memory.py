"""Memory as a model: what the process takes idle, and what each route, endpoint, cluster and idle connection adds.

Each figure is a difference of resident memory between two processes that differ in one number only (or, for connections,
before and after they were opened), divided by that number. Every figure is the median of `-r` runs.
"""

import json
import statistics
import subprocess
import time

from peers import features
from peers.envoy import FLAGS
from scenario import IN
from system import CORE_LOAD, CORE_PROXY, status_kb, stop, wait_port

ROUTES, ENDPOINTS, CLUSTERS, CONNECTIONS = 10_000, 10_000, 1_000, 4_000
PLAIN = dict(front="h1", up="h1")


def run(bench, args):
    rows = {}

    def row(name, values):
        rows[name] = statistics.median(values)
        print(f"{name}: {rows[name]:,.0f} bytes   ({', '.join(f'{value:,.0f}' for value in values)})", flush=True)

    def each(measure):
        return [measure() for _ in range(args.rounds)]

    base = each(lambda: resident(bench, document(bench)))
    row("idle, one listener and one cluster, features on", base)
    row("idle, a mesh of two services (the demo's size)", each(lambda: resident(bench, demo(bench))))
    row("per route (10,000 virtual hosts of one route)",
        [(value - rows_base) / ROUTES for value, rows_base in zip(each(lambda: resident(bench, routes(bench))), base)])
    row("per route (10,000 prefixes of one virtual host)",
        [(value - rows_base) / ROUTES for value, rows_base in zip(each(lambda: resident(bench, prefixes(bench))), base)])
    row("per cluster of one endpoint (1,000 clusters)",
        [(value - rows_base) / CLUSTERS for value, rows_base in zip(each(lambda: resident(bench, clusters(bench))), base)])
    row("per endpoint (10,000 endpoints of one cluster)",
        [(value - rows_base) / ENDPOINTS for value, rows_base in zip(each(lambda: resident(bench, endpoints(bench))), base)])
    for name, scenario, load in (
        ("per idle connection, plain HTTP/1.1", PLAIN, []),
        ("per idle connection, TLS", PLAIN | {"tls": True}, []),
        ("per idle connection, plain HTTP/2", dict(front="h2", up="h1"), ["proto=h2"]),
        ("per idle connection, TLS, HTTP/2", dict(front="h2", up="h1", tls=True), ["proto=h2"]),
    ):
        row(name, each(lambda: connections(bench, scenario, load)))
    if args.output:
        with open(args.output, "w") as file:
            json.dump(rows, file, indent=1)


def document(bench, scenario=PLAIN):
    return features.configurations(scenario, bench, True)[0]


def routes(bench):
    return document(bench, PLAIN | {"hosts": ROUTES})


def prefixes(bench):
    return document(bench, PLAIN | {"paths": ROUTES})


def clusters(bench):
    found = document(bench)
    one = found["static_resources"]["clusters"][0]
    found["static_resources"]["clusters"] += [
        features.static_cluster(f"c{n}", 29001, "h1") | {key: one[key] for key in ("outlier_detection", "circuit_breakers")}
        for n in range(CLUSTERS)]
    return found


def endpoints(bench):
    found = document(bench)
    found["static_resources"]["clusters"][0]["load_assignment"]["endpoints"][0]["lb_endpoints"] += [
        {"endpoint": {"address": {"socket_address": {"address": f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", "port_value": 80}}}}
        for n in range(ENDPOINTS)]
    return found


def demo(bench):
    """A sidecar's listeners (inbound with mutual TLS, outbound) with a handful of clusters and routes."""
    found = document(bench, PLAIN | {"tls": True})
    outbound = document(bench, PLAIN | {"hosts": 8})["static_resources"]["listeners"][0]
    outbound |= {"name": "outbound", "address": features.address(IN + 10)}
    found["static_resources"]["listeners"].append(outbound)
    found["static_resources"]["clusters"] += [features.static_cluster(f"c{n}", 29001, "h2") for n in range(8)]
    return found


def start(bench, configuration, more=()):
    file = bench.write("memory.json", configuration)
    process = bench.start([bench.program("outrigger"), "-c", file, *FLAGS, *more], CORE_PROXY)
    wait_port(IN, process)
    # What only the start needed has been given back by then.
    time.sleep(1.5)
    return process


def resident(bench, configuration):
    process = start(bench, configuration)
    try:
        return status_kb([process.pid], "VmRSS") * 1024
    finally:
        stop(process)


def connections(bench, scenario, load):
    """Bytes that each of many connections adds, which had one request and are open."""
    process = start(bench, document(bench, scenario))
    base = [f"port={IN}", *load, *(bench.tls_load() if scenario.get("tls") else [])]
    command = [bench.program("load"), "load", *base]
    try:
        subprocess.run([*command, "conns=1", "warm=0.1", "secs=0.2"], check=True, capture_output=True)
        before = status_kb([process.pid], "VmRSS")
        client = bench.start([*command, "idle=1", f"conns={CONNECTIONS}", "secs=60"], CORE_LOAD, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)
        said = json.loads(client.stdout.readline())
        if said["err"]:
            raise SystemExit(f"{said['err']} connections failed")
        time.sleep(1)
        after = status_kb([process.pid], "VmRSS")
        client.stdin.close()
        client.wait()
        return (after - before) * 1024 / CONNECTIONS
    finally:
        stop(process)
