"""An HTTP/1.1 origin in a thread, and what it was asked: the far end of the checks that look at one proxy from both sides."""
import asyncio, socket, threading


class Request:
    """A request as it arrived: the fields in their order, names in lower case."""

    def __init__(self, method, target, fields, body):
        self.method, self.target, self.fields, self.body = method, target, fields, body

    def values(self, name):
        return [value for key, value in self.fields if key == name]


class Origin:
    """Answers every request with `body`, or so many bytes as `/bytes/N` asks for, on a port of its own; keeps what it heard."""

    def __init__(self, body=b"an answer of the origin\n"):
        self.body, self.seen, self.lock = body, [], threading.Lock()
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()

    def take(self):
        """What was heard since the last time."""
        with self.lock:
            heard, self.seen = self.seen, []
        return heard

    def answer(self, request):
        """Status, fields and body of the answer."""
        asked = request.target.removeprefix("/bytes/")
        return 200, [], bytes(int(asked)) if asked.isdecimal() else self.body

    async def _serve(self):
        server = await asyncio.start_server(self._connection, sock=self.socket, limit=1 << 20)
        await server.serve_forever()

    async def _connection(self, reader, writer):
        try:
            while True:
                request = await self._request(reader)
                with self.lock:
                    self.seen.append(request)
                status, fields, body = self.answer(request)
                lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in fields), f"content-length: {len(body)}", "", ""]
                writer.write("\r\n".join(lines).encode() + (b"" if request.method == "HEAD" else body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    @staticmethod
    async def _request(reader):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *rest = head[:-4].split("\r\n")
        method, target, _ = line.split(" ")
        fields = [(name.lower(), value.strip(" \t")) for name, _, value in (l.partition(":") for l in rest)]
        known = dict(fields)
        body = b""
        if "content-length" in known:
            body = await reader.readexactly(int(known["content-length"]))
        elif known.get("transfer-encoding") == "chunked":
            while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                body += await reader.readexactly(size)
                await reader.readexactly(2)
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass
        return Request(method, target, fields, body)
