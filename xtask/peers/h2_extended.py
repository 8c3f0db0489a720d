"""What h2spec does not ask: the newer demands of RFC 9113 on field names and values, frames that came later, RFC 8441.

Rows as in `h2_rules`; sections of RFC 9113 unless another text is named."""
from frames import *
from h2_rules import after_answer, headers_but, headers_with, post

PRIORITY_UPDATE = frame(0x10, 0, 0, b"\0\0\0\1u=1")


def accepted(*more):
    return lambda c: c.request(more=more)


def extended_connect(path="/", scheme=None, **more):
    """RFC 8441, 4."""
    def made(c):
        names = {":method": "CONNECT", ":protocol": "websocket", ":path": path, ":scheme": scheme or c.scheme} | {":" + k: v for k, v in more.items()}
        return c.request(fields=c.fields(**names), end=False)
    return made


def refused(*statuses):
    """An answer of one of the statuses."""
    def demand(connection):
        fields, _ = connection.answer(1)
        if fields.get(":status") not in statuses:
            raise Unmet(f"status {fields.get(':status')}, not one of {statuses}")
    return demand


def connect_protocol_announced(connection):
    if connection.peer.get(ENABLE_CONNECT_PROTOCOL) != 1:
        raise Unmet(f"announced: {connection.peer}")


def malformed(connection):
    """RST_STREAM, or an answer that says so (8.1.1); either leaves the connection usable."""
    got = connection.wait(lambda f: f.kind in (HEADERS, RST_STREAM, GOAWAY), "RST_STREAM or an answer")
    if got.kind == HEADERS:
        fields = dict(connection.decoder.decode(got.payload))
        if fields.get(":status") not in ("400", "403"):
            raise Unmet(f"status {fields.get(':status')}")
    elif got.kind == GOAWAY or got.code() != PROTOCOL_ERROR:
        raise Unmet(f"{got}")
    connection.send(connection.request(3))
    answered(connection, 3)


class Windows:
    """What may still be sent on the connection and on a stream, as the other side gives it."""

    def __init__(self, connection):
        given = (int.from_bytes(f.payload, "big") for f in connection.heard if f.kind == WINDOW_UPDATE and f.stream == 0)
        self.connection, self.whole, self.streams = connection, 65535 + sum(given), {}
        self.first = self.whole

    def open(self, stream, **request):
        self.streams[stream] = self.connection.peer.get(INITIAL_WINDOW_SIZE, 65535)
        self.connection.send(self.connection.request(stream, end=False, **request))

    def room(self, stream):
        return min(self.whole, self.streams[stream])

    def send(self, stream, size, made):
        """Sends a frame that takes `size` off both windows; waits for room."""
        while self.room(stream) < size:
            got = self.connection.wait(lambda f: f.kind in (WINDOW_UPDATE, GOAWAY, RST_STREAM), "WINDOW_UPDATE")
            if got.kind != WINDOW_UPDATE:
                raise Unmet(f"{got} instead of WINDOW_UPDATE")
            more = int.from_bytes(got.payload, "big")
            if got.stream:
                self.streams[got.stream] = self.streams.get(got.stream, 0) + more
            else:
                self.whole += more
        self.whole -= size
        self.streams[stream] -= size
        self.connection.send(made)


