#!/usr/bin/env python3
"""The interoperability cases every gRPC implementation runs, with grpcio on both ends and the proxy between.

Three ways: one proxy without TLS, one proxy whose clients use mutual TLS, and two proxies with mutual TLS between them."""
import concurrent.futures, importlib, queue, sys, threading, time
import grpc
from grpc_tools import protoc
from common import *

# What the cases need of grpc.testing's messages; names and numbers are those of the published service.
PROTO = """
syntax = "proto3";
package grpc.testing;
message Empty {}
message Payload { bytes body = 2; }
message EchoStatus { int32 code = 1; string message = 2; }
message SimpleRequest { int32 response_size = 2; Payload payload = 3; EchoStatus response_status = 7; }
message SimpleResponse { Payload payload = 1; }
message StreamingInputCallRequest { Payload payload = 1; }
message StreamingInputCallResponse { int32 aggregated_payload_size = 1; }
message ResponseParameters { int32 size = 1; int32 interval_us = 2; }
message StreamingOutputCallRequest { repeated ResponseParameters response_parameters = 2; Payload payload = 3; EchoStatus response_status = 7; }
message StreamingOutputCallResponse { Payload payload = 1; }
service TestService {
  rpc EmptyCall(Empty) returns (Empty);
  rpc UnaryCall(SimpleRequest) returns (SimpleResponse);
  rpc StreamingInputCall(stream StreamingInputCallRequest) returns (StreamingInputCallResponse);
  rpc StreamingOutputCall(StreamingOutputCallRequest) returns (stream StreamingOutputCallResponse);
  rpc FullDuplexCall(stream StreamingOutputCallRequest) returns (stream StreamingOutputCallResponse);
  rpc UnimplementedCall(Empty) returns (Empty);
}
service UnimplementedService { rpc UnimplementedCall(Empty) returns (Empty); }
"""
with open(f"{WORK}/interop.proto", "w") as f:
    f.write(PROTO)
if protoc.main(["", f"-I{WORK}", f"--python_out={WORK}", f"--grpc_python_out={WORK}", f"{WORK}/interop.proto"]):
    raise SystemExit("the messages of the cases could not be made")
sys.path.insert(0, WORK)
importlib.invalidate_caches()
import interop_pb2 as pb, interop_pb2_grpc as stubs  # noqa: E402

INITIAL, TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"
SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
LIMIT = 20


class Server(stubs.TestServiceServicer):
    """Does what a request asks for; remembers which of the calls that say their case have ended."""

    def __init__(self):
        self.ended, self.begun = queue.Queue(), threading.Event()

    def watch(self, context):
        """The cases named never end a call by themselves: when it ends, the server was told so."""
        name = dict(context.invocation_metadata()).get("x-case")
        if name is not None:
            context.add_callback(lambda: self.ended.put(name))

    @staticmethod
    def metadata(context):
        sent = dict(context.invocation_metadata())
        if INITIAL in sent:
            context.send_initial_metadata([(INITIAL, sent[INITIAL])])
        if TRAILING in sent:
            context.set_trailing_metadata([(TRAILING, sent[TRAILING])])

    @staticmethod
    def status(request, context):
        if request.response_status.code:
            context.abort(next(c for c in grpc.StatusCode if c.value[0] == request.response_status.code), request.response_status.message)

    def EmptyCall(self, request, context):
        return pb.Empty()

    def UnaryCall(self, request, context):
        self.metadata(context)
        self.status(request, context)
        return pb.SimpleResponse(payload=pb.Payload(body=bytes(request.response_size)))

    def StreamingInputCall(self, requests, context):
        self.watch(context)
        size = 0
        for request in requests:
            self.begun.set()
            size += len(request.payload.body)
        return pb.StreamingInputCallResponse(aggregated_payload_size=size)

    def StreamingOutputCall(self, request, context):
        return self.FullDuplexCall([request], context)

    def FullDuplexCall(self, requests, context):
        self.watch(context)
        self.metadata(context)
        for request in requests:
            self.status(request, context)
            for parameters in request.response_parameters:
                end = time.monotonic() + parameters.interval_us / 1e6
                while time.monotonic() < end and context.is_active():
                    time.sleep(0.01)
                yield pb.StreamingOutputCallResponse(payload=pb.Payload(body=bytes(parameters.size)))


