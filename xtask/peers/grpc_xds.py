#!/usr/bin/env python3
"""gRPC's own xDS client resolves and calls a service through our control service; the service's sidecar is the real Envoy."""
import subprocess
from concurrent import futures
import grpc
from common import *
from mesh import Mesh, until

CLIENT = """
import grpc
with grpc.insecure_channel('xds:///{target}') as channel:
    print(channel.unary_unary('/peers.Echo/Say')(b'you', timeout=15).decode())
"""


class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: b"hello " + request)


mesh = Mesh()
folder_c, _ = mesh.member("demo", "client")
folder_b, channel_b = mesh.member("demo", "b")
server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((Echo(),))
app = server.add_insecure_port("127.0.0.1:0")
server.start()
inbound = free_port()
mesh.register(channel_b, "demo", "b", "v1", "b-1", app, inbound, free_port(), "GRPC")
# The client has no certificate for the data path, so the service must take plaintext.
status, answer = mesh.apply("apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: demo}\nspec: {mtls: {mode: PERMISSIVE}}\n")
check("permissive mode is accepted", status == 200, str(answer) if status != 200 else "")
mesh.envoy("b-1", folder_b, True)
wait_port(inbound)
bootstrap = {"xds_servers": [{"server_uri": f"localhost:{mesh.port}", "server_features": ["xds_v3"], "channel_creds": [{"type": "tls", "config": {
    "ca_certificate_file": f"{folder_c}/ca.pem", "certificate_file": f"{folder_c}/cert.pem", "private_key_file": f"{folder_c}/key.pem"}}]}],
    "node": {"id": "grpc-client"}}
for target in ("b.demo.mesh:8080", "b:8080", "b.demo.svc.cluster.local"):
    run = subprocess.run([sys.executable, "-c", CLIENT.format(target=target)], capture_output=True, text=True, timeout=60,
                         env=os.environ | {"GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(bootstrap)})
    check(f"xds:///{target} is resolved and called", run.stdout.strip() == "hello you", run.stderr[-1500:])
seen = mesh.states().get("grpc-client", {})
check("the client rejected nothing", not seen.get("rejected"), str(seen.get("rejected")))
finish("grpc-xds")
