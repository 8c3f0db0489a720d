#!/usr/bin/env python3
"""What is done to messages on their way: the real Envoy and our proxy get the same bootstrap and the same requests; what client and origin see must be the same.

`GROUPS`: a connection manager each: name, filters, virtual hosts, what else it says. `CASES`: group, method, target, fields, body, fields of the answer, body of the answer."""
import base64, gzip, zlib
from common import *
from origin import Origin

ENVOY = os.environ.get("ENVOY") or os.path.join(os.path.dirname(sys.executable), "envoy")
F, C = T + "filters.http.", T + "compression."
APART = {"date", "server", "x-envoy-upstream-service-time", "x-request-id", "connection", "keep-alive", "transfer-encoding", "content-length"}
TEXT = b"a text that is long enough to be worth the work " * 40


def library(kind, **settings):
    return {"name": kind, "typed_config": {"@type": C + f"{kind}.compressor.v3.{kind.capitalize()}"} | settings}


def undo(kind, **settings):
    return {"name": kind, "typed_config": {"@type": C + f"{kind}.decompressor.v3.{kind.capitalize()}"} | settings}


def compressor(kind="gzip", response=None, **more):
    return {"@type": F + "compressor.v3.Compressor", "compressor_library": library(kind)} | ({"response_direction_config": response} if response else {}) | more


def decompressor(kind="gzip", **more):
    return {"@type": F + "decompressor.v3.Decompressor", "decompressor_library": undo(kind)} | more


def flag(value):
    return {"default_value": value, "runtime_key": "none"}


def route(prefix, filters=None, **action):
    return {"match": {"prefix": prefix}, "route": ({} if "cluster_header" in action else {"cluster": "origin"}) | {"timeout": "5s"} | action} | ({"typed_per_filter_config": filters} if filters else {})


def direct(prefix, status, body, **more):
    return {"match": {"prefix": prefix}, "direct_response": {"status": status, "body": {"inline_string": body}}} | more


def host(*routes, **more):
    return [{"name": "all", "domains": ["*"], "routes": list(routes)} | more]


