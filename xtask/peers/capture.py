#!/usr/bin/env python3
"""Redirected connections, with real rules in network namespaces of our own: our proxy, and the real Envoy on the same configuration.

Needs root, ip, nft and setpriv."""
import atexit, json, os, re, shutil, socket, struct, subprocess, sys, textwrap, threading, time
from common import PROXY, WORK, check, finish, free_port, start, wait_port

if os.geteuid():
    raise SystemExit("capture: root is needed for network namespaces")
ENVOY = shutil.which("envoy") or os.path.join(os.path.dirname(sys.executable), "envoy")
UID, ADMIN = 1337, 15000
APP, WORLD = f"or-app-{os.getpid()}", f"or-world-{os.getpid()}"
DNS_NAME, VIP, DB = "b.demo.mesh", "240.240.0.1", "240.240.0.9"


def sh(*argv, **options):
    done = subprocess.run(argv, capture_output=True, text=True, **options)
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


@atexit.register
def _clean():
    for name in (APP, WORLD):
        subprocess.run(["ip", "netns", "del", name], capture_output=True)


for name in (APP, WORLD):
    sh("ip", "netns", "add", name)
    sh("ip", "-n", name, "link", "set", "lo", "up")
sh("ip", "-n", APP, "link", "add", "e0", "type", "veth", "peer", "name", "e0", "netns", WORLD)
for name, own, other in ((APP, 1, 2), (WORLD, 2, 1)):
    sh("ip", "-n", name, "addr", "add", f"192.0.2.{own}/24", "dev", "e0")
    sh("ip", "-n", name, "-6", "addr", "add", f"2001:db8::{own}/64", "dev", "e0", "nodad")
    sh("ip", "-n", name, "link", "set", "e0", "up")
    sh("ip", "-n", name, "route", "add", "default", "via", f"192.0.2.{other}")
    sh("ip", "-n", name, "-6", "route", "add", "default", "via", f"2001:db8::{other}", "dev", "e0")
for address in ("198.51.100.5/32", "198.51.100.6/32"):
    sh("ip", "-n", WORLD, "addr", "add", address, "dev", "lo")
sh("ip", "-n", WORLD, "-6", "addr", "add", "2001:db8:5::5/128", "dev", "lo", "nodad")

# The agent's rules, as its module `nft` writes them.
RULES = f"""
add table inet outrigger
delete table inet outrigger
table inet outrigger {{
	chain outbound {{
		type nat hook output priority -110; policy accept;
		meta skuid {UID} return
		ip daddr 169.254.170.2/32 return
		oifname "lo" return
		meta l4proto {{ tcp, udp }} th dport 53 redirect to :15053
		meta l4proto tcp redirect to :15001
	}}
}}
"""

ORIGINS = textwrap.dedent("""
    import socket, threading
    def serve(host, port, talk):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        s = socket.socket(family); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((host, port)); s.listen(64)
        def run():
            while True:
                c, peer = s.accept()
                threading.Thread(target=one, args=(c,), daemon=True).start()
        def one(c):
            try: talk(c)
            except OSError: pass
            finally: c.close()
        threading.Thread(target=run, daemon=True).start()
    def http(name):
        def talk(c):
            data = b""
            while b"\\r\\n\\r\\n" not in data:
                more = c.recv(4096)
                if not more: return
                data += more
            host = [l for l in data.decode().split("\\r\\n") if l.lower().startswith("host:")][0][5:].strip()
            body = f"{name} {host}".encode()
            c.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-length: %d\\r\\nconnection: close\\r\\n\\r\\n" % len(body) + body)
        return talk
    def greet(name):
        def talk(c):
            c.sendall(name.encode()); c.recv(1)
        return talk
    def echo(c):
        while True:
            data = c.recv(4096)
            if not data: return
            c.sendall(data)
    serve("192.0.2.2", 7001, http("mesh")); serve("192.0.2.2", 7002, greet("db"))
    serve("198.51.100.5", 80, http("world")); serve("198.51.100.6", 80, greet("220 server first"))
    serve("198.51.100.5", 9999, echo); serve("2001:db8:5::5", 80, http("world6")); serve("2001:db8:5::5", 9999, echo)
    threading.Event().wait()
""")

