"""What the peer checks share: free ports, processes that end with the check, certificates, Envoy configurations."""
import atexit, datetime, json, os, socket, subprocess, sys, tempfile, time
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PROXY = os.environ["OUTRIGGER_PROXY"]
WORK = tempfile.mkdtemp(prefix="outrigger-peers-")
FAILED = []
PASSED = 0
_children = []
_given = set()
T = "type.googleapis.com/envoy.extensions."


@atexit.register
def _end():
    for p in _children:
        if p.poll() is None:
            p.terminate()
    for p in _children:
        try:
            p.wait(10)
        except subprocess.TimeoutExpired:
            p.kill()


def check(name, ok, detail=""):
    global PASSED
    print(f"{'ok  ' if ok else 'FAIL'} {name}" + (f": {detail}" if detail else ""), flush=True)
    if ok:
        PASSED += 1
    else:
        FAILED.append(name)


def finish(title):
    print(f"{title}: {PASSED} passed, {len(FAILED)} failed")
    sys.exit(1 if FAILED else 0)


def free_port():
    """A port nobody listens on, never the same one twice."""
    while True:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port


def start(argv, name, env=None):
    log = open(f"{WORK}/{name}.log", "ab")
    p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | (env or {}))
    p.log_path = f"{WORK}/{name}.log"
    _children.append(p)
    return p


def wait_port(port, process=None, seconds=20):
    end = time.time() + seconds
    while time.time() < end:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process is not None and process.poll() is not None:
            raise SystemExit(f"process ended: {open(process.log_path).read()[-3000:]}")
        time.sleep(0.05)
    raise SystemExit(f"port {port} did not open" + (f": {open(process.log_path).read()[-3000:]}" if process else ""))


def certificates(trust_domain="mesh.test"):
    """A CA and one leaf per name, with SPIFFE ids; returns paths."""
    now = datetime.datetime.now(datetime.timezone.utc)

    def save(path, data):
        with open(path, "wb") as f:
            f.write(data)
        return path

    def pem_key(k):
        return k.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())

    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "peers CA")])
    def build(subject, key):
        return (x509.CertificateBuilder().subject_name(subject).issuer_name(ca_name).public_key(key.public_key())
                .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
                .not_valid_after(now + datetime.timedelta(days=2)))
    ca = build(ca_name, ca_key).add_extension(x509.BasicConstraints(True, None), True).sign(ca_key, hashes.SHA256())
    out = {"ca": save(f"{WORK}/ca.pem", ca.public_bytes(serialization.Encoding.PEM))}
    for name in ("client", "server"):
        key = ec.generate_private_key(ec.SECP256R1())
        sans = [x509.UniformResourceIdentifier(f"spiffe://{trust_domain}/ns/default/sa/{name}"), x509.DNSName("localhost")]
        leaf = (build(x509.Name([]), key).add_extension(x509.BasicConstraints(False, None), True)
                .add_extension(x509.SubjectAlternativeName(sans), True)
                .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), False)
                .sign(ca_key, hashes.SHA256()))
        out[name] = save(f"{WORK}/{name}.pem", leaf.public_bytes(serialization.Encoding.PEM))
        out[name + "_key"] = save(f"{WORK}/{name}.key", pem_key(key))
    return out


def cluster(name, port, h2=False, tls=None):
    c = {"name": name, "type": "STATIC", "connect_timeout": "2s", "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}]}]}}
    if h2:
        c["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": T + "upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {"http2_protocol_options": {}}}}
    if tls:
        c["transport_socket"] = {"name": "tls", "typed_config": {"@type": T + "transport_sockets.tls.v3.UpstreamTlsContext", "sni": "localhost", "common_tls_context": tls}}
    return c


def listener(name, port, vhosts, tls=None):
    hcm = {"@type": T + "filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": name, "codec_type": "AUTO",
           "upgrade_configs": [{"upgrade_type": "websocket"}], "route_config": {"virtual_hosts": vhosts},
           "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": T + "filters.http.router.v3.Router"}}]}
    chain = {"filters": [{"name": "hcm", "typed_config": hcm}]}
    if tls:
        chain["transport_socket"] = {"name": "tls", "typed_config": {"@type": T + "transport_sockets.tls.v3.DownstreamTlsContext",
                                                                    "require_client_certificate": True, "common_tls_context": tls}}
    return {"name": name, "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}, "filter_chains": [chain]}


def vhost(name, domains, target):
    return {"name": name, "domains": domains, "routes": [{"match": {"prefix": "/"}, "route": {"cluster": target, "timeout": "0s", "idle_timeout": "0s"}}]}


def tls_context(c, own, peer, alpn):
    return {"tls_certificates": [{"certificate_chain": {"filename": c[own]}, "private_key": {"filename": c[own + "_key"]}}], "alpn_protocols": alpn,
            "validation_context": {"trusted_ca": {"filename": c["ca"]}, "match_typed_subject_alt_names": [
                {"san_type": "URI", "matcher": {"exact": f"spiffe://mesh.test/ns/default/sa/{peer}"}}]}}


def run_proxy(name, config, admin):
    config = {"admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}}} | config
    path = f"{WORK}/{name}.json"
    with open(path, "w") as f:
        json.dump(config, f)
    p = start([PROXY, "-c", path, "--concurrency", "1", "--drain-time-s", "2", "--log-level", "warning"], name)
    wait_port(admin, p)
    return p