PER_ROUTE = F + "compressor.v3.CompressorPerRoute"
GROUPS = [
    ("gzip", [("c", compressor())], host(route("/off", {"c": {"@type": PER_ROUTE, "disabled": True}}),
        route("/remove", {"c": {"@type": PER_ROUTE, "overrides": {"response_direction_config": {"remove_accept_encoding_header": True}}}}),
        direct("/direct", 200, "d" * 100), direct("/short", 200, "d" * 29), direct("/thirty", 200, "d" * 30), route("/")), {}),
    ("strict", [("c", compressor(response={"common_config": {"min_content_length": 100, "content_type": ["application/x-own"]}, "disable_on_etag_header": True, "remove_accept_encoding_header": True,
                                           "uncompressible_response_codes": [206]}))], host(route("/")), {}),
    ("never", [("c", compressor(response={"common_config": {"enabled": flag(False)}}))], host(route("/")), {}),
    ("both", [("g", compressor()), ("b", compressor("brotli"))], host(route("/off", {"g": {"@type": PER_ROUTE, "disabled": True}}), route("/")), {}),
    ("first", [("g", compressor()), ("b", compressor("brotli", choose_first=True))], host(route("/")), {}),
    ("upload", [("c", compressor(request_direction_config={"common_config": {"enabled": flag(True)}}))], host(route("/")), {}),
    ("undo", [("d", decompressor())], host(route("/")), {}),
    ("quiet", [("d", decompressor(request_direction_config={"advertise_accept_encoding": False}))], host(route("/")), {}),
    ("requests", [("d", decompressor(response_direction_config={"common_config": {"enabled": flag(False)}}))], host(route("/")), {}),
    ("ignore", [("d", decompressor(response_direction_config={"common_config": {"ignore_no_transform_header": True}}))], host(route("/")), {}),
    ("buffer", [("b", {"@type": F + "buffer.v3.Buffer", "max_request_bytes": 1000})], host(route("/off", {"b": {"@type": F + "buffer.v3.BufferPerRoute", "disabled": True}}),
        route("/small", {"b": {"@type": F + "buffer.v3.BufferPerRoute", "buffer": {"max_request_bytes": 10}}}), direct("/direct", 200, "d"), route("/")), {}),
    ("web", [("w", {"@type": F + "grpc_web.v3.GrpcWeb"})], host(direct("/direct", 503, "no"), route("/")), {}),
    ("plain", [], host(direct("/moved", 301, "x"), direct("/direct", 200, "d"), route("/")), {}),
    ("continue", [], host(route("/")), {"proxy_100_continue": True}),
    ("replies", [("b", {"@type": F + "buffer.v3.Buffer", "max_request_bytes": 10})], host(direct("/direct", 403, "d"), direct("/empty", 404, ""), {"match": {"prefix": "/moved"}, "redirect": {"path_redirect": "/n"}},
        route("/nowhere", cluster_header="x-none"), route("/up"), response_headers_to_add=[{"header": {"key": "x-code", "value": "%RESPONSE_CODE%"}}]),
        {"local_reply_config": {"mappers": [
            {"filter": {"status_code_filter": {"comparison": {"op": "EQ", "value": {"default_value": 404, "runtime_key": "k"}}}}, "status_code": 410, "body": {"inline_string": "gone"},
             "headers_to_add": [{"header": {"key": "x-mapped", "value": "%RESPONSE_CODE%"}}, {"header": {"key": "x-mapped", "value": "two"}, "append_action": "APPEND_IF_EXISTS_OR_ADD"}]},
            {"filter": {"header_filter": {"header": {"name": "x-map", "string_match": {"exact": "json"}}}}, "body_format_override": {"json_format": {"body": "%LOCAL_REPLY_BODY%", "code": "%RESPONSE_CODE%", "path": "%REQ(:path)%"}}},
            {"filter": {"response_flag_filter": {"flags": ["NR", "NC"]}}, "body_format_override": {"text_format": "flag %LOCAL_REPLY_BODY%", "content_type": "text/x-own"}},
            {"filter": {"and_filter": {"filters": [{"status_code_filter": {"comparison": {"op": "GE", "value": {"default_value": 300, "runtime_key": "k"}}}},
                                                    {"status_code_filter": {"comparison": {"op": "LE", "value": {"default_value": 399, "runtime_key": "k"}}}}]}}, "status_code": 308}],
            "body_format": {"text_format": "[%LOCAL_REPLY_BODY%|%RESPONSE_CODE%|%REQ(:path)%]"}}}),
    ("mapped", [], host(direct("/direct", 403, "d"), route("/")), {"local_reply_config": {"mappers": [
        {"filter": {"grpc_status_filter": {"statuses": ["UNAVAILABLE"]}}, "status_code": 500}, {"filter": {"not_health_check_filter": {}}, "body": {"inline_string": "b"}}]}}),
    ("health", [("h", {"@type": F + "health_check.v3.HealthCheck", "pass_through_mode": False, "headers": [{"name": ":path", "string_match": {"exact": "/up"}}]}),
                ("i", {"@type": F + "health_check.v3.HealthCheck", "pass_through_mode": False, "headers": [{"name": ":path", "string_match": {"exact": "/all"}}], "cluster_min_healthy_percentages": {"origin": {"value": 100}}}),
                ("j", {"@type": F + "health_check.v3.HealthCheck", "pass_through_mode": False, "headers": [{"name": ":path", "string_match": {"exact": "/none"}}], "cluster_min_healthy_percentages": {"nobody": {"value": 1}}}),
                ("k", {"@type": F + "health_check.v3.HealthCheck", "pass_through_mode": True, "headers": [{"name": ":path", "string_match": {"exact": "/pass"}}]}),
                ("l", {"@type": F + "health_check.v3.HealthCheck", "pass_through_mode": True, "cache_time": "600s", "headers": [{"name": ":path", "string_match": {"exact": "/kept"}}]})],
     host(route("/"), response_headers_to_add=[{"header": {"key": "x-code", "value": "%RESPONSE_CODE%"}}]), {}),
]

