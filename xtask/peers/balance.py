#!/usr/bin/env python3
"""The same clusters and requests through the real Envoy and through us: which host answers, how load is shared, and which hosts are in use."""
import http.client, threading, urllib.request
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from common import *

LB = "type.googleapis.com/envoy.extensions.load_balancing_policies."
HEALTH = {}
HOSTS = 6


class Origin(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one write: the second of two would wait for the first one's acknowledgement

    def do_GET(self):
        state = HEALTH.get(self.server.server_port, {})
        status = state.get("status", 200) if self.path == "/health" else 200
        if self.path == "/fail":
            status = 500 if state.get("fails") else 200
        body = str(self.server.number).encode()
        self.send_response(status)
        if self.path == "/health":
            for name in state.get("headers", []):
                self.send_header(name, "1")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_):
        pass


def origin(number):
    server = ThreadingHTTPServer(("127.0.0.1", free_port()), Origin)
    server.handle_error = lambda *_: None  # a peer that ends takes its connections with it
    server.number, server.daemon_threads = number, True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


PORTS = [origin(n) for n in range(HOSTS)]
DEAD = free_port()


def endpoint(port, weight=1, key=None, hostname=None, **more):
    e = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}} | more, "load_balancing_weight": weight}
    if hostname:
        e["endpoint"]["hostname"] = hostname
    if key:
        e["metadata"] = {"filter_metadata": {"envoy.lb": {"hash_key": key}}}
    return e


def made(name, places, **settings):
    """A cluster; `places` are (locality weight, endpoints)."""
    localities = [{"lb_endpoints": endpoints, "locality": {"zone": str(i)}} | ({"load_balancing_weight": weight} if weight else {})
                  for i, (weight, endpoints) in enumerate(places)]
    return {"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": {"cluster_name": name, "endpoints": localities}} | settings


def extension(kind, **config):
    return {"load_balancing_policy": {"policies": [{"typed_extension_config": {"name": "x", "typed_config": {"@type": LB + kind} | config}}]}}


PLAIN = [(None, [endpoint(p) for p in PORTS])]
WEIGHTS = [(None, [endpoint(p, 1 + n) for n, p in enumerate(PORTS)])]
ZONES = [(1, [endpoint(p) for p in PORTS[:2]]), (3, [endpoint(p, 1 + n) for n, p in enumerate(PORTS[2:])])]
KEYS = [(None, [endpoint(p, key=f"key-{n}") for n, p in enumerate(PORTS)])]
NAMES = [(None, [endpoint(p, hostname=f"host-{n}.example") for n, p in enumerate(PORTS)])]
BY_WEIGHT = {"common_lb_config": {"locality_weighted_lb_config": {}}}
BY_NAME = {"common_lb_config": {"consistent_hashing_lb_config": {"use_hostname_for_hashing": True}}}
HEADER = [{"header": {"header_name": "x-key"}}]

