#!/usr/bin/env python3
"""HTTP filters: the real Envoy and our proxy get the same bootstrap and the same requests; what client and origin see must be the same.

`GROUPS`: a connection manager each: name, its filters, its virtual hosts. `CASES`: group, what is shown, request (method, target, fields, body)."""
import base64, http.client, json, time
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from common import *
from origin import Origin

ENVOY = os.path.join(os.path.dirname(sys.executable), "envoy")
F = T + "filters.http."
# Of the proxies themselves, not of filters.
APART = {"date", "server", "x-envoy-upstream-service-time", "x-request-id", "connection", "keep-alive"}


def share(percent):
    return {"default_value": {"numerator": percent, "denominator": "HUNDRED"}}


def half(percent):
    return {"numerator": percent, "denominator": "HUNDRED"}


def set_header(name, value, action="OVERWRITE_IF_EXISTS_OR_ADD"):
    return {"header": {"key": name, "value": value}, "append_action": action}


def route(prefix, filters=None, **action):
    to = {"match": {"prefix": prefix}, "route": {"cluster": "origin"} | action}
    return to | ({"typed_per_filter_config": filters} if filters else {})


def host(routes, filters=None, **more):
    return {"name": "all", "domains": ["*"], "routes": routes} | ({"typed_per_filter_config": filters} if filters else {}) | more


def off():
    return {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}


def on():
    return {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {}}


def fault(**settings):
    return {"@type": F + "fault.v3.HTTPFault"} | settings


def abort(status, percent=100):
    return fault(abort={"http_status": status, "percentage": half(percent)})


def cors(**settings):
    return {"@type": F + "cors.v3.CorsPolicy"} | settings


def csrf(**settings):
    return {"@type": F + "csrf.v3.CsrfPolicy", "filter_enabled": share(100)} | settings


def mutations(level):
    return {"request_mutations": [{"append": set_header("x-level", level)}, {"append": set_header(f"x-{level}", "%REQ(x-in)%")}, {"remove": f"x-gone-{level}"}],
            "response_mutations": [{"append": set_header("x-level", level)}, {"append": set_header("x-many", level, "APPEND_IF_EXISTS_OR_ADD")},
                                   {"append": set_header("x-status", "%RESPONSE_CODE%", "ADD_IF_ABSENT")}]}


def mutation(level):
    return {"@type": F + "header_mutation.v3.HeaderMutationPerRoute", "mutations": mutations(level)}


def bucket(tokens):
    return {"max_tokens": tokens, "tokens_per_fill": 1, "fill_interval": "3600s"}


def limit(**settings):
    return {"@type": F + "local_ratelimit.v3.LocalRateLimit", "stat_prefix": "l", "filter_enabled": share(100), "filter_enforced": share(100)} | settings


def rbac_deny(path):
    policy = {"permissions": [{"url_path": {"path": {"prefix": path}}}], "principals": [{"any": True}]}
    return {"@type": F + "rbac.v3.RBAC", "rules": {"action": "DENY", "policies": {"no": policy}}}


