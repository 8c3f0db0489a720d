#!/usr/bin/env python3
"""Filters that ask services: the real Envoy and our proxy get the same bootstrap, the same services and the same requests; what client, origin and services see must be the same.

The services are real: gRPC servers of Envoy's authorization and rate limit APIs, an HTTP authorization service, and a server with the keys of a token issuer."""
import concurrent.futures, sys
import grpc

# The package of Envoy's messages has the name of a script beside this one.
_here = sys.path.pop(0)
from envoy.config.core.v3 import base_pb2
from envoy.service.auth.v3 import external_auth_pb2 as auth, external_auth_pb2_grpc as auth_grpc
from envoy.service.ratelimit.v3 import rls_pb2 as rls, rls_pb2_grpc as rls_grpc
from envoy.type.v3 import http_status_pb2
sys.path.insert(0, _here)
from google.protobuf import struct_pb2
from google.rpc import status_pb2
from filters import *

# What a proxy says of itself to a service.
OWN = {"x-envoy-internal", "x-forwarded-for", "x-envoy-expected-rq-timeout-ms", "content-length", "user-agent", "x-request-id", "x-forwarded-proto"}


def option(name, value, append=None, action=None):
    made = base_pb2.HeaderValueOption(header=base_pb2.HeaderValue(key=name, value=value))
    if append is not None:
        made.append.value = append
    if action is not None:
        made.append_action = action
    return made


class Authorization(auth_grpc.AuthorizationServicer):
    def __init__(self):
        self.seen = []

    def Check(self, request, context):
        http = request.attributes.request.http
        headers = sorted((k, v) for k, v in http.headers.items() if k not in OWN)
        self.seen.append({"method": http.method, "path": http.path, "host": http.host, "scheme": http.scheme, "protocol": http.protocol, "headers": headers,
                          "extensions": sorted(request.attributes.context_extensions.items()), "source": request.attributes.source.address.socket_address.address,
                          "destination": request.attributes.destination.address.socket_address.address, "metadata": str(request.attributes.metadata_context)})
        what = http.headers.get("x-say", "")
        ok, denied = status_pb2.Status(code=0), status_pb2.Status(code=7)
        if what == "ok":
            metadata = struct_pb2.Struct()
            metadata.update({"plan": "gold", "n": 5, "deep": {"list": [1, "x", True, None]}})
            return auth.CheckResponse(status=ok, dynamic_metadata=metadata, ok_response=auth.OkHttpResponse(
                headers=[option("x-set", "1"), option("x-join", "b", True), option("x-none", "b", True), option("x-plain", "2", False),
                         option("x-action-add", "3", action=1), option("x-action-over", "4", action=2), option("x-action-if", "5", action=3)],
                headers_to_remove=["x-gone", "X-Gone-Too"], query_parameters_to_set=[base_pb2.QueryParameter(key="q", value="2")], query_parameters_to_remove=["secret"],
                response_headers_to_add=[option("x-seen", "1"), option("x-origin-own", "2", action=1), option("x-over", "3", action=2), option("x-if", "4", action=3)]))
        if what == "denied":
            return auth.CheckResponse(status=denied, denied_response=auth.DeniedHttpResponse(
                status=http_status_pb2.HttpStatus(code=429), headers=[option("x-why", "no"), option("content-type", "text/html"), option("x-two", "a"), option("x-two", "b")], body="<b>no</b>"))
        if what == "denied bare":
            return auth.CheckResponse(status=denied)
        if what == "denied empty":
            return auth.CheckResponse(status=denied, denied_response=auth.DeniedHttpResponse())
        if what == "fails":
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        if what == "slow":
            time.sleep(1)
        return auth.CheckResponse(status=ok)


