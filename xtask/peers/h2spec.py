#!/usr/bin/env python3
"""Every case of h2spec, frame by frame, against a listener with cleartext HTTP/2 and one with mutual TLS.

The cases (section and behaviour) are those of that tool, written anew and judged more strictly: an error has to say its code
in GOAWAY or RST_STREAM, where the tool is content with a closed connection, and an answer has to be whole and 200. The TLS
listener's upstream is the cleartext one, so that its cases cross two hops of HTTP/2.

`h2spec.py PORT` plays the cleartext cases against another server that listens there."""
import itertools, ssl, sys, time
import h2_extended, h2_generic, h2_rules
from frames import Connection, Unmet

GROUPS = [("generic", h2_generic.BARE, h2_generic.ROWS), ("http2", h2_rules.BARE, h2_rules.ROWS), ("hpack", [], h2_rules.HPACK_ROWS)]
# The tool has this many, one of them (the second of 5.4.1) only in its strict mode.
EXPECTED = {"generic": 44, "http2": 95, "hpack": 8}


def judge(port, tls, bare, made, demand):
    """Plays one case; returns why it failed, or None."""
    connection = None
    try:
        connection = Connection(port, tls)
        if not bare:
            connection.handshake()
        if made is not None:
            connection.send(made(connection))
        demand(connection)
        return None
    except (Unmet, OSError) as error:
        return str(error)
    finally:
        if connection is not None:
            connection.close()


def play(port, tls=None, groups=GROUPS):
    """Plays every case of the groups; returns how many there were, and those that failed."""
    count, failed = 0, []
    for name, bare, rows in groups:
        every = [(section, what, None, demand, True) for section, what, demand in bare] + [(*row, False) for row in rows]
        if name in EXPECTED and len(every) != EXPECTED[name]:
            raise SystemExit(f"{len(every)} cases in {name}, {EXPECTED[name]} expected")
        for section, what, made, demand, is_bare in every:
            count += 1
            why = judge(port, tls, is_bare, made, demand)
            if why is not None:
                failed.append(f"{name} {section}, {what}: {why}")
    return count, failed


def report(title, result, check):
    count, failed = result
    for line in failed:
        print("     " + line)
    check(f"{title}: {count - len(failed)}/{count}", not failed)


def main():
    from common import (certificates, check, cluster, finish, free_port, listener, run_proxy, tls_context, vhost, wait_port)
    from origin import Origin
    c = certificates()
    origin, (plain, secure, admin) = Origin(), (free_port() for _ in range(3))
    # A listener that announces few streams, so that one too many can be opened; WebSockets over HTTP/2 for the cases of RFC 8441.
    h2 = {"http2_protocol_options": {"max_concurrent_streams": 100, "allow_connect": True}}
    fronts = [listener("plain", plain, [vhost("all", ["*"], "origin")]),
              listener("secure", secure, [vhost("all", ["*"], "plain")], tls_context(c, "server", "client", ["h2"]))]
    for front in fronts:
        front["filter_chains"][0]["filters"][0]["typed_config"] |= h2
    proxy = run_proxy("h2spec", {"static_resources": {"listeners": fronts, "clusters": [cluster("origin", origin.port), cluster("plain", plain, h2=True)]}}, admin)
    for port in (plain, secure):
        wait_port(port, proxy)
    tls = ssl.create_default_context(cafile=c["ca"])
    tls.load_cert_chain(c["client"], c["client_key"])
    tls.set_alpn_protocols(["h2"])
    for name, port, context in (("cleartext", plain, None), ("mutual TLS", secure, tls)):
        began = time.monotonic()
        report(f"h2spec's cases, {name}", play(port, context), check)
        report(f"more of RFC 9113 and RFC 8441, {name}", play(port, context, h2_extended.GROUPS), check)
        print(f"     {time.monotonic() - began:.1f} s")
    check("the proxy lives", proxy.poll() is None)
    finish("h2spec")


if len(sys.argv) > 1:
    total, bad = play(int(sys.argv[1]))
    print(*bad, f"{total - len(bad)}/{total}", sep="\n")
    sys.exit(bool(bad))
main()