class Issuer:
    """Keys of every kind, and tokens made with them."""

    def __init__(self):
        self.ec, self.rsa, self.ed = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()

    def keys(self):
        point, modulus = self.ec.public_key().public_numbers(), self.rsa.public_key().public_numbers()
        raw = self.ed.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return json.dumps({"keys": [{"kty": "EC", "crv": "P-256", "kid": "ec", "alg": "ES256", "x": b64(point.x.to_bytes(32)), "y": b64(point.y.to_bytes(32))},
                                    {"kty": "RSA", "kid": "rsa", "n": b64(modulus.n.to_bytes(256)), "e": "AQAB"}, {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": b64(raw)}]})

    def token(self, alg, kid=None, **claims):
        head = {"alg": alg} | ({"kid": kid} if kid else {})
        signed = f"{b64(json.dumps(head).encode())}.{b64(json.dumps(claims).encode())}".encode()
        if alg == "ES256":
            r, s = utils.decode_dss_signature(self.ec.sign(signed, ec.ECDSA(hashes.SHA256())))
            signature = r.to_bytes(32) + s.to_bytes(32)
        elif alg == "EdDSA":
            signature = self.ed.sign(signed)
        elif alg == "PS256":
            signature = self.rsa.sign(signed, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
        else:
            signature = self.rsa.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        return f"{signed.decode()}.{b64(signature)}"


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def per_route(**settings):
    return {"@type": F + "jwt_authn.v3.PerRouteConfig"} | settings


ISSUER, STRANGER = Issuer(), Issuer()
NOW = int(time.time())


def provider(issuer, **settings):
    return {"issuer": issuer, "audiences": ["us", "https://them/"], "local_jwks": {"inline_string": ISSUER.keys()}} | settings


BOTH = {"requirements": [{"provider_name": "p"}, {"provider_name": "q"}]}
JWT = {"@type": F + "jwt_authn.v3.JwtAuthentication", "bypass_cors_preflight": True, "requirement_map": {"both": {"requires_all": BOTH}, "either": {"requires_any": BOTH}},
       "providers": {"p": provider("me"), "q": provider("you", from_headers=[{"name": "x-q"}], forward=True),
                     "c": provider("claims", forward=True, from_params=["t"], from_cookies=["c"], from_headers=[{"name": "x-t", "value_prefix": "T "}], forward_payload_header="x-payload",
                                   claim_to_headers=[{"header_name": "x-sub", "claim_name": "sub"}, {"header_name": "x-deep", "claim_name": "a.b"}, {"header_name": "x-flag", "claim_name": "flag"}])},
       "rules": [{"match": {"prefix": "/open"}}, {"match": {"prefix": "/claims"}, "requires": {"provider_name": "c"}}, {"match": {"prefix": "/either"}, "requirement_name": "either"},
                 {"match": {"prefix": "/both"}, "requirement_name": "both"}, {"match": {"prefix": "/aud"}, "requires": {"provider_and_audiences": {"provider_name": "p", "audiences": ["own"]}}},
                 {"match": {"prefix": "/maybe"}, "requires": {"requires_any": {"requirements": [{"provider_name": "p"}, {"allow_missing": {}}]}}},
                 {"match": {"prefix": "/whatever"}, "requires": {"requires_any": {"requirements": [{"provider_name": "p"}, {"allow_missing_or_failed": {}}]}}},
                 {"match": {"prefix": "/missing"}, "requires": {"allow_missing": {}}}, {"match": {"prefix": "/any"}, "requires": {"allow_missing_or_failed": {}}},
                 {"match": {"prefix": "/p"}, "requires": {"provider_name": "p"}}]}
GOOD = {"iss": "me", "aud": "us", "exp": NOW + 1000}
TOKENS = {"none": None, "ES256": ISSUER.token("ES256", "ec", **GOOD), "no kid": ISSUER.token("ES256", **GOOD), "RS256": ISSUER.token("RS256", "rsa", **GOOD),
          "PS256": ISSUER.token("PS256", "rsa", **GOOD), "EdDSA": ISSUER.token("EdDSA", "ed", **GOOD), "other key": STRANGER.token("ES256", "ec", **GOOD),
          "other kid": ISSUER.token("ES256", "zz", **GOOD), "you": ISSUER.token("ES256", "ec", **GOOD | {"iss": "you"}), "nobody": ISSUER.token("ES256", "ec", **GOOD | {"iss": "x"}),
          "no iss": ISSUER.token("ES256", "ec", aud="us"), "old": ISSUER.token("ES256", "ec", **GOOD | {"exp": NOW - 500}), "just old": ISSUER.token("ES256", "ec", **GOOD | {"exp": NOW - 20}),
          "early": ISSUER.token("ES256", "ec", **GOOD | {"nbf": NOW + 500}), "bad aud": ISSUER.token("ES256", "ec", **GOOD | {"aud": ["x", "y"]}), "no aud": ISSUER.token("ES256", "ec", iss="me"),
          "them": ISSUER.token("ES256", "ec", **GOOD | {"aud": ["x", "http://them"]}), "own": ISSUER.token("ES256", "ec", **GOOD | {"aud": "own"}),
          "two parts": "a.b", "no base64": "!.!.!", "no json": "YQ.YQ.YQ", "none alg": b64(b'{"alg":"none"}') + ".e30.", "no alg": "e30.e30.AA", "empty": ""}
CLAIMS = ISSUER.token("ES256", "ec", **GOOD | {"iss": "claims", "sub": "ann", "a": {"b": 7}, "flag": True})

BY_USER = [{"actions": [{"request_headers": {"header_name": "x-user", "descriptor_key": "user"}}]}]
MASKED = [{"actions": [{"masked_remote_address": {"v4_prefix_mask_len": 8}}, {"generic_key": {"descriptor_value": "g"}}]}]
MATCHED = [{"actions": [{"header_value_match": {"descriptor_value": "m", "headers": [{"name": "x-kind", "string_match": {"exact": "m"}}]}}]}]
QUERIED = [{"actions": [{"query_parameters": {"query_parameter_name": "q", "descriptor_key": "q"}}, {"destination_cluster": {}}]}]

GROUPS = [
    ("fault", [("fault", fault(abort={"header_abort": {}, "percentage": half(100)}, delay={"header_delay": {}, "percentage": half(100)}), False)],
     [host([route("/abort", {"fault": abort(503)}), route("/never", {"fault": abort(503, 0)}), route("/off", {"fault": off()}),
            route("/header", {"fault": abort(418) | {"headers": [{"name": "x-hit", "present_match": True}]}}),
            route("/node", {"fault": abort(418) | {"downstream_nodes": ["n1"]}}),
            route("/cluster", {"fault": abort(418) | {"upstream_cluster": "other"}}),
            route("/grpc", {"fault": fault(abort={"grpc_status": 14, "percentage": half(100)})}),
            route("/full", {"fault": abort(418) | {"max_active_faults": 0}}), route("/")])]),
    ("fault-disabled", [("fault", abort(500), True)], [host([route("/on", {"fault": on()}), route("/with", {"fault": abort(501)}), route("/")])]),
    ("cors", [("cors", {"@type": F + "cors.v3.Cors"}, False)],
     [host([route("/all", {"cors": cors(allow_origin_string_match=[{"prefix": "https://good"}], allow_methods="GET,PUT", allow_headers="x-h", expose_headers="x-e",
                                        max_age="60", allow_credentials=True, allow_private_network_access=True)}),
            route("/bare", {"cors": cors(allow_origin_string_match=[{"safe_regex": {"regex": ".*"}}])}),
            route("/star", {"cors": cors(allow_origin_string_match=[{"exact": "*"}])}),
            route("/stop", {"cors": cors(allow_origin_string_match=[{"exact": "https://good"}], forward_not_matching_preflights=False, allow_methods="GET",
                                         allow_credentials=True, allow_private_network_access=True)}),
            route("/never", {"cors": cors(allow_origin_string_match=[{"prefix": ""}, {"prefix": "https"}][1:], filter_enabled=share(0))}),
            route("/shadow", {"cors": cors(allow_origin_string_match=[{"prefix": "https"}], filter_enabled=share(0), shadow_enabled=share(100))}),
            route("/host", {"cors": cors(allow_methods="DELETE")}), route("/plain")],
           {"cors": cors(allow_origin_string_match=[{"exact": "https://host"}], max_age="9", expose_headers="x-host")})]),
    ("csrf", [("csrf", csrf(additional_origins=[{"suffix": ".friend"}]), False)],
     [host([route("/off", {"csrf": off()}), route("/route", {"csrf": csrf(additional_origins=[{"exact": "other:81"}])}),
            route("/shadow", {"csrf": csrf(filter_enabled=share(0), shadow_enabled=share(100))}), route("/")])]),
    *[(f"mutation-{wins}", [("mutation", {"@type": F + "header_mutation.v3.HeaderMutation", "mutations": mutations("filter"), "most_specific_header_mutations_wins": wins}, False)],
       [host([route("/route", {"mutation": mutation("route")}), {"match": {"prefix": "/direct"}, "direct_response": {"status": 404, "body": {"inline_string": "no"}}}, route("/")],
             {"mutation": mutation("host")})]) for wins in (False, True)],
    ("limit", [("limit", limit(token_bucket=bucket(1000000)), False)],
     [host([route("/two", {"limit": limit(token_bucket=bucket(2), enable_x_ratelimit_headers="DRAFT_VERSION_03", response_headers_to_add=[set_header("x-limited", "yes")])}),
            route("/status", {"limit": limit(token_bucket=bucket(1), status={"code": "ServiceUnavailable"})}),
            route("/shadow", {"limit": limit(token_bucket=bucket(1), filter_enforced=share(0), request_headers_to_add_when_not_enforced=[set_header("x-over", "1")])}),
            route("/grpc", {"limit": limit(token_bucket=bucket(1), rate_limited_as_resource_exhausted=True)}),
            route("/user", {"limit": limit(token_bucket=bucket(3), descriptors=[{"entries": [{"key": "user", "value": "bob"}], "token_bucket": bucket(1)}])}, rate_limits=BY_USER),
            route("/apart", {"limit": limit(token_bucket=bucket(1), always_consume_default_token_bucket=False,
                                            descriptors=[{"entries": [{"key": "user", "value": "bob"}], "token_bucket": bucket(2)}])}, rate_limits=BY_USER),
            route("/masked", {"limit": limit(token_bucket=bucket(9), descriptors=[{"entries": [{"key": "masked_remote_address", "value": "127.0.0.0/8"}, {"key": "generic_key", "value": "g"}],
                                                                                    "token_bucket": bucket(1)}])}, rate_limits=MASKED),
            route("/matched", {"limit": limit(token_bucket=bucket(9), descriptors=[{"entries": [{"key": "header_match", "value": "m"}], "token_bucket": bucket(1)}])}, rate_limits=MATCHED),
            route("/queried", {"limit": limit(token_bucket=bucket(9), descriptors=[{"entries": [{"key": "q", "value": "1"}, {"key": "destination_cluster", "value": "origin"}],
                                                                                     "token_bucket": bucket(1)}])}, rate_limits=QUERIED),
            route("/host", {"limit": limit(token_bucket=bucket(9), vh_rate_limits="OVERRIDE", descriptors=[{"entries": [{"key": "generic_key", "value": "host"}], "token_bucket": bucket(1)}])}),
            route("/")], rate_limits=[{"actions": [{"generic_key": {"descriptor_value": "host"}}]}])]),
    ("jwt", [("jwt", JWT, False)], [host([route("/p/off", {"jwt": per_route(disabled=True)}), route("/p/both", {"jwt": per_route(requirement_name="both")}), route("/")])]),
    # Several filters: their order, and what those do that come before and behind one that answers.
    ("chain", [("mutation", {"@type": F + "header_mutation.v3.HeaderMutation", "mutations": mutations("first")}, False), ("cors", {"@type": F + "cors.v3.Cors"}, False),
               ("rbac", rbac_deny("/deny"), False), ("fault", abort(200, 0), False),
               ("last", {"@type": F + "header_mutation.v3.HeaderMutation", "mutations": mutations("last")}, False)],
     [host([route("/deny"), route("/fault", {"fault": abort(507)}, ), {"match": {"prefix": "/only"}, "route": {"weighted_clusters": {"clusters": [
         {"name": "origin", "weight": 1, "typed_per_filter_config": {"fault": abort(508)}}]}}, "typed_per_filter_config": {"fault": abort(509)}}, route("/here")],
           {"cors": cors(allow_origin_string_match=[{"prefix": "https"}])}, response_headers_to_add=[set_header("x-route", "yes")])]),
]

GET, POST, OPTIONS = "GET", "POST", "OPTIONS"
PREFLIGHT = {"access-control-request-method": "PUT"}
GRPC = {"content-type": "application/grpc", "te": "trailers"}
CASES = [
    *[("fault", f"{path} {fields}", GET, path, fields) for path, fields in [
        ("/abort", {}), ("/never", {}), ("/off", {"x-envoy-fault-abort-request": "503"}), ("/header", {}), ("/header", {"x-hit": "1"}), ("/node", {}),
        ("/node", {"x-envoy-downstream-service-node": "n1"}), ("/cluster", {}), ("/grpc", {}), ("/full", {}), ("/", {}), ("/", {"x-envoy-fault-abort-request": "418"}),
        ("/", {"x-envoy-fault-abort-request": "99"}), ("/", {"x-envoy-fault-abort-request": "x"}), ("/", {"x-envoy-fault-abort-request": "418", "x-envoy-fault-abort-request-percentage": "0"}),
        ("/", {"x-envoy-fault-abort-grpc-request": "5"}), ("/", {"x-envoy-fault-delay-request": "40"}), ("/", {"x-envoy-fault-delay-request": "40", "x-envoy-fault-abort-request": "500"}),
        ("/", {"x-envoy-fault-delay-request": "-1"})]],
    *[("fault", f"gRPC {path} {fields}", POST, path, GRPC | fields) for path, fields in [("/abort", {}), ("/grpc", {}), ("/", {"x-envoy-fault-abort-grpc-request": "5"}), ("/", {"x-envoy-fault-abort-request": "401"})]],
    *[("fault-disabled", path, GET, path, {}) for path in ("/", "/on", "/with")],
    *[("cors", f"{method} {path} {fields}", method, path, fields) for path in ("/all", "/bare", "/star", "/stop", "/never", "/shadow", "/host", "/plain") for method, fields in [
        (GET, {}), (GET, {"origin": "https://good.example"}), (GET, {"origin": "https://host"}), (OPTIONS, {"origin": "https://good"} | PREFLIGHT),
        (OPTIONS, {"origin": "https://host"} | PREFLIGHT), (OPTIONS, {"origin": "http://bad"} | PREFLIGHT), (OPTIONS, {"origin": "http://bad", "access-control-request-private-network": "true"} | PREFLIGHT), (OPTIONS, {"origin": "https://good"}),
        (OPTIONS, {"origin": "https://good", "access-control-request-private-network": "true"} | PREFLIGHT)]],
    *[("csrf", f"{method} {path} {fields}", method, path, fields) for path in ("/", "/off", "/route", "/shadow") for method, fields in [
        (GET, {"origin": "http://bad"}), (POST, {}), (POST, {"origin": "http://HOST"}), (POST, {"origin": "https://HOST"}), (POST, {"origin": "http://bad"}), (POST, {"origin": "null"}),
        ("PUT", {"origin": "http://a.friend"}), ("DELETE", {"referer": "http://HOST/a?b"}), ("PATCH", {"referer": "http://bad/x"}), (POST, {"origin": "http://other:81"}),
        (POST, {"origin": "HOST"}), (POST, {"origin": "", "referer": "http://HOST/"})]],
    *[(f"mutation-{wins}", f"{path}", GET, path, {"x-in": "i", "x-gone-route": "1", "x-gone-host": "1", "x-gone-filter": "1", "x-level": "client"})
      for wins in (False, True) for path in ("/", "/route", "/direct")],
    *[("limit", f"{path} {n} {fields}", method, path, fields) for method, path, fields, times in [
        (GET, "/two", {}, 4), (GET, "/status", {}, 2), (GET, "/shadow", {}, 3), (POST, "/grpc", GRPC, 2), (GET, "/user", {"x-user": "bob"}, 2), (GET, "/user", {"x-user": "ann"}, 3),
        (GET, "/apart", {"x-user": "bob"}, 3), (GET, "/apart", {}, 2), (GET, "/masked", {}, 2), (GET, "/matched", {}, 2), (GET, "/matched", {"x-kind": "m"}, 2), (GET, "/queried", {}, 2),
        (GET, "/queried?q=1", {}, 2), (GET, "/queried?q=2", {}, 2), (GET, "/host", {}, 2)] for n in range(times)],
    *[("jwt", f"{path} {name}", GET, path, {"authorization": f"Bearer {token}"} if token is not None else {})
      for path in ("/p", "/either", "/both", "/aud", "/maybe", "/whatever", "/missing", "/any", "/open", "/elsewhere", "/p/off", "/p/both") for name, token in TOKENS.items()],
    *[("jwt", f"{path} {what}", GET, path, fields) for what, path, fields in [
        ("both", "/both", {"authorization": f"Bearer {TOKENS['ES256']}", "x-q": TOKENS["you"]}), ("query", f"/p?a=1&access_token={TOKENS['ES256']}&b=2", {}),
        ("basic", "/p", {"authorization": "Basic abc"}), ("lower", "/p", {"authorization": f"bearer {TOKENS['ES256']}"}), ("other header", "/either", {"x-q": TOKENS["you"]}),
        ("claims by header", "/claims", {"x-t": f"T {CLAIMS}"}), ("claims by cookie", "/claims", {"cookie": f"a=b; c={CLAIMS}"}), ("claims by query", f"/claims?t={CLAIMS}", {}),
        ("claims made up", "/claims", {"x-sub": "root"}), ("claims overwritten", "/claims", {"x-sub": "root", "x-deep": "1", "x-payload": "e30", "x-t": f"T {CLAIMS}"}),
        ("headers of claims with nothing needed", "/open", {"x-sub": "root"}), ("headers of claims elsewhere", "/elsewhere", {"x-sub": "root"}),
        ("headers of claims without the filter", "/p/off", {"x-sub": "root"}), ("headers of claims with another provider", "/p", {"x-sub": "root", "authorization": f"Bearer {TOKENS['ES256']}"})]],
    *[("jwt", f"{method} {what}", method, "/p", fields) for what, method, fields in [
        ("preflight", OPTIONS, {"origin": "https://x"} | PREFLIGHT), ("no preflight", OPTIONS, {"origin": "https://x"}), ("gRPC", POST, GRPC)]],
    *[("chain", f"{method} {path} {fields}", method, path, fields) for path in ("/here", "/deny", "/fault", "/only", "/nowhere") for method, fields in [
        (GET, {}), (GET, {"origin": "https://x"}), (OPTIONS, {"origin": "https://x"} | PREFLIGHT), (POST, GRPC)]],
]


def bootstrap(ports, admin, origin):
    listeners = []
    for name, filters, hosts in GROUPS:
        one = listener(name, ports[name], hosts)
        hcm = one["filter_chains"][0]["filters"][0]["typed_config"]
        hcm["http_filters"] = [{"name": n, "typed_config": c} | ({"disabled": True} if d else {}) for n, c, d in filters] + hcm["http_filters"]
        listeners.append(one)
    return {"admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
            "static_resources": {"listeners": listeners, "clusters": [cluster("origin", origin.port)]}}


def ask(port, origin, method, target, fields, body=b""):
    """Status, fields and body that the client sees; method, target and fields that the origin sees."""
    origin.take()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    began = time.monotonic()
    try:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        connection.putheader("host", "the.host")
        for name, value in fields.items():
            connection.putheader(name, value.replace("HOST", "the.host"))
        if method in (POST, "PUT", "PATCH"):
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body or None)
        answer = connection.getresponse()
        body = answer.read()
        seen = answer.status, sorted((n.lower(), v) for n, v in answer.getheaders() if n.lower() not in APART), body
    finally:
        connection.close()
    # Timers of Envoy may be some milliseconds early.
    delayed = time.monotonic() - began >= 0.03
    # Whether the length of no body is told is the codec's business.
    heard = [(r.method, r.target, sorted(f for f in r.fields if f[0] not in APART and f != ("content-length", "0"))) for r in origin.take()]
    return {"status": seen[0], "fields": seen[1], "body": seen[2].decode("latin-1"), "origin": heard} | (
        {"delayed": delayed} if "x-envoy-fault-delay-request" in fields else {})


def main():
    origin = Origin()
    ends = {}
    for who in ("envoy", "outrigger"):
        ports = {name: free_port() for name, *_ in GROUPS}
        admin = free_port()
        path = f"{WORK}/{who}-filters.json"
        with open(path, "w") as f:
            json.dump(bootstrap(ports, admin, origin), f)
        if who == "envoy":
            p = start([ENVOY, "-c", path, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"], who)
        else:
            p = start([PROXY, "-c", path, "--concurrency", "1", "--log-level", "warning"], who)
        for port in ports.values():
            wait_port(port, p, 60)
        ends[who] = ports
    for group, what, method, target, fields in CASES:
        theirs, ours = (ask(ends[who][group], origin, method, target, fields) for who in ("envoy", "outrigger"))
        detail = "" if theirs == ours else "; ".join(f"{key}: envoy {theirs[key]!r}, here {ours[key]!r}" for key in theirs if theirs[key] != ours[key])
        check(f"{group}: {what}", theirs == ours, detail)
    finish("filters")


if __name__ == "__main__":
    main()
