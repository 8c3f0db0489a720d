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


BAD = malformed
ROWS = [
    ("5.5", "PRIORITY_UPDATE (RFC 9218) is ignored", lambda c: PRIORITY_UPDATE + c.request(), answered),
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
    ("7541, 2.3.2", "the table is that of the connection, not of a stream", None, after_answer(lambda c: c.request(3, more=[("x-test", "a")]) + c.request(5, more=[("x-test", "a")]),
                                                                                              lambda c: (answered(c, 3), answered(c, 5)))),
]
GROUPS = [("more", [], ROWS)]
