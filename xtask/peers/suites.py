#!/usr/bin/env python3
"""The shared conformance and attack suites against our proxy, in the shape of their bed: scores may rise, never sink.

Usage: suites.py [SUITE…]; without names all of them run."""
import concurrent.futures, re, shutil, subprocess
from common import *

SUITES = os.path.join(os.environ["OUTRIGGER_SHARED"], "suites")
CORPORA = os.path.join(os.environ["OUTRIGGER_SHARED"], "corpora")
# Name → (least score, of how many, seconds allowed). The score is what was reached last; raise it with every gain.
LEAST = {
    "H1_SMUGGLING": (334, 334, 240),
    "H2_DOWNGRADE": (184, 184, 240),
    "H2_DOWNGRADE_TLS": (184, 184, 240),
    "H2_FRAMES": (78, 78, 240),
    "TLS_SCAN": (71, 71, 620),
    "SPIFFE_MTLS": (58, 58, 60),
    "NODE_CLIENTS": (16, 16, 60),
    "H2_FLOODS": (18, 18, 240),
    "SLOW": (3, 3, 150),
}
HTTP = {"upgrade_configs": [{"upgrade_type": "websocket"}], "http2_protocol_options": {"allow_connect": True}}


def bed_listener(name, port, target, tls=None):
    made = listener(name, port, [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": target, "timeout": "30s"}}]}])
    chain = made["filter_chains"][0]
    chain["filters"][0]["typed_config"] |= HTTP
    if tls is not None:
        chain["transport_socket"] = {"name": "tls", "typed_config": {"@type": T + "transport_sockets.tls.v3.DownstreamTlsContext", **tls}}
    return made


def takes_connect(made):
    """The listener with a route for plain CONNECT, which no route of a path takes: the tunnel ends here, at a host of the cluster."""
    manager = made["filter_chains"][0]["filters"][0]["typed_config"]
    host = manager["route_config"]["virtual_hosts"][0]
    route = {"cluster": host["routes"][0]["route"]["cluster"], "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]}
    host["routes"].insert(0, {"match": {"connect_matcher": {}}, "route": route})
    return made


def run(name, argv, cwd=None):
    """Runs one suite; returns its name, its last score line and what it printed."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=LEAST[name][2], cwd=cwd, env=os.environ | {"TMPDIR": WORK}, stdin=subprocess.DEVNULL)
        out = done.stdout + done.stderr
    except subprocess.TimeoutExpired as late:
        out = (late.stdout or b"").decode() + "\ntook too long"
    score = re.findall(r"^[A-Z0-9_]+: (\d+)/(\d+)$", out, re.M)
    return name, tuple(map(int, score[-1])) if score else None, out


def judge(result):
    name, score, out = result
    least, total, _ = LEAST[name]
    open(f"{WORK}/{name}.out", "w").write(out)
    for line in [l for l in out.splitlines() if l.startswith("FAIL")][:12]:
        print("     " + line[:300])
    if score is None:
        check(name, False, "no score; " + out[-600:])
    else:
        check(name, score[0] >= least and score[1] >= total, f"{score[0]}/{score[1]}, at least {least}/{total}")
        if score[0] > least:
            print(f"     more than the {least} demanded: raise it")


def node_folder():
    """A folder with the suite and npm's undici."""
    folder = os.path.join(os.path.dirname(os.path.dirname(sys.executable)), "node-clients")
    if not os.path.isdir(f"{folder}/node_modules/undici"):
        os.makedirs(folder, exist_ok=True)
        with open(f"{folder}/package.json", "w") as f:
            f.write('{"name": "node-clients", "private": true, "type": "module"}')
        subprocess.run(["npm", "install", "--no-fund", "--no-audit", "--ignore-scripts", "--silent", "undici@6"], cwd=folder, check=True, timeout=120, stdin=subprocess.DEVNULL)
    shutil.copy(f"{SUITES}/node_clients.mjs", folder)
    return folder


wanted = sys.argv[1:] or list(LEAST)
python = sys.executable
certs = f"{WORK}/certs"
subprocess.run([python, f"{SUITES}/bed/certs.py", certs], check=True, timeout=60, stdout=subprocess.DEVNULL)
leaf = {"alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [{"certificate_chain": {"filename": f"{certs}/server.crt"}, "private_key": {"filename": f"{certs}/server.key"}}]}
only = {"trusted_ca": {"filename": f"{certs}/root.crt"}, "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": "spiffe://mesh.test/ns/default/sa/client"}}]}
# Each suite that asks the origin what it saw has an origin of its own, so that they can run side by side.
names = ["smuggling", "downgrade", "downgrade_tls", "others"]
origins, fronts = {n: free_port() for n in names}, {n: free_port() for n in names}
frames_origin, frames, mtls, scan, admin = (free_port() for _ in range(5))
for n in names:
    wait_port(origins[n], start([python, f"{SUITES}/bed/backend.py", str(origins[n])] + (["--quiet"] if n == "others" else []), f"origin-{n}"))
proxy = run_proxy("bed", {"static_resources": {
    "listeners": [bed_listener(n, fronts[n], n, {"require_client_certificate": False, "common_tls_context": leaf} if n == "downgrade_tls" else None) for n in names]
    + [takes_connect(bed_listener("frames", frames, "frames")), bed_listener("scan", scan, "others", {"require_client_certificate": False, "common_tls_context": leaf}), bed_listener("mtls", mtls, "others", {"require_client_certificate": True, "common_tls_context": leaf | {"validation_context": only}})],
    "clusters": [cluster(n, origins[n]) for n in names] + [cluster("frames", frames_origin, h2=True)]}}, admin)
for port in [*fronts.values(), frames, mtls, scan]:
    wait_port(port, proxy)

side_by_side = {
    "H1_SMUGGLING": lambda: [python, f"{SUITES}/h1_smuggling.py", "127.0.0.1", str(fronts["smuggling"]), f"127.0.0.1:{origins['smuggling']}"],
    "H2_DOWNGRADE": lambda: [python, f"{SUITES}/h2_downgrade.py", "127.0.0.1", str(fronts["downgrade"]), f"127.0.0.1:{origins['downgrade']}"],
    "H2_DOWNGRADE_TLS": lambda: [python, f"{SUITES}/h2_downgrade.py", "127.0.0.1", str(fronts["downgrade_tls"]), f"127.0.0.1:{origins['downgrade_tls']}", "--tls"],
    "TLS_SCAN": lambda: [python, f"{SUITES}/tls_scan.py", "127.0.0.1", str(scan), f"{certs}/root.crt"],
    "H2_FRAMES": lambda: [python, f"{SUITES}/h2_frames.py", f"{CORPORA}/http2/h2_proxy_cases_client.json", "127.0.0.1", str(frames), str(frames_origin)],
}
with concurrent.futures.ThreadPoolExecutor(len(side_by_side)) as pool:
    for result in pool.map(lambda s: run(s[0], s[1]()), [s for s in side_by_side.items() if s[0] in wanted]):
        judge(result)
# These measure time or the proxy's memory: one after the other.
if "SPIFFE_MTLS" in wanted:
    judge(run("SPIFFE_MTLS", [python, f"{SUITES}/spiffe_mtls.py", "127.0.0.1", str(mtls), certs]))
if "NODE_CLIENTS" in wanted:
    url = f"http://127.0.0.1:{fronts['others']}"
    folder = node_folder()
    judge(run("NODE_CLIENTS", ["node", "node_clients.mjs", url, url], folder))
if "H2_FLOODS" in wanted:
    floods = [python, f"{SUITES}/h2_floods.py", "127.0.0.1", str(fronts["others"]), "--pid", str(proxy.pid)]
    result = run("H2_FLOODS", floods)
    if result[1] and result[1][0] < LEAST["H2_FLOODS"][0]:
        # It asks for answers within a second, which another process on the machine can spoil: once more, said aloud.
        print(f"     H2_FLOODS: {result[1][0]} at first: {[l for l in result[2].splitlines() if l.startswith('FAIL')]}; once more")
        result = run("H2_FLOODS", floods)
    judge(result)
if "SLOW" in wanted:
    judge(run("SLOW", ["bash", f"{SUITES}/slow.sh", f"http://127.0.0.1:{fronts['others']}", "15"]))
check("the proxy lives", proxy.poll() is None)
finish("suites")
