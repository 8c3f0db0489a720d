#!/usr/bin/env python3
"""Other people's clients through two of our proxies with mutual TLS between them: curl, nghttp, h2load, wrk, websockets, grpcio."""
import asyncio, concurrent.futures, hashlib, re, subprocess, threading, urllib.request
import grpc, websockets
from common import *

GIB = 1 << 30


async def origin(reader, writer):
    """HTTP/1.1: /bytes/N sends N bytes, PUT counts what it gets, everything else answers its method and path."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            line, _, rest = head.partition(b"\r\n")
            method, target, _ = line.split(b" ")
            fields = {k.strip().lower(): v.strip() for k, _, v in (l.partition(b":") for l in rest.split(b"\r\n") if l)}
            got = 0
            if fields.get(b"expect", b"").lower() == b"100-continue":
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            if b"content-length" in fields:
                left = int(fields[b"content-length"])
                while left:
                    data = await reader.read(min(left, 1 << 18))
                    if not data:
                        return
                    left -= len(data); got += len(data)
            elif fields.get(b"transfer-encoding") == b"chunked":
                while True:
                    n = int((await reader.readline()).split(b";")[0], 16)
                    if n:
                        await reader.readexactly(n); got += n
                    await reader.readline()
                    if not n:
                        break
            m = re.match(rb"/bytes/(\d+)$", target)
            if m:
                left, block = int(m[1]), b"x" * (1 << 18)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % left)
                while left:
                    n = min(left, len(block)); writer.write(block[:n]); left -= n
                    await writer.drain()
            else:
                body = b"%s %s %d" % (method, target, got)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + (b"" if method == b"HEAD" else body))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def echo(ws):
    async for message in ws:
        await ws.send(message)


class Grpc(grpc.GenericRpcHandler):
    def service(self, details):
        raw = dict(request_deserializer=None, response_serializer=None)
        def unary(request, context):
            context.set_trailing_metadata((("x-trailer", "end"),))
            if request == b"fail":
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked")
            return request
        def stream(requests, context):
            for r in requests:
                yield r
            context.set_trailing_metadata((("x-trailer", "end"),))
        def count(request, context):
            for i in range(int(request)):
                yield b"%d" % i
        return {"/t.S/Unary": grpc.unary_unary_rpc_method_handler(unary, **raw),
                "/t.S/Stream": grpc.stream_stream_rpc_method_handler(stream, **raw),
                "/t.S/Count": grpc.unary_stream_rpc_method_handler(count, **raw)}.get(details.method)


def serve_origins(h1, ws):
    async def main():
        await asyncio.start_server(origin, "127.0.0.1", h1, limit=1 << 20)
        async with websockets.serve(echo, "127.0.0.1", ws, max_size=None):
            await asyncio.Future()
    threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()


def sh(*argv, timeout=180):
    r = subprocess.run(argv, capture_output=True, text=True, timeout=timeout)
    return r.returncode, r.stdout + r.stderr


h1, ws, rpc = free_port(), free_port(), free_port()
serve_origins(h1, ws)
server = grpc.server(concurrent.futures.ThreadPoolExecutor(8), handlers=(Grpc(),))
server.add_insecure_port(f"127.0.0.1:{rpc}"); server.start()
c = certificates()
front, front_h1, back, back_h1, admin1, admin2 = (free_port() for _ in range(6))
alpn = ["h2", "http/1.1"]
# The hop is HTTP/2 inside mutual TLS; a second pair of listeners speaks HTTP/1.1 there.
to = lambda a: tls_context(c, "client", "server", a)
inner = [vhost("grpc", ["grpc.test", "grpc.test:*"], "rpc"), vhost("ws", ["ws.test", "ws.test:*"], "ws"), vhost("all", ["*"], "h1")]
outer = lambda hop: [vhost("all", ["*"], hop)]
p2 = run_proxy("inbound", {"static_resources": {"listeners": [listener("in", back, inner, tls_context(c, "server", "client", alpn)),
     listener("in1", back_h1, inner, tls_context(c, "server", "client", ["http/1.1"]))],
     "clusters": [cluster("h1", h1), cluster("ws", ws), cluster("rpc", rpc, h2=True)]}}, admin2)
p1 = run_proxy("outbound", {"static_resources": {"listeners": [listener("out", front, outer("hop")), listener("out1", front_h1, outer("hop1"))],
     "clusters": [cluster("hop", back, h2=True, tls=to(["h2"])), cluster("hop1", back_h1, tls=to(["http/1.1"]))]}}, admin1)
for port in (front, front_h1, back, back_h1):
    wait_port(port)

for port, name in ((front, "h2 hop"), (front_h1, "h1 hop")):
    for flag in ("--http1.1", "--http2-prior-knowledge"):
        code, out = sh("curl", "-sS", flag, f"http://127.0.0.1:{port}/hello?x=1")
        check(f"curl {flag}, {name}", (code, out) == (0, "GET /hello?x=1 0"), out[:200])
    code, out = sh("curl", "-sS", "-o", f"{WORK}/down", "-w", "%{http_code} %{size_download}", f"http://127.0.0.1:{port}/bytes/{GIB}")
    check(f"curl, 1 GiB down, {name}", out == f"200 {GIB}", out[:200])
    code, out = sh("curl", "-sS", "-T", f"{WORK}/down", f"http://127.0.0.1:{port}/up")
    check(f"curl, 1 GiB up, {name}", out == f"PUT /up {GIB}", out[:200])
    code, out = sh("curl", "-sSI", f"http://127.0.0.1:{port}/head")
    check(f"curl HEAD, {name}", " 200" in out.split("\n")[0], out[:100])
    code, out = sh("curl", "-sS", "-H", "transfer-encoding: chunked", "--data-binary", "@/etc/hostname", f"http://127.0.0.1:{port}/c")
    check(f"curl, chunked request, {name}", out == f"POST /c {os.path.getsize('/etc/hostname')}", out[:100])
os.remove(f"{WORK}/down")

code, out = sh("nghttp", "-nv", f"http://127.0.0.1:{front}/n")
check("nghttp", code == 0 and ":status: 200" in out)
for extra, name in ((("-c4", "-m50"), "h2c"), (("--h1", "-c8"), "h1")):
    code, out = sh("h2load", "-n20000", *extra, f"http://127.0.0.1:{front}/load")
    m = re.search(r"requests: \d+ total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", out)
    check(f"h2load {name}, 20,000 requests", bool(m) and m.groups() == ("20000", "0", "0", "0"), m[0] if m else out[-300:])
code, out = sh("wrk", "-t1", "-c32", "-d5s", f"http://127.0.0.1:{front}/wrk")
check("wrk, 5 s", code == 0 and "Non-2xx" not in out and "Socket errors" not in out, " ".join(re.findall(r"(\d+ requests in [\d.]+s)", out)))


async def websocket(port):
    uri = f"ws://ws.test:{port}/"
    sock = socket.create_connection(("127.0.0.1", port))
    async with websockets.connect(uri, sock=sock, max_size=None) as w:
        for message in ("hello", b"\0" * 100_000, "x" * 1_000_000):
            await w.send(message)
            if await asyncio.wait_for(w.recv(), 20) != message:
                return False
        return True


def try_websocket(port):
    try:
        return asyncio.run(websocket(port)), ""
    except Exception as e:
        return False, repr(e)


for port, name in ((front_h1, "h1 hop"), (front, "h2 hop")):
    ok, why = try_websocket(port)
    check(f"websockets echo, {name}", ok, why)

ch = grpc.insecure_channel(f"127.0.0.1:{front}", options=[("grpc.default_authority", "grpc.test")])
reply, call = ch.unary_unary("/t.S/Unary").with_call(b"hi", timeout=10)
check("grpcio unary with trailers", reply == b"hi" and ("x-trailer", "end") in [(m.key, m.value) for m in call.trailing_metadata()])
try:
    ch.unary_unary("/t.S/Unary")(b"fail", timeout=10); check("grpcio status", False)
except grpc.RpcError as e:
    check("grpcio status", (e.code(), e.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "as asked"), e.details())
try:
    ch.unary_unary("/t.S/None")(b"x", timeout=10); check("grpcio unimplemented", False)
except grpc.RpcError as e:
    check("grpcio unimplemented", e.code() == grpc.StatusCode.UNIMPLEMENTED)
sent = [b"%d" % i * 1000 for i in range(500)]
check("grpcio bidirectional stream, 500 messages", list(ch.stream_stream("/t.S/Stream")(iter(sent), timeout=30)) == sent)
check("grpcio server stream, 5,000 messages", len(list(ch.unary_stream("/t.S/Count")(b"5000", timeout=30))) == 5000)
turn = threading.Semaphore(1)
def one_by_one():
    for i in range(20):
        turn.acquire(); yield b"%d" % i
got = []
for r in ch.stream_stream("/t.S/Stream")(one_by_one(), timeout=20):
    got.append(r); turn.release()
check("grpcio ping-pong stream (no buffering)", len(got) == 20)

for admin in (admin1, admin2):
    text = urllib.request.urlopen(f"http://127.0.0.1:{admin}/stats/prometheus").read().decode()
    open(f"{WORK}/metrics-{admin}", "w").write(text)
    r = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    # One name is kept for the dashboards built on it (docs/operations.md, Metrics); nothing else may be complained about.
    complaints = [l for l in (r.stdout + r.stderr).splitlines() if l.strip()]
    kept = 'istio_request_duration_milliseconds use base unit "seconds" instead of "milliseconds"'
    check("promtool check metrics, but for the one name kept", complaints in ([], [kept]), " | ".join(complaints)[:300])
for p, name in ((p1, "outbound"), (p2, "inbound")):
    p.terminate()
    check(f"SIGTERM ends the {name} proxy with 0", p.wait(20) == 0)
finish("tools")
