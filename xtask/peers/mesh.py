"""A control service with members, for checks with foreign xDS clients: enrolment, registration, the operator API, Envoy."""
import http.server, importlib, json, os, shutil, sys, threading, time, urllib.error, urllib.request
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_tools import protoc
import grpc
from common import WORK, free_port, start

PROTO = os.path.join(os.path.dirname(__file__), "../../control/api/proto")
_stubs = f"{WORK}/stubs"
os.makedirs(_stubs, exist_ok=True)
if protoc.main(["", f"-I{PROTO}", f"--python_out={_stubs}", f"--grpc_python_out={_stubs}",
                f"{PROTO}/outrigger/v1/identity.proto", f"{PROTO}/outrigger/v1/registration.proto"]):
    raise SystemExit("stubs of outrigger.v1 could not be made")
sys.path.insert(0, _stubs)
importlib.invalidate_caches()
from outrigger.v1 import identity_pb2, identity_pb2_grpc, registration_pb2, registration_pb2_grpc  # noqa: E402


class Mesh:
    """A running control service."""

    def __init__(self, address="127.0.0.1", more=()):
        self.data, self.address, self.more = f"{WORK}/control", address, list(more)
        # What its certificate names.
        self.name = "localhost" if address == "127.0.0.1" else address
        self.again("0")

    def again(self, port=None):
        """Starts the service; at the same port when it ran before."""
        data, address = self.data, self.address
        if os.path.exists(f"{data}/addresses.json"):
            os.remove(f"{data}/addresses.json")
        more = ["--allow-loopback-workloads"] if address == "127.0.0.1" else ["--server-ip", address]
        self.process = start([os.environ["OUTRIGGER_CONTROL_BIN"], "run", "--data-dir", data, "--xds-address", f"{address}:{port or self.port}",
                              "--api-address", "127.0.0.1:0", *more, *self.more], "control")
        end = time.time() + 30
        while not os.path.exists(f"{data}/addresses.json"):
            if time.time() > end or self.process.poll() is not None:
                raise SystemExit("the control service did not start: " + open(self.process.log_path).read()[-3000:])
            time.sleep(0.05)
        addresses = json.load(open(f"{data}/addresses.json"))
        self.port, self.api = int(addresses["xds"].rsplit(":", 1)[1]), addresses["api"]
        self.root = addresses["root_certificate"]
        self.token = open(f"{data}/admin.token").read().strip()

    def call(self, method, path, body=None, kind="application/json"):
        request = urllib.request.Request(self.api + path, data=body.encode() if body else None, method=method,
                                         headers={"authorization": f"Bearer {self.token}", "content-type": kind})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def apply(self, text):
        return self.call("POST", "/api/v1/apply", text, "application/yaml")

    def states(self):
        return {p["id"]: p for p in self.call("GET", "/api/v1/proxies")[1]["items"]}

    def join_token(self, namespace, account):
        status, answer = self.call("POST", "/api/v1/tokens", json.dumps({"namespace": namespace, "serviceAccount": account, "uses": 1}))
        assert status == 200, answer
        return answer["token"]

    def member(self, namespace, account):
        """Enrols; returns the directory of its certificate and a channel with it."""
        key = ec.generate_private_key(ec.SECP256R1())
        csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        roots = open(self.root, "rb").read()
        nobody = grpc.secure_channel(f"{self.name}:{self.port}", grpc.ssl_channel_credentials(roots))
        signed = identity_pb2_grpc.CertificateServiceStub(nobody).Sign(identity_pb2.SignRequest(
            csr_der=csr.public_bytes(serialization.Encoding.DER), join_token=self.join_token(namespace, account)), timeout=10)
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        folder = f"{WORK}/{namespace}-{account}"
        os.makedirs(folder, exist_ok=True)
        for name, content in [("key.pem", pem), ("cert.pem", signed.certificate_chain_pem.encode()), ("ca.pem", signed.trust_bundle.pem.encode())]:
            open(f"{folder}/{name}", "wb").write(content)
        credentials = grpc.ssl_channel_credentials(signed.trust_bundle.pem.encode(), pem, signed.certificate_chain_pem.encode())
        return folder, grpc.secure_channel(f"{self.name}:{self.port}", credentials)

    def register(self, channel, namespace, account, version, instance, app_port, inbound, outbound, protocol="HTTP", address="127.0.0.1", number=8080):
        port = registration_pb2.WorkloadPort(name="main", number=number, protocol=protocol, target_port=app_port)
        workload = registration_pb2.Workload(instance_id=instance, namespace=namespace, service_account=account, service=account, version=version,
                                             address=address, node_id=instance, inbound_port=inbound, outbound_port=outbound, ports=[port])
        registration_pb2_grpc.RegistrationServiceStub(channel).Register(registration_pb2.RegisterRequest(workload=workload), timeout=10)

    def envoy(self, node, folder, delta, before=(), metadata=None, flags=()):
        """The real Envoy, with nothing but the address of the control service and its certificate."""
        tls = {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", "sni": "localhost", "common_tls_context": {
            "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificates": [{"certificate_chain": {"filename": f"{folder}/cert.pem"}, "private_key": {"filename": f"{folder}/key.pem"}}],
            "validation_context": {"trusted_ca": {"filename": f"{folder}/ca.pem"}}}}
        options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        control = {"name": "control", "type": "STATIC", "connect_timeout": "2s", "transport_socket": {"name": "tls", "typed_config": tls},
                   "typed_extension_protocol_options": {options: {"@type": f"type.googleapis.com/{options}", "explicit_http_config": {"http2_protocol_options": {}}}},
                   "load_assignment": {"cluster_name": "control", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {
                       "socket_address": {"address": self.address, "port_value": self.port}}}}]}]}}
        source = {"ads": {}, "resource_api_version": "V3"}
        bootstrap = {"node": {"id": node, "cluster": node, "metadata": metadata or {}}, "static_resources": {"clusters": [control]}, "dynamic_resources": {
            "ads_config": {"api_type": "DELTA_GRPC" if delta else "GRPC", "transport_api_version": "V3", "grpc_services": [{"envoy_grpc": {"cluster_name": "control"}}]},
            "cds_config": source, "lds_config": source}}
        path = f"{WORK}/{node}.json"
        json.dump(bootstrap, open(path, "w"))
        program = shutil.which("envoy")
        if not program:
            raise SystemExit("envoy is missing")
        return start([*before, program, "-c", path, "--disable-hot-restart", "--concurrency", "1", *flags], node)

    def outrigger(self, namespace, account, version, instance, app_port, inbound, outbound):
        """Our proxy, enrolled and registered by itself."""
        return start([os.environ["OUTRIGGER_PROXY"], "--control", f"localhost:{self.port}", "--trust-bundle", self.root,
                      "--join-token", self.join_token(namespace, account), "--state-dir", f"{WORK}/{instance}", "--namespace", namespace,
                      "--service-account", account, "--service", account, "--service-version", version, "--instance-id", instance,
                      "--address", "127.0.0.1", "--port", f"main:http:8080:{app_port}", "--inbound-port", str(inbound),
                      "--outbound-port", str(outbound), "--admin-address", f"127.0.0.1:{free_port()}", "--concurrency", "1"], instance)


def application(name):
    """Answers its name and who called; returns its port."""
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = json.dumps({"app": name, "caller": self.headers.get("x-forwarded-client-cert")}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def request(port, host):
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/", headers={"host": host})
    try:
        with urllib.request.urlopen(asked, timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def until(condition, seconds=20):
    end = time.time() + seconds
    while time.time() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    return None
