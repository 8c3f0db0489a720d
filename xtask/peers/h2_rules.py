"""What RFC 9113 (and RFC 7540 before it) demands of a server, by the sections of RFC 7540 that h2spec's part "http2" is laid out in.

`ROWS`: section, what is sent, the bytes sent after the handshake (of the connection), what is demanded."""
from frames import *
from h2_generic import acknowledged, preface_answered

UNKNOWN = frame(0x16, 0, 0, bytes(8))
MOST = 2**31 - 1


def invalid_preface(connection):
    connection.send(b"NEITHER HTTP/2 NOR HTTP/1\r\n\r\n")
    ended(connection)


def largest_data(c):
    size = c.peer.get(MAX_FRAME_SIZE, 16384)
    return c.request(method="POST", end=False) + data(1, bytes(size))


def too_large_data(c):
    size = c.peer.get(MAX_FRAME_SIZE, 16384)
    return c.request(method="POST", end=False) + data(1, bytes(size + 1))


def too_large_headers(c):
    block = c.block(c.fields())
    while len(block) <= c.peer.get(MAX_FRAME_SIZE, 16384):
        block += b"\x00\x06x-fill\x7f\x81\x1f" + b"x" * 4096
    return frame(HEADERS, END_STREAM | END_HEADERS, 1, block)


def open_block(c, end=True, method="GET"):
    """HEADERS whose block does not end with it."""
    return c.request(method=method, end=end, flags=0)


def continuation(c, stream=1, end=True):
    return frame(CONTINUATION, END_HEADERS if end else 0, stream, c.block([("x-more", "text")]))


def after_answer(made, demand):
    """The stream is closed by its answer; then come the bytes."""
    def judge(connection):
        connection.send(connection.request())
        answered(connection)
        connection.send(made(connection))
        demand(connection)
    return judge


def too_many_streams(connection):
    """Answers are held back by a window of 0, so that every stream stays open; the one too many is refused."""
    most = connection.peer.get(MAX_CONCURRENT_STREAMS)
    if most is None or most > 1000:
        raise Unmet(f"the limit of streams is {most}: the check wants a listener that announces a small one")
    connection.send(settings((INITIAL_WINDOW_SIZE, 0)), *(connection.request(2 * n + 1) for n in range(most + 1)))
    stream_error(PROTOCOL_ERROR, REFUSED_STREAM, stream=2 * most + 1)(connection)


def depends_on_itself(c):
    return frame(HEADERS, END_STREAM | END_HEADERS | WITH_PRIORITY, 1, priority_fields(1, 256) + c.block(c.fields()))


def data_padded_too_long(c):
    return c.request(method="POST", end=False, more=[("content-length", "4")]) + frame(DATA, END_STREAM | PADDED, 1, b"\x06test")


def headers_padded_too_long(c):
    block = c.block(c.fields())
    return frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, bytes([len(block) + 2]) + block)


def one_byte(connection):
    """A window of one byte lets one byte through, and no second one."""
    connection.send(connection.request())
    first_bytes(connection, 1)
    connection.send(ping())
    got = connection.wait(lambda f: f.kind in (PING, DATA), "PING")
    if got.kind == DATA and got.payload:
        raise Unmet(f"{got} beyond the window")


def first_bytes(connection, wanted):
    got = connection.wait(lambda f: f.kind == DATA, "DATA")
    if len(got.payload) != wanted or got.is_end():
        raise Unmet(f"{got}, where the window is {wanted}")


def last_of_two_windows(connection):
    connection.send(settings((INITIAL_WINDOW_SIZE, 100), (INITIAL_WINDOW_SIZE, 1)))
    acknowledged(connection)
    one_byte(connection)


def window_of_one(connection):
    connection.send(settings((INITIAL_WINDOW_SIZE, 1)))
    acknowledged(connection)
    one_byte(connection)


