#!/usr/bin/env python3
"""The real Envoy as a client of our control service, delta and state of the world, with our proxy at the other end of the mTLS, both directions."""
from collections import Counter
from common import *
from mesh import Mesh, application, request, until

SUBSETS = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: b, namespace: demo}
spec: {host: b, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: b, namespace: demo}
spec: {hosts: [b], http: [{route: [{destination: {host: b, subset: v1}, weight: %d}, {destination: {host: b, subset: v2}, weight: %d}]}]}
"""

mesh = Mesh()
ports = {name: (free_port(), free_port()) for name in ("a", "b1", "b2")}
# a and b v2 are Envoy (delta and state of the world), b v1 is ours.
folder_a, channel_a = mesh.member("demo", "a")
folder_b, channel_b = mesh.member("demo", "b")
mesh.register(channel_a, "demo", "a", "v1", "a-1", application("a"), *ports["a"])
mesh.register(channel_b, "demo", "b", "v2", "b-2", application("b-v2"), *ports["b2"])
mesh.envoy("a-1", folder_a, True)
mesh.envoy("b-2", folder_b, False)
mesh.outrigger("demo", "b", "v1", "b-1", application("b-v1"), *ports["b1"])

out = ports["a"][1]
seen = until(lambda: (lambda r: r[0] == 200 and r)(request(out, "b")))
check("Envoy reaches a service by what it was sent", bool(seen), str(seen))
check("the application sees who called", bool(seen) and "spiffe://cluster.local/ns/demo/sa/a" in (seen[1]["caller"] or ""), str(seen))
check("an unknown host is answered by the proxy", request(out, "nowhere")[0] == 502)
both = until(lambda: len({request(out, "b")[1].get("app") for _ in range(8) if request(out, "b")[0] == 200}) == 2)
check("Envoy reaches our proxy and Envoy over mutual TLS", bool(both))
back = until(lambda: request(ports["b1"][1], "a")[0] == 200)
check("our proxy reaches Envoy over mutual TLS", bool(back))
for weights, expected in [((100, 0), {"b-v1"}), ((0, 100), {"b-v2"})]:
    status, answer = mesh.apply(SUBSETS % weights)
    check(f"shift to {weights} is accepted", status == 200, str(answer) if status != 200 else "")
    revision = answer["revision"] if status == 200 and "revision" in answer else 0
    live = until(lambda: {request(out, "b")[1].get("app") for _ in range(10)} == expected, 5)
    check(f"shift to {weights} is live", bool(live), f"revision {revision}")
lost = Counter(request(out, "b")[0] for _ in range(200))
check("no request is lost", set(lost) == {200}, str(lost))
states = {name: p["state"] for name, p in mesh.states().items()}
check("every proxy holds its configuration", bool(until(lambda: all(p["state"] == "SYNCED" for p in mesh.states().values()), 5)), str(states))
finish("envoy")
