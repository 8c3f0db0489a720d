"""One configuration in the real Envoy and in ours, the same requests through both: what clients and origins see is compared."""
import http.client, json, os, re, time, urllib.parse
from common import *
from origin import Origin

# What two runs of one proxy do not have in common either, and what only names the proxy.
VOLATILE = {"x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "b3", "x-request-id", "date", "server", "x-envoy-upstream-service-time", "traceparent", "content-length", "transfer-encoding", "connection", "accept-encoding"}


class Echo(Origin):
    """Answers as the query asks: `status`, `location`, and any `h-NAME`."""

    def answer(self, request):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(request.target).query)
        fields = [(name, values[0]) for name, values in query.items() if name == "location"]
        fields += [(name[2:], value) for name, values in query.items() if name.startswith("h-") for value in values]
        return int(query.get("status", ["200"])[0]), fields, self.body


class Side:
    """One proxy with origins of its own, one for each cluster name."""

    def __init__(self, name, clusters, listeners, extra=None, apart=()):
        # Origins of clusters that are `apart` hear what no request asked for.
        self.name, self.apart = name, apart
        self.origins = {cluster: Echo(b"answer of " + cluster.encode()) for cluster in clusters}
        self.admin, self.ports = free_port(), {}
        resources = []
        for label, build in listeners.items():
            self.ports[label] = free_port()
            resources.append(build(self.ports[label], self))
        static = {"listeners": resources, "clusters": [cluster(n, o.port) for n, o in self.origins.items()]}
        config = {"static_resources": static} | (extra(self) if extra else {})
        if name == "envoy":
            config["admin"] = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": self.admin}}}
            path = f"{WORK}/envoy.json"
            with open(path, "w") as f:
                json.dump(config, f)
            program = os.environ.get("ENVOY", "envoy")
            self.process = start([program, "-c", path, "--concurrency", "1", "--base-id", str(os.getpid() % 1000 + 7), "-l", "warning", "--file-flush-interval-msec", "50"], "envoy")
            for port in self.ports.values():
                wait_port(port, self.process)
        else:
            self.process = run_proxy("ours", config, self.admin)
            for port in self.ports.values():
                wait_port(port, self.process)

    def ask(self, label, method, path, fields, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[label], timeout=10)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in fields:
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        text = response.read()
        seen = sorted((n.lower(), self.neutral(v)) for n, v in response.getheaders() if n.lower() not in VOLATILE)
        connection.close()
        return {"status": response.status, "fields": seen, "body": self.neutral(text.decode("latin-1"))}

    def neutral(self, text):
        """Without ports that only this side has."""
        for label, port in self.ports.items():
            text = text.replace(str(port), f"<{label}>")
        for label, origin in self.origins.items():
            text = text.replace(str(origin.port), f"<{label}>")
        return text

    def heard(self, count, seconds=1.0):
        """What the origins heard: waits for `count` requests, and a moment for one too many."""
        end, found = time.time() + seconds, {}
        while True:
            for name, origin in [pair for pair in self.origins.items() if pair[0] not in self.apart]:
                for request in origin.take():
                    fields = dict((n, self.neutral(v)) for n, v in request.fields if n not in VOLATILE)
                    if fields.get("x-envoy-internal") == "true":
                        # A copy names the proxy that made it, each by an address of its own.
                        fields["x-forwarded-for"] = ",".join(fields.get("x-forwarded-for", "").split(",")[:-1] + ["<proxy>"])
                    fields = sorted(fields.items())
                    found.setdefault(name, []).append((request.method, self.neutral(request.target), fields, request.body.decode("latin-1")))
            if sum(map(len, found.values())) >= count or time.time() > end:
                return {name: sorted(list_) for name, list_ in found.items()}
            time.sleep(0.01)


def differences(a, b, path=""):
    """Where two values are not the same."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [d for k in sorted(set(a) | set(b)) for d in differences(a.get(k), b.get(k), f"{path}.{k}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return [d for i, (x, y) in enumerate(zip(a, b)) for d in differences(x, y, f"{path}[{i}]")]
    return [] if a == b else [f"{path}: Envoy {a!r}, ours {b!r}"]


class Pair:
    """Both proxies."""

    def __init__(self, clusters, listeners, extra=None, apart=()):
        self.envoy = Side("envoy", clusters, listeners, extra, apart)
        self.ours = Side("ours", clusters, listeners, extra, apart)

    def same(self, name, path, fields=(), method="GET", body=None, requests=1, label="edge", quiet=False):
        """Sends one request through both and compares the answers and what the origins heard."""
        given = [("host", "a.test"), *fields] if not any(n == "host" for n, _ in fields) else list(fields)
        results = []
        for side in (self.envoy, self.ours):
            answer = side.ask(label, method, path, given, body)
            results.append({"answer": answer, "heard": side.heard(requests)})
        found = differences(*results)
        if not quiet or found:
            check(name, not found, "; ".join(found[:4]))
        return results
