#!/usr/bin/env python3
"""What is told of requests, as in the real Envoy: lines of access logs with every operator and filter, spans for Zipkin with their tags."""
from pair import *

ALS = "access_loggers.file.v3.FileAccessLog"
ORDER = lambda op, value: {"comparison": {"op": op, "value": {"default_value": value, "runtime_key": "none"}}}
FILTERS = {
    "failed": {"status_code_filter": ORDER("GE", 500)}, "exact": {"status_code_filter": ORDER("EQ", 404)}, "at-most": {"status_code_filter": ORDER("LE", 200)},
    "not": {"status_code_filter": ORDER("NE", 200)}, "slow": {"duration_filter": ORDER("GE", 5000)}, "quick": {"duration_filter": ORDER("LE", 4000)},
    "no-check": {"not_health_check_filter": {}}, "none": {"runtime_filter": {"runtime_key": "k", "percent_sampled": {"numerator": 0}}},
    "all": {"runtime_filter": {"runtime_key": "k", "percent_sampled": {"numerator": 100}}},
    "header": {"header_filter": {"header": {"name": "x-log", "string_match": {"prefix": "y"}}}},
    "flags": {"response_flag_filter": {"flags": ["NR", "UF"]}}, "any-flag": {"response_flag_filter": {}},
    "grpc": {"grpc_status_filter": {"statuses": ["UNIMPLEMENTED", "UNAVAILABLE", "UNKNOWN"]}}, "not-grpc": {"grpc_status_filter": {"statuses": ["UNKNOWN"], "exclude": True}},
    "both": {"and_filter": {"filters": [{"status_code_filter": ORDER("GE", 400)}, {"header_filter": {"header": {"name": "x-log"}}}]}},
    "either": {"or_filter": {"filters": [{"status_code_filter": ORDER("GE", 500)}, {"header_filter": {"header": {"name": "x-log"}}}]}},
    "ends": {"log_type_filter": {"types": ["DownstreamEnd"]}}, "connections": {"log_type_filter": {"types": ["TcpConnectionEnd"]}},
    "not-ends": {"log_type_filter": {"types": ["DownstreamEnd"], "exclude": True}},
}
OPERATORS = """REQ(:METHOD) REQ(:PATH) REQ(:AUTHORITY) REQ(:SCHEME) REQ(X-ONE) REQ(X-NONE?X-ONE) REQ(X-ONE):2 REQUEST_HEADER(X-ONE) RESP(X-TWO) RESPONSE_HEADER(X-TWO) RESP(:STATUS)
TRAILER(X) PROTOCOL RESPONSE_CODE RESPONSE_FLAGS RESPONSE_FLAGS_LONG RESPONSE_CODE_DETAILS BYTES_RECEIVED BYTES_SENT ROUTE_NAME FILTER_CHAIN_NAME LISTENER_NAME ACCESS_LOG_TYPE UPSTREAM_CLUSTER
UPSTREAM_CLUSTER_RAW UPSTREAM_HOST UPSTREAM_HOST_NAME UPSTREAM_HOST_NAME_WITHOUT_PORT UPSTREAM_REMOTE_ADDRESS UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT UPSTREAM_REMOTE_PORT UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT
UPSTREAM_PROTOCOL UPSTREAM_REQUEST_ATTEMPT_COUNT UPSTREAM_TRANSPORT_FAILURE_REASON UPSTREAM_TLS_VERSION UPSTREAM_PEER_ISSUER UPSTREAM_PEER_DNS_SAN DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT
DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_LOCAL_ADDRESS DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT DOWNSTREAM_LOCAL_PORT REQUESTED_SERVER_NAME DOWNSTREAM_TLS_VERSION DOWNSTREAM_TLS_CIPHER
DOWNSTREAM_PEER_URI_SAN DOWNSTREAM_PEER_DNS_SAN DOWNSTREAM_PEER_SUBJECT DOWNSTREAM_PEER_ISSUER DOWNSTREAM_LOCAL_URI_SAN DOWNSTREAM_LOCAL_SUBJECT GRPC_STATUS GRPC_STATUS(SNAKE_STRING) GRPC_STATUS_NUMBER
PATH PATH(NQ) PATH(WQ) PATH(NQ:ORIG) PATH(WQ:ORIG) PATH(NQ:PATH) PATH(WQ:ORIG_OR_PATH) QUERY_PARAM(q) QUERY_PARAM(none) QUERY_PARAMS(ORIG) CONNECTION_TERMINATION_DETAILS ENVIRONMENT(OUTRIGGER_PEERS)
ENVIRONMENT(OUTRIGGER_PEERS_NONE) LOCAL_REPLY_BODY DOWNSTREAM_TRANSPORT_FAILURE_REASON""".split()
# Whether there is a value, not which one.
PRESENT = """START_TIME EMIT_TIME DURATION REQUEST_DURATION REQUEST_TX_DURATION RESPONSE_DURATION RESPONSE_TX_DURATION COMMON_DURATION(DS_RX_BEG:DS_TX_END:us) COMMON_DURATION(US_TX_BEG:US_RX_BEG:us)
UPSTREAM_CONNECTION_POOL_READY_DURATION CONNECTION_ID HOSTNAME TRACE_ID DOWNSTREAM_REMOTE_PORT UPSTREAM_LOCAL_PORT REQUEST_HEADERS_BYTES START_TIME(%Y) EMIT_TIME(%Y)""".split()
os.environ["OUTRIGGER_PEERS"] = "here"


