#!/usr/bin/env python3
"""Configuration from files, runtime values, settings of filters and scopes as in the real Envoy: replaced while it runs."""
from pair import *

PERCENT = lambda n: {"numerator": n, "denominator": "HUNDRED"}
CONFIG = "type.googleapis.com/envoy.config."
HCM = T + "filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = {"name": "envoy.filters.http.router", "typed_config": {"@type": T + "filters.http.router.v3.Router"}}
MUTATION = lambda value: {"@type": T + "filters.http.header_mutation.v3.HeaderMutation", "mutations": {"response_mutations": [
    {"append": {"header": {"key": "x-set", "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}]}}


def move(side, name, resources, version="1"):
    """Puts a file in place as a whole."""
    path = f"{WORK}/{side.name}-{name}.json"
    with open(path + ".new", "w") as f:
        json.dump({"version_info": version, "resources": resources}, f)
    os.rename(path + ".new", path)
    return path


def source(side, name):
    return {"path_config_source": {"path": f"{WORK}/{side.name}-{name}.json"}, "resource_api_version": "V3"}


def table(name, text, **match):
    return {"@type": CONFIG + "route.v3.RouteConfiguration", "name": name, "validate_clusters": False, "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [
        {"match": {"prefix": "/some", "runtime_fraction": {"runtime_key": "mine.share", "default_value": PERCENT(0)}}, "direct_response": {"status": 200, "body": {"inline_string": "by runtime"}}},
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 200, "body": {"inline_string": text}}},
        {"match": {"prefix": "/"}, "route": {"cluster": "files"}}]}]}


def assignment(side, origin):
    return {"@type": CONFIG + "endpoint.v3.ClusterLoadAssignment", "cluster_name": "files", "endpoints": [{"lb_endpoints": [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": side.origins[origin].port}}}}]}]}


def eds(side):
    return {"@type": CONFIG + "cluster.v3.Cluster", "name": "files", "type": "EDS", "connect_timeout": "2s",
            "eds_cluster_config": {"eds_config": source(side, "eds"), "service_name": "files"}}


def extension(side, value):
    return {"@type": CONFIG + "core.v3.TypedExtensionConfig", "name": "later", "typed_config": MUTATION(value)}


def runtime(values):
    return {"@type": "type.googleapis.com/envoy.service.runtime.v3.Runtime", "name": "values", "layer": values}


def manager(name, routes, filters=()):
    return {"@type": HCM, "stat_prefix": name, "http_filters": [*filters, ROUTER]} | routes


def on(name, port, http):
    return {"name": name, "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
            "filter_chains": [{"filters": [{"name": "hcm", "typed_config": http}]}]}


def edge(port, side):
    move(side, "rds", [table("table", "first")])
    move(side, "eds", [assignment(side, "a")])
    move(side, "cds", [eds(side)])
    move(side, "ecds", [extension(side, "one")])
    move(side, "rtds", [runtime({})])
    later = {"name": "later", "config_discovery": {"config_source": source(side, "ecds"), "type_urls": [MUTATION("")["@type"]]}}
    return on("edge", port, manager("edge", {"rds": {"route_config_name": "table", "config_source": source(side, "rds")}}, [later]))


def scoped(port, side):
    scope = lambda name, key, text: {"name": name, "key": {"fragments": [{"string_key": part} for part in key]},
                                     "route_configuration": {k: v for k, v in table(name, text).items() if k != "@type"}}
    extract = lambda name, **how: {"header_value_extractor": {"name": name} | how}
    routes = {"name": "s", "scope_key_builder": {"fragments": [
        extract("x-first", element_separator=",", index=1),
        extract("x-second", element_separator=";", element={"separator": "=", "key": "k"})]},
        "scoped_route_configurations_list": {"scoped_route_configurations": [scope("one", ["a", "b"], "scope one"), scope("two", ["c", ""], "scope two")]}}
    return on("scoped", port, manager("scoped", {"scoped_routes": routes}))


def extra(side):
    return {"node": {"id": "n", "cluster": "c"}, "dynamic_resources": {"cds_config": source(side, "cds")},
            "layered_runtime": {"layers": [{"name": "file", "static_layer": {"mine": {"other": 1}}},
                                           {"name": "served", "rtds_layer": {"name": "values", "rtds_config": source(side, "rtds")}},
                                           {"name": "admin", "admin_layer": {}}]}}


pair = Pair(["a", "b"], {"edge": edge, "scoped": scoped}, extra)
SIDES = (pair.envoy, pair.ours)


def until(name, path, wanted):
    """Both answer so within some seconds."""
    for side in SIDES:
        end = time.time() + 10
        while time.time() < end:
            answer = side.ask("edge", "GET", path, [("host", "a.test")])
            if wanted(answer):
                break
            time.sleep(0.05)
        check(f"{name} ({side.name})", wanted(answer), str(answer))
        side.heard(0)


def each(name, build):
    for side in SIDES:
        move(side, name, build(side), version=str(time.time()))


has = lambda body: lambda answer: answer["body"] == body
until("clusters, endpoints and routes come from files", "/x", has("answer of a"))
pair.same("a direct response", "/direct", requests=0)
each("rds", lambda side: [table("table", "second")])
until("a route table that was moved there", "/direct", has("second"))
each("rds", lambda side: [{"@type": CONFIG + "route.v3.RouteConfiguration", "name": "table", "virtual_hosts": [{"name": "", "domains": []}]}])
time.sleep(1)
pair.same("a route table that is refused changes nothing", "/direct", requests=0)
each("eds", lambda side: [assignment(side, "b")])
until("endpoints that were moved there", "/x", has("answer of b"))
for side in SIDES:
    with open(f"{WORK}/{side.name}-eds.json", "r+") as f:
        text = json.dumps({"version_info": "9", "resources": [assignment(side, "a")]})
        f.write(text)
        f.truncate(len(text))
time.sleep(1)
pair.same("a file that is written in place is not read", "/x")

field = lambda value: lambda answer: ("x-set", value) in [tuple(f) for f in answer["fields"]]
until("settings of a filter", "/direct", field("one"))
each("ecds", lambda side: [extension(side, "two")])
until("settings of a filter that were replaced", "/direct", field("two"))

pair.same("a runtime share of nothing", "/some")
each("rtds", lambda side: [runtime({"mine": {"share": 100}})])
until("a runtime share of all", "/some", has("by runtime"))
for side in SIDES:
    connection = http.client.HTTPConnection("127.0.0.1", side.admin, timeout=10)
    connection.request("POST", "/runtime_modify?mine.share=0")
    answer = connection.getresponse()
    check(f"runtime_modify ({side.name})", (answer.status, answer.read()) == (200, b"OK\n"))
until("the administration's layer lies on top", "/some", has("answer of b"))
shown = []
for side in SIDES:
    connection = http.client.HTTPConnection("127.0.0.1", side.admin, timeout=10)
    connection.request("GET", "/runtime")
    shown.append(json.loads(connection.getresponse().read()))
found = differences(*[{"layers": s["layers"], "entries": s["entries"]} for s in shown])
check("/runtime", not found, "; ".join(found))

for name, first, second in [("its key", "x,a", "k=b;z=1"), ("a later element", "x,a,y", "z=1;k=b"), ("an element without value", "x,c", "k"),
                            ("an empty value", "x,c", "k="), ("no scope", "x,a", "k=c"), ("no such element", "a", "k=b"), ("the first of two values", "x,a", "k=b;k=c"),
                            ("spaces are kept", "x, a", "k=b"), ("an empty element", "x,a", ";k=b")]:
    pair.same(f"scope by {name}", "/direct", [("x-first", first), ("x-second", second)], requests=0, label="scoped")
pair.same("scope without the header", "/direct", [("x-first", "x,a")], requests=0, label="scoped")
finish("discovery")