TCP = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
LISTENER_FILTER = "type.googleapis.com/envoy.extensions.filters.listener"


def address(host, port, udp=False):
    return {"socket_address": {"address": host, "port_value": port, **({"protocol": "UDP"} if udp else {})}}


def tcp(cluster, match=None):
    typed = {"@type": TCP, "stat_prefix": cluster, "cluster": cluster}
    chain = {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": typed}]}
    return {**chain, **({"filter_chain_match": match} if match else {})}


def http(match=None):
    hosts = [
        {"name": "b", "domains": [DNS_NAME, VIP], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "mesh"}}]},
        {"name": "any", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "PassthroughCluster"}}]},
    ]
    router = {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}
    typed = {"@type": HCM, "stat_prefix": "captured", "route_config": {"name": "captured", "virtual_hosts": hosts},
             "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}]}
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": typed}]}
    return {**chain, **({"filter_chain_match": match} if match else {})}


def fixed(name, host, port):
    load = {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(host, port)}}]}]}
    return {"name": name, "type": "STATIC", "connect_timeout": "2s", "load_assignment": load}


def inspector(name, kind):
    return {"name": f"envoy.filters.listener.{name}", "typed_config": {"@type": f"{LISTENER_FILTER}.{name}.v3.{kind}"}}


def config(ours):
    sniffing = {"application_protocols": ["http/1.0", "http/1.1", "h2c"], "transport_protocol": "raw_buffer"}
    table = {"virtual_domains": [{"name": DNS_NAME, "endpoint": {"address_list": {"address": [VIP]}}, "answer_ttl": "30s"}]}
    dns = {
        "name": "dns", "address": address("127.0.0.1", 15053, udp=True),
        "listener_filters": [{"name": "envoy.filters.udp.dns_filter", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.udp.dns_filter.v3.DnsFilterConfig",
            "stat_prefix": "mesh", "server_config": {"inline_dns_table": table}}}],
    }
    if ours:
        dns["additional_addresses"] = [{"address": address("127.0.0.1", 15053)}]
    listeners = [
        {"name": "outbound", "address": address("127.0.0.1", 15001), "use_original_dst": True,
         "filter_chains": [http({"destination_port": 15001})], "default_filter_chain": tcp("PassthroughCluster")},
        {"name": "captured-80", "address": address("0.0.0.0", 80), "bind_to_port": False,
         "listener_filters": [inspector("tls_inspector", "TlsInspector"), inspector("http_inspector", "HttpInspector")],
         "listener_filters_timeout": "0.3s", "continue_on_listener_filters_timeout": True,
         "filter_chains": [http(sniffing)], "default_filter_chain": tcp("PassthroughCluster")},
        {"name": "db", "address": address(DB, 5432), "bind_to_port": False, "filter_chains": [tcp("db")]},
        # IPv6 is redirected to ::1.
        {"name": "outbound6", "address": address("::1", 15001), "use_original_dst": True,
         "filter_chains": [tcp("PassthroughCluster")]},
        dns,
    ]
    passthrough = {"name": "PassthroughCluster", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "2s"}
    clusters = [fixed("mesh", "192.0.2.2", 7001), fixed("db", "192.0.2.2", 7002), passthrough]
    return {"node": {"id": "capture", "cluster": "capture"}, "admin": {"address": address("127.0.0.1", ADMIN)},
            "static_resources": {"listeners": listeners, "clusters": clusters}}