def log(side, name, shape, filter_=None):
    entry = {"name": name, "typed_config": {"@type": T + ALS, "path": f"{WORK}/{side.name}-{name}.log", "log_format": shape}}
    return entry | ({"filter": filter_} if filter_ else {})


def edge(port, side):
    routes = [{"match": {"prefix": "/rewritten"}, "route": {"cluster": "a", "prefix_rewrite": "/new"}, "name": "rewritten"},
              {"match": {"prefix": "/answered"}, "direct_response": {"status": 200, "body": {"inline_string": "short"}}},
              {"match": {"prefix": "/gone"}, "route": {"cluster": "nowhere"}, "name": "gone"},
              {"match": {"prefix": "/named"}, "route": {"cluster": "a"}, "name": "named", "tracing": {"custom_tags": [{"tag": "who", "literal": {"value": "route"}}]},
               "decorator": {"operation": "decorated"}},
              {"match": {"prefix": "/unsampled"}, "route": {"cluster": "a"}, "tracing": {"random_sampling": {"numerator": 0}}},
              {"match": {"prefix": "/known"}, "route": {"cluster": "a"}, "name": "known"}]
    made = listener("edge", port, [{"name": "all", "domains": ["a.test"], "routes": routes}])
    manager = made["filter_chains"][0]["filters"][0]["typed_config"]
    manager["route_config"]["validate_clusters"] = False
    manager["access_log"] = [log(side, name, {"text_format_source": {"inline_string": "%REQ(X-CASE)%\n"}}, f) for name, f in FILTERS.items()]
    manager["access_log"] += [log(side, "text", {"text_format_source": {"inline_string": "".join(f"{o} [%{o}%]\t" for o in OPERATORS) + "\n"}}),
                              log(side, "present", {"text_format_source": {"inline_string": "".join(f"{o.replace(chr(37), str())} [%{o}%]\t" for o in PRESENT) + "\n"}}),
                              log(side, "json", {"json_format": {"a": "%RESPONSE_CODE%", "b": {"c": "%REQ(X-NONE)%", "d": ["%PROTOCOL%", 1, True, "x %BYTES_SENT%"]}, "e": "%REQ(X-ONE)%"}})]
    manager["tracing"] = {"random_sampling": {"value": 100}, "max_path_tag_length": 12, "spawn_upstream_span": True, "verbose": True,
                          "custom_tags": [{"tag": "who", "request_header": {"name": "x-one", "default_value": "nobody"}}, {"tag": "fixed", "literal": {"value": "100%"}},
                                          {"tag": "home", "environment": {"name": "OUTRIGGER_PEERS"}}, {"tag": "no", "environment": {"name": "OUTRIGGER_PEERS_NONE", "default_value": "d"}},
                                          {"tag": "missing", "request_header": {"name": "x-missing"}}, {"tag": "text", "value": "%REQ(:METHOD)%!"}],
                          "provider": {"name": "envoy.tracers.zipkin", "typed_config": {"@type": "type.googleapis.com/envoy.config.trace.v3.ZipkinConfig", "collector_cluster": "spans",
                                       "collector_endpoint": "/api/v2/spans", "collector_endpoint_version": "HTTP_JSON", "trace_id_128bit": True, "shared_span_context": False}}}
    return made


pair = Pair(["a", "spans"], {"edge": edge}, lambda side: {"node": {"id": "n", "cluster": "front"}}, apart=["spans"])


def lines(side, name, count, seconds=3.0):
    path, end = f"{WORK}/{side.name}-{name}.log", time.time() + seconds
    while True:
        try:
            found = open(path).read().splitlines()
        except FileNotFoundError:
            found = []
        if len(found) >= count or time.time() > end:
            return found
        time.sleep(0.02)


def spans(side, count, seconds=6.0):
    end, found = time.time() + seconds, []
    while len(found) < count and time.time() < end:
        for request in side.origins["spans"].take():
            if request.method == "POST":
                check(f"{side.name}: spans come as JSON", dict(request.fields)["content-type"] == "application/json" and request.target == "/api/v2/spans")
                found += json.loads(request.body)
        time.sleep(0.05)
    return found


