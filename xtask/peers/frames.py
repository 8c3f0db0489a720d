"""HTTP/2 written frame by frame (RFC 9113), so that a check can say what no library would say for it.

`Connection` writes and reads frames; the functions after it are what a check may demand of the other side."""
import socket, ssl, struct, time
from hpack import Decoder, Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
KINDS = "DATA HEADERS PRIORITY RST_STREAM SETTINGS PUSH_PROMISE PING GOAWAY WINDOW_UPDATE CONTINUATION".split()
ACK = END_STREAM = 0x1
END_HEADERS, PADDED, WITH_PRIORITY = 0x4, 0x8, 0x20
(NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR,
 REFUSED_STREAM, CANCEL, COMPRESSION_ERROR) = range(10)
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = range(1, 7)
ENABLE_CONNECT_PROTOCOL = 8
# Only a failure waits so long.
PATIENCE = 10.0


class Unmet(Exception):
    """What was demanded did not happen."""


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def data(stream, payload=b"test", end=True):
    return frame(DATA, END_STREAM if end else 0, stream, payload)


def priority_fields(depends_on=0, weight=16, exclusive=False):
    """The five bytes of priority; `weight` as the text of the RFC counts it, 1 to 256."""
    return struct.pack(">IB", depends_on | (exclusive << 31), weight - 1)


def priority(stream, *args, **kwargs):
    return frame(PRIORITY, 0, stream, priority_fields(*args, **kwargs))


def reset(stream, code=CANCEL):
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def settings(*pairs):
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def ping(payload=b"outrigge"):
    return frame(PING, 0, 0, payload)


def goaway(last=0, code=NO_ERROR, words=b""):
    return frame(GOAWAY, 0, 0, struct.pack(">II", last, code) + words)


def window(stream, more):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", more))


class Frame:
    def __init__(self, kind, flags, stream, payload):
        self.kind, self.flags, self.stream, self.payload = kind, flags, stream, payload

    def code(self):
        """The error code of RST_STREAM and GOAWAY."""
        return struct.unpack(">I", self.payload[4:8] if self.kind == GOAWAY else self.payload[:4])[0]

    def is_end(self):
        return self.kind in (DATA, HEADERS) and bool(self.flags & END_STREAM)

    def __repr__(self):
        kind = KINDS[self.kind] if self.kind < len(KINDS) else f"type {self.kind}"
        more = f" code {self.code()}" if self.kind in (RST_STREAM, GOAWAY) else ""
        return f"{kind}{more} on {self.stream}, flags {self.flags:#x}, {len(self.payload)} bytes"