# name, cluster, hash policy of its route
HASHED = [
    ("ring", made("ring", PLAIN, lb_policy="RING_HASH"), HEADER),
    ("ring-murmur", made("ring-murmur", PLAIN, lb_policy="RING_HASH", ring_hash_lb_config={"hash_function": "MURMUR_HASH_2"}), HEADER),
    ("ring-small", made("ring-small", WEIGHTS, lb_policy="RING_HASH", ring_hash_lb_config={"minimum_ring_size": 3, "maximum_ring_size": 20}), HEADER),
    ("ring-weights", made("ring-weights", WEIGHTS, lb_policy="RING_HASH"), HEADER),
    ("ring-zones", made("ring-zones", ZONES, lb_policy="RING_HASH", **BY_WEIGHT), HEADER),
    ("ring-keys", made("ring-keys", KEYS, lb_policy="RING_HASH"), HEADER),
    ("ring-names", made("ring-names", NAMES, type="STRICT_DNS", dns_lookup_family="V4_ONLY", lb_policy="RING_HASH", **BY_NAME), HEADER),
    ("ring-extension", made("ring-extension", PLAIN, **extension("ring_hash.v3.RingHash", minimum_ring_size=100, hash_function="XX_HASH")), HEADER),
    ("maglev", made("maglev", PLAIN, lb_policy="MAGLEV"), HEADER),
    ("maglev-weights", made("maglev-weights", WEIGHTS, lb_policy="MAGLEV", maglev_lb_config={"table_size": 1009}), HEADER),
    ("maglev-zones", made("maglev-zones", ZONES, lb_policy="MAGLEV", **BY_WEIGHT), HEADER),
    ("maglev-extension", made("maglev-extension", KEYS, **extension("maglev.v3.Maglev", table_size=10007)), HEADER),
    ("two-headers", made("two-headers", PLAIN, lb_policy="MAGLEV"), HEADER + [{"header": {"header_name": "x-more"}}]),
    ("terminal", made("terminal", PLAIN, lb_policy="MAGLEV"), [HEADER[0] | {"terminal": True}, {"header": {"header_name": "x-more"}}]),
    ("rewritten", made("rewritten", PLAIN, lb_policy="MAGLEV"),
     [{"header": {"header_name": "x-key", "regex_rewrite": {"pattern": {"regex": "key-(\\d)\\d*"}, "substitution": "\\1"}}}]),
    ("cookie", made("cookie", PLAIN, lb_policy="MAGLEV"), [{"cookie": {"name": "sid"}}]),
    ("query", made("query", PLAIN, lb_policy="MAGLEV"), [{"query_parameter": {"name": "q"}}]),
    ("source", made("source", PLAIN, lb_policy="MAGLEV"), [{"connection_properties": {"source_ip": True}}]),
    ("path", made("path", PLAIN, lb_policy="MAGLEV"), [{"header": {"header_name": ":path"}}]),
]
SHARED = [
    ("round-robin", made("round-robin", WEIGHTS)),
    ("least-request", made("least-request", PLAIN, lb_policy="LEAST_REQUEST")),
    ("least-bias", made("least-bias", WEIGHTS, lb_policy="LEAST_REQUEST", least_request_lb_config={"active_request_bias": {"default_value": 0.5, "runtime_key": "b"}})),
    ("random", made("random", WEIGHTS, lb_policy="RANDOM")),
    ("zones", made("zones", ZONES, **BY_WEIGHT)),
]
VERSIONS = [(None, [endpoint(p, **{}) | {"metadata": {"filter_metadata": {"envoy.lb": {"version": str(n % 3), "tags": ["a", n % 2]} | ({"stage": "prod"} if n < 4 else {})}}}
                       for n, p in enumerate(PORTS)])]


def divided(fallback, **more):
    return {"lb_subset_config": {"fallback_policy": fallback, "default_subset": {"stage": "prod"},
                                 "subset_selectors": [{"keys": ["version"]}, {"keys": ["stage", "version"]}, {"keys": ["tags"]}]} | more}


# name, cluster, what the route demands
DIVIDED = [(f"{cluster}-{i}", made(f"{cluster}-{i}", VERSIONS, **settings), demand)
           for cluster, settings in [("none", divided("NO_FALLBACK")), ("any", divided("ANY_ENDPOINT")), ("default", divided("DEFAULT_SUBSET")),
                                     ("lists", divided("NO_FALLBACK", list_as_any=True)), ("panic", divided("DEFAULT_SUBSET", default_subset={"stage": "x"}, panic_mode_any=True)),
                                     ("ring-subset", divided("DEFAULT_SUBSET") | {"lb_policy": "RING_HASH"})]
           for i, demand in enumerate([None, {"version": "1"}, {"version": "1", "stage": "prod"}, {"version": "7"}, {"stage": "prod"}, {"tags": "a"}, {"tags": ["a", 1]}, {"version": 1}])]
NEVER = {"common_lb_config": {"healthy_panic_threshold": {"value": 0}}}