CASES = [("/known/x?q=1&r=2", [("x-one", "one-two")], None), ("/known?status=503&h-x-two=2", [("x-log", "yes")], None), ("/rewritten/y?q=a%20b", [], b"12345"), ("/answered", [], None),
         ("/gone", [], None), ("/nothing", [("x-log", "no")], None), ("/known?status=404", [("x-log", "y")], None), ("/known?status=200", [("content-type", "application/grpc"), ("x-log", "yes")], None),
         ("/known?status=500&q=", [("x-one", 'a"b\\c')], None), ("/named", [("x-one", "me")], None), ("/unsampled", [], None), ("/unsampled?status=201", [("x-client-trace-id", "1")], None)]
for number, (path, fields, body) in enumerate(CASES):
    pair.same(f"answer {number}: {path}", path, [("x-case", str(number)), *fields], "POST" if body else "GET", body, requests=0 if path in ("/answered", "/gone", "/nothing") else 1)
for name in ["text", "json"]:
    both = [lines(side, name, len(CASES)) for side in (pair.envoy, pair.ours)]
    check(f"as many lines of {name}", len(both[0]) == len(both[1]) == len(CASES), f"{len(both[0])} and {len(both[1])}")
    for number, (one, other) in enumerate(zip(*both)):
        if name == "json":
            check(f"object {number}", json.loads(one) == json.loads(other), f"Envoy {one}, ours {other}")
            continue
        one, other = ([s.neutral(field) for field in line.split("\t")] for s, line in ((pair.envoy, one), (pair.ours, other)))
        found = [f"Envoy {a!r}, ours {b!r}" for a, b in zip(one, other) if a != b]
        check(f"line {number} of {CASES[number][0]}", not found, "; ".join(found))
both = [lines(side, "present", len(CASES)) for side in (pair.envoy, pair.ours)]
for number, pieces in enumerate(zip(*both)):
    known = [[field.endswith("[-]") for field in line.split("\t")] for line in pieces]
    names = [field for line in pieces[:1] for field in line.split("\t")]
    found = [n for n, a, b in zip(names, *known) if a != b]
    check(f"what line {number} has a value of", not found, "; ".join(found))
time.sleep(0.3)
for name in FILTERS:
    one, other = (lines(side, name, 0, 0) for side in (pair.envoy, pair.ours))
    check(f"filter {name}", one == other, f"Envoy {one}, ours {other}")
both = [spans(side, 22) for side in (pair.envoy, pair.ours)]
tagged = []
for found in both:
    servers = [s for s in found if s["kind"] == "SERVER"]
    by_id = {s["id"]: s for s in servers}
    children = [s for s in found if s["kind"] == "CLIENT"]
    check("attempts are children of requests of the same trace", children != [] and all(by_id.get(c.get("parentId"), {}).get("traceId") == c["traceId"] for c in children), str(len(children)))
    wanted = ("who", "fixed", "home", "no", "missing", "text")
    tagged.append(sorted(json.dumps([s["name"] == "decorated", s["localEndpoint"]["serviceName"], {k: v for k, v in s["tags"].items() if k in wanted}], sort_keys=True) for s in servers))
check("spans of requests have the same tags", tagged[0] == tagged[1], str(differences(*tagged)[:3] or (len(tagged[0]), len(tagged[1]))))
check("paths in spans are cut", all(len(s["tags"]["url.path"]) <= 12 for s in both[1] if "url.path" in s["tags"]))
check("phases are annotations", any("annotations" in s for s in both[1]))
for fields, name in [([("x-b3-traceid", "463ac35c9f6413ad48485a3953bb6124"), ("x-b3-spanid", "0020000000000001"), ("x-b3-sampled", "1")], "several B3 fields"),
                     ([("b3", "463ac35c9f6413ad48485a3953bb6124-0020000000000001-1")], "one B3 field"), ([("x-b3-sampled", "0")], "a refusal by B3"), ([], "no context")]:
    seen = []
    for side in (pair.envoy, pair.ours):
        side.origins["a"].take()
        side.ask("edge", "GET", "/known", [("host", "a.test"), *fields])
        heard = dict(side.origins["a"].take()[0].fields)
        one = heard.get("b3", "").split("-")
        trace, sampled = heard.get("x-b3-traceid", one[0]), heard.get("x-b3-sampled", one[2] if len(one) > 2 else None)
        seen.append({"trace": trace if any("463ac35c" in value for _, value in fields) else bool(trace), "sampled": sampled, "one field": "b3" in heard})
    check(f"B3 with {name}", seen[0] == seen[1], f"Envoy {seen[0]}, ours {seen[1]}")
finish("observe")
