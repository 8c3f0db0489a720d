"""Do changes of endpoints disturb requests? Latency at a fixed rate without changes and with 1,000 a second.

100 clusters have their endpoints from a control service over delta ADS; one of them has the traffic. Each change is one
cluster's new endpoints, in turn, so that the one with the traffic changes too. Rounds take turns between the two.
"""

import json
import statistics
import subprocess

import install
from peers import features
from peers.envoy import FLAGS
from scenario import BACK, IN
from system import CORE_LOAD, CORE_PROXY, cpu_seconds, realtime, stop, wait_port

CLUSTERS, RATE, UPDATES, XDS = 100, 5000, 1000, 18999
SHOWN = ("p50", "p99", "p999")


def document(bench):
    found = features.configurations(dict(front="h1", up="h1"), bench, True)[0]
    resources = found["static_resources"]
    model = resources["clusters"][0]
    del model["load_assignment"]
    model |= {"type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}}}
    resources["clusters"] += [model | {"name": f"other-{number}"} for number in range(CLUSTERS - 1)]
    resources["clusters"].append(features.static_cluster("control", XDS, "h2"))
    found["dynamic_resources"] = {"ads_config": {"api_type": "DELTA_GRPC", "transport_api_version": "V3",
                                                 "grpc_services": [{"envoy_grpc": {"cluster_name": "control"}}]}}
    return found


def run(bench, args):
    python = install.python("grpcio")
    here = __file__.replace("updates.py", "updates_server.py")
    control = bench.start([python, here, str(XDS), str(BACK["h1"])], CORE_LOAD, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    proxy = None
    try:
        wait_port(XDS, control)
        file = bench.write("updates.json", document(bench))
        proxy = bench.start([bench.program("outrigger"), "-c", file, *FLAGS], CORE_PROXY)
        wait_port(IN, proxy)
        rows = {}
        for _ in range(args.rounds):
            for updates in (0, UPDATES):
                rows.setdefault(updates, []).append(measure(bench, args, proxy, control, updates))
                print(updates, rows[updates][-1], flush=True)
    finally:
        for process in filter(None, (proxy, control)):
            stop(process)
    print(f"\n| changes/s | {' µs | '.join(SHOWN)} µs | proxy's CPU, share of a core | errors |\n|---|" + "---|" * (len(SHOWN) + 2))
    for updates, results in rows.items():
        middle = {key: statistics.median(result[key] for result in results) for key in results[0]}
        print(f"| {updates} | " + " | ".join(f"{middle[key]:.0f}" for key in SHOWN) + f" | {middle['core']:.2f} | {middle['err']:.0f} |")
    if args.output:
        with open(args.output, "w") as out:
            json.dump(rows, out, indent=1)


def measure(bench, args, proxy, control, updates):
    control.stdin.write(f"{updates}\n")
    control.stdin.flush()
    realtime([proxy.pid], True)
    before = cpu_seconds([proxy.pid])
    load = subprocess.run(["taskset", "-c", str(CORE_LOAD), bench.program("load"), "load", f"port={IN}", "conns=16",
                           "warm=0.5", f"secs={args.lat_secs}", f"rate={RATE}"], capture_output=True, text=True, check=True)
    used = cpu_seconds([proxy.pid]) - before
    realtime([proxy.pid], False)
    control.stdin.write("0\n")
    control.stdin.flush()
    said = json.loads(control.stdout.readline())
    if said["refused"] or said["acknowledged"] < said["sent"]:
        raise RuntimeError(f"changes were not taken: {said}")
    result = json.loads(load.stdout)
    return {key: result[key] for key in SHOWN} | {
        "core": used / said["seconds"], "err": result["err"] + result["bad"], "changes_per_second": said["sent"] / said["seconds"]}