class Connection:
    """A client's connection; nothing is sent but what the caller sends, save acknowledgements of settings."""

    def __init__(self, port, tls=None, authority="h2.test", scheme=None):
        self.socket = socket.create_connection(("127.0.0.1", port), 5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
            if self.socket.selected_alpn_protocol() != "h2":
                raise Unmet(f"ALPN chose {self.socket.selected_alpn_protocol()}")
        self.scheme = scheme or ("https" if tls is not None else "http")
        self.authority = authority
        self.encoder, self.decoder = Encoder(), Decoder()
        self.peer, self.buffer, self.heard = {}, bytearray(), []

    def close(self):
        self.socket.close()

    def send(self, *frames):
        """Sends; that the other side has already hung up shows when reading."""
        try:
            self.socket.sendall(b"".join(frames))
        except OSError:
            pass

    def handshake(self):
        """Prefaces and acknowledgements of both sides."""
        self.send(PREFACE, settings())
        first = self.next()
        if first is None or first.kind != SETTINGS or first.flags & ACK:
            raise Unmet(f"the first frame was not SETTINGS but {first}")
        self.wait(lambda f: f.kind == SETTINGS and f.flags & ACK, "SETTINGS, acknowledged")
        return self

    def fields(self, method="GET", path="/", **more):
        given = {":method": method, ":scheme": self.scheme, ":path": path, ":authority": self.authority} | more
        return [(name, value) for name, value in given.items() if value is not None]

    def block(self, fields):
        return self.encoder.encode(fields, huffman=True)

    def request(self, stream=1, method="GET", end=True, more=(), fields=None, flags=END_HEADERS):
        """A HEADERS frame; `more` fields after the usual ones, or other `fields` in their place."""
        block = self.block((self.fields(method) if fields is None else fields) + list(more))
        return frame(HEADERS, flags | (END_STREAM if end else 0), stream, block)

    def next(self, seconds=PATIENCE):
        """The next frame, None when the connection has ended; raises when nothing comes."""
        until = time.monotonic() + seconds
        while True:
            size = int.from_bytes(self.buffer[:3], "big") + 9 if len(self.buffer) >= 9 else None
            if size is not None and len(self.buffer) >= size:
                break
            try:
                self.socket.settimeout(max(0.001, until - time.monotonic()))
                piece = self.socket.recv(1 << 16)
            except (TimeoutError, ssl.SSLWantReadError):
                raise Unmet(f"nothing came for {seconds} s; before: {self.heard[-4:]}") from None
            except OSError:
                piece = b""
            if not piece:
                return None
            self.buffer += piece
        raw = bytes(self.buffer[:size])
        del self.buffer[:size]
        got = Frame(raw[3], raw[4], int.from_bytes(raw[5:9], "big") & 0x7FFF_FFFF, raw[9:])
        self.heard.append(got)
        if got.kind == SETTINGS and not got.flags & ACK:
            for at in range(0, len(got.payload), 6):
                name, value = struct.unpack(">HI", got.payload[at:at + 6])
                self.peer[name] = value
            self.send(frame(SETTINGS, ACK, 0))
        return got

    def wait(self, wanted, what):
        """Reads until a frame is as wanted."""
        while (got := self.next()) is not None:
            if wanted(got):
                return got
        raise Unmet(f"the connection ended instead of {what}; before: {self.heard[-4:]}")

    def answer(self, stream=1):
        """Reads an answer to its end; returns its fields (of every block) and its body."""
        fields, body = [], b""
        while True:
            got = self.wait(lambda f: f.stream == stream or f.kind == GOAWAY and f.code() != NO_ERROR, f"an answer on stream {stream}")
            if got.kind in (RST_STREAM, GOAWAY):
                raise Unmet(f"{got} instead of an answer")
            if got.kind == HEADERS:
                if not got.flags & END_HEADERS:
                    raise Unmet("an answer in several frames is not read here")
                fields += self.decoder.decode(got.payload)
            elif got.kind == DATA:
                body += got.payload
            if got.is_end():
                return dict(fields), body


def answered(connection, stream=1):
    """The request is answered 200, whole."""
    fields, _ = connection.answer(stream)
    if fields.get(":status") != "200":
        raise Unmet(f"status {fields.get(':status')}")


def ponged(payload=b"outrigge"):
    """The next PING is the acknowledgement of ours, and no error comes before it."""
    def demand(connection):
        got = connection.wait(lambda f: f.kind in (PING, GOAWAY, RST_STREAM), "PING")
        if got.kind != PING or not got.flags & ACK or got.payload != payload:
            raise Unmet(f"{got} instead of an answer to PING")
    return demand


def ponged_or_ended(connection):
    """PING is answered; an orderly end will do as well."""
    while (got := connection.next()) is not None and got.kind != PING:
        if got.kind in (GOAWAY, RST_STREAM) and got.code() != NO_ERROR:
            raise Unmet(f"{got}")


def connection_error(*codes):
    """GOAWAY with one of the codes, and then the end of the connection."""
    def demand(connection):
        got = connection.wait(lambda f: f.kind == GOAWAY, f"GOAWAY {codes}")
        if got.code() not in codes:
            raise Unmet(f"{got}, not one of the codes {codes}")
        while connection.next() is not None:
            pass
    return demand


def stream_error(*codes, stream=1):
    """RST_STREAM with one of the codes; an endpoint may make a connection error of it (RFC 9113, 5.4.2)."""
    def demand(connection):
        def is_error(got):
            return got.kind == GOAWAY or got.kind == RST_STREAM and got.stream == stream
        got = connection.wait(is_error, f"RST_STREAM {codes}")
        if got.code() not in codes:
            raise Unmet(f"{got}, not one of the codes {codes}")
    return demand


def ended(connection):
    """The connection is closed, whatever is said before."""
    connection.socket.settimeout(PATIENCE)
    try:
        while connection.socket.recv(1 << 16):
            pass
    except TimeoutError:
        raise Unmet("the connection is still open") from None
    except OSError:
        pass