def window_opened_by_settings(connection):
    connection.send(settings((INITIAL_WINDOW_SIZE, 0)))
    acknowledged(connection)
    connection.send(connection.request())
    connection.wait(lambda f: f.kind == HEADERS, "HEADERS")
    connection.send(settings((INITIAL_WINDOW_SIZE, 1)))
    first_bytes(connection, 1)


def window_below_zero(connection):
    """Three bytes sent of a window of 3 that shrinks to 2 leave −1: an update by 2 allows one byte."""
    connection.send(settings((INITIAL_WINDOW_SIZE, 3)))
    acknowledged(connection)
    connection.send(connection.request())
    first_bytes(connection, 3)
    connection.send(settings((INITIAL_WINDOW_SIZE, 2)))
    acknowledged(connection)
    connection.send(window(1, 2))
    first_bytes(connection, 1)


def headers_with(*more):
    return lambda c: c.request(more=more)


def headers_but(**changed):
    """A request some of whose pseudo-header fields are others, or missing."""
    names = {":" + name: value for name, value in changed.items()}
    return lambda c: c.request(fields=c.fields(**names))


def only(*names):
    return lambda c: c.request(fields=[f for f in c.fields() if f[0] in names])


def post(*frames, more=()):
    return lambda c: c.request(method="POST", end=False, more=more) + b"".join(frames)


PROTOCOL, CLOSED, SIZE, FLOW = (connection_error(code) for code in (PROTOCOL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR, FLOW_CONTROL_ERROR))
MALFORMED = stream_error(PROTOCOL_ERROR)