class Limits(rls_grpc.RateLimitServiceServicer):
    def __init__(self):
        self.seen = []

    def ShouldRateLimit(self, request, context):
        descriptors = [[(e.key, e.value) for e in d.entries] for d in request.descriptors]
        self.seen.append({"domain": request.domain, "descriptors": descriptors})
        text = str(descriptors)
        R, C = rls.RateLimitResponse, rls.RateLimitResponse
        def status(code, requests, unit, left, name=""):
            s = R.DescriptorStatus(code=code, current_limit=R.RateLimit(requests_per_unit=requests, unit=unit, name=name), limit_remaining=left)
            s.duration_until_reset.seconds = 17
            return s
        header = lambda name: base_pb2.HeaderValue(key=name, value="v")
        if "fails" in text:
            context.abort(grpc.StatusCode.INTERNAL, "broken")
        if "over" in text:
            return R(overall_code=C.OVER_LIMIT, statuses=[status(C.OVER_LIMIT, 10, R.RateLimit.MINUTE, 0, "users"), status(C.OK, 100, R.RateLimit.HOUR, 40)],
                     response_headers_to_add=[header("x-down")], request_headers_to_add=[header("x-up")], raw_body=b"slow down")
        return R(overall_code=C.OK, statuses=[status(C.OK, 10, R.RateLimit.MINUTE, 4, "users"), R.DescriptorStatus(code=C.OK), status(C.OK, 5, R.RateLimit.DAY, 9)],
                 response_headers_to_add=[header("x-down")], request_headers_to_add=[header("x-up")])


class HttpService(Origin):
    """Authorization by HTTP, and keys."""

    def answer(self, request):
        if request.target.startswith("/jwks"):
            return (200, [], ISSUER.keys().encode()) if request.target == "/jwks?a=b" else (404, [], b"")
        what = dict(request.fields).get("authorization", "")
        if what == "ok":
            return 200, [("x-user", "ann"), ("x-roles", "b"), ("x-alone", "c"), ("x-seen", "1"), ("x-hidden", "h"), ("x-level", "7"), ("x-envoy-auth-headers-to-remove", "x-gone")], b"fine"
        if what == "broken":
            return 503, [("x-why", "broken")], b"broken"
        return 401, [("x-why", "nobody"), ("www-authenticate", "Basic"), ("content-type", "text/html")], b"<b>who?</b>"


def grpc_to(cluster, timeout="2s"):
    return {"envoy_grpc": {"cluster_name": cluster}, "timeout": timeout}


def authz(**settings):
    return {"@type": F + "ext_authz.v3.ExtAuthz", "transport_api_version": "V3"} | settings


def authz_http(**settings):
    uri = {"uri": "http://authz.test", "cluster": "http", "timeout": "2s"}
    return authz(http_service={"server_uri": uri} | settings)


def exactly(*names):
    return {"patterns": [{"exact": name} for name in names]}


def per(**settings):
    return {"@type": F + "ext_authz.v3.ExtAuthzPerRoute"} | settings


def limits(**settings):
    service = {"rate_limit_service": {"grpc_service": {"envoy_grpc": {"cluster_name": "grpc"}}, "transport_api_version": "V3"}}
    return {"@type": F + "ratelimit.v3.RateLimit", "domain": "edge", "timeout": "2s"} | service | settings


def remote(**settings):
    uri = {"uri": settings.pop("uri", "http://keys.test/jwks?a=b"), "cluster": settings.pop("cluster", "http"), "timeout": "2s"}
    return {"issuer": "me", "remote_jwks": {"http_uri": uri} | settings}