GZIP, BROTLI = {"accept-encoding": "gzip"}, {"accept-encoding": "br"}
CODED = gzip.compress(TEXT)
LONG = "content-length"
CASES = []


def case(group, method="GET", target="/", fields=None, body=None, answer=None, content=TEXT, status=200, chunked=False):
    CASES.append((group, method, target, fields or {}, body, answer or {}, content, status, chunked))


for accept in ("gzip", "br", "gzip, br", "br;q=0.5, gzip;q=0.4", "gzip;q=0", "*", "*;q=0", "identity", "identity, gzip", "identity;q=0.1, gzip;q=0.5", "deflate", "", "GZIP", "gzip;q=1.0", "gzip; q=0.5", "gzip,br;q=1.0", "br, gzip;q=0.9, *;q=0.1",
               "gzip;q=0, *", "*, br;q=0", "x, *;q=0.5", "gzip;q=x", ";", "gzip;q=0.001"):
    for group in ("gzip", "both", "first"):
        case(group, fields={"accept-encoding": accept})
for group in ("gzip", "strict", "never", "both"):
    case(group)
    for kind in ("text/html", "text/html; charset=utf-8", "TEXT/HTML", "image/png", "application/json", "application/x-own", "text/xml", "image/svg+xml", "application/wasm", "text/event-stream", "application/grpc", "text/javascript", "", "font/woff2", "application/xml", "text/x-js"):
        case(group, fields=GZIP, answer={"content-type": kind})
    for answer in ({"etag": '"a"'}, {"etag": 'W/"a"'}, {"etag": "w/a"}, {"cache-control": "no-transform"}, {"cache-control": "public, No-Transform"}, {"content-encoding": "br"}, {"content-encoding": "identity"}, {"vary": "x-a"}, {"vary": "Accept-Encoding"}, {"vary": "x-a, accept-encoding"},
                   {"vary": "*"}, {"content-type": "application/x-own", "etag": "e"}):
        case(group, fields=GZIP, answer=answer)
    for length in (0, 1, 29, 30, 31, 99, 100):
        case(group, fields=GZIP, answer={"content-type": "application/x-own"} if group == "strict" else {}, content=b"t" * length)
        case(group, fields=GZIP, answer={"content-type": "application/x-own"} if group == "strict" else {}, content=b"t" * length, chunked=True)
    for status in (200, 204, 206, 304, 404, 500):
        case(group, fields=GZIP, answer={"content-type": "application/x-own"} if group == "strict" else {}, status=status)
    case(group, "HEAD", fields=GZIP)
    case(group, fields=GZIP, content=os.urandom(70000) * 3)
for target in ("/off", "/remove", "/direct", "/short", "/thirty", "/"):
    case("gzip", target=target, fields=GZIP)
    case("gzip", target=target)
case("both", target="/off", fields={"accept-encoding": "gzip, br"})
for fields in ({}, {"content-encoding": "br"}, {"content-type": "image/png"}, {"cache-control": "no-transform"}, GZIP):
    for body in (TEXT, b"short", b""):
        case("upload", "POST", fields=fields, body=body)
case("upload")
for group in ("undo", "quiet", "requests", "ignore"):
    for fields in ({}, GZIP, {"accept-encoding": "br, x"}):
        for answer in ({"content-encoding": "gzip"}, {"content-encoding": "GZIP"}, {"content-encoding": "gzip, br"}, {"content-encoding": "br, gzip"}, {"content-encoding": "gzip", "cache-control": "no-transform"}, {}):
            case(group, fields=fields, answer=answer, content=CODED)
    case(group, "HEAD", answer={"content-encoding": "gzip"}, content=CODED)
    for fields in ({"content-encoding": "gzip"}, {"content-encoding": "gzip,gzip"}, {"content-encoding": "gzip", "cache-control": "no-transform"}, {}):
        case(group, "POST", fields=fields, body=CODED)