BARE = [
    ("3.5", "the preface of a client", preface_answered),
    ("3.5", "a preface that is none", invalid_preface),
]
ROWS = [
    ("4.1", "a frame of unknown type", lambda c: UNKNOWN + ping(), ponged()),
    ("4.1", "a frame with flags that mean nothing", lambda c: frame(PING, 0x16, 0, b"outrigge"), ponged()),
    ("4.1", "a frame with the reserved bit", lambda c: frame(PING, 0x16, 1 << 31, b"outrigge"), ponged()),
    ("4.2", "DATA of the largest size", largest_data, answered),
    ("4.2", "DATA one byte larger", too_large_data, stream_error(FRAME_SIZE_ERROR)),
    ("4.2", "HEADERS that are larger", too_large_headers, SIZE),
    ("4.3", "a header block that ends within a field", lambda c: frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\x40"), connection_error(COMPRESSION_ERROR)),
    ("4.3", "PRIORITY amid a header block", lambda c: open_block(c, False) + priority(1, 0, 256) + continuation(c), PROTOCOL),
    ("4.3", "HEADERS of another stream amid a header block", lambda c: open_block(c, False) + c.request(3) + continuation(c), PROTOCOL),
    ("5.1", "idle: DATA", lambda c: data(1), connection_error(PROTOCOL_ERROR, STREAM_CLOSED)),
    ("5.1", "idle: RST_STREAM", lambda c: reset(1), PROTOCOL),
    ("5.1", "idle: WINDOW_UPDATE", lambda c: window(1, 100), PROTOCOL),
    ("5.1", "idle: CONTINUATION", lambda c: frame(CONTINUATION, END_HEADERS, 1, c.block(c.fields())), PROTOCOL),
    ("5.1", "half-closed: DATA", lambda c: c.request() + data(1), stream_error(STREAM_CLOSED)),
    ("5.1", "half-closed: HEADERS", lambda c: c.request() + c.request(), stream_error(STREAM_CLOSED)),
    ("5.1", "half-closed: CONTINUATION", lambda c: c.request() + continuation(c), connection_error(STREAM_CLOSED, PROTOCOL_ERROR)),
    ("5.1", "closed by RST_STREAM: DATA", lambda c: c.request(end=False) + reset(1) + data(1), stream_error(STREAM_CLOSED)),
    ("5.1", "closed by RST_STREAM: HEADERS", lambda c: c.request(end=False) + reset(1) + c.request(), stream_error(STREAM_CLOSED)),
    ("5.1", "closed by RST_STREAM: CONTINUATION", lambda c: c.request(end=False) + reset(1) + continuation(c), connection_error(STREAM_CLOSED, PROTOCOL_ERROR)),
    ("5.1", "closed: DATA", None, after_answer(lambda c: data(1), stream_error(STREAM_CLOSED))),
    ("5.1", "closed: HEADERS", None, after_answer(lambda c: c.request(), CLOSED)),
    ("5.1", "closed: CONTINUATION", None, after_answer(continuation, connection_error(STREAM_CLOSED, PROTOCOL_ERROR))),
    ("5.1.1", "a stream of even number", lambda c: c.request(2), PROTOCOL),
    # The numbers skipped are closed with it: a server need not remember that they were never used.
    ("5.1.1", "a stream whose number is lower than the last", lambda c: c.request(5) + c.request(3), connection_error(PROTOCOL_ERROR, STREAM_CLOSED)),
    ("5.1.2", "one stream more than announced", None, too_many_streams),
    ("5.3.1", "HEADERS that depend on themselves", depends_on_itself, MALFORMED),
    ("5.3.1", "PRIORITY that depends on itself", lambda c: priority(1, 1, 256), MALFORMED),
    ("5.4.1", "after an error the connection is closed", lambda c: frame(PING, 0, 3, bytes(8)), ended),
    ("5.4.1", "and GOAWAY says which", lambda c: frame(PING, 0, 3, bytes(8)), PROTOCOL),
    ("5.5", "an unknown frame", lambda c: UNKNOWN + ping(), ponged()),
    ("5.5", "an unknown frame amid a header block", lambda c: open_block(c) + UNKNOWN, PROTOCOL),
    ("6.1", "DATA on stream 0", lambda c: data(0), PROTOCOL),
    ("6.1", "DATA on a half-closed stream", lambda c: c.request(method="POST") + data(1), stream_error(STREAM_CLOSED)),
    ("6.1", "DATA with more padding than there is", data_padded_too_long, PROTOCOL),
    ("6.2", "HEADERS that go on, then PRIORITY", lambda c: open_block(c, False) + priority(1, 0, 256) + continuation(c), PROTOCOL),
    ("6.2", "HEADERS that go on, then HEADERS of another stream", lambda c: open_block(c, False) + c.request(3) + continuation(c), PROTOCOL),
    ("6.2", "HEADERS on stream 0", lambda c: c.request(0), PROTOCOL),
    ("6.2", "HEADERS with more padding than there is", headers_padded_too_long, PROTOCOL),
    ("6.3", "PRIORITY on stream 0", lambda c: priority(0, 0, 256), PROTOCOL),
    ("6.3", "PRIORITY of 4 bytes", lambda c: c.request() + frame(PRIORITY, 0, 1, b"\x80\0\0\1"), stream_error(FRAME_SIZE_ERROR)),
    ("6.4", "RST_STREAM on stream 0", lambda c: reset(0), PROTOCOL),
    ("6.4", "RST_STREAM on an idle stream", lambda c: reset(1), PROTOCOL),
    ("6.4", "RST_STREAM of 3 bytes", lambda c: c.request() + frame(RST_STREAM, 0, 1, bytes(3)), SIZE),
    ("6.5", "SETTINGS, acknowledged, with a payload", lambda c: frame(SETTINGS, ACK, 0, b"\0"), SIZE),
    ("6.5", "SETTINGS on a stream", lambda c: frame(SETTINGS, 0, 1, b"\0\3\0\0\0\x64"), PROTOCOL),
    ("6.5", "SETTINGS of 3 bytes", lambda c: frame(SETTINGS, 0, 0, b"\0\3\0"), connection_error(PROTOCOL_ERROR, FRAME_SIZE_ERROR)),
    ("6.5.2", "ENABLE_PUSH of 2", lambda c: settings((ENABLE_PUSH, 2)), PROTOCOL),
    ("6.5.2", "INITIAL_WINDOW_SIZE of 2^31", lambda c: settings((INITIAL_WINDOW_SIZE, MOST + 1)), FLOW),
    ("6.5.2", "MAX_FRAME_SIZE of 16,383", lambda c: settings((MAX_FRAME_SIZE, 16383)), PROTOCOL),
    ("6.5.2", "MAX_FRAME_SIZE of 2^24", lambda c: settings((MAX_FRAME_SIZE, 2**24)), PROTOCOL),
    ("6.5.2", "an unknown setting", lambda c: settings((0xFF, 1)) + ping(), ponged()),
    ("6.5.3", "a setting twice in a frame: the last holds", None, last_of_two_windows),
    ("6.5.3", "SETTINGS are acknowledged", lambda c: settings((ENABLE_PUSH, 0)), acknowledged),
    ("6.7", "PING", lambda c: ping(b"payload!"), ponged(b"payload!")),
    ("6.7", "an acknowledged PING is not answered", lambda c: frame(PING, ACK, 0, b"invalid!") + ping(), ponged()),
    ("6.7", "PING on a stream", lambda c: frame(PING, 0, 1, bytes(8)), PROTOCOL),
    ("6.7", "PING of 6 bytes", lambda c: frame(PING, 0, 0, bytes(6)), SIZE),
    ("6.8", "GOAWAY on a stream", lambda c: frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL),
    ("6.9", "WINDOW_UPDATE of 0 for the connection", lambda c: window(0, 0), PROTOCOL),
    ("6.9", "WINDOW_UPDATE of 0 for a stream", lambda c: c.request(end=False) + window(1, 0), MALFORMED),
    ("6.9", "WINDOW_UPDATE of 3 bytes", lambda c: frame(WINDOW_UPDATE, 0, 0, b"\0\0\1"), SIZE),
    ("6.9.1", "a window of 1 lets one byte through", None, window_of_one),
    ("6.9.1", "a window of the connection above 2^31-1", lambda c: window(0, MOST) * 2, FLOW),
    ("6.9.1", "a window of a stream above 2^31-1", lambda c: c.request(end=False) + window(1, MOST) * 2, stream_error(FLOW_CONTROL_ERROR)),
    ("6.9.2", "a window opened by SETTINGS", None, window_opened_by_settings),
    ("6.9.2", "a window that falls below 0", None, window_below_zero),
    ("6.9.2", "an initial window above 2^31-1", lambda c: settings((INITIAL_WINDOW_SIZE, MOST + 1)), FLOW),
    ("6.10", "CONTINUATION, twice", lambda c: open_block(c) + continuation(c, end=False) + continuation(c), answered),
    ("6.10", "CONTINUATION, then DATA", lambda c: open_block(c, False, "POST") + continuation(c, end=False) + data(1), PROTOCOL),
    ("6.10", "CONTINUATION on stream 0", lambda c: open_block(c) + continuation(c, 0), PROTOCOL),
    ("6.10", "CONTINUATION after a block that ended with HEADERS", lambda c: c.request() + continuation(c), PROTOCOL),
    ("6.10", "CONTINUATION after a block that ended with CONTINUATION", lambda c: open_block(c) + continuation(c) + continuation(c), PROTOCOL),
    ("6.10", "CONTINUATION after DATA", lambda c: open_block(c, False, "POST") + data(1) + continuation(c, end=False) + continuation(c, 0), PROTOCOL),
    ("7", "GOAWAY of an unknown code", lambda c: goaway(0, 0xFF) + ping(), ponged_or_ended),
    ("7", "RST_STREAM of an unknown code", lambda c: c.request(method="POST", end=False) + reset(1, 0xFF) + ping(), ponged()),
    ("8.1", "a second HEADERS frame that ends nothing", lambda c: post(data(1, end=False))(c) + c.request(fields=[("x-test", "ok")], end=False), MALFORMED),
    ("8.1.2", "a name in capitals", headers_with(("X-TEST", "ok")), MALFORMED),
    ("8.1.2.1", "an unknown pseudo-header field", headers_but(test="ok"), MALFORMED),
    ("8.1.2.1", "a pseudo-header field of responses", headers_but(status="200"), MALFORMED),
    ("8.1.2.1", "a pseudo-header field among the trailers", lambda c: post(data(1, end=False))(c) + c.request(fields=[(":method", "POST")]), MALFORMED),
    ("8.1.2.1", "a pseudo-header field after others", lambda c: c.request(fields=[("x-test", "ok")] + c.fields()), MALFORMED),
    ("8.1.2.2", "connection", headers_with(("connection", "keep-alive")), MALFORMED),
    ("8.1.2.2", "te of more than trailers", headers_with(("trailers", "test"), ("te", "trailers, deflate")), MALFORMED),
    ("8.1.2.3", "an empty :path", headers_but(path=""), MALFORMED),
    ("8.1.2.3", "no :method", only(":scheme", ":path", ":authority"), MALFORMED),
    ("8.1.2.3", "no :scheme", only(":method", ":path", ":authority"), MALFORMED),
    ("8.1.2.3", "no :path", only(":method", ":scheme", ":authority"), MALFORMED),
    ("8.1.2.3", ":method twice", headers_with((":method", "GET")), MALFORMED),
    ("8.1.2.3", ":scheme twice", lambda c: c.request(more=[(":scheme", c.scheme)]), MALFORMED),
    ("8.1.2.3", ":path twice", headers_with((":path", "/")), MALFORMED),
    ("8.1.2.6", "content-length of less than the DATA", post(data(1), more=[("content-length", "1")]), MALFORMED),
    ("8.1.2.6", "content-length of less than all DATA", post(data(1, end=False), data(1), more=[("content-length", "1")]), MALFORMED),
    ("8.2", "PUSH_PROMISE", lambda c: frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\3" + c.block(c.fields())), PROTOCOL),
]

# RFC 7541; sections of that text.
COMPRESSION = connection_error(COMPRESSION_ERROR)
# "x-test" in Huffman code, as a literal field that is not indexed; what follows is its value.
TEST = b"\x00\x85\xf2\xb2\x4a\x84\xff"


def block_and(representation):
    return lambda c: frame(HEADERS, END_STREAM | END_HEADERS, 1, c.block(c.fields()) + representation)


def table_too_large(c):
    """A size update of one more than the proxy allowed, seven bits to a byte after a prefix of five."""
    size, update = c.peer.get(HEADER_TABLE_SIZE, 4096) + 1 - 31, b"\x3f"
    while size >= 128:
        update, size = update + bytes([0x80 | size & 0x7F]), size >> 7
    return frame(HEADERS, END_STREAM | END_HEADERS, 1, update + bytes([size]) + c.block(c.fields()))


HPACK_ROWS = [
    ("2.3.3", "an indexed field beyond both tables", block_and(b"\xc6"), COMPRESSION),
    ("2.3.3", "a literal field whose name is beyond both tables", block_and(b"\x7f\x07\x00"), COMPRESSION),
    ("4.2", "a change of the table's size at the end of a block", block_and(b"\x21"), COMPRESSION),
    ("5.2", "Huffman code with more than 7 bits of padding", block_and(TEST + b"\x84\x49\x50\x9f\xff"), COMPRESSION),
    ("5.2", "Huffman code padded with zeros", block_and(TEST + b"\x83\x49\x50\x90"), COMPRESSION),
    ("5.2", "Huffman code with the end-of-string symbol", block_and(TEST + b"\x87\x49\x51\xff\xff\xff\xfa\x7f"), COMPRESSION),
    ("6.1", "an indexed field of index 0", block_and(b"\x80"), COMPRESSION),
    ("6.3", "a table larger than allowed", table_too_large, COMPRESSION),
]