def duplex(*sizes, body=0, interval_us=0):
    return pb.StreamingOutputCallRequest(response_parameters=[pb.ResponseParameters(size=s, interval_us=interval_us) for s in sizes], payload=pb.Payload(body=bytes(body)))


def expect(got, wanted):
    if got != wanted:
        raise AssertionError(f"{got!r}, not {wanted!r}")


def status_of(call):
    """The status a call fails with."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


class Turns:
    """Requests of a stream that are sent one at a time."""

    def __init__(self):
        self.queue = queue.Queue()

    def __iter__(self):
        return iter(self.queue.get, None)

    def send(self, request):
        self.queue.put(request)

    def end(self):
        self.queue.put(None)


class Cases:
    def __init__(self, channel, server):
        self.stub, self.server, self.channel = stubs.TestServiceStub(channel), server, channel

    def was_told(self, name):
        """The server learns that the call is over."""
        try:
            expect(self.server.ended.get(timeout=5), name)
        except queue.Empty:
            raise AssertionError("the server was not told of the cancellation") from None

    def empty_unary(self):
        expect(self.stub.EmptyCall(pb.Empty(), timeout=LIMIT), pb.Empty())

    def large_unary(self, **kwargs):
        answer = self.stub.UnaryCall(pb.SimpleRequest(response_size=314159, payload=pb.Payload(body=bytes(271828))), timeout=LIMIT, **kwargs)
        expect(answer.payload.body, bytes(314159))

    def compressed_unary(self):
        self.large_unary(compression=grpc.Compression.Gzip)

    def client_streaming(self):
        requests = (pb.StreamingInputCallRequest(payload=pb.Payload(body=bytes(n))) for n in (27182, 8, 1828, 45904))
        expect(self.stub.StreamingInputCall(requests, timeout=LIMIT).aggregated_payload_size, 74922)

    def server_streaming(self):
        sizes = [31415, 9, 2653, 58979]
        expect([len(a.payload.body) for a in self.stub.StreamingOutputCall(duplex(*sizes), timeout=LIMIT)], sizes)

    def ping_pong(self):
        turns = Turns()
        answers = self.stub.FullDuplexCall(iter(turns), timeout=LIMIT)
        for size, body in ((31415, 27182), (9, 8), (2653, 1828), (58979, 45904)):
            turns.send(duplex(size, body=body))
            expect(len(next(answers).payload.body), size)
        turns.end()
        expect(list(answers), [])

    def empty_stream(self):
        expect(list(self.stub.FullDuplexCall(iter(()), timeout=LIMIT)), [])

    def cancel_after_begin(self):
        turns = Turns()
        self.server.begun.clear()
        call = self.stub.StreamingInputCall.future(iter(turns), timeout=LIMIT, metadata=[("x-case", "begin")])
        # The call has to be there before it can be seen to end.
        turns.send(pb.StreamingInputCallRequest(payload=pb.Payload(body=b"x")))
        expect(self.server.begun.wait(5), True)
        call.cancel()
        expect(call.code(), grpc.StatusCode.CANCELLED)
        turns.end()
        self.was_told("begin")

    def cancel_after_first_response(self):
        turns = Turns()
        call = self.stub.FullDuplexCall(iter(turns), timeout=LIMIT, metadata=[("x-case", "first")])
        turns.send(duplex(31415, body=27182))
        expect(len(next(call).payload.body), 31415)
        call.cancel()
        expect(status_of(lambda: next(call))[0], grpc.StatusCode.CANCELLED)
        turns.end()
        self.was_told("first")

    def timeout_on_sleeping_server(self):
        turns = Turns()
        call = self.stub.FullDuplexCall(iter(turns), timeout=0.3, metadata=[("x-case", "timeout")])
        turns.send(duplex(1, body=27182, interval_us=10_000_000))
        expect(status_of(lambda: next(call))[0], grpc.StatusCode.DEADLINE_EXCEEDED)
        turns.end()
        self.was_told("timeout")

    def status_code_and_message(self):
        wanted = pb.EchoStatus(code=2, message="test status message")
        expect(status_of(lambda: self.stub.UnaryCall(pb.SimpleRequest(response_status=wanted), timeout=LIMIT)), (grpc.StatusCode.UNKNOWN, wanted.message))
        request = pb.StreamingOutputCallRequest(response_status=wanted)
        expect(status_of(lambda: list(self.stub.FullDuplexCall(iter([request]), timeout=LIMIT))), (grpc.StatusCode.UNKNOWN, wanted.message))

    def special_status_message(self):
        wanted = pb.EchoStatus(code=2, message=SPECIAL)
        expect(status_of(lambda: self.stub.UnaryCall(pb.SimpleRequest(response_status=wanted), timeout=LIMIT)), (grpc.StatusCode.UNKNOWN, SPECIAL))

    def every_status(self):
        for code in grpc.StatusCode:
            if code is not grpc.StatusCode.OK:
                status = pb.EchoStatus(code=code.value[0], message=code.name)
                expect(status_of(lambda: self.stub.UnaryCall(pb.SimpleRequest(response_status=status), timeout=LIMIT)), (code, code.name))

    def unimplemented_method(self):
        expect(status_of(lambda: self.stub.UnimplementedCall(pb.Empty(), timeout=LIMIT))[0], grpc.StatusCode.UNIMPLEMENTED)

    def unimplemented_service(self):
        other = stubs.UnimplementedServiceStub(self.channel)
        expect(status_of(lambda: other.UnimplementedCall(pb.Empty(), timeout=LIMIT))[0], grpc.StatusCode.UNIMPLEMENTED)

    def custom_metadata(self):
        sent = [(INITIAL, "test_initial_metadata_value"), (TRAILING, b"\xab\xab\xab")]
        request = pb.SimpleRequest(response_size=314159, payload=pb.Payload(body=bytes(271828)))
        answer, call = self.stub.UnaryCall.with_call(request, metadata=sent, timeout=LIMIT)
        expect(len(answer.payload.body), 314159)
        self.has_metadata(call, sent)
        call = self.stub.FullDuplexCall(iter([duplex(314159, body=271828)]), metadata=sent, timeout=LIMIT)
        expect([len(a.payload.body) for a in call], [314159])
        self.has_metadata(call, sent)

    @staticmethod
    def has_metadata(call, sent):
        expect(dict(call.initial_metadata()).get(INITIAL), sent[0][1])
        expect(dict(call.trailing_metadata()).get(TRAILING), sent[1][1])

    def concurrent_large_unary(self):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(self.large_unary) for _ in range(64)]:
                done.result()

    def streams_of_one_mebibyte(self):
        sizes = [1 << 20] * 8
        expect([len(a.payload.body) for a in self.stub.FullDuplexCall(iter([duplex(size, body=size) for size in sizes]), timeout=LIMIT)], sizes)


NAMES = [name for name in vars(Cases) if not name.startswith("_") and name not in ("was_told", "has_metadata")]


def play(way, channel, server):
    cases = Cases(channel, server)
    for name in NAMES:
        try:
            getattr(cases, name)()
            check(f"{name}, {way}", True)
        except (AssertionError, grpc.RpcError) as error:
            check(f"{name}, {way}", False, repr(error)[:300])


def main():
    server = Server()
    host = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
    stubs.add_TestServiceServicer_to_server(server, host)
    origin = host.add_insecure_port("127.0.0.1:0")
    host.start()
    c = certificates()
    outer, plain, secure, admin, inner_admin = (free_port() for _ in range(5))
    everything = [vhost("all", ["*"], "origin")]
    inner = run_proxy("inbound", {"static_resources": {"listeners": [listener("plain", plain, everything), listener("secure", secure, everything, tls_context(c, "server", "client", ["h2"]))],
                      "clusters": [cluster("origin", origin, h2=True)]}}, inner_admin)
    outbound = run_proxy("outbound", {"static_resources": {"listeners": [listener("outer", outer, [vhost("all", ["*"], "hop")])],
                         "clusters": [cluster("hop", secure, h2=True, tls=tls_context(c, "client", "server", ["h2"]))]}}, admin)
    for port, proxy in ((plain, inner), (secure, inner), (outer, outbound)):
        wait_port(port, proxy)
    read = lambda name: open(c[name], "rb").read()
    credentials = grpc.ssl_channel_credentials(read("ca"), read("client_key"), read("client"))
    play("one proxy", grpc.insecure_channel(f"127.0.0.1:{plain}"), server)
    play("one proxy, mutual TLS", grpc.secure_channel(f"localhost:{secure}", credentials), server)
    play("two proxies, mutual TLS between", grpc.insecure_channel(f"127.0.0.1:{outer}"), server)
    check("the proxies live", inner.poll() is None and outbound.poll() is None)
    host.stop(0)
    finish("grpc-interop")


main()
