#!/usr/bin/env python3
"""The cases of the W3C trace-context test suite, judged at the origin behind two traced listeners (a service's way in and out).

The suite asks a service to call back; a proxy is asked by one request and by what arrives at the far end. Every row is sent
as HTTP/1.1, and as HTTP/2 where HTTP/2 can say it. 2 % of the traces would be sampled if nobody decided."""
import re, socket
from common import *
from frames import Connection
from origin import Origin

TRACE, PARENT = "12345678901234567890123456789012", "1234567890123456"
GOOD = f"00-{TRACE}-{PARENT}-01"
UNSAMPLED = f"00-{TRACE}-{PARENT}-00"
SHAPE = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class Unlike(Exception):
    """What arrived is not what was to arrive."""


class Arrived:
    """The context of a request at the origin; made only of a valid one."""

    def __init__(self, request):
        parents, states = request.values("traceparent"), request.values("tracestate")
        if len(parents) != 1 or not (match := SHAPE.fullmatch(parents[0])):
            raise Unlike(f"traceparent {parents}")
        self.trace, self.parent, self.flags = match[1], match[2], int(match[3], 16)
        if int(self.trace, 16) == 0 or int(self.parent, 16) == 0 or self.parent == PARENT:
            raise Unlike(f"traceparent {parents}")
        self.state = ",".join(states)
        self.members = {}
        for member in filter(None, (m.strip(" \t") for m in self.state.split(","))):
            key, _, value = member.partition("=")
            self.members.setdefault(key, value)


def kept(arrived):
    if arrived.trace != TRACE:
        raise Unlike(f"another trace: {arrived.trace}")


def begun(*forbidden):
    """A new trace, that has nothing of the one that was sent."""
    def demand(arrived):
        if arrived.trace in (TRACE, *forbidden):
            raise Unlike("the invalid trace went on")
        if arrived.members:
            raise Unlike(f"the tracestate of an invalid trace went on: {arrived.state}")
    return demand


def with_state(**members):
    """The trace goes on with exactly these members."""
    def demand(arrived):
        kept(arrived)
        if arrived.members != members:
            raise Unlike(f"tracestate {arrived.state}, not {members}")
    return demand


def sampled(wanted):
    def demand(arrived):
        kept(arrived)
        if arrived.flags & 1 != wanted:
            raise Unlike(f"flags {arrived.flags}")
    return demand


def random_flag(arrived):
    kept(arrived)
    if not arrived.flags & 2:
        raise Unlike(f"flags {arrived.flags}")


def in_order(*keys):
    def demand(arrived):
        kept(arrived)
        if list(arrived.members) != list(keys):
            raise Unlike(f"tracestate {arrived.state}")
    return demand


def one_of_foo(arrived):
    kept(arrived)
    if arrived.members.get("foo") not in ("1", "2"):
        raise Unlike(f"tracestate {arrived.state}")


def parent(*values):
    return [("traceparent", value) for value in values]


def state(*values, name="tracestate"):
    return [("traceparent", UNSAMPLED)] + [(name, value) for value in values]


def invalid(name, *values, **extra):
    return [(f"traceparent: {name}", parent(value) + [("tracestate", "foo=1")], begun(*extra.get("also", ()))) for value in values]