for target in ("/", "/off", "/small", "/direct"):
    for size in (0, 1, 10, 11, 1000, 1001, 100000):
        case("buffer", "POST", target, body=b"b" * size)
        case("buffer", "POST", target, body=b"b" * size, chunked=True)
    case("buffer", target=target)
case("buffer", "POST", "/", {"content-type": "application/grpc"}, b"b" * 1001)
FRAME = b"\0\0\0\0\3abc"
for kind in ("application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text", "application/grpc-web-text+proto", "application/grpc-web+json", "application/grpc", "text/plain"):
    body = base64.b64encode(FRAME) if "text" in kind else FRAME
    for accept in (None, "application/grpc-web", "*/*"):
        for answer in ({"content-type": "application/grpc", "grpc-status": "0"}, {"content-type": "application/grpc+proto"}):
            case("web", "POST", fields={"content-type": kind} | ({"accept": accept} if accept else {}), body=body, answer=answer, content=FRAME)
    case("web", "POST", "/direct", {"content-type": kind}, body)
    case("web", "GET", "/", {"content-type": kind}, answer={"content-type": "application/grpc"})
    case("web", "POST", fields={"content-type": kind}, body=body, answer={"content-type": "application/grpc", "grpc-status": "5"}, content=b"")
for group in ("plain", "continue"):
    for target in ("/", "/direct", "/moved"):
        for method, body in (("GET", None), ("POST", b"body"), ("POST", b"")):
            for expect in ("100-continue", "100-Continue", "other"):
                case(group, method, target, {"expect": expect}, body)
    case(group, "GET", "/", {"range": "bytes=0-4"}, status=206, answer={"content-range": "bytes 0-4/100"}, content=b"abcde")
    case(group, "TRACE")
    case(group, "OPTIONS", target="*")
for target in ("/direct", "/empty", "/moved", "/nowhere", "/other", "/up"):
    for fields in ({}, {"x-map": "json"}, {"content-type": "application/grpc"}, {"content-type": "application/grpc", "x-map": "json"}):
        for method in ("GET", "HEAD"):
            case("replies", method, target, fields)
    case("mapped", "GET", target)
    case("mapped", "GET", target, {"content-type": "application/grpc"})
case("replies", "POST", "/up", {}, b"more than ten")
for target in ("/up", "/all", "/none", "/pass", "/kept", "/kept", "/else"):
    for method in ("GET", "HEAD", "POST"):
        case("health", method, target, status=200 if target != "/kept" else 503, content=b"said")


class Said(Origin):
    """Answers with what the case says."""

    def answer(self, request):
        _, method, _, _, _, answer, content, status, _ = self.case
        return status, list(answer.items()), b"" if status in (204, 304) else content

    async def _connection(self, reader, writer):
        try:
            while True:
                request = await self._request(reader)
                with self.lock:
                    self.seen.append(request)
                status, fields, body = self.answer(request)
                chunked = self.case[8] and self.case[4] is None
                lines = [f"HTTP/1.1 {status} Said", *(f"{n}: {v}" for n, v in fields)] + (["transfer-encoding: chunked"] if chunked else [] if status == 204 else [f"content-length: {len(body)}"])
                bodiless = request.method == "HEAD" or status in (204, 304)
                body = (b"%x\r\n%s\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n" if chunked else body
                writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + (b"" if bodiless else body))
                await writer.drain()
        except (OSError, EOFError):
            pass
        finally:
            writer.close()


def read(s, method):
    data, interim = b"", []
    while True:
        while b"\r\n\r\n" not in data:
            more = s.recv(65536)
            if not more:
                return None, [], b"closed", interim
            data += more
        head, _, rest = data.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        status = int(line.split(" ")[1])
        if not 100 <= status < 200:
            break
        interim.append(status)
        data = rest
    fields = [(n.lower(), v.strip()) for n, _, v in (f.partition(":") for f in fields)]
    known = dict(fields)
    if method == "HEAD" or status in (204, 304):
        return status, fields, b"", interim
    body = b""
    if known.get("transfer-encoding") == "chunked":
        while True:
            while b"\r\n" not in rest:
                rest += more if (more := s.recv(65536)) else b"\r\n0\r\n"
            size, _, rest = rest.partition(b"\r\n")
            size = int(size, 16)
            while len(rest) < size + 2:
                more = s.recv(65536)
                if not more:
                    return status, fields, body + rest + b"[broken off]", interim
                rest += more
            body += rest[:size]
            rest = rest[size + 2:]
            if not size:
                return status, fields, body, interim
    while "content-length" not in known or len(rest) < int(known["content-length"]):
        more = s.recv(65536)
        if not more:
            break
        rest += more
    return status, fields, rest, interim


