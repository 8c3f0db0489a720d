"""Those who are in the mesh without being tasks: a machine with a sidecar, the edge gateway, a workload of Kubernetes."""
import contextlib, datetime, json, os, ssl, threading, time
import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from common import PROXY, WORK, start
from topology import ask, at, inside, sh
from mesh import until

APP = os.environ["OUTRIGGER_XTASK"]
UID = 1337

# The agent's rules, as it writes them for a task; a machine has no agent, its operator writes them.
REDIRECTION = """
table inet outrigger {
  chain inbound {
    type nat hook prerouting priority -110; policy accept;
    tcp dport 8080 redirect to :15006
  }
  chain outbound {
    type nat hook output priority -110; policy accept;
    meta skuid %d return
    oifname "lo" return
    meta l4proto { tcp, udp } th dport 53 redirect to :15053
    meta l4proto tcp redirect to :15001
  }
}
""" % UID


def proxy(mesh, host, account, *more):
    """A proxy on a host, as its unit file would start it: by a join token, as its own user."""
    state = f"{WORK}/{host}/state"
    os.makedirs(state)
    token = f"{state}/token"
    open(token, "w").write(mesh.join_token("payments", account) if "--role=gateway" not in more else gateway_token(mesh, account))
    sh("chown", "-R", f"{UID}:{UID}", state)
    root = f"{WORK}/{host}/root.pem"
    open(root, "w").write(open(mesh.root).read())
    argv = [PROXY, "--control", f"{mesh.address}:{mesh.port}", "--trust-bundle", root, "--join-token-file", token, "--state-dir", state, "--namespace", "payments",
            "--service-account", account, "--address", at(host), "--drain-time-s", "5", *more]
    return start(inside(host, "setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--inh-caps=+net_bind_service", "--ambient-caps=+net_bind_service", *argv), f"{host}-proxy")


def gateway_token(mesh, account):
    status, answer = mesh.call("POST", "/api/v1/tokens", json.dumps({"namespace": "payments", "serviceAccount": account, "uses": 1, "gateway": True}))
    assert status == 200, answer
    return answer["token"]


def machine(mesh):
    """A program on a machine without containers, that calls `http://b.payments.mesh/` and is called as `legacy.payments.mesh`."""
    sh(*inside("vm", "nft", "-f", "-"), stdin=REDIRECTION)
    start(inside("vm", APP, "demo-service", "0.0.0.0:8080", "legacy"), "vm-app")
    captured = '{"node": {"metadata": {"CAPTURE": {"outbound": 15001, "dns": 15053}}}}'
    return proxy(mesh, "vm", "legacy", "--service", "legacy", "--service-version", "v1", "--port", "http:http:80:8080", "--config-yaml", captured)


def ready(host, port=15000):
    return until(lambda: ask(host, "127.0.0.1", port, "/ready")[0] == 200, 30)


def gateway(mesh):
    return proxy(mesh, "edge", "edge", "--role=gateway", "--label", "app=edge")


def workload(mesh):
    """Envoy as Istio makes it a sidecar, in front of a pod's program: everything by xDS, and redirected on both sides."""
    sh(*inside("cluster", "nft", "-f", "-"), stdin=REDIRECTION)
    start(inside("cluster", APP, "demo-service", "0.0.0.0:8080", "pod"), "cluster-app")
    folder, channel = mesh.member("payments", "pod")

    def register():
        mesh.register(channel, "payments", "pod", "v1", "pod-1", 8080, 15006, 15001, address=at("cluster"), number=80)

    def stay():
        # Its lease is thirty seconds long.
        while True:
            time.sleep(10)
            with contextlib.suppress(grpc.RpcError):
                register()
    register()
    threading.Thread(target=stay, daemon=True).start()
    os.chmod(folder, 0o755)
    as_user = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
    # Istio's flags: without them connections that are open keep old policies for ten minutes.
    flags = ["--drain-time-s", "45", "--drain-strategy", "immediate"]
    return mesh.envoy("pod-1", folder, True, before=inside("cluster", *as_user), metadata={"CAPTURE": {"outbound": 15001, "dns": 15053}}, flags=flags)


def public_certificate(name):
    """What end users see of the edge, and the context with which they trust it."""
    now = datetime.datetime.now(datetime.timezone.utc)

    def build(subject, issuer, key):
        names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (subject, issuer)]
        return (x509.CertificateBuilder().subject_name(names[0]).issuer_name(names[1]).public_key(key.public_key()).serial_number(x509.random_serial_number())
                .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=2)))
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = build("public CA", "public CA", authority).add_extension(x509.BasicConstraints(True, None), True).sign(authority, hashes.SHA256())
    leaf = build(name, "public CA", key).add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), False).sign(authority, hashes.SHA256())
    pem = serialization.Encoding.PEM
    secret = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "pay-tls", "namespace": "payments"}, "stringData": {
        "tls.crt": leaf.public_bytes(pem).decode(), "tls.key": key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()}}
    return json.dumps(secret), ssl.create_default_context(cadata=root.public_bytes(pem).decode())