NOTHING_NEW = with_state()
KEY = "abcdefghijklmnopqrstuvwxyz0123456789_-*/"
VALUE = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) not in ",=")
BARS = [f"bar{n:02}={n:02}" for n in range(1, 34)]
ROWS = [
    ("neither field", [], begun()),
    ("traceparent alone", parent(GOOD), kept),
    ("traceparent twice", parent(f"00-{TRACE[:-1]}1-{PARENT}-01", GOOD), begun(TRACE[:-1] + "1")),
    ("trace-parent", [("trace-parent", GOOD)], begun()),
    ("trace.parent", [("trace.parent", GOOD)], begun()),
    ("TraceParent", [("TraceParent", GOOD)], kept),
    ("TrAcEpArEnT", [("TrAcEpArEnT", GOOD)], kept),
    ("TRACEPARENT", [("TRACEPARENT", GOOD)], kept),
    *invalid("version 00 with more behind", GOOD + ".", GOOD + "-what-the-future-will-be-like"),
    ("version cc", parent("cc" + GOOD[2:]), kept),
    ("version cc with more behind", parent("cc" + GOOD[2:] + "-what-the-future-will-be-like"), kept),
    *invalid("version cc with more behind a dot", "cc" + GOOD[2:] + ".what-the-future-will-be-like"),
    *invalid("version ff", "ff" + GOOD[2:]),
    *invalid("version of other characters", ".0" + GOOD[2:], "0." + GOOD[2:]),
    *invalid("version too long", "000" + GOOD[2:], "0000" + GOOD[2:]),
    *invalid("version too short", "0" + GOOD[2:]),
    *invalid("trace id of zeros", f"00-{'0' * 32}-{PARENT}-01"),
    *invalid("trace id of other characters", f"00-.{TRACE[1:]}-{PARENT}-01", f"00-{TRACE[:-1]}.-{PARENT}-01"),
    *invalid("trace id in capitals", f"00-{TRACE[:-2]}AB-{PARENT}-01", also=[TRACE[:-2] + "ab"]),
    *invalid("trace id too long", f"00-{TRACE}3-{PARENT}-01", also=[TRACE[1:] + "3"]),
    *invalid("trace id too short", f"00-{TRACE[:-1]}-{PARENT}-01"),
    *invalid("parent id of zeros", f"00-{TRACE}-{'0' * 16}-01"),
    *invalid("parent id of other characters", f"00-{TRACE}-.{PARENT[1:]}-01", f"00-{TRACE}-{PARENT[:-1]}.-01"),
    *invalid("parent id too long", f"00-{TRACE}-{PARENT}7-01"),
    *invalid("parent id too short", f"00-{TRACE}-{PARENT[:-1]}-01"),
    *invalid("flags of other characters", GOOD[:-2] + ".0", GOOD[:-2] + "0."),
    *invalid("flags too long", GOOD[:-2] + "001"),
    *invalid("flags too short", GOOD[:-2] + "1"),
    *((f"traceparent with {name}", parent(value), kept)
      for name, value in (("a space before", " " + GOOD), ("a tab before", "\t" + GOOD), ("a space behind", GOOD + " "), ("a tab behind", GOOD + "\t"), ("both around", f"\t {GOOD} \t"))),
    ("tracestate alone", [("tracestate", "foo=1")], begun()),
    ("tracestate of two alone", [("tracestate", "foo=1,bar=2")], begun()),
    ("both fields", state("foo=1,bar=2"), with_state(foo="1", bar="2")),
    ("trace-state", state("foo=1", name="trace-state"), NOTHING_NEW),
    ("trace.state", state("foo=1", name="trace.state"), NOTHING_NEW),
    ("TraceState", state("foo=1", name="TraceState"), with_state(foo="1")),
    ("TrAcEsTaTe", state("foo=1", name="TrAcEsTaTe"), with_state(foo="1")),
    ("TRACESTATE", state("foo=1", name="TRACESTATE"), with_state(foo="1")),
    ("tracestate, empty", state(""), NOTHING_NEW),
    ("tracestate, then an empty one", state("foo=1", ""), with_state(foo="1")),
    ("tracestate after an empty one", state("", "foo=1"), with_state(foo="1")),
    ("tracestate in three fields", state("foo=1,bar=2", "rojo=1,congo=2", "baz=3"), in_order("foo", "bar", "rojo", "congo", "baz")),
    *((f"tracestate: a key twice, {values}", state(*values), one_of_foo) for values in (("foo=1,foo=1",), ("foo=1,foo=2",), ("foo=1", "foo=1"), ("foo=1", "foo=2"))),
    ("tracestate of every character", state(f"{KEY}={VALUE}"), with_state(**{KEY: VALUE})),
    ("tracestate of every character, with a vendor", state(f"{KEY}@a-z0-9_-*/={VALUE}"), with_state(**{KEY + "@a-z0-9_-*/": VALUE})),
    ("tracestate with spaces", state("foo=1 \t , \t bar=2, \t baz=3"), with_state(foo="1", bar="2", baz="3")),
    ("tracestate with tabs", state("foo=1\t \t,\t \tbar=2,\t \tbaz=3"), with_state(foo="1", bar="2", baz="3")),
    *((f"tracestate with {name}", state(value), with_state(foo="1"))
      for name, value in (("a space before", " foo=1"), ("a tab before", "\tfoo=1"), ("a space behind", "foo=1 "), ("a tab behind", "foo=1\t"), ("both around", "\t foo=1 \t"))),
    *((f"tracestate: {value} has no such key", state(value), NOTHING_NEW) for value in ("foo =1", "FOO=1", "foo.bar=1", "@foo=1,bar=2")),
    *((f"tracestate: {key} is a key", state(f"{key}=1,bar=2"), with_state(**{key: "1", "bar": "2"})) for key in ("foo@", "foo@@bar", "foo@bar@baz")),
    ("tracestate of 32 members", state(*(",".join(BARS[at:at + 10]) for at in range(0, 30, 10)), ",".join(BARS[30:32])), in_order(*(b[:5] for b in BARS[:32]))),
    ("tracestate of 33 members", state(*(",".join(BARS[at:at + 10]) for at in range(0, 33, 10))), NOTHING_NEW),
    *((f"tracestate: a key of {len(key)}", state("foo=1", f"{key}=1"), with_state(foo="1", **{key: "1"})) for key in ("z" * 256, "t" * 241 + "@" + "v" * 14, "t" * 242 + "@v", "t@" + "v" * 15)),
    ("tracestate: a key of 257", state("foo=1", "z" * 257 + "=1"), NOTHING_NEW),
    ("tracestate: a value with =", state("foo=bar=baz"), NOTHING_NEW),
    ("tracestate: an empty value", state("foo=,bar=3"), NOTHING_NEW),
    ("sampled stays sampled", parent(GOOD), sampled(1)),
    ("unsampled stays unsampled", parent(UNSAMPLED), sampled(0)),
    ("the random flag goes on", parent(GOOD[:-2] + "02"), random_flag),
]