def checked(name, probe, ports=PORTS, **settings):
    times = {"timeout": "0.5s", "interval": "0.1s", "no_traffic_interval": "0.1s", "unhealthy_threshold": 2, "healthy_threshold": 2}
    return made(name, [(None, [endpoint(p) for p in ports])], health_checks=[times | probe], **(NEVER | settings))


HTTP = {"http_health_check": {"path": "/health", "expected_statuses": [{"start": 200, "end": 202}], "retriable_statuses": [{"start": 503, "end": 504}]}}
OUTLIER = {"consecutive_5xx": 2, "interval": "600s", "base_ejection_time": "600s"}
HEALTHS = [
    ("hc-http", checked("hc-http", HTTP, PORTS + [DEAD])),
    ("hc-tcp", checked("hc-tcp", {"tcp_health_check": {}}, PORTS + [DEAD])),
    ("hc-panic", checked("hc-panic", HTTP, common_lb_config={"healthy_panic_threshold": {"value": 100}})),
    ("hc-off", made("hc-off", [(None, [endpoint(PORTS[0], health_check_config={"disable_active_health_check": True}),
                                       endpoint(PORTS[1], health_check_config={"port_value": PORTS[2]})])],
                    health_checks=checked("x", HTTP)["health_checks"], **NEVER)),
    ("outlier", made("outlier", PLAIN, outlier_detection=OUTLIER)),
    ("outlier-one", made("outlier-one", PLAIN, outlier_detection=OUTLIER | {"always_eject_one_host": True})),
    ("outlier-half", made("outlier-half", PLAIN, outlier_detection=OUTLIER | {"max_ejection_percent": 50})),
    ("outlier-back", checked("outlier-back", HTTP, outlier_detection=OUTLIER | {"max_ejection_percent": 100})),
    ("outlier-stays", checked("outlier-stays", HTTP, outlier_detection=OUTLIER | {
        "max_ejection_percent": 100, "successful_active_health_check_uneject_host": False})),
]


def bootstrap(port):
    vhosts = []
    for name, cluster, policy in HASHED + [(n, c, None) for n, c in SHARED + HEALTHS]:
        host = vhost(name, [name], name)
        if policy:
            host["routes"][0]["route"]["hash_policy"] = policy
        vhosts.append(host)
    for name, _, demand in DIVIDED:
        host = vhost(name, [name], name)
        if demand:
            host["routes"][0]["route"]["metadata_match"] = {"filter_metadata": {"envoy.lb": demand}}
        vhosts.append(host)
    vhosts.append(vhost("made", ["made"], "ring"))
    vhosts[-1]["routes"][0]["route"]["hash_policy"] = [
        {"cookie": {"name": "sid", "ttl": "60s", "path": "/p", "attributes": [{"name": "SameSite", "value": "Lax"}]}}]
    return {"static_resources": {"listeners": [listener("in", port, vhosts)],
                                 "clusters": [c for _, c, *_ in HASHED + SHARED + HEALTHS + DIVIDED]}}


def placed(name, counts, **settings):
    """Hosts in zones: so many in zone a, b, c; of one fixed order, so that zones differ in their hosts."""
    free = iter(PORTS)
    localities = [{"locality": {"zone": "abc"[i]}, "lb_endpoints": [endpoint(next(free)) for _ in range(count)]} for i, count in enumerate(counts) if count]
    return {"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": {"cluster_name": name, "endpoints": localities}} | settings


def kept(**rules):
    return {"common_lb_config": {"zone_aware_lb_config": rules}}


def forced(**rules):
    return extension("round_robin.v3.RoundRobin", locality_lb_config={"zone_aware_lb_config": {"force_locality_direct_routing": True} | rules})


