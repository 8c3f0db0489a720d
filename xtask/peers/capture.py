#!/usr/bin/env python3
"""Redirected connections, with real rules in network namespaces of our own: our proxy, and the real Envoy on the same configuration.

Needs root, ip, nft and setpriv."""
import atexit, json, os, re, shutil, subprocess, sys, textwrap, time
from common import PROXY, WORK, check, finish, start

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
finish("capture")