def padding_is_given_back(connection):
    """Two windows of the connection, of which all but 1 byte in 257 is padding: it counts (6.9.1), and has to be given back."""
    windows = Windows(connection)
    windows.open(1, method="POST")
    for _ in range(2 * windows.first // 257):
        windows.send(1, 257, frame(DATA, PADDED, 1, b"\xff" + b"x" + bytes(255)))
    connection.send(data(1, b""))
    answered(connection)


def data_of_reset_streams_is_given_back(connection):
    """Streams that take up twice the connection's window are reset in the middle: the window is not lost with them.

    They are 50, because a connection most of whose streams are reset is ended when they are 500; between two of our hops all
    cases share one."""
    windows, last = Windows(connection), 101
    for stream in range(1, last, 2):
        windows.open(stream, method="POST")
        for _ in range(1 + 2 * windows.first // 50 // 15000):
            windows.send(stream, 15000, data(stream, bytes(15000), end=False))
        connection.send(reset(stream))
    windows.open(last, method="POST")
    for _ in range(10):
        windows.send(last, 15000, data(last, bytes(15000), end=False))
    connection.send(data(last, b""))
    answered(connection, last)


def large_answer(window_size, step):
    """A mebibyte through a small window that is opened step by step; never more than it allows, in frames of the size allowed."""
    def judge(connection):
        connection.send(settings((INITIAL_WINDOW_SIZE, window_size)), window(0, 2**30), connection.request(fields=connection.fields(path="/bytes/1048576")))
        got, room, ended_ = 0, window_size, False
        while not ended_:
            one = connection.wait(lambda f: f.stream == 1 or f.kind == GOAWAY, "DATA")
            if one.kind not in (HEADERS, DATA, WINDOW_UPDATE) or len(one.payload) > 16384:
                raise Unmet(f"{one}")
            if one.kind == DATA:
                got, room = got + len(one.payload), room - len(one.payload)
                if room < 0:
                    raise Unmet(f"{-room} bytes beyond the window")
                if room < step and not one.is_end():
                    connection.send(window(1, step))
                    room += step
            ended_ = one.is_end()
        if got != 1 << 20:
            raise Unmet(f"{got} bytes")
    return judge


def table_of_nothing(connection):
    """We allow no table for answers: their blocks have to say so first (RFC 7541, 4.2), and refer to nothing."""
    connection.send(settings((HEADER_TABLE_SIZE, 0)))
    connection.wait(lambda f: f.kind == SETTINGS and f.flags & ACK, "SETTINGS, acknowledged")
    connection.decoder.max_allowed_table_size = 0
    for stream in (1, 3):
        connection.send(connection.request(stream))
        answered(connection, stream)


def many_at_once(connection):
    """All streams that are allowed, each with a body of its own that arrives in turns."""
    numbers = range(1, 2 * min(connection.peer.get(MAX_CONCURRENT_STREAMS, 100), 100), 2)
    connection.send(*(connection.request(n, method="POST", end=False) for n in numbers))
    for _ in range(4):
        connection.send(*(data(n, b"x" * 100, end=False) for n in numbers))
    connection.send(*(data(n, b"") for n in reversed(numbers)))
    left = set(numbers)
    while left:
        got = connection.wait(lambda f: f.kind in (HEADERS, DATA, RST_STREAM, GOAWAY), "answers")
        if got.kind in (RST_STREAM, GOAWAY):
            raise Unmet(f"{got}")
        if got.kind == HEADERS and dict(connection.decoder.decode(got.payload)).get(":status") != "200":
            raise Unmet("an answer other than 200")
        if got.is_end():
            left.discard(got.stream)


BAD = malformed
ROWS = [
    ("5.5", "PRIORITY_UPDATE (RFC 9218) is ignored", lambda c: PRIORITY_UPDATE + c.request(), answered),
    ("5.1.2", "every stream allowed, at once", None, many_at_once),
    ("5.2", "padding is given back to the windows", None, padding_is_given_back),
    ("5.2", "DATA of reset streams is given back to the connection's window", None, data_of_reset_streams_is_given_back),
    ("5.2", "a large answer through a window of 1,000", None, large_answer(1000, 1000)),
    ("5.2", "a large answer through the usual window", None, large_answer(65535, 30000)),
    ("6.1", "DATA of nothing but padding", lambda c: c.request(method="POST", end=False) + frame(DATA, END_STREAM | PADDED, 1, b"\x03" + bytes(3)), answered),
    ("6.1", "empty DATA that ends the request", lambda c: c.request(method="POST", end=False) + data(1, b""), answered),
    ("6.8", "GOAWAY after a request: it is answered all the same", lambda c: c.request() + goaway(), answered),
    ("8.1", "trailers that end the request", lambda c: post(data(1, end=False))(c) + c.request(fields=[("x-test", "ok")]), answered),
    ("8.1", "DATA after trailers", lambda c: post(data(1, end=False))(c) + c.request(fields=[("x-test", "ok")]) + data(1), stream_error(STREAM_CLOSED, PROTOCOL_ERROR)),
    ("8.1.1", "content-length and no DATA", headers_with(("content-length", "5")), BAD),
    ("8.1.1", "content-length of more than the DATA", post(data(1), more=[("content-length", "9")]), BAD),
    ("8.1.1", "content-length that is no number", post(data(1), more=[("content-length", "+4")]), BAD),
    ("8.1.1", "content-length twice, differing", post(data(1), more=[("content-length", "4"), ("content-length", "5")]), BAD),
    ("8.2.1", "a value with NUL", headers_with(("x-test", "a\0b")), BAD),
    ("8.2.1", "a value with CR", headers_with(("x-test", "a\rb")), BAD),
    ("8.2.1", "a value with LF", headers_with(("x-test", "a\nb")), BAD),
    ("8.2.1", "a name with a space", headers_with(("x test", "ok")), BAD),
    ("8.2.1", "a name with a colon", headers_with(("x:test", "ok")), BAD),
    ("8.2.1", "a name with LF", headers_with(("x\ntest", "ok")), BAD),
    ("8.2.1", "a name that is not ASCII", headers_with(("x-t\u00e9st", "ok")), BAD),
    ("8.2.1", "an empty name", headers_with(("", "ok")), BAD),
    ("8.2.2", "te: trailers is passed", accepted(("te", "trailers")), answered),
    *(("8.2.2", name, headers_with((name, value)), BAD)
      for name, value in (("keep-alive", "timeout=5"), ("proxy-connection", "keep-alive"), ("transfer-encoding", "chunked"), ("upgrade", "h2c"))),
    ("8.2.3", "cookies in several fields", accepted(("cookie", "a=1"), ("cookie", "b=2")), answered),
    ("8.3.1", "a :path that does not begin with a slash", headers_but(path="index.html"), BAD),
    ("8.3.1", "a :path of an asterisk that is not OPTIONS'", headers_but(path="*"), BAD),
    ("8.3.1", "a :method that is no token", headers_but(method="G ET"), BAD),
    ("8.5", "CONNECT with :path", headers_but(method="CONNECT", scheme=None), BAD),
    ("8.5", "CONNECT with :scheme", headers_but(method="CONNECT", path=None), BAD),
    ("RFC 8441, 3", "extended CONNECT is announced", None, connect_protocol_announced),
    ("RFC 8441, 4", ":protocol with another method", headers_but(protocol="websocket"), BAD),
    ("RFC 8441, 4", "extended CONNECT without :path", extended_connect(path=None), BAD),
    ("RFC 8441, 4", "extended CONNECT to a protocol that is not allowed", extended_connect(protocol="chess"), refused("403", "501", "400")),
    ("RFC 7541, 4.2", "a client that allows no table", None, table_of_nothing),
    ("RFC 7541, 2.3.2", "the table is that of the connection, not of a stream", None, after_answer(lambda c: c.request(3, more=[("x-test", "a")]) + c.request(5, more=[("x-test", "a")]),
                                                                                              lambda c: (answered(c, 3), answered(c, 5)))),
]
GROUPS = [("more", [], ROWS)]
