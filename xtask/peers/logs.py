#!/usr/bin/env python3
"""Access logs to services as the real Envoy sends them: the log service's entries, OpenTelemetry's records."""
import os, sys, types
from concurrent import futures
import grpc
from google.protobuf import json_format

# The package `envoy`, not the script of that name beside this one.
HERE = sys.path.pop(0)
# xds-protos brings an old OTLP of its own; the present one stands apart.
opentelemetry = types.ModuleType("opentelemetry")
opentelemetry.__path__ = [os.path.join(os.environ.get("OUTRIGGER_OTLP") or os.path.join(sys.prefix, "otlp"), "opentelemetry")]
sys.modules["opentelemetry"] = opentelemetry
from envoy.service.accesslog.v3 import als_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
sys.path.insert(0, HERE)
from pair import *


class Service:
    """Takes both kinds of calls."""

    def __init__(self):
        self.entries, self.records, self.names, self.resources = [], [], set(), []
        self.server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        als = {"StreamAccessLogs": grpc.stream_unary_rpc_method_handler(self.stream, als_pb2.StreamAccessLogsMessage.FromString, lambda m: b"")}
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("envoy.service.accesslog.v3.AccessLogService", als),))
        otlp = {"Export": grpc.unary_unary_rpc_method_handler(self.export, logs_service_pb2.ExportLogsServiceRequest.FromString, lambda m: b"")}
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("opentelemetry.proto.collector.logs.v1.LogsService", otlp),))
        self.server.start()

    def stream(self, messages, context):
        for message in messages:
            if message.HasField("identifier"):
                self.names.add((message.identifier.log_name, message.identifier.node.id))
            self.entries += [("http", json_format.MessageToDict(e)) for e in message.http_logs.log_entry]
            self.entries += [("tcp", json_format.MessageToDict(e)) for e in message.tcp_logs.log_entry]
        return als_pb2.StreamAccessLogsResponse()

    def export(self, message, context):
        for logs in message.resource_logs:
            self.resources.append(sorted((a.key, a.value.string_value) for a in logs.resource.attributes))
            self.records += [json_format.MessageToDict(r) for scope in logs.scope_logs for r in scope.log_records]
        return b""


SERVICES = {"envoy": Service(), "ours": Service()}
GRPC = {"envoy_grpc": {"cluster_name": "logs"}}
COMMON = {"log_name": "edge", "grpc_service": GRPC, "transport_api_version": "V3", "buffer_flush_interval": "0.05s", "buffer_size_bytes": 1}
text = lambda value: {"string_value": value}


def edge(port, side):
    built = listener("edge", port, [{"name": "v", "domains": ["*"], "routes": [
        {"name": "first", "match": {"prefix": "/direct"}, "direct_response": {"status": 404, "body": {"inline_string": "none"}}},
        {"name": "second", "match": {"prefix": "/"}, "route": {"cluster": "a"}}]}])
    built["filter_chains"][0]["filters"][0]["typed_config"]["access_log"] = [
        {"name": "als", "typed_config": {"@type": T + "access_loggers.grpc.v3.HttpGrpcAccessLogConfig", "common_config": COMMON,
                                         "additional_request_headers_to_log": ["X-One", "x-none"], "additional_response_headers_to_log": ["x-two"]}},
        {"name": "otlp", "typed_config": {"@type": T + "access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig", "common_config": COMMON,
                                          "body": text("%REQ(:METHOD)% %REQ(:PATH)%"), "resource_attributes": {"values": [{"key": "team", "value": text("a")}]},
                                          "attributes": {"values": [{"key": "code", "value": text("%RESPONSE_CODE%")}, {"key": "none", "value": text("%REQ(x-none)%")},
                                                                    {"key": "list", "value": {"kvlist_value": {"values": [{"key": "in", "value": text("%ROUTE_NAME%!")}]}}}]}}}]
    return built


def tcp(port, side):
    proxy = {"@type": T + "filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "tcp", "cluster": "a", "access_log": [
        {"name": "als", "typed_config": {"@type": T + "access_loggers.grpc.v3.TcpGrpcAccessLogConfig", "common_config": COMMON}}]}
    return {"name": "tcp", "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}, "filter_chains": [{"filters": [{"name": "tcp", "typed_config": proxy}]}]}


def extra(side):
    static = {"clusters": [cluster("logs", SERVICES[side.name].port, h2=True)] + [cluster(n, o.port) for n, o in side.origins.items()],
              "listeners": [edge(side.ports["edge"], side), tcp(side.ports["tcp"], side)]}
    return {"node": {"id": "n", "cluster": "c", "locality": {"zone": "z"}}, "static_resources": static}


pair = Pair(["a"], {"edge": edge, "tcp": tcp}, extra)
pair.same("a request", "/x?h-x-two=2", [("x-one", "1"), ("user-agent", "test"), ("referer", "r")])
pair.same("a request with a body", "/y", method="POST", body=b"12345")
pair.same("an answer of the proxy", "/direct", requests=0)
pair.same("a connection", "/z", label="tcp")

# Times, ids and lengths of heads are each proxy's own; wire bytes and TLS are not told by ours.
OWN = {"startTime", "timeToLastRxByte", "timeToFirstUpstreamTxByte", "timeToLastUpstreamTxByte", "timeToFirstUpstreamRxByte", "timeToLastUpstreamRxByte",
       "timeToFirstDownstreamTxByte", "timeToLastDownstreamTxByte", "duration", "streamId", "requestId", "portValue", "downstreamWireBytesSent", "downstreamWireBytesReceived",
       "upstreamWireBytesSent", "upstreamWireBytesReceived", "timeUnixNano", "upstreamHeaderBytesSent", "downstreamHeaderBytesReceived", "upstreamHeaderBytesReceived",
       "downstreamHeaderBytesSent", "requestHeadersBytes", "responseHeadersBytes", "observedTimeUnixNano", "traceId", "spanId"}


def neutral(value):
    if isinstance(value, dict):
        return {k: neutral(v) for k, v in value.items() if k not in OWN}
    return [neutral(v) for v in value] if isinstance(value, list) else value


end = time.time() + 10
while time.time() < end and any(len(s.entries) < 4 or len(s.records) < 3 for s in SERVICES.values()):
    time.sleep(0.05)
for name, pick in [("entries", lambda s: sorted((kind, json.dumps(neutral(e), sort_keys=True)) for kind, e in s.entries)),
                   ("names", lambda s: sorted(s.names)), ("records", lambda s: sorted(json.dumps(neutral(r), sort_keys=True) for r in s.records)),
                   ("resources", lambda s: s.resources[:1])]:
    envoy, ours = pick(SERVICES["envoy"]), pick(SERVICES["ours"])
    check(f"{name} ({len(envoy)})", envoy == ours and envoy, "; ".join(differences(envoy, ours)) or f"{envoy} {ours}")
for service in SERVICES.values():
    # Open streams would keep this program from ending.
    service.server.stop(0)
finish("logs")