def over_h1(port, fields):
    with socket.create_connection(("127.0.0.1", port), 5) as s:
        head = "GET / HTTP/1.1\r\nhost: trace.test\r\nconnection: close\r\n" + "".join(f"{name}:{value}\r\n" for name, value in fields)
        s.sendall(head.encode() + b"\r\n")
        answer = b""
        while piece := s.recv(65536):
            answer += piece
    if not answer.startswith(b"HTTP/1.1 200"):
        raise Unlike(f"answered {answer[:60]}")


def over_h2(port, fields):
    connection = Connection(port)
    try:
        connection.handshake()
        connection.send(connection.request(more=fields))
        status = connection.answer()[0][":status"]
    finally:
        connection.close()
    if status != "200":
        raise Unlike(f"answered {status}")


def in_h2(fields):
    """HTTP/2 has no capitals in names and no space around values."""
    return all(name == name.lower() and value == value.strip(" \t") for name, value in fields)


def ask(send, port, origin, fields):
    send(port, fields)
    heard = origin.take()
    if len(heard) != 1:
        raise Unlike(f"{len(heard)} requests arrived")
    return Arrived(heard[0])


def several(send, port, origin, fields, demand):
    """Three requests: a span of its own for each."""
    arrived = [ask(send, port, origin, fields) for _ in range(3)]
    for one in arrived:
        demand(one)
    if len({one.parent for one in arrived}) != 3:
        raise Unlike("two requests have the same parent id")


def main():
    origin = Origin()
    front, back, admin, collector = (free_port() for _ in range(4))
    fronts = [listener("front", front, [vhost("all", ["*"], "back")]), listener("back", back, [vhost("all", ["*"], "origin")])]
    # Nothing listens at the collector: that must not matter.
    provider = {"name": "envoy.tracers.opentelemetry", "typed_config": {"@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
                "grpc_service": {"envoy_grpc": {"cluster_name": "collector"}}, "service_name": "peers"}}
    for one in fronts:
        one["filter_chains"][0]["filters"][0]["typed_config"]["tracing"] = {"random_sampling": {"value": 2}, "provider": provider}
    proxy = run_proxy("trace", {"static_resources": {"listeners": fronts, "clusters": [cluster("back", back, h2=True), cluster("origin", origin.port), cluster("collector", collector, h2=True)]}}, admin)
    for port in (front, back):
        wait_port(port, proxy)
    for way, send in (("HTTP/1.1", over_h1), ("HTTP/2", over_h2)):
        rows = [row for row in ROWS if send is over_h1 or in_h2(row[1])]
        rows_of_three = [("three requests of a trace", parent(GOOD), kept), ("three requests without one", [], begun()), ("three requests of an invalid one", parent(f"00-{'0' * 32}-{PARENT}-01"), begun())]
        failed = []
        for name, fields, demand in rows:
            try:
                demand(ask(send, front, origin, fields))
            except (Unlike, OSError) as error:
                failed.append(f"{name}: {error}")
        for name, fields, demand in rows_of_three:
            try:
                several(send, front, origin, fields, demand)
            except (Unlike, OSError) as error:
                failed.append(f"{name}: {error}")
        for line in failed:
            print("     " + line)
        count = len(rows) + len(rows_of_three)
        check(f"trace context, {way}: {count - len(failed)}/{count}", not failed)
    check("the proxy lives", proxy.poll() is None)
    finish("trace-context")


main()
