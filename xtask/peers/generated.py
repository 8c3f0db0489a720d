#!/usr/bin/env python3
"""Route tables and requests by chance, through the real Envoy and through us: status, fields and body of the answer and what the origins heard must be the same.

`generated.py [SEED [BATCHES [TABLES [REQUESTS]]]]`: each batch is one start of both proxies with TABLES listeners, a table each. Everything follows from the seed. Differences are printed with the smallest
request that shows them, and the route table's own words. `TABLE=seed.batch.table` prints one configuration."""
import random, signal
from common import *
from origin import Origin
from tables import CLUSTERS, Chance

ENVOY = os.environ.get("ENVOY") or os.path.join(os.path.dirname(sys.executable), "envoy")
# Of each proxy alone: made by chance, or by the clock.
VOLATILE = {"date", "x-envoy-upstream-service-time"}
# Its value is made by chance, whether it is there is not.
MADE = {"x-request-id"}


def own_address():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.connect(("198.51.100.1", 9))
            return s.getsockname()[0]
        except OSError:
            return "127.0.0.1"


OWN = own_address()


class Scripted(Origin):
    """Answers as `x-script` says, one status after the other for the attempts of a request, with the fields of `x-say`."""

    def __init__(self, body, side):
        self.side = side
        super().__init__(body)

    def answer(self, request):
        known = dict(request.fields)
        script = known.get("x-script", "200").split(",")
        turn = self.side.turns
        self.side.turns += 1
        status = int(script[min(turn, len(script) - 1)])
        fields = [tuple(one.split("=", 1)) for one in known.get("x-say", "").split("|") if one]
        self.side.says_length = not any(name == "content-length" for name, _ in fields)
        return status, [f for f in fields if f[0] != "content-length"], b"" if status in (204, 304) else self.body