# name, hosts of the cluster by zone, settings; proxies are two in zone a (one of them this one), two in zone b and one in zone c
KEPT = [
    ("even", (3, 3, 0), {}), ("few", (1, 4, 1), {}), ("spare", (2, 2, 2), {}), ("none-here", (0, 3, 3), {}), ("small", (2, 3, 0), {}), ("lone", (6, 0, 0), {}),
    ("least", (1, 5, 0), {"lb_policy": "LEAST_REQUEST"}), ("random", (1, 4, 1), {"lb_policy": "RANDOM"}), ("hashed", (1, 5, 0), {"lb_policy": "RING_HASH"}),
    ("rules", (1, 1, 0), kept(min_cluster_size=2)), ("half", (3, 3, 0), kept(routing_enabled={"value": 50})), ("off", (3, 3, 0), kept(routing_enabled={"value": 0})),
    ("forced", (1, 5, 0), forced()), ("forced-none", (0, 3, 3), forced()),
    ("extension", (3, 3, 0), extension("least_request.v3.LeastRequest", locality_lb_config={"zone_aware_lb_config": {"routing_enabled": {"value": 50}}})),
]


def zone_bootstrap(port):
    clusters = [placed(name, counts, **settings) for name, counts, settings in KEPT]
    for name, fails in (("panic", False), ("panic-fails", True)):
        clusters.append(placed(name, (3, 3, 0), **kept(fail_traffic_on_panic=fails)))
        for locality in clusters[-1]["load_assignment"]["endpoints"]:
            for one in locality["lb_endpoints"][:2]:
                one["health_status"] = "UNHEALTHY"
    clusters.append(placed("sick-here", (2, 4, 0), **forced(min_cluster_size=1)))
    for one in clusters[-1]["load_assignment"]["endpoints"][0]["lb_endpoints"]:
        one["health_status"] = "UNHEALTHY"
    names = [c["name"] for c in clusters]
    return {"node": {"id": "peer", "cluster": "peers", "locality": {"zone": "a"}}, "cluster_manager": {"local_cluster_name": "proxies"},
            "static_resources": {"listeners": [listener("in", port, [vhost(n, [n], n) for n in names])], "clusters": clusters + [placed("proxies", (2, 2, 1))]}}


class Peer:
    def __init__(self, name, argv, bootstrap=bootstrap):
        self.name, self.port, self.admin = name, free_port(), free_port()
        config = {"admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": self.admin}}}} | bootstrap(self.port)
        path = f"{WORK}/{name}.json"
        with open(path, "w") as f:
            json.dump(config, f)
        self.process = start([*argv, "-c", path], name)
        wait_port(self.admin, self.process)
        wait_port(self.port, self.process, 40)
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)

    def get(self, host, path="/", headers=()):
        self.connection.putrequest("GET", path, skip_host=True)
        self.connection.putheader("host", host)
        for name, value in headers:
            self.connection.putheader(name, value)
        self.connection.endheaders()
        response = self.connection.getresponse()
        return response.status, response.read().decode(), response.headers

    def flags(self, cluster):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/clusters", timeout=10) as r:
            lines = r.read().decode().splitlines()
        of = [line.split("::") for line in lines if line.startswith(cluster + "::") and "::health_flags::" in line]
        return {int(parts[1].split(":")[-1]): parts[3] for parts in of}

    def stat(self, name):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/stats?filter=^{name}$", timeout=10) as r:
            return r.read().decode().strip()


def until(what, seconds=10):
    end = time.time() + seconds
    while time.time() < end:
        if what():
            return True
        time.sleep(0.05)
    return False


ENVOY = [os.path.join(os.path.dirname(sys.executable), "envoy"), "--concurrency", "1", "-l", "warning", "--disable-hot-restart"]
OURS = [PROXY, "--concurrency", "1", "--drain-time-s", "1", "--log-level", "warning"]
envoy = Peer("envoy", ENVOY)
ours = Peer("outrigger", OURS)
PEERS = (envoy, ours)


def same(name, requests):
    """Every request goes to the same host through both."""
    got = [[peer.get(name, *request)[:2] for request in requests] for peer in PEERS]
    different = [(r, a, b) for r, a, b in zip(requests, *got) if a != b]
    used = len(set(got[0]))
    check(f"{name}: the same host as Envoy's for {len(requests)} requests, {used} hosts", not different, str(different[:3]) if different else "")