def plain(fields, body):
    """The body without its coding, where it is one that we can read."""
    known = dict(fields)
    if known.get("content-encoding") == "gzip":
        try:
            return "gzip", zlib.decompress(body, 31)
        except zlib.error:
            return "broken", body
    if known.get("content-encoding") == "br" and body != CODED:
        # Every encoder has its own way; what comes out is compared where the proxy decodes it.
        return "br", len(body) > 0
    return "plain", body


def ask(port, origin, case):
    group, method, target, fields, body, *_, chunked = case
    origin.case = case
    origin.take()
    lines = [f"{method} {target} HTTP/1.1", "host: the.host", *(f"{n}: {v}" for n, v in fields.items())]
    wire = body or b""
    if body is not None and chunked:
        lines.append("transfer-encoding: chunked")
        wire = (b"%x\r\n%s\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
    elif body is not None:
        lines.append(f"content-length: {len(body)}")
    with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
        s.sendall(("\r\n".join(lines) + "\r\n\r\n").encode() + wire)
        try:
            status, seen, content, interim = read(s, method)
        except OSError as error:
            status, seen, content, interim = None, [], str(error).encode(), []
    fields = sorted((n, v) for n, v in seen if n not in APART)
    heard = [(r.method, r.target, sorted(f for f in r.fields if f[0] not in APART), "content-length" in dict(r.fields) and dict(r.fields)["content-length"] != "0", plain(r.fields, r.body)) for r in origin.take()]
    return {"status": status, "interim": interim, "fields": fields, "body": plain(seen, content), "origin": heard}


def short(value):
    text = repr(value)
    return text if len(text) < 300 else text[:300] + "…"


def main():
    origins, ends = {}, {}
    for who in ("envoy", "outrigger"):
        origins[who] = Said()
        ports, listeners = {}, []
        for name, filters, hosts, more in GROUPS:
            ports[name] = free_port()
            one = listener(name, ports[name], hosts)
            hcm = one["filter_chains"][0]["filters"][0]["typed_config"]
            hcm["http_filters"] = [{"name": n, "typed_config": c} for n, c in filters] + hcm["http_filters"]
            hcm |= more
            listeners.append(one)
        config = {"admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": free_port()}}},
                  "static_resources": {"listeners": listeners, "clusters": [cluster("origin", origins[who].port)]}}
        path = f"{WORK}/{who}-shaping.json"
        with open(path, "w") as f:
            json.dump(config, f)
        argv = [ENVOY, "-c", path, "--concurrency", "1", "--disable-hot-restart", "-l", "error"] if who == "envoy" else [PROXY, "-c", path, "--concurrency", "1", "--log-level", "error"]
        p = start(argv, who)
        for port in ports.values():
            wait_port(port, p, 60)
        ends[who] = ports
    for case in CASES:
        group, method, target, fields, body, answer, content, status, chunked = case
        theirs, ours = (ask(ends[who][group], origins[who], case) for who in ("envoy", "outrigger"))
        detail = "" if theirs == ours else "; ".join(f"{key}: envoy {short(theirs[key])}, here {short(ours[key])}" for key in theirs if theirs[key] != ours[key])
        what = f"{group}: {method} {target} {fields} {len(body) if body is not None else '-'} -> {status} {answer} {len(content)}{' chunked' if chunked else ''}"
        check(what, theirs == ours, detail)
    finish("shaping")


if __name__ == "__main__":
    main()