class Side:
    def __init__(self, name, number):
        self.name, self.number, self.turns = name, number, 0
        self.origins = {c: Scripted(b"answer of " + c.encode(), self) for c in CLUSTERS}
        self.process = None

    def configuration(self, tables, admin):
        self.ports = [free_port() for _ in tables]
        listeners = []
        for i, (port, (table, manager, router)) in enumerate(zip(self.ports, tables)):
            hcm = {"@type": T + "filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": f"t{i}", "route_config": table,
                   "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": T + "filters.http.router.v3.Router"} | router}]} | manager
            listeners.append({"name": f"l{i}", "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}, "filter_chains": [{"filters": [{"name": "hcm", "typed_config": hcm}]}]})
        static = {"listeners": listeners, "clusters": [cluster(c, o.port) for c, o in self.origins.items()]}
        return {"static_resources": static, "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}}}

    def start(self, tables):
        self.stop()
        admin = free_port()
        config, path = self.configuration(tables, admin), f"{WORK}/{self.name}.json"
        with open(path, "w") as f:
            json.dump(config, f)
        if self.name == "envoy":
            argv = [ENVOY, "-c", path, "--concurrency", "1", "--base-id", str(os.getpid() % 30000 + 100), "-l", "error"]
        else:
            argv = [PROXY, "-c", path, "--concurrency", "1", "--drain-time-s", "1", "--log-level", "error"]
        open(f"{WORK}/{self.name}.log", "w").close()
        self.process = start(argv, self.name)
        for port in [admin, *self.ports]:
            wait_port(port, self.process, 60)

    def stop(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)
            self.process = None

    def ask(self, table, request):
        """The answer, as it came, and what the origins heard."""
        self.turns = 0
        lines = [f"{request['method']} {request['target']} HTTP/1.1", *(f"{n}: {v}" for n, v in request["fields"])]
        body = request["body"]
        if body is not None and request["chunked"]:
            lines.append("transfer-encoding: chunked")
            body = (b"%x\r\n%s\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
        elif body is not None:
            lines.append(f"content-length: {len(body)}")
        wire = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (body or b"")
        try:
            with socket.create_connection(("127.0.0.1", self.ports[table]), timeout=8) as s:
                s.sendall(wire)
                answer = self.read(s, request["method"])
        except (OSError, ValueError, IndexError) as error:
            answer = {"broken": type(error).__name__}
        heard = {}
        for name, origin in self.origins.items():
            for one in origin.take():
                fields = sorted((n, "*" if n in MADE and v not in dict(request["fields"]).values() else self.left(v) if n == "x-envoy-expected-rq-timeout-ms" else self.neutral(v)) for n, v in one.fields if (n not in VOLATILE or n == "date") and (n, v) != ("connection", "te"))
                heard.setdefault(name, []).append({"line": f"{one.method} {one.target}", "fields": fields, "body": one.body.decode("latin-1")})
        return {"answer": answer, "heard": heard}

    def read(self, s, method):
        data, interim = b"", []
        while True:
            while b"\r\n\r\n" not in data:
                more = s.recv(65536)
                if not more:
                    return {"closed": self.neutral(data.decode("latin-1")), "interim": interim}
                data += more
            head, _, rest = data.partition(b"\r\n\r\n")
            line, *fields = head.decode("latin-1").split("\r\n")
            status = int(line.split(" ")[1])
            if 100 <= status < 200 and status != 101:
                interim.append(status)
                data = rest
                continue
            break
        fields = [(n.lower(), v.strip()) for n, _, v in (f.partition(":") for f in fields)]
        known = dict(fields)
        bodiless = method == "HEAD" or status in (101, 204, 304)
        while not bodiless:
            if known.get("transfer-encoding") == "chunked":
                if rest.endswith(b"0\r\n\r\n"):
                    break
            elif "content-length" in known and len(rest) >= int(known["content-length"]):
                break
            more = s.recv(65536)
            if not more:
                break
            rest += more
        # The framing of what has no body, and whether a connection goes on after an answer that did not wait for the request, are each proxy's own.
        apart = VOLATILE | {"connection"} | ({"content-length", "transfer-encoding"} if bodiless else set())
        fields = sorted((n, "*" if n in MADE else self.neutral(v)) for n, v in fields if n not in apart)
        return {"status": status, "fields": fields, "body": self.neutral(rest.decode("latin-1")), "interim": interim}

    @staticmethod
    def left(text):
        """The time that is left at a retry, by half seconds."""
        return str(-(-int(text) // 500) * 500) if text.isdecimal() else text

    def neutral(self, text):
        # To Envoy a client on a loopback address is a process beside it, and has the machine's own address.
        text = text.replace(OWN, "127.0.0.1")
        for i, port in enumerate(self.ports):
            text = text.replace(str(port), f"<{i}>")
        for c, origin in self.origins.items():
            text = text.replace(str(origin.port), f"<{c}>")
        return text


def differences(a, b, path=""):
    if isinstance(a, dict) and isinstance(b, dict):
        return [d for k in sorted(set(a) | set(b)) for d in differences(a.get(k), b.get(k), f"{path}.{k}")]
    if isinstance(a, list) and isinstance(b, list):
        if a and b and isinstance(a[0], dict) and isinstance(b[0], dict) and len(a) == len(b):
            return [d for i, (x, y) in enumerate(zip(a, b)) for d in differences(x, y, f"{path}[{i}]")]
        if any(isinstance(x, tuple) for x in a + b):
            gone, more = [x for x in a if a.count(x) > b.count(x)], [x for x in b if b.count(x) > a.count(x)]
            return [f"{path}: only Envoy {gone}, only ours {more}"] if gone or more else []
    return [] if a == b else [f"{path}: Envoy {a!r}, ours {b!r}"]


def compare(sides, table, request):
    results = [side.ask(table, request) for side in sides]
    found = differences(*results)
    return results, found


def smallest(sides, table, request):
    """Leaves out what the difference does not need."""
    again = lambda candidate: bool(compare(sides, table, candidate)[1])
    for i in reversed(range(len(request["fields"]))):
        if request["fields"][i][0] in ("host", "x-number"):
            continue
        candidate = request | {"fields": request["fields"][:i] + request["fields"][i + 1:]}
        if again(candidate):
            request = candidate
    for change in [{"body": None}, {"chunked": False}, {"method": "GET", "body": None}, {"target": request["target"].split("?")[0]}]:
        candidate = request | change
        if candidate != request and again(candidate):
            request = candidate
    return request


def routes_of(tables, table, results):
    """The routes that were taken, as they stand in the table."""
    names = {v for r in results for n, v in r["answer"].get("fields", []) if n == "x-route"}
    out = []
    for host in tables[table][0]["virtual_hosts"]:
        out += [json.dumps({k: v for k, v in host.items() if k != "routes"} | {"route": route}) for route in host["routes"] if route["name"] in names]
    return out


def shape(difference):
    """Differences that are likely one: by their place and the names in them."""
    import re
    return re.sub(r"\[\d+\]|r\d+|<\w+>|\.[abc]\b", "", difference)[:110]


def main():
    seed, batches, count, requests = [int(a) for a in sys.argv[1:] + ["1", "2", "12", "100"][len(sys.argv) - 1:]]
    sides, seen, different, asked = [Side("envoy", 0), Side("ours", 1)], {}, 0, 0
    for batch in range(batches):
        chances = [Chance(random.Random(f"{seed}.{batch}.{i}")) for i in range(count)]
        tables = [(chance.table(), *chance.manager()) for chance in chances]
        if os.environ.get("TABLE", "").startswith(f"{seed}.{batch}."):
            print(json.dumps(tables[int(os.environ["TABLE"].split(".")[2])], indent=1))
        try:
            for side in sides:
                side.start(tables)
        except SystemExit as refused:
            check(f"batch {seed}.{batch} is accepted by {side.name}", False, str(refused)[:1500])
            continue
        for table, chance in enumerate(chances):
            for _ in range(requests):
                request = chance.request()
                asked += 1
                results, found = compare(sides, table, request)
                if not found:
                    continue
                different += 1
                if different > 400:
                    continue
                # The first ones of a kind are shown.
                request = smallest(sides, table, request)
                results, found = compare(sides, table, request)
                kind = shape(found[0]) if found else "not again"
                seen[kind] = seen.get(kind, 0) + 1
                if seen[kind] > 2 or len(seen) > 60:
                    continue
                print(f"--- {seed}.{batch}.{table} {request['method']} {request['target']} {request['fields']} body {request['body'] and len(request['body'])} chunked {request['chunked']}")
                print(f"    manager {json.dumps(tables[table][1:])} table {json.dumps({k: v for k, v in tables[table][0].items() if k != 'virtual_hosts'})}")
                for one in routes_of(tables, table, results):
                    print(f"    {one}")
                for one in found[:6]:
                    print(f"    {one[:700]}", flush=True)
    for side in sides:
        side.stop()
    for kind, times in sorted(seen.items(), key=lambda item: -item[1])[:40]:
        print(f"{times:6} × {kind}")
    check(f"{asked} requests through {batches * count} tables of seed {seed} are served alike", not different, f"{different} differences" if different else "")
    finish("generated")


if __name__ == "__main__":
    main()
