#!/usr/bin/env python3
"""Settings of listeners, connection managers and TCP proxies: the real Envoy and our proxy get the same bootstrap and the same bytes; what client and host see must be the same."""
import re, threading
from common import *
from origin import Origin

ENVOY = os.environ.get("ENVOY") or os.path.join(os.path.dirname(sys.executable), "envoy")
F = T + "filters.http."
APART = {"date", "server", "x-envoy-upstream-service-time", "x-request-id", "connection", "keep-alive", "x-forwarded-proto", "x-envoy-expected-rq-timeout-ms"}


class Host:
    """Takes the request of a tunnel, says what it is told to, and sends back what follows."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port, self.heads, self.say = self.socket.getsockname()[1], [], b"HTTP/1.1 200 OK\r\n\r\n"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            connection, _ = self.socket.accept()
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection):
        try:
            head = b""
            while b"\r\n\r\n" not in head:
                more = connection.recv(65536)
                if not more:
                    return
                head += more
            head, _, rest = head.partition(b"\r\n\r\n")
            self.heads.append(head.decode("latin-1"))
            connection.sendall(self.say + rest)
            while more := connection.recv(65536):
                connection.sendall(more)
        except OSError:
            pass
        finally:
            connection.close()


class Echo:
    """Sends back what comes, and ends when the other side does."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            connection, _ = self.socket.accept()
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    @staticmethod
    def talk(connection):
        try:
            while more := connection.recv(65536):
                connection.sendall(more)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def hcm(name, port, routes, domains=("*",), filters=(), **more):
    manager = {"@type": T + "filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": name, "route_config": {"name": name, "virtual_hosts": [
        {"name": "all", "domains": list(domains), "routes": routes}]}, "generate_request_id": False,
        "http_filters": [*({"name": n, "typed_config": c} for n, c in filters), {"name": "envoy.filters.http.router", "typed_config": {"@type": F + "router.v3.Router"}}]} | more
    return {"name": name, "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}, "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}]}


