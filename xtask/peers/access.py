#!/usr/bin/env python3
"""Who may pass: filters that ask about bodies and count requests, and those that know users, keys, networks and certificates. The real Envoy and our proxy get the same bootstrap and the same requests; what client, origin and services see must be the same."""
import concurrent.futures, http.client
import grpc
import services
from services import *

# A part of a body arrives in whatever pieces the socket gives: what a service that takes a part is told of a body that is longer is compared by its first bytes.
BODY = {"max_request_bytes": 8}


class Reader(services.Authorization):
    """Tells of bodies, and of headers as they came."""

    def Check(self, request, context):
        http = request.attributes.request.http
        self.seen.append({"body": http.body, "raw": http.raw_body, "size": http.size, "partial": http.headers.get("x-envoy-auth-partial-body"),
                          "map": sorted((h.key, h.raw_value) for h in http.header_map.headers if h.key not in OWN), "headers": sorted((k, v) for k, v in http.headers.items() if k not in OWN)})
        if http.path.startswith("/deny"):
            return auth.CheckResponse(status=status_pb2.Status(code=7), denied_response=auth.DeniedHttpResponse(body="0123456789"))
        return auth.CheckResponse(status=status_pb2.Status(code=0))


class Counter(rls_grpc.RateLimitServiceServicer):
    def __init__(self):
        self.seen = []

    def ShouldRateLimit(self, request, context):
        self.seen.append(str(request))
        if "fails" in str(request):
            context.abort(grpc.StatusCode.INTERNAL, "broken")
        return rls.RateLimitResponse(overall_code=rls.RateLimitResponse.OK)


def reads(**settings):
    return authz(grpc_service=grpc_to("grpc"), **settings)


def asks(**settings):
    return authz_http() | settings


def set_limit(**value):
    return {"@type": F + "set_metadata.v3.Config", "metadata": [{"metadata_namespace": "limits", "value": {"own": value}}]}


USER = {"request_headers": {"header_name": "x-user", "descriptor_key": "user"}}
LEFT = {"dynamic_metadata": {"metadata_key": {"key": "limits", "path": [{"key": "own"}]}}}
COUNTED = [{"actions": [USER]}, {"actions": [USER], "limit": LEFT}]
WEIGHED = [{"actions": [USER]} | more for more in ({}, {"hits_addend": {"number": 5}}, {"hits_addend": {"number": 0}})]
DESCRIBED = [{"entries": [{"key": "user", "value": "ann"}], "token_bucket": bucket(5)}]

# Name, filters, virtual hosts.
SERVED = [
    ("body", [("authz", reads(with_request_body=BODY))],
     [host([route("/unread", {"authz": per(check_settings={"disable_request_body_buffering": True})}),
            route("/more", {"authz": per(check_settings={"with_request_body": {"max_request_bytes": 64, "pack_as_bytes": True}})}), route("/")])]),
    ("body-part", [("authz", reads(with_request_body=BODY | {"allow_partial_message": True}))], [host([route("/")])]),
    ("body-bytes", [("authz", reads(with_request_body=BODY | {"allow_partial_message": True, "pack_as_bytes": True}, encode_raw_headers=True))], [host([route("/")])]),
    ("body-http", [("authz", asks(with_request_body={"max_request_bytes": 64}))], [host([route("/")])]),
    ("body-http-bytes", [("authz", asks(with_request_body={"max_request_bytes": 8, "allow_partial_message": True, "pack_as_bytes": True}))], [host([route("/")])]),
    ("denied-part", [("authz", reads(max_denied_response_body_bytes=4))], [host([route("/")])]),
    *[(f"counted-{i}", [("set", set_limit(**own)), ("limits", limits())], [host([route("/", rate_limits=COUNTED)])])
      for i, own in enumerate([{"requests_per_unit": 42, "unit": "HOUR"}, {"requests_per_unit": 42.9, "unit": "YEAR"}, {"requests_per_unit": "42", "unit": "HOUR"}, {"requests_per_unit": 4, "unit": "EON"}, {"unit": "DAY"}])],
    ("weighed", [("limits", limits(rate_limits=WEIGHED))], [host([route("/own", {"limits": limit_route(rate_limits=WEIGHED[1:])}), route("/")])]),
    ("deny-percent", [("limits", limits(failure_mode_deny=True, failure_mode_deny_percent=share(0)))], [host([route("/", rate_limits=COUNTED)])]),
    ("deny-all", [("limits", limits(failure_mode_deny_percent=share(100)))], [host([route("/", rate_limits=COUNTED)])]),
    ("connection", [("limit", limit(token_bucket=bucket(2), local_rate_limit_per_downstream_connection=True))], [host([route("/")])]),
    ("shared", [("limit", limit(token_bucket=bucket(2)))], [host([route("/")])]),
    *[(f"weights-{n}", [("limit", limit(token_bucket=bucket(100), descriptors=DESCRIBED, enable_x_ratelimit_headers="DRAFT_VERSION_03", rate_limits=[{"actions": [USER], "hits_addend": {"number": n}}]))], [host([route("/")])]) for n in (1, 2, 6)],
]

