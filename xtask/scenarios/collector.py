"""An OpenTelemetry collector that keeps what it is sent."""
import importlib, os, sys, threading
from concurrent import futures
import grpc
from grpc_tools import protoc
from common import WORK

PROTO = os.path.join(os.path.dirname(__file__), "../../control/api/proto")
_stubs = f"{WORK}/otlp"
os.makedirs(_stubs, exist_ok=True)
_files = [f"{PROTO}/opentelemetry/proto/{name}.proto" for name in ("collector/trace/v1/trace_service", "trace/v1/trace", "common/v1/common", "resource/v1/resource")]
if protoc.main(["", f"-I{PROTO}", f"--python_out={_stubs}", *_files]):
    raise SystemExit("stubs of OTLP could not be made")
# Packages of their own, so that they come before another one's of the same name, which is older.
for folder, _, _ in os.walk(_stubs):
    open(f"{folder}/__init__.py", "w").close()
sys.path.insert(0, _stubs)
importlib.invalidate_caches()
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2  # noqa: E402


class Collector:
    PORT = 4317

    def __init__(self, address):
        self.lock, self.spans = threading.Lock(), []
        self.server = grpc.server(futures.ThreadPoolExecutor(8))
        export = grpc.unary_unary_rpc_method_handler(self.export, trace_service_pb2.ExportTraceServiceRequest.FromString,
                                                     trace_service_pb2.ExportTraceServiceResponse.SerializeToString)
        service = "opentelemetry.proto.collector.trace.v1.TraceService"
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": export}),))
        self.server.add_insecure_port(f"{address}:{self.PORT}")
        self.server.start()

    def export(self, request, context):
        for of_service in request.resource_spans:
            name = next((a.value.string_value for a in of_service.resource.attributes if a.key == "service.name"), "")
            for scope in of_service.scope_spans:
                with self.lock:
                    self.spans += [(name, span) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def of(self, trace):
        """(service, "server" or "client", own id, parent's id) of each span of a trace."""
        kinds = {2: "server", 3: "client"}
        with self.lock:
            return [(name, kinds.get(span.kind, "?"), span.span_id.hex(), span.parent_span_id.hex()) for name, span in self.spans if span.trace_id.hex() == trace]

    def forget(self):
        with self.lock:
            self.spans.clear()