def tcp(name, port, target, **more):
    proxy = {"@type": T + "filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": name, "cluster": target} | more
    return {"name": name, "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}, "filter_chains": [{"filters": [{"name": "tcp", "typed_config": proxy}]}]}


def to(prefix="/", **action):
    return {"match": {"prefix": prefix}, "route": {"cluster": "origin"} | action}


ENDS = {"cluster": "echo", "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {"allow_post": True}}]}
TUNNELS = {f"{kind}-{way}": (kind, {"hostname": "far.test:7"} | ({"use_post": True} if way == "post" else {})) for kind in ("h1", "h2") for way in ("connect", "post")}
HEADERS = [{"header": {"key": "X-From", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}}, {"header": {"key": "x-name", "value": "[%REQUESTED_SERVER_NAME%]"}}, {"header": {"key": "x-none", "value": "%REQUESTED_SERVER_NAME%"}}]
RAW = {"raw-name": {"hostname": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%:1"}, "raw": {"hostname": "h.test:1", "headers_to_add": HEADERS}, "raw-post": {"hostname": "h.test:1", "use_post": True, "post_path": "/a?b", "headers_to_add": HEADERS}}
MANAGERS = {"plain": {}, "drop": {"common_http_protocol_options": {"headers_with_underscores_action": "DROP_HEADER"}}, "reject": {"common_http_protocol_options": {"headers_with_underscores_action": "REJECT_REQUEST"}},
            "port": {"strip_matching_host_port": True}, "any-port": {"strip_any_host_port": True}, "dot": {"strip_trailing_host_dot": True}, "both": {"strip_trailing_host_dot": True, "strip_matching_host_port": True}}


class Side:
    def __init__(self, name):
        self.name, self.host, self.echo, self.origin, self.admin = name, Host(), Echo(), Origin(), free_port()
        self.ports = {label: free_port() for label in [*TUNNELS, *RAW, *MANAGERS, "far", "raw-twice"]}
        p = self.ports
        listeners = [hcm("far", p["far"], [{"match": {"connect_matcher": {}}, "route": ENDS}, {"match": {"prefix": "/"}, "route": ENDS}], ["far.test:7"], http2_protocol_options={"allow_connect": True}, upgrade_configs=[{"upgrade_type": "CONNECT"}])]
        listeners += [tcp(label, p[label], f"far-{kind}", tunneling_config=tunnel) for label, (kind, tunnel) in TUNNELS.items()]
        listeners += [tcp(label, p[label], "host", tunneling_config=tunnel) for label, tunnel in RAW.items()]
        listeners += [tcp("raw-twice", p["raw-twice"], "host", tunneling_config={"hostname": "h:1"}, max_connect_attempts=2)]
        listeners += [hcm(label, p[label], [to()], ["a.test", "b.test:1", "x.*", "127.0.0.1"], **more) for label, more in MANAGERS.items()]
        clusters = [cluster("echo", self.echo.port), cluster("origin", self.origin.port), cluster("host", self.host.port), cluster("far-h1", p["far"]), cluster("far-h2", p["far"], h2=True)]
        config = {"static_resources": {"listeners": listeners, "clusters": clusters}}
        if name == "envoy":
            config["admin"] = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": self.admin}}}
            path = f"{WORK}/envoy.json"
            with open(path, "w") as f:
                json.dump(config, f)
            self.process = start([ENVOY, "-c", path, "--concurrency", "1", "--base-id", str(os.getpid() % 1000 + 17), "-l", "error"], "envoy")
        else:
            self.process = run_proxy("ours", config, self.admin)
        for port in p.values():
            wait_port(port, self.process)
        # Not of the cases: the connections that showed that ports are open.
        time.sleep(0.3)
        self.host.heads.clear()

    def tunnel(self, label, say=None, send=b"hello ", more=b"and good-bye"):
        """What comes back through a tunnel, and what the host was asked."""
        self.host.say = say or b"HTTP/1.1 200 OK\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.ports[label]), 5) as s:
            s.settimeout(5)
            back = b""
            try:
                s.sendall(send)
                back = s.recv(65536) if send else b""
                if back:
                    s.sendall(more)
                    # Envoy does not know half-closed tunnels over HTTP/1.1: what is still to come would be lost.
                    while len(back) < len(send) + len(more) and (piece := s.recv(65536)):
                        back += piece
                    s.shutdown(socket.SHUT_WR)
                while piece := s.recv(65536):
                    back += piece
            except ConnectionResetError:
                # With or without a reset: that is up to what of ours was still unread.
                pass
            except TimeoutError:
                back += b" and it stays open"
        heads, self.host.heads = self.host.heads, []
        return back.decode("latin-1"), [self.neutral(head) for head in heads]

    def neutral(self, head):
        line, *fields = head.split("\r\n")
        fields = sorted((n.lower(), v.strip()) for n, _, v in (f.partition(":") for f in fields))
        return line, [(n, v) for n, v in fields if n not in APART]

    def ask(self, label, raw):
        """An answer, and what the origin heard."""
        raw = raw.replace(b"PORT", str(self.ports[label]).encode())
        with socket.create_connection(("127.0.0.1", self.ports[label]), 5) as s:
            s.settimeout(5)
            s.sendall(raw)
            data = b""
            while b"\r\n\r\n" not in data:
                piece = s.recv(65536)
                if not piece:
                    break
                data += piece
        head = data.partition(b"\r\n\r\n")[0].decode("latin-1")
        line, fields = self.neutral(head)
        heard = [(r.method, r.target, [(n, v.replace(str(self.ports[label]), "PORT")) for n, v in sorted(r.fields) if n not in APART]) for r in self.origin.take()]
        return re.sub(r"^HTTP/1.1 (\d+).*", r"\1", line), [f for f in fields if f[0] != "content-length"], heard


def main():
    sides = [Side("envoy"), Side("ours")]

    def same(what, act):
        theirs, ours = act(sides[0]), act(sides[1])
        check(what, theirs == ours, "" if theirs == ours else f"\n  envoy {theirs}\n  ours  {ours}")

    for label in TUNNELS:
        same(f"tunnel {label}", lambda side: side.tunnel(label))
        same(f"tunnel {label}, much", lambda side: len(side.tunnel(label, more=b"m" * 200000)[0]))
    for label in RAW:
        if label == "raw-post":
            # The host sends the chunks back as they come.
            chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
            same(f"request of {label}", lambda side: side.tunnel(label, chunked))
            same(f"bytes right behind the answer of {label}", lambda side: side.tunnel(label, chunked + b"5\r\nearly\r\n"))
            same(f"403 of {label}", lambda side: side.tunnel(label, b"HTTP/1.1 403 So\r\ncontent-length: 0\r\n\r\n"))
            continue
        same(f"request of {label}", lambda side: side.tunnel(label))
        same(f"bytes right behind the answer of {label}", lambda side: side.tunnel(label, b"HTTP/1.1 200 OK\r\n\r\nearly"))
        same(f"an interim answer of {label}", lambda side: side.tunnel(label, b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"))
        for status in (201, 204, 299, 301, 403, 503):
            same(f"{status} of {label}", lambda side: side.tunnel(label, b"HTTP/1.1 %d So\r\ncontent-length: 0\r\n\r\n" % status))
    same("another attempt", lambda side: side.tunnel("raw-twice", b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n"))
    for label in MANAGERS:
        for name in (b"a.test", b"a.test:PORT", b"a.test:1", b"a.test.", b"a.test.:PORT", b"b.test:1", b"b.test.:1", b"127.0.0.1:PORT", b"a.test.."):
            for fields in (b"", b"x_a: 1\r\nx-b: 2\r\n"):
                same(f"{label} {name.decode()} {fields[:3].decode()}", lambda side: side.ask(label, b"GET /p HTTP/1.1\r\nhost: " + name + b"\r\n" + fields + b"\r\n"))
    finish("config")


main()