TEXTS = [b"", b"1234567", b"12345678", b"123456789", bytes(range(250, 256)), "größe".encode()]
ASKED = [
    *[(group, f"{path} {text!r}", POST, path, {}, text) for group in ("body", "body-part", "body-bytes") for path in ("/", "/deny") for text in TEXTS],
    *[("body", f"{path} {text!r}", POST, path, {}, text) for path in ("/unread", "/more") for text in TEXTS],
    *[(group, f"{who} {text!r}", POST, "/", {"authorization": who}, text) for group in ("body-http", "body-http-bytes") for who in ("ok", "bad") for text in TEXTS],
    ("body", "GET", GET, "/", {}), ("body-http", "GET", GET, "/", {"authorization": "ok"}),
    *[("denied-part", path, GET, path, {}) for path in ("/", "/deny")],
    *[(f"counted-{i}", "ann", GET, "/", {"x-user": "ann"}) for i in range(5)],
    *[(group, user, GET, "/", {"x-user": user}) for group in ("deny-percent", "deny-all") for user in ("ann", "fails")],
    *[("shared", f"{i}", GET, "/", {}) for i in range(3)], *[("connection", f"{i}", GET, "/", {}) for i in range(3)],
    *[("weighed", path, GET, path, {"x-user": "ann"}) for path in ("/", "/own")],
    *[(f"weights-{n}", f"{i} {user}", GET, "/", {"x-user": user}) for n in (1, 2, 6) for i, user in enumerate(("ann", "bob", "ann", "ann", "bob"))],
]


def on_one_connection(port, requests):
    """Statuses of requests that go through one connection."""
    client, seen = http.client.HTTPConnection("127.0.0.1", port, timeout=20), []
    for target in requests:
        client.request("GET", target)
        response = client.getresponse()
        response.read()
        seen.append(response.status)
    return seen


def configuration(ports, admin, origin, http, grpc_port):
    services.SERVED = [(name, [(n, c, False) for n, c in filters], hosts) for name, filters, hosts in SERVED]
    return services.configuration(ports, admin, origin, http, grpc_port)


def main():
    origin, http = Origin(), HttpService()
    reader, counter = Reader(), Counter()
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
    auth_grpc.add_AuthorizationServicer_to_server(reader, server)
    rls_grpc.add_RateLimitServiceServicer_to_server(counter, server)
    grpc_port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    ends = {}
    for who in ("envoy", "outrigger"):
        ports = {name: free_port() for name, *_ in SERVED}
        path = f"{WORK}/{who}-access.json"
        with open(path, "w") as f:
            json.dump(configuration(ports, free_port(), origin, http, grpc_port), f)
        program = [ENVOY, "--disable-hot-restart"] if who == "envoy" else [PROXY]
        p = start([*program, "-c", path, "--concurrency", "1", "--log-level", "warning"], who)
        for port in ports.values():
            wait_port(port, p, 60)
        ends[who] = ports
    for group, what, *case in ASKED:
        theirs, ours = (observed(ends[who][group], origin, (reader, counter, http), case) for who in ("envoy", "outrigger"))
        detail = "; ".join(f"{key}: envoy {theirs[key]!r}, here {ours[key]!r}" for key in theirs if theirs[key] != ours[key])
        check(f"{group}: {what}", theirs == ours, detail)
    for group in ("connection", "shared"):
        theirs, ours = ([on_one_connection(ends[who][group], ["/"] * 4) for _ in range(2)] for who in ("envoy", "outrigger"))
        check(f"{group}: requests of two connections", theirs == ours, f"envoy {theirs}, here {ours}")
    server.stop(0)
    finish("access")


if __name__ == "__main__":
    main()
