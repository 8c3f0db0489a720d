#!/usr/bin/env python3
"""WebSocket through the proxy (RFC 6455): the kinds of cases of the Autobahn suite, and what only a proxy can get wrong.

Frames are written by hand; at the far end is the server of the package `websockets`, which echoes. Each case runs over four
ways: HTTP/1.1, HTTP/1.1 inside mutual TLS, HTTP/1.1 whose next hop is HTTP/2 inside mutual TLS, HTTP/2 inside mutual TLS."""
import asyncio, base64, hashlib, logging, ssl, struct, threading, time
import websockets
from common import *
from frames import Unmet
from tunnel import H1Tunnel, H2Tunnel, Refused

CONTINUED, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MASK = bytes([0x5A, 0xC3, 0x0F, 0xF1])


def masked(payload):
    key = int.from_bytes(MASK * (len(payload) // 4 + 1), "big") >> (8 * (4 - len(payload) % 4))
    return (int.from_bytes(payload, "big") ^ key).to_bytes(len(payload), "big")


def frame(kind, payload=b"", end=True, reserved=0):
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 1 << 16:
        length = b"\xfe" + struct.pack(">H", size)
    else:
        length = b"\xff" + struct.pack(">Q", size)
    return bytes([end << 7 | reserved << 4 | kind]) + length + MASK + masked(payload)


def close(code=None, reason=b""):
    return frame(CLOSE, b"" if code is None else struct.pack(">H", code) + reason)


def fragments(kind, payload, size):
    pieces = [payload[at:at + size] for at in range(0, len(payload), size)] or [b""]
    return b"".join(frame(CONTINUED if n else kind, piece, n == len(pieces) - 1) for n, piece in enumerate(pieces))


def read_frame(tunnel):
    """A frame of the server: (kind, payload), None at the end of the stream."""
    head = tunnel.read(2)
    if len(head) < 2:
        return None
    size = head[1] & 0x7F
    if size == 126:
        size = struct.unpack(">H", tunnel.read(2))[0]
    elif size == 127:
        size = struct.unpack(">Q", tunnel.read(8))[0]
    if not head[0] & 0x80 or head[1] & 0x80:
        raise Unmet(f"a frame that is masked or goes on: {head}")
    payload = tunnel.read(size)
    if len(payload) < size:
        raise Unmet(f"{len(payload)} of {size} bytes of a frame")
    return head[0] & 0x0F, payload


def echo(kind, payload):
    return [(kind, payload)]


def closed(code):
    """The server closes with the code."""
    return [(CLOSE, code)]


PLEASE = "Hello-µ@ßöäüàá-UTF-8!!".encode()
ROWS = []
for size in (0, 125, 126, 127, 128, 65535, 65536):
    ROWS.append((f"1 text of {size} bytes", [frame(TEXT, b"*" * size)], echo(TEXT, b"*" * size)))
    ROWS.append((f"1 binary of {size} bytes", [frame(BINARY, b"\xfe" * size)], echo(BINARY, b"\xfe" * size)))
big = frame(BINARY, b"\xfe" * 65536)
ROWS += [
    ("1 a frame in writes of 997 bytes", [big[at:at + 997] for at in range(0, len(big), 997)], echo(BINARY, b"\xfe" * 65536)),
    ("2 ping", [frame(PING)], [(PONG, b"")]),
    ("2 ping with text", [frame(PING, b"text")], [(PONG, b"text")]),
    ("2 ping of bytes that are no text", [frame(PING, b"\x00\xff\xfe\xfd")], [(PONG, b"\x00\xff\xfe\xfd")]),
    ("2 ping of 125 bytes", [frame(PING, b"\xfe" * 125)], [(PONG, b"\xfe" * 125)]),
    ("2 ping of 126 bytes", [frame(PING, b"\xfe" * 126)], closed(1002)),
    ("2 ping of 125 bytes, byte by byte", [bytes([b]) for b in frame(PING, b"\xfe" * 125)], [(PONG, b"\xfe" * 125)]),
    ("2 pong nobody asked for", [frame(PONG, b"unasked"), frame(TEXT, b"on")], echo(TEXT, b"on")),
    ("2 ten pings", [frame(PING, b"%d" % n) for n in range(10)], [(PONG, b"%d" % n) for n in range(10)]),
    ("2 ten pings in one write", [b"".join(frame(PING, b"%d" % n) for n in range(10))], [(PONG, b"%d" % n) for n in range(10)]),
]
for bits in range(1, 8):
    ROWS.append((f"3 reserved bits {bits}", [frame(TEXT, b"text", reserved=bits)], closed(1002)))
for kind in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
    ROWS.append((f"4 reserved opcode {kind}", [frame(kind, b"x")], closed(1002)))
ROWS += [
    ("5 ping in fragments", [frame(PING, b"a", False), frame(CONTINUED, b"b")], closed(1002)),
    ("5 text in two fragments", [frame(TEXT, b"frag1", False), frame(CONTINUED, b"frag2")], echo(TEXT, b"frag1frag2")),
    ("5 text in two fragments, one write", [fragments(TEXT, b"frag1frag2", 5)], echo(TEXT, b"frag1frag2")),
    ("5 text in two fragments, byte by byte", [bytes([b]) for b in fragments(TEXT, b"frag1frag2", 5)], echo(TEXT, b"frag1frag2")),
    ("5 ping between fragments", [frame(TEXT, b"frag1", False), frame(PING, b"mid"), frame(CONTINUED, b"frag2")], [(PONG, b"mid"), (TEXT, b"frag1frag2")]),
    ("5 continuation of nothing", [frame(CONTINUED, b"x"), frame(TEXT, b"y")], closed(1002)),
    ("5 continuation of nothing, unended", [frame(CONTINUED, b"x", False)], closed(1002)),
    ("5 text within a fragmented text", [frame(TEXT, b"a", False), frame(TEXT, b"b")], closed(1002)),
    ("5 empty fragments", [frame(TEXT, b"", False), frame(CONTINUED, b"mid", False), frame(CONTINUED, b"")], echo(TEXT, b"mid")),
    ("5 many fragments", [fragments(TEXT, b"0123456789" * 500, 7)], echo(TEXT, b"0123456789" * 500)),
    ("6 UTF-8", [frame(TEXT, PLEASE)], echo(TEXT, PLEASE)),
    ("6 UTF-8, cut within a character", [frame(TEXT, PLEASE[:7], False), frame(CONTINUED, PLEASE[7:])], echo(TEXT, PLEASE)),
    ("6 UTF-8, every byte a fragment", [fragments(TEXT, PLEASE, 1)], echo(TEXT, PLEASE)),
    ("6 UTF-8 of four bytes", [frame(TEXT, "😀\U0010ffff".encode())], echo(TEXT, "😀\U0010ffff".encode())),
]
for bad in (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xce\xba\xe1\xbd", PLEASE + b"\x80"):
    ROWS.append((f"6 not UTF-8: {bad.hex()}", [frame(TEXT, bad)], closed(1007)))
for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999):
    ROWS.append((f"7 close {code}", [close(code)], closed(code)))
for code in (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535):
    ROWS.append((f"7 close {code}, which may not be sent", [close(code)], closed(1002)))
ROWS += [
    ("7 close without a code", [close()], [(CLOSE, None)]),
    ("7 close with a reason of 123 bytes", [close(1000, b"*" * 123)], closed(1000)),
    ("7 close with a reason of 124 bytes", [close(1000, b"*" * 124)], closed(1002)),
    ("7 close of one byte", [frame(CLOSE, b"a")], closed(1002)),
    ("7 close whose reason is not UTF-8", [close(1000, b"\xce\xba\xe1\xbd")], closed(1007)),
    ("7 text after close is not answered", [close(1000) + frame(TEXT, b"late")], closed(1000)),
    ("7 ping after close is not answered", [close(1000) + frame(PING)], closed(1000)),
]
for exponent in (18, 20, 22, 24):
    data = bytes(range(256)) * (1 << (exponent - 8))
    ROWS.append((f"9 binary of {1 << exponent >> 10} KiB", [frame(BINARY, data)], echo(BINARY, data)))
data = bytes(range(256)) * 4096
for size in (512, 1024, 65536):
    ROWS.append((f"9 1 MiB in fragments of {size}", [fragments(BINARY, data, size)], echo(BINARY, data)))
ROWS.append(("9 1 MiB in writes of 1,000 bytes", [frame(BINARY, data)[at:at + 1000] for at in range(0, len(data) + 14, 1000)], echo(BINARY, data)))
ROWS.append(("9 1,000 messages", [b"".join(frame(TEXT, b"%d" % n) for n in range(1000))], [(TEXT, b"%d" % n) for n in range(1000)]))


def play(opened, writes, expected):
    """Plays a case on an open tunnel; raises when something else comes. Every case ends with a clean close."""
    for piece in writes:
        opened.send(piece)
    for kind, payload in expected:
        got = read_frame(opened)
        if got is None:
            raise Unmet(f"the stream ended instead of {kind}")
        if kind == CLOSE:
            code = struct.unpack(">H", got[1][:2])[0] if got[0] == CLOSE and len(got[1]) >= 2 else None
            if got[0] != CLOSE or code != payload and not (payload is None and code in (None, 1000)):
                raise Unmet(f"{got[0], got[1][:40]} instead of close {payload}")
        elif got != (kind, payload):
            raise Unmet(f"{got[0], got[1][:40], len(got[1])} instead of {kind, payload[:40], len(payload)}")
    if not expected or expected[-1][0] != CLOSE:
        opened.send(close(1000))
        got = read_frame(opened)
        if got is None or got[0] != CLOSE:
            raise Unmet(f"{got} instead of close")
    if (rest := opened.read(1)) != b"":
        raise Unmet(f"{rest} after close")


def run(ways, rows):
    for way, open_tunnel in ways:
        failed, began = [], time.monotonic()
        for name, writes, expected in rows:
            opened = None
            try:
                opened = open_tunnel()
                play(opened, writes, expected)
            except (Unmet, Refused, OSError) as error:
                failed.append(f"{name}: {error!r}")
            finally:
                if opened is not None:
                    opened.close()
        for line in failed:
            print("     " + line)
        check(f"WebSocket, {way}: {len(rows) - len(failed)}/{len(rows)}", not failed, f"{time.monotonic() - began:.1f} s")


def accepted(head):
    """The answer to the handshake of this head (RFC 6455, 4.2.2)."""
    key = next((line.split(":")[1].strip() for line in head.split("\r\n") if line.lower().startswith("sec-websocket-key:")), "")
    proof = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
    return f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {proof}\r\nSec-WebSocket-Protocol: chat\r\n\r\n".encode()


async def raw_origin(reader, writer):
    """Answers an upgrade as its path says; keeps the heads it was sent."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            path = head.split(" ")[1]
            HEARD[path] = head
            if path != "/refused":
                break
            writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno")
        writer.write(accepted(head) + (b"words with the head" if path == "/early" else b""))
        await writer.drain()
        if path == "/half":
            writer.write(b"heard %d" % len(await reader.read()))
        elif path in ("/mirror", "/fields"):
            while piece := await reader.read(1 << 16):
                writer.write(piece)
                await writer.drain()
        await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


HEARD = {}


def serve(echo_port, raw_port):
    async def answer(ws):
        async for message in ws:
            await ws.send(message)

    async def main():
        await asyncio.start_server(raw_origin, "127.0.0.1", raw_port)
        async with websockets.serve(answer, "127.0.0.1", echo_port, max_size=None, ping_interval=None):
            await asyncio.Future()
    threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
    for port in (echo_port, raw_port):
        wait_port(port)


def attempt(name, play_it):
    try:
        problem = play_it()
        check(name, not problem, problem or "")
    except Exception as error:
        check(name, False, repr(error))


def of_the_proxy(way, kind, port, tls):
    """What the tunnel itself has to keep, on an origin that says what it likes."""
    def early():
        opened = kind(port, "raw.test", "/early", tls=tls)
        return "" if (got := opened.read(100)) == b"words with the head" else f"{got}"

    def ended():
        return "" if (got := kind(port, "raw.test", "/ended", tls=tls).read(1)) == b"" else f"{got}"

    def half():
        opened = kind(port, "raw.test", "/half", tls=tls)
        opened.send(b"x" * 100_000)
        opened.finish()
        return "" if (got := opened.read(100)) == b"heard 100000" else f"{got}"

    def first_words():
        opened = kind(port, "raw.test", "/mirror", tls=tls, first=b"sent before the answer")
        return "" if (got := opened.read(22)) == b"sent before the answer" else f"{got}"

    def both_ways():
        """16 MiB each way at once: neither direction waits for the other."""
        size = 1 << 24
        got = kind(port, "raw.test", "/mirror", tls=tls).both_ways(bytes(size), size)
        return "" if got == bytes(size) else f"{len(got)} bytes"

    def fields():
        opened = kind(port, "raw.test", "/fields", tls=tls, fields=[("sec-websocket-protocol", "chat, talk"), ("origin", "http://raw.test")])
        opened.send(b".")
        opened.read(1)
        heard = HEARD.get("/fields", "").lower()
        lost = [f for f in ("upgrade: websocket", "connection: upgrade", "sec-websocket-version: 13", "sec-websocket-protocol: chat, talk", "origin: http://raw.test", "sec-websocket-key: ") if f not in heard]
        told = dict(opened.fields)
        return "" if not lost and told.get("sec-websocket-protocol") == "chat" else f"lost {lost}, told {told}"

    def refused():
        try:
            kind(port, "raw.test", "/refused", tls=tls)
        except Refused as answer:
            return "" if (answer.status, answer.body) == (403, b"no") else f"{answer!r}"
        return "was not refused"

    def forbidden():
        try:
            kind(port, "forbidden.test", tls=tls)
        except Refused as answer:
            return "" if answer.status == 403 else f"{answer!r}"
        return "was not refused"

    # Python's TLS cannot end one direction alone.
    both = () if kind is H1Tunnel and tls is not None else (("half-close", half),)
    for name, case in (*both, ("what comes with the head of the answer", early), ("an end without words", ended), ("what comes before the answer", first_words),
                       ("16 MiB both ways at once", both_ways), ("fields of the handshake", fields), ("an upgrade the origin refuses", refused),
                       ("an upgrade the route does not allow", forbidden)):
        attempt(f"{name}, {way}", case)


def refused_leaves_connection_usable(port):
    """After a refusal the client asks again on the same connection."""
    with socket.create_connection(("127.0.0.1", port), 5) as s:
        s.sendall(b"GET /refused HTTP/1.1\r\nhost: raw.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        got = b""
        while not got.endswith(b"\r\n\r\nno"):
            got += s.recv(4096) or b"!ended!\r\n\r\nno"
        s.sendall(b"GET /refused HTTP/1.1\r\nhost: raw.test\r\n\r\n")
        again = s.recv(4096)
        return "" if got.startswith(b"HTTP/1.1 403") and again.startswith(b"HTTP/1.1 ") else f"{got[:80]} then {again[:80]}"


async def compressed(port):
    """The package's own client, with permessage-deflate."""
    sock = socket.create_connection(("127.0.0.1", port))
    async with websockets.connect(f"ws://echo.test:{port}/", sock=sock, max_size=None) as ws:
        if "permessage-deflate" not in ws.response.headers.get("sec-websocket-extensions", ""):
            return "no compression was agreed"
        for message in ("", "text " * 10_000, os.urandom(100_000), [f"part {n}, " for n in range(100)]):
            await ws.send(message)
            if await asyncio.wait_for(ws.recv(), 20) != ("".join(message) if isinstance(message, list) else message):
                return "another message came back"
    return ""


def main():
    # Half of the cases are errors that the server reports.
    logging.getLogger("websockets.server").setLevel(logging.CRITICAL)
    c = certificates()
    echo_port, raw_port, plain, to_h2, secure, only_h2, admin = (free_port() for _ in range(7))
    serve(echo_port, raw_port)
    inner = [vhost("echo", ["echo.test", "echo.test:*"], "echo"), vhost("raw", ["raw.test"], "raw"), vhost("forbidden", ["forbidden.test"], "raw")]
    inner[2]["routes"][0]["route"]["upgrade_configs"] = [{"upgrade_type": "websocket", "enabled": False}]
    fronts = [listener("plain", plain, inner), listener("to-h2", to_h2, [vhost("all", ["*"], "hop")]),
              listener("secure", secure, inner, tls_context(c, "server", "client", ["h2", "http/1.1"])),
              listener("only-h2", only_h2, inner, tls_context(c, "server", "client", ["h2"]))]
    for front in fronts:
        front["filter_chains"][0]["filters"][0]["typed_config"]["http2_protocol_options"] = {"allow_connect": True}
    hop = cluster("hop", only_h2, h2=True, tls=tls_context(c, "client", "server", ["h2"]))
    hop["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]["explicit_http_config"]["http2_protocol_options"] = {"allow_connect": True}
    proxy = run_proxy("websocket", {"static_resources": {"listeners": fronts, "clusters": [cluster("echo", echo_port), cluster("raw", raw_port), hop]}}, admin)
    for port in (plain, to_h2, secure, only_h2):
        wait_port(port, proxy)

    def client_tls(alpn):
        tls = ssl.create_default_context(cafile=c["ca"])
        tls.load_cert_chain(c["client"], c["client_key"])
        tls.set_alpn_protocols([alpn])
        return tls

    ways = [("HTTP/1.1", H1Tunnel, plain, None), ("HTTP/1.1 in mutual TLS", H1Tunnel, secure, client_tls("http/1.1")),
            ("HTTP/1.1, then HTTP/2 in mutual TLS", H1Tunnel, to_h2, None), ("HTTP/2 in mutual TLS", H2Tunnel, secure, client_tls("h2")),
            ("cleartext HTTP/2", H2Tunnel, plain, None)]
    run([(way, lambda kind=kind, port=port, tls=tls: kind(port, "echo.test", tls=tls)) for way, kind, port, tls in ways], ROWS)
    for way in ways:
        of_the_proxy(*way)
    for name, port in (("HTTP/1.1", plain), ("HTTP/1.1, then HTTP/2", to_h2)):
        attempt(f"a refused upgrade leaves the connection usable, {name}", lambda: refused_leaves_connection_usable(port))
        attempt(f"compressed messages, {name}", lambda: asyncio.run(compressed(port)))
    check("the proxy lives", proxy.poll() is None)
    finish("websocket")


main()
