#!/usr/bin/env python3
"""Routing as in the real Envoy: copies of requests, redirects that are followed, templates, shares by header, edits."""
from pair import *

PERCENT = lambda n: {"default_value": {"numerator": n, "denominator": "HUNDRED"}}
TEMPLATE = lambda t: {"path_match_policy": {"name": "t", "typed_config": {"@type": T + "path.match.uri_template.v3.UriTemplateMatchConfig", "path_template": t}}}
REWRITE = lambda t: {"name": "r", "typed_config": {"@type": T + "path.rewrite.uri_template.v3.UriTemplateRewriteConfig", "path_template_rewrite": t}}
PREDICATE = lambda kind, name, **f: {"name": kind, "typed_config": {"@type": f"{T}internal_redirect.{kind}.v3.{name}", **f}}


def to(prefix, cluster="a", name="", match=None, edits=None, **action):
    target = {} if cluster is None else {"cluster": cluster}
    return {"match": {"prefix": prefix} | (match or {}) if not (match and "path_match_policy" in match) else match,
            "route": target | action, "name": name} | (edits or {})


OPERATORS = ["REQ(X-ONE)", "REQ(X-NONE?X-ONE)", "REQ(:METHOD)", "REQ(:PATH)", "REQ(:AUTHORITY)", "REQ(X-ONE):2", "REQ_WITHOUT_QUERY(:PATH)", "PROTOCOL",
             "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
             "DOWNSTREAM_LOCAL_PORT", "ROUTE_NAME", "REQUESTED_SERVER_NAME", "UPSTREAM_CLUSTER", "UPSTREAM_CLUSTER_RAW", "QUERY_PARAM(q)", "QUERY_PARAM(none)",
             "PATH(NQ)", "PATH(WQ)", "PATH(NQ,ORIG)", "PATH(NQ,PATH)", "BYTES_RECEIVED", "VIRTUAL_CLUSTER_NAME", "FILTER_CHAIN_NAME", "DYNAMIC_METADATA(a:b)",
             "METADATA(ROUTE:m:k)", "METADATA(CLUSTER:m:k)", "METADATA(VIRTUAL_HOST:m:k)", "COALESCE({\"operators\":[\"REQ(X-NONE)\"]})", "DOWNSTREAM_TLS_VERSION", "ENVIRONMENT(OUTRIGGER_PEERS_NONE)",
             "ACCESS_LOG_TYPE", "UPSTREAM_PROTOCOL", "RESPONSE_CODE", "REQ(X-ONE)%-%REQ(X-ONE)"]


def supported(operator, answers={}):
    """Whether each side knows a command operator: a configuration with it is accepted."""
    out = []
    for side in ("envoy", "ours"):
        config = {"static_resources": {"listeners": [listener("probe", free_port(), [{"name": "v", "domains": ["*"], "routes": [
            to("/", edits={"request_headers_to_add": [{"header": {"key": "x-v", "value": f"%{operator}%"}}]})]}])], "clusters": [cluster("a", 1)]}}
        path = f"{WORK}/probe.json"
        with open(path, "w") as f:
            json.dump(config, f)
        argv = [os.environ.get("ENVOY", "envoy"), "--mode", "validate", "-c", path] if side == "envoy" else [PROXY, "--mode", "validate", "-c", path]
        out.append(subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60).returncode == 0)
    return out


usable = []
for operator in OPERATORS:
    envoy_knows, ours_knows = supported(operator)
    if envoy_knows != ours_knows:
        # Refused by name is a difference that an operator is told of.
        print(f"note %{operator}%: Envoy {'accepts' if envoy_knows else 'refuses'}, ours {'accepts' if ours_knows else 'refuses'}")
    if envoy_knows and ours_knows:
        usable.append(operator)