CLIENT = textwrap.dedent("""
    import json, socket, struct, sys, time
    def http(host, port, name):
        s = socket.create_connection((host, port), 5)
        s.sendall(f"GET / HTTP/1.1\\r\\nhost: {name}\\r\\nconnection: close\\r\\n\\r\\n".encode())
        data = b""
        while more := s.recv(4096): data += more
        return data.split(b"\\r\\n\\r\\n", 1)[1].decode()
    def first(host, port):
        began = time.time()
        s = socket.create_connection((host, port), 5); s.settimeout(5)
        return s.recv(100).decode(), time.time() - began
    def echo(host, port):
        s = socket.create_connection((host, port), 5); s.settimeout(5); s.sendall(b"ping")
        return s.recv(100).decode()
    def question(name, kind):
        labels = b"".join(bytes([len(l)]) + l.encode() for l in name.split("."))
        return struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + b"\\0" + struct.pack(">HH", kind, 1)
    def read(reply):
        code, answers = reply[3] & 15, struct.unpack(">H", reply[6:8])[0]
        return [code, answers, socket.inet_ntoa(reply[-4:]) if answers else ""]
    def udp(name, kind):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)
        s.connect(("192.0.2.2", 53)); s.send(question(name, kind))
        return read(s.recv(1000))
    def tcp(name, kind):
        s = socket.create_connection(("192.0.2.2", 53), 5); s.settimeout(5); q = question(name, kind)
        s.sendall(struct.pack(">H", len(q)) + q); n = struct.unpack(">H", s.recv(2))[0]
        return read(s.recv(n))
    try: print(json.dumps(eval(sys.argv[1])))
    except OSError as error: print(json.dumps(f"error: {error}"))
""")


def ask(what):
    return json.loads(sh("ip", "netns", "exec", APP, "python3", "-c", CLIENT, what, timeout=30))


def stats():
    text = sh(
        "ip", "netns", "exec", APP, "python3", "-c",
        f"import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:{ADMIN}/stats').read().decode())")
    return {name: int(value) for name, value in re.findall(r"^(\S+): (\d+)$", text, re.M)}