def flags(name, what, wanted=lambda flags: True):
    """Both come to the same flags, those that are waited for."""
    def agree():
        a, b = (peer.flags(name) for peer in PEERS)
        return a == b and wanted(a)
    ok = until(agree)
    a, b = (peer.flags(name) for peer in PEERS)
    check(f"{name}: {what}", ok, "" if ok else f"{[(PORTS.index(p) if p in PORTS else 'dead', a[p], b.get(p)) for p in a if a[p] != b.get(p)]}")


def by_hash():
    for name, _, _ in HASHED:
        keys = [f"key-{n}" for n in range(200)]
        if name == "query":
            requests = [(f"/a?x=1&q={k}&q=2", []) for k in keys] + [("/a?q", []), ("/a?q=", [])]
        elif name == "cookie":
            requests = [("/", [("cookie", f"a=b; sid={k}; c=d")]) for k in keys] + [("/", [("cookie", 'sid="quoted"')])]
        elif name == "source":
            requests = [("/", [])] * 3
        elif name == "path":
            requests = [(f"/{k}?x", []) for k in keys]
        elif name == "two-headers":
            requests = [("/", [("x-key", k), ("x-more", k[-1])]) for k in keys] + [("/", [("x-key", k), ("x-key", "b"), ("x-key", "a")]) for k in keys[:50]]
        else:
            requests = [("/", [("x-key", k), ("x-more", k[-1])]) for k in keys]
        same(name, requests)

    cookies = [peer.get("made")[2]["set-cookie"] for peer in PEERS]
    shape = [c and [c.split("=")[0], len(c.split(";")[0]), c.split(";", 1)[1]] for c in cookies]
    check("a cookie that is made looks as Envoy's", shape[0] == shape[1] and shape[0], str(cookies))
    for stat in ("cluster.ring.ring_hash_lb.size", "cluster.ring-weights.ring_hash_lb.min_hashes_per_host", "cluster.ring-weights.ring_hash_lb.max_hashes_per_host",
                 "cluster.ring-zones.ring_hash_lb.size", "cluster.maglev-weights.maglev_lb.min_entries_per_host", "cluster.maglev-weights.maglev_lb.max_entries_per_host"):
        check(f"{stat} is Envoy's", envoy.stat(stat) == ours.stat(stat) != "", f"{envoy.stat(stat)} / {ours.stat(stat)}")


def shares():
    for name, _ in SHARED:
        counts = [Counter(peer.get(name)[1] for _ in range(600)) for peer in PEERS]
        off = max(abs(counts[0][k] - counts[1][k]) for k in counts[0])
        check(f"{name}: shares as Envoy's", off <= 75, f"{dict(sorted(counts[0].items()))} / {dict(sorted(counts[1].items()))}")


def subsets():
    for name, _, demand in DIVIDED:
        used = [sorted({(status, body if status == 200 else "") for status, body, _ in (peer.get(name) for _ in range(40))}) for peer in PEERS]
        check(f"subset {name} {demand}: the hosts of Envoy", used[0] == used[1], f"{used[0]} / {used[1]}" if used[0] != used[1] else "")