def jwt(provider, **settings):
    return {"@type": F + "jwt_authn.v3.JwtAuthentication", "providers": {"p": provider}, "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "p"}}]} | settings


def found(name, path, **value):
    return {"filter": name, "path": [{"key": key} for key in path], "value": value}


def allowed(**condition):
    return {"@type": F + "rbac.v3.RBAC", "rules": {"action": "ALLOW", "policies": {"p": {"permissions": [{"any": True}], "principals": [condition]}}}}


def told(*paths):
    return [set_header("x-told", " ".join(f"%DYNAMIC_METADATA({path})%" for path in paths))]


def telling(*paths):
    return route("/") | {"request_headers_to_add": told(*paths)}


JWT_NAME, AUTHZ_NAME, FROM = "envoy.filters.http.jwt_authn", "envoy.filters.http.ext_authz", "envoy.filters.http.header_to_metadata"
BY = [{"actions": [{"request_headers": {"header_name": "x-user", "descriptor_key": "user"}}, {"destination_cluster": {}}, {"source_cluster": {}}, {"remote_address": {}}]},
      {"actions": [{"generic_key": {"descriptor_value": "all"}}]}, {"stage": 1, "actions": [{"generic_key": {"descriptor_value": "later"}}]}]
HOST_BY = [{"actions": [{"generic_key": {"descriptor_key": "of", "descriptor_value": "host"}}]}]
META_BY = [{"actions": [{"metadata": {"descriptor_key": "m", "metadata_key": {"key": FROM, "path": [{"key": "k"}]}, "default_value": "none"}}]},
           {"actions": [{"metadata": {"descriptor_key": "m", "metadata_key": {"key": FROM, "path": [{"key": "k"}]}}}, {"generic_key": {"descriptor_value": "x"}}]}]
limit_route = lambda **s: {"@type": F + "ratelimit.v3.RateLimitPerRoute"} | s
CLAIMED = {"payload_in_metadata": "claims", "header_in_metadata": "head", "normalize_payload_in_metadata": {"space_delimited_claims": ["scope"]}, "clear_route_cache": True}
FROM_HEADERS = {"@type": F + "header_to_metadata.v3.Config", "request_rules": [
    {"header": "x-key", "on_header_present": {"key": "k", "type": "STRING"}, "on_header_missing": {"key": "k", "value": "missing"}, "remove": True},
    {"header": "x-number", "on_header_present": {"key": "n", "type": "NUMBER"}},
    {"header": "x-coded", "on_header_present": {"key": "c", "encode": "BASE64"}},
    {"header": "x-path", "on_header_present": {"metadata_namespace": "other", "key": "p", "regex_value_rewrite": {"pattern": {"google_re2": {}, "regex": "^/([^/]*)/.*$"}, "substitution": "\\1"}}},
    {"cookie": "c", "on_header_present": {"key": "cookie"}, "on_header_missing": {"key": "cookie", "value": "no cookie"}}]}
SET = {"@type": F + "set_metadata.v3.Config", "metadata": [{"metadata_namespace": FROM, "value": {"k": "changed", "more": True}}, {"metadata_namespace": FROM, "allow_overwrite": True, "value": {"more": [1]}},
                                                           {"metadata_namespace": FROM, "allow_overwrite": True, "value": {"more": [2], "z": None}}]}

SERVED = [
    ("authz-grpc", [("authz", authz(grpc_service=grpc_to("grpc"), clear_route_cache=True), False)],
     [host([route("/off", {"authz": per(disabled=True)}), route("/told", {"authz": per(check_settings={"context_extensions": {"a": "route", "c": "2"}})}),
            telling(f"{AUTHZ_NAME}:plan", f"{AUTHZ_NAME}:n", f"{AUTHZ_NAME}:deep", f"{AUTHZ_NAME}:deep:list", f"{AUTHZ_NAME}:none")],
           {"authz": per(check_settings={"context_extensions": {"a": "host", "b": "1"}})})]),
    ("authz-open", [("authz", authz(grpc_service=grpc_to("grpc", "0.1s"), failure_mode_allow=True, failure_mode_allow_header_add=True), False)], [host([route("/")])]),
    ("authz-gone", [("authz", authz(grpc_service=grpc_to("gone"), status_on_error={"code": "ServiceUnavailable"}), False)], [host([route("/")])]),
    ("authz-some", [("authz", authz(grpc_service=grpc_to("grpc"), allowed_headers={"patterns": [{"prefix": "x-s"}, {"exact": ":path"}]}), False)], [host([route("/")])]),
    ("authz-not", [("authz", authz(grpc_service=grpc_to("grpc"), disallowed_headers={"patterns": [{"prefix": "x-o"}]}), False)], [host([route("/")])]),
    ("authz-disabled", [("authz", authz(grpc_service=grpc_to("grpc"), filter_enabled=share(0)), False)], [host([route("/")])]),
    ("authz-denied", [("authz", authz(grpc_service=grpc_to("grpc"), filter_enabled=share(0), deny_at_disable={"default_value": True, "runtime_key": "k"}), False)], [host([route("/")])]),
    ("authz-http", [("authz", authz_http(path_prefix="/check", authorization_request={"headers_to_add": [{"key": "x-added", "value": "yes"}]}, authorization_response={
        "allowed_upstream_headers": exactly("x-user", "x-alone"), "allowed_upstream_headers_to_append": exactly("x-roles"), "allowed_client_headers_on_success": exactly("x-seen"),
        "dynamic_metadata_from_headers": exactly("x-level")}) | {"allowed_headers": exactly("x-more")}, False)],
     [host([telling(f"{AUTHZ_NAME}:x-level")])]),
    ("authz-http-some", [("authz", authz_http(authorization_response={"allowed_client_headers": exactly("x-other")}), False)], [host([route("/")])]),
    ("limits", [("limits", limits(enable_x_ratelimit_headers="DRAFT_VERSION_03", response_headers_to_add=[set_header("x-limited", "yes")]), False)],
     [host([route("/own", {"limits": limit_route(vh_rate_limits="INCLUDE", domain="other")}, rate_limits=BY), route("/ignore", {"limits": limit_route(vh_rate_limits="IGNORE")}),
            route("/host"), route("/", rate_limits=BY)], rate_limits=HOST_BY)]),
    ("limits-stage", [("limits", limits(stage=1, request_type="external", disable_x_envoy_ratelimited_header=True), False)], [host([route("/", rate_limits=BY)])]),
    ("limits-deny", [("limits", limits(failure_mode_deny=True, rate_limited_status={"code": "ServiceUnavailable"}, rate_limited_as_resource_exhausted=True), False)], [host([route("/", rate_limits=BY)])]),
    ("limits-shadow", [("limits", limits(filter_enforced=share(0)), False)], [host([route("/", rate_limits=BY)])]),
    ("limits-metadata", [("from", FROM_HEADERS, False), ("limits", limits(), False)], [host([route("/", rate_limits=META_BY)])]),
    ("keys", [("jwt", jwt(remote() | CLAIMED), False), ("rbac", allowed(metadata=found(JWT_NAME, ["claims", "scope"], list_match={"one_of": {"string_match": {"exact": "write"}}})), False)],
     [host([{"match": {"prefix": "/", "dynamic_metadata": [found(JWT_NAME, ["claims", "plan", "name"], string_match={"exact": "gold"})]}, "route": {"cluster": "origin"},
             "request_headers_to_add": told(f"{JWT_NAME}:claims:sub", f"{JWT_NAME}:claims:plan", f"{JWT_NAME}:head:alg", f"{JWT_NAME}:claims:scope")}, route("/")])]),
    ("keys-gone", [("jwt", jwt(remote(cluster="gone")), False)], [host([route("/")])]),
    ("keys-none", [("jwt", jwt(remote(uri="http://keys.test/jwks-none")), False)], [host([route("/")])]),
    *[(f"rbac-{i}", [("from", FROM_HEADERS, False), ("set", SET, False), ("rbac", allowed(metadata=m), False)], [host([route("/")])]) for i, m in enumerate([
        found(FROM, ["k"], string_match={"prefix": "a"}), found(FROM, ["n"], double_match={"range": {"start": 1, "end": 2.5}}), found(FROM, ["n"], double_match={"exact": 7}),
        found(FROM, ["n"], present_match=True), found(FROM, ["n"], present_match=False), found(FROM, ["z"], null_match={}), found(FROM, ["n"], null_match={}), found(FROM, ["more"], bool_match=True),
        found(FROM, ["k"], string_match={"exact": "abc"}) | {"invert": True},
        found(FROM, ["k"], or_match={"value_matchers": [{"string_match": {"exact": "abc"}}, {"string_match": {"exact": "missing"}}]})])],
    ("metadata", [("from", FROM_HEADERS, False), ("set", SET, False)],
     [host([telling(f"{FROM}:k", f"{FROM}:n", f"{FROM}:c", "other:p", f"{FROM}:cookie", f"{FROM}:more", f"{FROM}:z")])]),
]

SAY = {"x-join": "a", "x-set": "0", "x-plain": "0", "x-gone": "1", "x-gone-too": "1", "x-action-add": "0", "x-action-over": "0", "x-action-if": "0", "x-other": "o"}
TOKEN = lambda **claims: {"authorization": f"Bearer {ISSUER.token('ES256', 'ec', **GOOD | claims)}"}
ASKED = [
    *[("authz-grpc", f"{path} {say}", GET, path, SAY | {"x-say": say}) for path in ("/p?q=1&secret=s", "/off", "/told") for say in ("ok", "denied", "denied bare", "denied empty", "fails", "plain")],
    ("authz-grpc", "no fields there", GET, "/p", {"x-say": "ok"}), ("authz-grpc", "gRPC denied", POST, "/p", GRPC | {"x-say": "denied"}), ("authz-grpc", "gRPC fails", POST, "/p", GRPC | {"x-say": "fails"}),
    *[("authz-open", say, GET, "/p", {"x-say": say}) for say in ("ok", "denied", "fails", "slow")], ("authz-gone", "gone", GET, "/p", {}),
    *[(group, say, GET, "/p", {"x-say": say, "x-other": "1"}) for group in ("authz-some", "authz-not", "authz-disabled", "authz-denied") for say in ("ok", "denied")],
    *[(group, f"{method} {what}", method, "/p?a=1", {"authorization": what, "x-roles": "a", "x-gone": "1", "x-user": "root", "x-more": "m", "x-not": "n"})
      for group in ("authz-http", "authz-http-some") for what in ("ok", "broken", "bad") for method in (GET, POST)],
    *[("limits", f"{path} {user}", GET, path, {"x-user": user} if user else {}) for path in ("/", "/own", "/ignore", "/host") for user in ("ann", "over", "fails", "")],
    *[(group, f"{method} {user}", method, "/", {"x-user": user} | (GRPC if method == POST else {})) for group in ("limits-stage", "limits-deny", "limits-shadow") for user in ("ann", "over", "fails") for method in (GET, POST)],
    *[("limits-metadata", str(fields), GET, "/", fields) for fields in ({}, {"x-key": "v"}, {"x-key": "over"})],
    *[("keys", what, GET, "/", fields) for what, fields in [
        ("gold", TOKEN(sub="ann", scope="read write", plan={"name": "gold"})), ("tin", TOKEN(sub="ann", scope="write", plan={"name": "tin"})), ("reader", TOKEN(scope="read")),
        ("no scope", TOKEN()), ("none", {}), ("other key", {"authorization": f"Bearer {TOKENS['other key']}"}), ("other kid", {"authorization": f"Bearer {TOKENS['other kid']}"})]],
    *[(group, "token", GET, "/", TOKEN()) for group in ("keys-gone", "keys-none")],
    *[(f"rbac-{i}", str(fields), GET, "/", fields) for i in range(10) for fields in ({}, {"x-key": "abc", "x-number": "2"}, {"x-number": "7"}, {"x-number": "no"})],
    *[("metadata", str(fields), GET, "/", fields) for fields in ({}, {"x-key": "a b", "x-number": "2.50", "x-coded": "aGk=", "x-path": "/first/rest", "cookie": "a=b; c=\"quoted\""},
                                                                {"x-key": "", "x-number": "1e3", "x-coded": "!", "x-path": "none", "cookie": "c=plain; d=1"})],
]


def configuration(ports, admin, origin, http, grpc_port):
    listeners = []
    for name, filters, hosts in SERVED:
        one = listener(name, ports[name], hosts)
        hcm = one["filter_chains"][0]["filters"][0]["typed_config"]
        hcm["http_filters"] = [{"name": n, "typed_config": c} for n, c, _ in filters] + hcm["http_filters"]
        listeners.append(one)
    clusters = [cluster("origin", origin.port), cluster("http", http.port), cluster("grpc", grpc_port, h2=True), cluster("gone", free_port(), h2=True)]
    return {"admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}}, "node": {"id": "n", "cluster": "peers"},
            "static_resources": {"listeners": listeners, "clusters": clusters}}


def observed(port, origin, services, case):
    """What everybody sees of a request."""
    authorization, rate_limits, http = services
    authorization.seen.clear(), rate_limits.seen.clear(), http.take()
    seen = ask(port, origin, *case)
    seen["asked"] = authorization.seen + rate_limits.seen
    seen["asked by HTTP"] = [(r.method, r.target, r.body, sorted(f for f in r.fields if f[0] not in APART | OWN)) for r in http.take() if not r.target.startswith("/jwks")]
    return seen


def main():
    origin, http = Origin(), HttpService()
    authorization, rate_limits = Authorization(), Limits()
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
    auth_grpc.add_AuthorizationServicer_to_server(authorization, server)
    rls_grpc.add_RateLimitServiceServicer_to_server(rate_limits, server)
    grpc_port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    ends = {}
    for who in ("envoy", "outrigger"):
        ports = {name: free_port() for name, *_ in SERVED}
        path = f"{WORK}/{who}-services.json"
        with open(path, "w") as f:
            json.dump(configuration(ports, free_port(), origin, http, grpc_port), f)
        program = [ENVOY, "--disable-hot-restart"] if who == "envoy" else [PROXY]
        p = start([*program, "-c", path, "--concurrency", "1", "--log-level", "warning"], who)
        for port in ports.values():
            wait_port(port, p, 60)
        ends[who] = ports
    for group, what, *case in ASKED:
        theirs, ours = (observed(ends[who][group], origin, (authorization, rate_limits, http), case) for who in ("envoy", "outrigger"))
        detail = "; ".join(f"{key}: envoy {theirs[key]!r}, here {ours[key]!r}" for key in theirs if theirs[key] != ours[key])
        check(f"{group}: {what}", theirs == ours, detail)
    server.stop(0)
    finish("services")


if __name__ == "__main__":
    main()
