"""What every HTTP/2 server must accept: the cases of h2spec's part "generic", by its section numbers.

`ROWS`: section, what is sent, the bytes sent after the handshake (of the connection), what is demanded."""
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from frames import *

GET_WITH_PRIORITY = END_HEADERS | WITH_PRIORITY


def plain(text):
    """A string literal as it is (RFC 7541, 5.2)."""
    return bytes([len(text)]) + text


def coded(text):
    """A string literal in Huffman code."""
    code = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(text)
    return bytes([0x80 | len(code)]) + code


def with_field(representation):
    """A request whose header block ends with the field so represented."""
    return lambda c: frame(HEADERS, END_STREAM | END_HEADERS, 1, c.block(c.fields()) + representation)


def padded_data(c):
    return c.request(method="POST", end=False) + frame(DATA, END_STREAM | PADDED, 1, b"\x05test" + bytes(5))


def padded_headers(c):
    return frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, b"\x08" + c.block(c.fields()) + bytes(8))


def headers_with_priority(c):
    return frame(HEADERS, END_STREAM | GET_WITH_PRIORITY, 1, priority_fields(0, 256) + c.block(c.fields()))


def continued(*cuts):
    """A header block in as many frames as there are cuts and one."""
    def made(c):
        block = c.block(c.fields())
        pieces = [block[a:b] for a, b in zip((0, *cuts), (*cuts, len(block)))]
        more = [frame(CONTINUATION, END_HEADERS if piece is pieces[-1] else 0, 1, piece) for piece in pieces[1:]]
        return frame(HEADERS, END_STREAM, 1, pieces[0]) + b"".join(more)
    return made


def post_with_trailers(c):
    return c.request(method="POST", end=False, more=[("trailer", "x-test")]) + data(1, end=False) + c.request(fields=[("x-test", "ok")])


def repeated_from_table(c):
    """The field was inserted by the first request; the second names its index in the dynamic table."""
    first = c.request(1, more=[("x-test", "h2spec")])
    return first + frame(HEADERS, END_STREAM | END_HEADERS, 3, c.block(c.fields()) + b"\xbe")


def both_answered(connection):
    answered(connection, 1)
    answered(connection, 3)


def smaller_table(c):
    c.encoder.header_table_size = 128
    return c.request()


def two_table_sizes(c):
    """The size is changed to 128 and back to 4,096: both are said at the beginning of the block."""
    return frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\x3f\x61\x3f\xe1\x1f" + c.block(c.fields()))


def window_opened(connection):
    """With a window of 0 the answer waits; what is said of the half-closed stream lets its first byte through."""
    connection.send(settings((INITIAL_WINDOW_SIZE, 0)), connection.request(), window(1, 1))
    connection.wait(lambda f: f.kind == DATA and len(f.payload) == 1, "one byte of DATA")


def priority_then_window(connection):
    connection.send(settings((INITIAL_WINDOW_SIZE, 0)), connection.request(), priority(1, 0, 256), window(1, 1))
    connection.wait(lambda f: f.kind == DATA and len(f.payload) == 1, "one byte of DATA")


def priority_after_end(connection):
    connection.send(connection.request())
    answered(connection)
    connection.send(priority(1, 0, 256), ping())
    ponged()(connection)


def preface_answered(connection):
    connection.send(PREFACE, settings((INITIAL_WINDOW_SIZE, 65535)))
    first = connection.next()
    if first is None or first.kind != SETTINGS or first.flags & ACK:
        raise Unmet(f"{first} instead of SETTINGS")


def acknowledged(connection):
    connection.wait(lambda f: f.kind == SETTINGS and f.flags & ACK, "SETTINGS, acknowledged")


# A known name is that of entry 58 of the static table, user-agent.
HPACK = []
for kind, new, known in (("incremental indexing", b"\x40", b"\x7a"), ("no indexing", b"\x00", b"\x0f\x2b"), ("never indexed", b"\x10", b"\x1f\x2b")):
    for code, string in (("", plain), (", in Huffman code", coded)):
        HPACK.append(("5", f"a literal field, {kind}, known name{code}", with_field(known + string(b"h2spec")), answered))
        HPACK.append(("5", f"a literal field, {kind}, new name{code}", with_field(new + string(b"x-test") + string(b"h2spec")), answered))

# Without a handshake before.
BARE = [("1", "the preface of a client", preface_answered)]
ROWS = [
    ("2", "PRIORITY for an idle stream", lambda c: priority(1, 0, 256) + ping(), ponged()),
    ("2", "WINDOW_UPDATE for a half-closed stream", None, window_opened),
    ("2", "PRIORITY for a half-closed stream", None, priority_then_window),
    ("2", "RST_STREAM for a half-closed stream", lambda c: c.request() + reset(1) + ping(), ponged()),
    ("2", "PRIORITY for a closed stream", None, priority_after_end),
    ("3.1", "DATA", lambda c: c.request(method="POST", end=False) + data(1), answered),
    ("3.1", "DATA in two frames", lambda c: c.request(method="POST", end=False) + data(1, end=False) + data(1), answered),
    ("3.1", "DATA with padding", padded_data, answered),
    ("3.2", "HEADERS", lambda c: c.request(), answered),
    ("3.2", "HEADERS with padding", padded_headers, answered),
    ("3.2", "HEADERS with priority", headers_with_priority, answered),
    ("3.3", "PRIORITY of weight 1", lambda c: priority(1, 0, 1) + c.request(), answered),
    ("3.3", "PRIORITY of weight 256", lambda c: priority(1, 0, 256) + c.request(), answered),
    ("3.3", "PRIORITY that depends on a stream", lambda c: priority(3, 1, 1) + c.request(), answered),
    ("3.3", "PRIORITY, exclusive", lambda c: priority(1, 0, 1, True) + c.request(), answered),
    ("3.3", "PRIORITY for an idle stream, then HEADERS of a lower one", lambda c: priority(3, 0, 256) + c.request(), answered),
    ("3.4", "RST_STREAM", lambda c: c.request(end=False) + reset(1) + ping(), ponged()),
    ("3.5", "SETTINGS of every kind", lambda c: settings((1, 4096), (2, 1), (3, 100), (4, 65535), (5, 16384), (6, 100)), acknowledged),
    ("3.7", "PING", lambda c: ping(b"payload!"), ponged(b"payload!")),
    ("3.8", "GOAWAY", lambda c: goaway(0, NO_ERROR, b"bye") + ping(), ponged_or_ended),
    ("3.9", "WINDOW_UPDATE of the connection", lambda c: window(0, 1) + ping(), ponged()),
    ("3.9", "WINDOW_UPDATE of a stream", lambda c: c.request() + window(1, 1), answered),
    ("3.10", "CONTINUATION", continued(5), answered),
    ("3.10", "CONTINUATION, twice", continued(5, 10), answered),
    ("4", "a GET", lambda c: c.request(), answered),
    ("4", "a HEAD", lambda c: c.request(method="HEAD"), answered),
    ("4", "a POST", lambda c: c.request(method="POST", end=False) + data(1), answered),
    ("4", "a POST with trailers", post_with_trailers, answered),
    ("5", "an indexed field", repeated_from_table, both_answered),
    *HPACK,
    ("5", "a change of the table's size", smaller_table, answered),
    ("5", "two changes of the table's size", two_table_sizes, answered),
]
