"""Byte streams that begin with an HTTP exchange: an HTTP/1.1 upgrade, or an extended CONNECT of HTTP/2 (RFC 8441)."""
import base64, select, socket, ssl, time
from frames import (ACK, DATA, END_HEADERS, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, NO_ERROR, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE,
                    Connection, Unmet, frame, settings, window)

PATIENCE = 20.0
KEY = base64.b64encode(b"sixteen bytes 16").decode()


class Refused(Exception):
    """The other side answered something other than 101 (200 in HTTP/2)."""

    def __init__(self, status, fields, body):
        super().__init__(f"status {status}, {body[:80]}")
        self.status, self.fields, self.body = status, fields, body


class H1Tunnel:
    """An upgraded HTTP/1.1 connection."""

    def __init__(self, port, host, path="/", fields=(), tls=None, first=b"", upgrade="websocket"):
        self.socket = socket.create_connection(("127.0.0.1", port), 5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.socket.settimeout(PATIENCE)
        every = [("host", host), ("connection", "keep-alive, Upgrade"), ("upgrade", upgrade), ("sec-websocket-version", "13"), ("sec-websocket-key", KEY), *fields]
        head = f"GET {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in every) + "\r\n"
        self.socket.sendall(head.encode() + first)
        self.buffer = b""
        self.status, self.fields = self.head()
        if self.status != 101:
            size = int(dict(self.fields).get("content-length", 0))
            raise Refused(self.status, self.fields, self.read(size))

    def head(self):
        while b"\r\n\r\n" not in self.buffer:
            piece = self.socket.recv(1 << 16)
            if not piece:
                raise Unmet(f"the connection ended within the head: {self.buffer[:200]}")
            self.buffer += piece
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        line, *rest = head.decode("latin-1").split("\r\n")
        return int(line.split(" ")[1]), [(name.lower(), value.strip()) for name, _, value in (l.partition(":") for l in rest)]

    def send(self, piece):
        self.socket.sendall(piece)

    def read(self, size):
        """So many bytes, or fewer when the stream ends before."""
        pieces, have = [self.buffer], len(self.buffer)
        while have < size:
            try:
                piece = self.socket.recv(1 << 20)
            except TimeoutError:
                raise Unmet(f"{have} of {size} bytes came") from None
            except OSError:
                break
            if not piece:
                break
            pieces.append(piece)
            have += len(piece)
        whole = b"".join(pieces)
        self.buffer = whole[size:]
        return whole[:size]

    def both_ways(self, piece, size):
        """Sends and reads at once, in one thread, because a TLS object of Python bears no more; returns what was read."""
        left, got, end = memoryview(piece), bytearray(self.buffer), time.monotonic() + PATIENCE
        self.buffer = b""
        self.socket.setblocking(False)
        while len(got) < size and time.monotonic() < end:
            select.select([self.socket], [self.socket] if left else [], [], 0.01)
            try:
                left = left[self.socket.send(left[:1 << 16]):] if left else left
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                pass
            try:
                while arrived := self.socket.recv(1 << 16):
                    got += arrived
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                continue
            break
        self.socket.settimeout(PATIENCE)
        return bytes(got)

    def finish(self):
        """Ends our direction."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self):
        self.socket.close()


class H2Tunnel:
    """A stream of an HTTP/2 connection that was opened by extended CONNECT; windows are kept as the text demands."""

    def __init__(self, port, host, path="/", fields=(), tls=None, first=b"", upgrade="websocket"):
        self.connection = c = Connection(port, tls, authority=host)
        c.send(PREFACE, settings((INITIAL_WINDOW_SIZE, 2**31 - 1)), window(0, 2**31 - 1 - 65535))
        self.buffer, self.ended, self.acknowledged = bytearray(), False, False
        self.share, self.stream_share, self.status, self.fields = 65535, None, None, []
        while not self.acknowledged:
            self.take()
        if c.peer.get(8) != 1:
            raise Unmet("SETTINGS_ENABLE_CONNECT_PROTOCOL was not announced")
        self.stream_share = c.peer.get(INITIAL_WINDOW_SIZE, 65535)
        pseudo = c.fields("CONNECT", path, **{":protocol": upgrade})
        c.send(frame(HEADERS, END_HEADERS, 1, c.block(pseudo + [("sec-websocket-version", "13"), *fields])))
        if first:
            self.send(first)
        while self.status is None:
            self.take()
        if self.status != 200:
            while not self.ended:
                self.take()
            raise Refused(self.status, self.fields, bytes(self.buffer))

    def take(self):
        """Acts on the next frame."""
        got = self.connection.next(PATIENCE)
        if got is None:
            self.ended = True
            if self.status is None:
                raise Unmet("the connection ended before there was an answer")
            return
        if got.kind == SETTINGS and got.flags & ACK:
            self.acknowledged = True
        elif got.kind == WINDOW_UPDATE:
            more = int.from_bytes(got.payload, "big")
            if got.stream:
                self.stream_share += more
            else:
                self.share += more
        elif got.kind == HEADERS and self.status is None:
            self.fields = self.connection.decoder.decode(got.payload)
            self.status = int(dict(self.fields)[":status"])
        elif got.kind == DATA:
            self.buffer += got.payload
        elif got.kind == RST_STREAM or got.kind == GOAWAY and got.code() != NO_ERROR:
            if self.status is None:
                raise Unmet(f"{got} instead of an answer")
            self.ended = True
        if got.is_end():
            self.ended = True

    def send(self, piece):
        most, piece = self.connection.peer.get(MAX_FRAME_SIZE, 16384), memoryview(piece)
        while piece:
            size = min(len(piece), most, self.share, self.stream_share)
            if size <= 0:
                self.take()
                if self.ended:
                    raise BrokenPipeError("the stream ended")
                continue
            self.connection.send(frame(DATA, 0, 1, bytes(piece[:size])))
            self.share, self.stream_share, piece = self.share - size, self.stream_share - size, piece[size:]

    def read(self, size):
        while len(self.buffer) < size and not self.ended:
            self.take()
        whole = bytes(self.buffer[:size])
        del self.buffer[:size]
        return whole

    def both_ways(self, piece, size):
        """Sends and reads at once: what comes while there is no room to send is kept."""
        self.send(piece)
        return self.read(size)

    def finish(self):
        self.connection.send(frame(DATA, 1, 1, b""))

    def close(self):
        self.connection.close()