redirecting = lambda **policy: {"internal_redirect_policy": policy}
ROUTES = [
    to("/mirror/one", request_mirror_policies=[{"cluster": "b"}]),
    to("/mirror/two", request_mirror_policies=[{"cluster": "b"}, {"cluster": "c", "disable_shadow_host_suffix_append": True}]),
    to("/mirror/none", request_mirror_policies=[{"cluster": "b", "runtime_fraction": PERCENT(0)}]),
    to("/mirror/header", request_mirror_policies=[{"cluster_header": "x-mirror"}]),
    to("/mirror/host", request_mirror_policies=[{"cluster": "b", "host_rewrite_literal": "copy.test"}]),
    to("/mirror/rewritten", prefix_rewrite="/r", host_rewrite_literal="new.test", request_mirror_policies=[{"cluster": "b"}],
       edits={"request_headers_to_add": [{"header": {"key": "x-added", "value": "1"}}]}),
    to("/follow/any", **redirecting(redirect_response_codes=[301, 302, 303, 307, 308])),
    to("/follow/default", **redirecting()),
    to("/follow/three", **redirecting(max_internal_redirects=3, redirect_response_codes=[302])),
    to("/follow/cross", **redirecting(allow_cross_scheme_redirect=True)),
    to("/follow/safe", **redirecting(allow_cross_scheme_redirect=True, predicates=[PREDICATE("safe_cross_scheme", "SafeCrossSchemeConfig")])),
    to("/follow/listed", **redirecting(predicates=[PREDICATE("allow_listed_routes", "AllowListedRoutesConfig", allowed_route_names=["good"])])),
    to("/follow/once", **redirecting(max_internal_redirects=5, predicates=[PREDICATE("previous_routes", "PreviousRoutesConfig")])),
    to("/follow/copy", **redirecting(response_headers_to_copy=["x-copied"])),
    to("/target/good", "b", name="good"), to("/target", "c", name="other"),
    {"match": {"prefix": "/answered"}, "direct_response": {"status": 204}},
    to("/shown", match={"tls_context": {"presented": True}}), to("/shown", "b", match={"tls_context": {"presented": False, "validated": False}}),
    to(None, "b", match=TEMPLATE("/t/{user}/files/{rest=**}"), path_rewrite_policy=REWRITE("/f/{rest}/of/{user}")),
    to(None, "b", match=TEMPLATE("/t/*/end")), to(None, "c", match=TEMPLATE("/t/{a=x/*}/y")), to("/t/", "a"),
    to("/split/number", None, weighted_clusters={"header_name": "x-number", "clusters": [{"name": "b", "weight": 30}, {"name": "c", "weight": 70}]}),
    to("/split/header", None, weighted_clusters={"clusters": [{"cluster_header": "x-cluster", "weight": 1}]}),
    to("/format/host", host_rewrite="%REQ(x-one)%.test"), to("/format/path", path_rewrite="/p/%REQ(x-one)%"),
    {"match": {"prefix": "/moved/regex"}, "redirect": {"regex_rewrite": {"pattern": {"regex": "^/moved/regex/(.*)$"}, "substitution": "/n/\\1"}}},
    {"match": {"prefix": "/moved/strip"}, "redirect": {"path_redirect": "/n", "strip_query": True, "response_code": "FOUND"}},
    {"match": {"prefix": "/moved/query"}, "redirect": {"path_redirect": "/n?z=1", "https_redirect": True}},
    {"match": {"prefix": "/moved/prefix"}, "redirect": {"prefix_rewrite": "/n", "host_redirect": "other.test", "port_redirect": 8443, "response_code": "PERMANENT_REDIRECT"}},
    {"match": {"prefix": "/moved/scheme"}, "redirect": {"scheme_redirect": "https", "response_code": "SEE_OTHER"}},
    {"match": {"prefix": "/direct"}, "direct_response": {"status": 418, "body": {"inline_string": "short"}}},
    to("/operators", name="ops", edits={"request_headers_to_add": [{"header": {"key": f"x-v{i}", "value": f"%{o}%"}, "keep_empty_value": True} for i, o in enumerate(usable)],
                                        "response_headers_to_add": [{"header": {"key": f"x-v{i}", "value": f"[%{o}%]"}} for i, o in enumerate(usable)]}),
]
pair = Pair(["a", "b", "c"], {"edge": lambda port, side: listener("edge", port, [{"name": "all", "domains": ["a.test", "a.test:*", "a.test:8080"], "routes": ROUTES}])})

