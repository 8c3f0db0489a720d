#!/usr/bin/env python3
"""The same sessions through the real Envoy and through us, and clients that change from one to the other in between."""
import base64, http.client, threading, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from common import *

FILTER = T + "filters.http.stateful_session.v3."
HOSTS = 4


class Origin(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = str(self.server.number).encode()
        self.send_response(503 if self.path == "/fail" else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def origin(number):
    server = ThreadingHTTPServer(("127.0.0.1", free_port()), Origin)
    server.handle_error = lambda *_: None  # a peer that ends takes its connections with it
    server.number, server.daemon_threads = number, True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


PORTS = [origin(n) for n in range(HOSTS)]


def endpoint(port, health=None):
    one = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
    return one | ({"health_status": health} if health else {})


def made(name, endpoints, **settings):
    return {"name": name, "type": "STATIC", "connect_timeout": "1s",
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}} | settings


def state(kind, **config):
    return {"session_state": {"name": f"envoy.http.stateful_session.{kind}",
                              "typed_config": {"@type": f"{T}http.stateful_session.{kind}.v3.{kind.capitalize()}BasedSessionState"} | config}}


def cookie(**more):
    return state("cookie", cookie={"name": "sid"} | more)


LONG = cookie(ttl="100s", path="/p", attributes=[{"name": "SameSite", "value": "Lax"}, {"name": "Secure"}])
SETTINGS = {"plain": None, "long": LONG, "slash": cookie(path="/p/"), "header": state("header", name="X-Session"), "strict": cookie() | {"strict": True}, "off": "off"}
SICK = [endpoint(PORTS[0], "UNHEALTHY"), endpoint(PORTS[1], "DEGRADED"), endpoint(PORTS[2], "DRAINING"), endpoint(PORTS[3])]
SICK_HOSTS = {f"{name}-{mode}": (settings, strict) for name, settings in
              [("sick", {}), ("draining", {"common_lb_config": {"override_host_status": {"statuses": ["DRAINING", "UNHEALTHY"]}}})]
              for mode, strict in [("weak", False), ("strict", True)]}


def per_route(settings):
    message = {"disabled": True} if settings == "off" else {"stateful_session": settings}
    return {"typed_per_filter_config": {"session": {"@type": FILTER + "StatefulSessionPerRoute"} | message}}


def bootstrap(port):
    hosts = [vhost(name, [name], "hosts") | (per_route(settings) if settings else {}) for name, settings in SETTINGS.items()]
    hosts += [vhost(name, [name], name) | per_route(cookie() | {"strict": strict}) for name, (_, strict) in SICK_HOSTS.items()]
    edge = listener("in", port, hosts)
    filters = edge["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    filters.insert(0, {"name": "session", "typed_config": {"@type": FILTER + "StatefulSession", "stat_prefix": "s"} | cookie()})
    clusters = [made("hosts", [endpoint(p) for p in PORTS])] + [made(name, SICK, **settings) for name, (settings, _) in SICK_HOSTS.items()]
    return {"static_resources": {"listeners": [edge], "clusters": clusters}}


class Peer:
    def __init__(self, name, argv):
        self.name, self.port, self.admin = name, free_port(), free_port()
        config = {"admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": self.admin}}}} | bootstrap(self.port)
        path = f"{WORK}/{name}.json"
        with open(path, "w") as f:
            json.dump(config, f)
        self.process = start([*argv, "-c", path], name)
        wait_port(self.admin, self.process)
        wait_port(self.port, self.process, 40)
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)

    def get(self, host, path="/", **headers):
        self.connection.request("GET", path, headers={"host": host} | {k.replace("_", "-"): v for k, v in headers.items()})
        response = self.connection.getresponse()
        return response.status, response.read().decode(), response.headers

    def stats(self, word):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/stats?filter={word}", timeout=10) as r:
            lines = [line.split(": ") for line in r.read().decode().splitlines()]
        return {name.rsplit(".", 1)[1]: int(value) for name, value in lines}


ENVOY = [os.path.join(os.path.dirname(sys.executable), "envoy"), "--concurrency", "1", "-l", "warning", "--disable-hot-restart"]
OURS = [PROXY, "--concurrency", "1", "--drain-time-s", "1", "--log-level", "warning"]
PEERS = (Peer("envoy", ENVOY), Peer("outrigger", OURS))


def value(text):
    return text.split('"')[1]


def session(port, expires=None):
    text = f"127.0.0.1:{port}".encode()
    out = b"\x0a" + bytes([len(text)]) + text
    if expires is not None:
        out += b"\x10"
        while expires > 127:
            out, expires = out + bytes([expires & 127 | 128]), expires >> 7
        out += bytes([expires])
    return base64.b64encode(out).decode()


def same(name, what):
    a, b = (what(peer) for peer in PEERS)
    check(name, a == b, f"{a} / {b}" if a != b else "")


def shape(headers):
    """A cookie or header without what depends on host and time."""
    text = headers.get("set-cookie")
    return text and [text.split('"')[0], len(value(text)), text.split('"', 2)[2]], headers.get("x-session") and len(headers["x-session"])


def sessions():
    for host in SETTINGS:
        for path in ("/", "/p", "/p/x", "/px", "/p?q", "/fail"):
            same(f"{host} {path}: what a client without a session is told", lambda peer: shape(peer.get(host, path)[2]))
    for one, other in (PEERS, PEERS[::-1]):
        for host, path in (("plain", "/"), ("long", "/p"), ("strict", "/")):
            _, body, headers = one.get(host, path)
            kept = f"sid={value(headers['set-cookie'])}"
            again = {other.get(host, path, cookie=kept)[1] for _ in range(4)}
            told = other.get(host, path, cookie=kept)[2]["set-cookie"]
            check(f"{host}: {other.name} keeps a client of {one.name} with its host", again == {body} and told is None, f"{again} {body} {told}")
        _, body, headers = one.get("header")
        again = {other.get("header", x_session=headers["x-session"])[1] for _ in range(4)}
        check(f"header: {other.name} keeps a client of {one.name} with its host", again == {body}, f"{again} {body}")
    now = int(time.time())
    given = {"good": session(PORTS[2]), "old": session(PORTS[2], 5), "just old": session(PORTS[2], now - 3), "not yet old": session(PORTS[2], now + 100),
             "unknown host": session(1), "address alone": base64.b64encode(f"127.0.0.1:{PORTS[2]}".encode()).decode(), "junk": "!!", "text": base64.b64encode(b"hello").decode(),
             "without padding": session(PORTS[2]).rstrip("="), "empty": "", "quoted": f'"{session(PORTS[2])}"'}
    for name, text in given.items():
        for host in ("plain", "strict", "off"):
            def what(peer):
                answers = [peer.get(host, cookie=f"a=b; sid={text}") for _ in range(8)]
                # Of a client that gets another host, and of one without sessions, the order of hosts does not matter.
                return sorted({str((status, shape(headers)) if headers.get("set-cookie") or host == "off" else (status, body)) for status, body, headers in answers})
            same(f"{host}: a session that is {name}", what)


def health():
    for host in SICK_HOSTS:
        for n, port in enumerate(PORTS):
            def what(peer):
                answers = [peer.get(host, cookie=f"sid={session(port)}") for _ in range(6)]
                return sorted({(status, body if not headers.get("set-cookie") else "another") for status, body, headers in answers})
            same(f"{host}: the session's host is the one of number {n}", what)


def counts():
    same("counters of sessions", lambda peer: peer.stats("stateful_session"))


sessions()
health()
counts()
finish("affinity")