def health():
    # Traffic, so that ordinary intervals hold.
    for name, _ in HEALTHS:
        for peer in PEERS:
            peer.get(name)
    flags("hc-http", "healthy and dead hosts are seen as Envoy sees them", lambda f: f[DEAD] != "healthy" and f[PORTS[0]] == "healthy")
    flags("hc-tcp", "a connection is enough", lambda f: f[DEAD] != "healthy" and f[PORTS[0]] == "healthy")
    flags("hc-off", "hosts that are not probed are healthy")
    HEALTH[PORTS[0]] = {"status": 404}
    HEALTH[PORTS[1]] = {"status": 503}
    HEALTH[PORTS[2]] = {"headers": ["x-envoy-degraded"]}
    HEALTH[PORTS[3]] = {"status": 503, "headers": ["x-envoy-immediate-health-check-fail"]}
    sick = lambda f: all(f[PORTS[n]] != "healthy" for n in range(4))
    flags("hc-http", "wrong, retriable, degraded and excluded answers are flagged as Envoy's", sick)
    flags("hc-panic", "the same with a panic threshold", sick)
    flags("hc-off", "another port is asked", lambda f: f[PORTS[0]] == "healthy" and f[PORTS[1]] != "healthy")
    # Envoy tells its workers of changes of health once in a second.
    until(lambda: {envoy.get("hc-http")[1] for _ in range(60)} <= {"2", "4", "5"}, 5)
    used = [{peer.get("hc-http")[1] for _ in range(60)} for peer in PEERS]
    check("only healthy and, for want of these, degraded hosts are used, as with Envoy", used[0] == used[1] == {"2", "4", "5"}, str(used))
    panic = [{peer.get("hc-panic")[1] for _ in range(60)} for peer in PEERS]
    check("in panic the same hosts are used as with Envoy", panic[0] == panic[1], str(panic))
    HEALTH.clear()
    flags("hc-http", "all are back", lambda f: all(f[p] == "healthy" for p in PORTS))

    for failing, name in ((1, "outlier"), (1, "outlier-one"), (2, "outlier-one"), (4, "outlier-half"), (2, "outlier-stays")):
        for n in range(failing):
            HEALTH[PORTS[n]] = {"fails": True}
        # In a cluster whose hosts are probed, Envoy's worker hears late which are healthy, and answers by itself until then.
        counts = []
        def ejected():
            for peer in PEERS:
                for _ in range(60):
                    peer.get(name, "/fail")
            counts[:] = [sum(v != "healthy" for v in peer.flags(name).values()) for peer in PEERS]
            return counts[0] == counts[1] and (counts[0] > 0 or name == "outlier")
        check(f"{name}: as many of {failing} failing hosts are ejected as by Envoy", until(ejected), str(counts))
        HEALTH.clear()
    HEALTH[PORTS[0]] = {"fails": True}
    for peer in PEERS:
        for _ in range(30):
            peer.get("outlier-back", "/fail")
    HEALTH.clear()
    flags("outlier-back", "a good probe ends an ejection", lambda f: all(v == "healthy" for v in f.values()))


def zones():
    peers = (Peer("envoy-zones", ENVOY, zone_bootstrap), Peer("outrigger-zones", OURS, zone_bootstrap))
    for name in [name for name, *_ in KEPT] + ["panic", "panic-fails", "sick-here"]:
        counts = [Counter(status if status != 200 else int(body) for status, body, _ in (peer.get(name) for _ in range(240))) for peer in peers]
        off = max(abs(counts[0][k] - counts[1][k]) for k in counts[0] | counts[1])
        check(f"zone {name}: shares as Envoy's", off <= 48 and set(counts[0]) == set(counts[1]), " / ".join(str(dict(sorted(c.items()))) for c in counts))
        for stat in ("all_directly", "sampled", "cross_zone"):
            values = [int(peer.stat(f"cluster.{name}.lb_zone_routing_{stat}").split(": ")[-1] or 0) for peer in peers]
            check(f"zone {name}: lb_zone_routing_{stat} as Envoy's", abs(values[0] - values[1]) <= 48 and (values[0] == 0) == (values[1] == 0), str(values))
        for stat in ("lb_zone_cluster_too_small", "lb_local_cluster_not_ok", "lb_recalculate_zone_structures"):
            if name.startswith("forced") and stat == "lb_local_cluster_not_ok":
                continue  # Envoy counts looks from before it had heard of the local cluster
            values = [int(peer.stat(f"cluster.{name}.{stat}").split(": ")[-1] or 0) for peer in peers]
            check(f"zone {name}: {stat} counts where Envoy's does", (values[0] == 0) == (values[1] == 0), str(values))


PARTS = {"zones": zones, "hash": by_hash, "shares": shares, "subsets": subsets, "health": health}
for part in sys.argv[1:] or PARTS:
    PARTS[part]()
finish("balance")