for kind, count in [("one", 2), ("two", 3), ("none", 1), ("host", 2), ("rewritten", 2)]:
    for method, body in [("GET", None), ("POST", b"x" * 5), ("POST", b"y" * 40000)]:
        pair.same(f"mirror {kind} {method} {len(body or b'')}", f"/mirror/{kind}/x?q=1", method=method, body=body, requests=count)
pair.same("mirror of an authority with port", "/mirror/one", [("host", "a.test:8080")], requests=2)
pair.same("mirror by header", "/mirror/header", [("x-mirror", "c")], requests=2)
pair.same("mirror by a header that is missing", "/mirror/header", requests=1)
pair.same("mirror by a header that names nothing", "/mirror/header", [("x-mirror", "zzz")], requests=1)
pair.same("mirror of a traced request with x-forwarded-for", "/mirror/one", [("x-forwarded-for", "1.2.3.4")], requests=2)

quote = urllib.parse.quote
for status in (301, 302, 303, 304, 307, 308):
    for method, body in [("GET", None), ("POST", b"body")]:
        there = quote("http://a.test/target/good?x=1", safe="")
        pair.same(f"redirect {status} of {method} is followed", f"/follow/any?status={status}&location={there}", method=method, body=body, requests=2 if status != 304 else 1)
for route in ("default", "three", "cross", "safe", "listed", "once", "copy"):
    for place in ("http://a.test/target/good", "http://a.test/target/x", "https://a.test/target/good", "http://b.test/target", "/target/good", "http://a.test", "http://a.test?x=2",
                  "http://a.test/answered", "http://a.test/nothing", "", "http://", "http://a.test/target/good#f", "http://a.test:8080/target/good"):
        pair.same(f"redirect by {route} to {place!r}", f"/follow/{route}?status=302&h-x-copied=c&location={quote(place, safe='')}", requests=1)
twice = quote("http://a.test/follow/three?status=302&location=" + quote("http://a.test/target/good", safe=""), safe="")
for route in ("default", "three", "once"):
    pair.same(f"redirect after redirect by {route}", f"/follow/{route}?status=302&location={twice}", requests=3)

for path in ("/t/me/files/a/b", "/t/me/files/", "/t/me/files", "/t/me/end", "/t//end", "/t/x/1/y", "/t/x/1/z", "/t/%41/end", "/t/a b/end".replace(" ", "%20"), "/t/me/files/a?q=1"):
    pair.same(f"template {path}", path)
pair.same("certificate criteria without TLS", "/shown")
for number in ("0", "29", "30", "99", "100", "129", "130", "18446744073709551615"):
    pair.same(f"share of number {number}", "/split/number", [("x-number", number)])
pair.same("share by header", "/split/header", [("x-cluster", "c")])
pair.same("share by a header that names nothing", "/split/header", [("x-cluster", "zzz")], requests=0)
pair.same("share by a header that is missing", "/split/header", requests=0)
pair.same("host by text", "/format/host", [("x-one", "me")])
pair.same("host by text without value", "/format/host")
pair.same("path by text", "/format/path?q=1", [("x-one", "me")])
pair.same("path by text without value", "/format/path?q=1")
for kind in ("regex/a/b?q=1", "strip/a?q=1", "query/a?q=1", "prefix/a?q=1", "scheme/a?q=1"):
    pair.same(f"moved {kind}", f"/moved/{kind}", requests=0)
    pair.same(f"moved {kind} with port", f"/moved/{kind}", [("host", "a.test:8080")], requests=0)
pair.same("answered here", "/direct", requests=0)
for fields in ([("x-one", "one-two")], []):
    for path in ("/operators/x?q=1&r=2", "/operators"):
        pair.same(f"operators {path} {fields}", path, fields)
finish("routes")