def run(title, argv, ours):
    path = f"{WORK}/{title}.json"
    json.dump(config(ours), open(path, "w"))
    os.chmod(WORK, 0o755)
    os.chmod(path, 0o644)
    as_user = ["ip", "netns", "exec", APP, "setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
    process = start([*as_user, *(word.replace("PATH", path) for word in argv)], title)
    end = time.time() + 30
    while not (isinstance(state := ask(f"http('127.0.0.1', {ADMIN}, 'x')"), str) and not state.startswith("error")):
        if process.poll() is not None or time.time() > end:
            raise SystemExit(f"{title} does not start: {open(process.log_path).read()[-3000:]}")
        time.sleep(0.1)
    found = {
        "a mesh name's address leads to the service": ask(f"http('{VIP}', 80, '{DNS_NAME}')"),
        "a service that declared TCP": ask(f"first('{DB}', 5432)")[0],
        "HTTP to elsewhere": ask("http('198.51.100.5', 80, 'example.test')"),
        "an unknown port": ask("echo('198.51.100.5', 9999)"),
        "the sidecar's own port, not redirected": ask(f"http('127.0.0.1', 15001, '{DNS_NAME}')"),
        "HTTP to elsewhere over IPv6": ask("http('2001:db8:5::5', 80, 'six.test')"),
        "an unknown port over IPv6": ask("echo('2001:db8:5::5', 9999)"),
        "DNS: a name of the mesh": ask(f"udp('{DNS_NAME}', 1)"),
        "DNS: its IPv6 address": ask(f"udp('{DNS_NAME}', 28)")[:2],
        "DNS: another name": ask("udp('example.test', 1)")[:2],
    }
    greeting, waited = ask("first('198.51.100.6', 80)")
    found["a server that speaks first"] = greeting
    check(f"{title}: it is waited for no longer than told", 0.25 < waited < 1.5, f"{waited:.2f} s")
    if ours:
        check(f"{title}: DNS over TCP", ask(f"tcp('{DNS_NAME}', 1)") == [0, 1, VIP])
        names = stats()
        redirected = sum(value for name, value in names.items() if name.endswith(".outrigger_downstream_cx_redirected"))
        check(f"{title}: redirected connections are counted where they are served", redirected == 7, str(redirected))
        for name, least in (("http_inspector.http11_found", 2), ("cluster.PassthroughCluster.upstream_cx_total", 3),
                            ("dns_filter.mesh.known_domain_queries", 3)):
            check(f"{title}: {name}", names.get(name, 0) >= least, str(names.get(name)))
    else:
        names = stats()
    process.terminate()
    process.wait(20)
    return found, names


open(f"{WORK}/origins.py", "w").write(ORIGINS)
start(["ip", "netns", "exec", WORLD, "python3", f"{WORK}/origins.py"], "origins")
sh("ip", "netns", "exec", APP, "nft", "-f", "-", input=RULES)
EXPECTED = {
    "a mesh name's address leads to the service": f"mesh {DNS_NAME}",
    "a service that declared TCP": "db",
    "HTTP to elsewhere": "world example.test",
    "an unknown port": "ping",
    "the sidecar's own port, not redirected": f"mesh {DNS_NAME}",
    "HTTP to elsewhere over IPv6": "world6 six.test",
    "an unknown port over IPv6": "ping",
    "DNS: a name of the mesh": [0, 1, VIP],
    "DNS: its IPv6 address": [0, 0],
    "DNS: another name": [3, 0],
    "a server that speaks first": "220 server first",
}
ours, our_names = run("outrigger", [PROXY, "-c", "PATH"], True)
for name, expected in EXPECTED.items():
    check(f"outrigger: {name}", ours[name] == expected, "" if ours[name] == expected else str(ours[name]))
theirs, their_names = run("envoy", [ENVOY, "-c", "PATH", "--concurrency", "1", "-l", "warn"], False)
for name, expected in EXPECTED.items():
    if theirs[name] != ours[name]:
        # What Envoy does otherwise is told, not failed: the expectation is ours.
        print(f"     envoy: {name}: {theirs[name]!r}, ours {ours[name]!r}")
same = ("http_inspector.http11_found", "tls_inspector.tls_not_found", "dns_filter.mesh.a_record_queries", "dns_filter.mesh.known_domain_queries")
for name in same:
    check(f"Envoy has {name} as well", name in their_names and name in our_names, f"{their_names.get(name)} {our_names.get(name)}")


# The PROXY protocol, in and out, on the loopback address.
PROXY_FILTER = "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"
PROXY_SOCKET = "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"


def recorder():
    """Keeps what it was sent first on each connection, and sends it back."""
    listening = socket.create_server(("127.0.0.1", 0))
    kept = []

    def serve():
        while True:
            connection, _ = listening.accept()
            connection.settimeout(5)
            try:
                data = connection.recv(1000)
                kept.append(data)
                connection.sendall(data)
            except OSError:
                pass
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    return listening.getsockname()[1], kept


def talk(port, data):
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.settimeout(2)
        connection.sendall(data)
        got = b""
        try:
            while more := connection.recv(1000):
                got += more
        except ConnectionResetError:
            pass
        except TimeoutError:
            got += b"(silence)"
        return got, connection.getsockname()


def proxy_protocol(title, argv):
    back, kept = recorder()
    ports = {name: free_port() for name in ("admin", "must", "may", "v1", "v2")}
    inner = {"name": "envoy.transport_sockets.raw_buffer", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}}
    told = lambda version: {"transport_socket": {"name": "envoy.transport_sockets.upstream_proxy_protocol", "typed_config": {
        "@type": PROXY_SOCKET, "config": {"version": version}, "transport_socket": inner}}}
    filters = lambda **more: [{"name": "envoy.filters.listener.proxy_protocol", "typed_config": {"@type": PROXY_FILTER, **more}}]
    listeners = [{"name": name, "address": address("127.0.0.1", ports[name]), "filter_chains": [tcp(cluster)], "listener_filters": listening}
                 for name, cluster, listening in (("must", "PassthroughCluster", filters()), ("v1", "v1", []), ("v2", "v2", []),
                                                  ("may", "plain", filters(allow_requests_without_proxy_protocol=True)))]
    passthrough = {"name": "PassthroughCluster", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "2s"}
    clusters = [passthrough, fixed("plain", "127.0.0.1", back), fixed("v1", "127.0.0.1", back) | told("V1"), fixed("v2", "127.0.0.1", back) | told("V2")]
    path = f"{WORK}/proxy-{title}.json"
    json.dump({"node": {"id": "p", "cluster": "p"}, "admin": {"address": address("127.0.0.1", ports["admin"])},
               "static_resources": {"listeners": listeners, "clusters": clusters}}, open(path, "w"))
    process = start([word.replace("PATH", path) for word in argv], f"proxy-{title}")
    for port in ports.values():
        wait_port(port, process)
    to = socket.inet_aton("127.0.0.1")
    six = socket.inet_pton(socket.AF_INET6, "::1")
    magic = b"\r\n\r\n\0\r\nQUIT\n"
    v2 = lambda command, family, content: magic + bytes([command, family]) + struct.pack(">H", len(content)) + content
    four = socket.inet_aton("192.0.2.7") + to + struct.pack(">HH", 4711, back)
    probes = {
        "version 1": f"PROXY TCP4 192.0.2.7 127.0.0.1 4711 {back}\r\n".encode(),
        "version 2": v2(0x21, 0x11, four),
        "version 2 with a TLV": v2(0x21, 0x11, four + b"\x04\0\3abc"),
        "version 2, local": v2(0x20, 0, b""),
        "version 2, UDP": v2(0x21, 0x12, four),
        "version 2, unspecified": v2(0x21, 0, b""),
        "version 2, a third command": v2(0x22, 0x11, four),
        "version 1, unknown": b"PROXY UNKNOWN\r\n",
        "version 1, two spaces": f"PROXY TCP4  192.0.2.7 127.0.0.1 4711 {back}\r\n".encode(),
        "version 1, no port": b"PROXY TCP4 192.0.2.7 127.0.0.1 4711\r\n",
        "version 1, a family that is none": f"PROXY TCP5 192.0.2.7 127.0.0.1 4711 {back}\r\n".encode(),
        "no header": b"",
    }
    found = {}
    for name, header in probes.items():
        for listener in ("must", "may"):
            found[f"{listener}: {name}"] = talk(ports[listener], header + b"hello")[0].decode(errors="replace")
    for version in ("v1", "v2"):
        _, client = talk(ports[version], b"hello")
        sent = kept[-1]
        expected = (f"PROXY TCP4 {client[0]} 127.0.0.1 {client[1]} {ports[version]}\r\n".encode() if version == "v1"
                    else v2(0x21, 0x11, to + to + struct.pack(">HH", client[1], ports[version])))
        found[f"sent: {version}"] = "as expected" if sent == expected + b"hello" else repr(sent)
    process.terminate()
    process.wait(20)
    return found


ours = proxy_protocol("outrigger", [PROXY, "-c", "PATH"])
theirs = proxy_protocol("envoy", [ENVOY, "-c", "PATH", "--concurrency", "1", "-l", "error", "--base-id", "7"])
# Ours closes at once what is no connection (UDP), and what cannot become a header any more.
STRICTER = {"must: version 2, UDP", "may: version 2, UDP", "must: no header"}
for name, answer in ours.items():
    if name in STRICTER:
        check(f"PROXY protocol, {name}: closed", answer == "", f"Envoy: {theirs[name]!r}")
        continue
    check(f"PROXY protocol, {name}, as Envoy", answer == theirs[name], "" if answer == theirs[name] else f"{answer!r}, Envoy {theirs[name]!r}")
finish("capture")
