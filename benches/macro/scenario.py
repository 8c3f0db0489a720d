"""What is measured: scenarios, the ports they use, and the bounds that Outrigger has set itself.

A scenario says what comes in (`front`, `tls`), where it goes (`up`: one of BACK), what is between two sidecars (`hop`), the
load (keys of `outrigger-load load`, see benches/load/src/options.rs), and the rate of the latency run (0: none).
`bounds` are the ratios of CPU per request (or of memory per connection) that docs/performance.md promises, by peer.
"""

# Ports of the origin by what they answer with; HTTP/1.1 unless said otherwise.
BACK = {"h1": 29001, "h2": 29002, "100k": 29003, "1m": 29004, "spans": 29005}
ORIGIN = ["h1:29001:1024", "h2:29002:100", "h1:29003:102400", "h1:29004:1048576", "grpc:29005:0"]
IN, MID = 29100, 29101  # the proxy's port; the second sidecar's in S3

H1 = ["conns=64"]
GRPC = ["streams=100", "body=100", "proto=h2"]

SCENARIOS = {
    "S1": dict(text="HTTP/1.1 → HTTP/1.1, 64 connections, 1 KiB", front="h1", up="h1", load=H1, rate=8000,
               bounds={"envoy": 0.38, "haproxy": 0.90}),
    "S1w": dict(text="as S1, load by wrk", front="h1", up="h1", tool="wrk"),
    "S1p": dict(text="as S1, with a request body of 1 KiB", front="h1", up="h1", load=[*H1, "body=1024"], rate=8000),
    "S1c": dict(text="as S1, origin on the proxy's core", front="h1", up="h1", load=H1, rate=0, back_core=0),
    "S2": dict(text="mTLS HTTP/1.1 → HTTP/1.1", front="h1", up="h1", tls=True, load=H1, rate=6000,
               bounds={"envoy": 0.42, "haproxy": 0.82}),
    "S2h2": dict(text="mTLS HTTP/2 → HTTP/1.1, 4 connections, 16 streams", front="h2", up="h1", tls=True,
                 load=["conns=4", "streams=16", "proto=h2"], rate=6000, bounds={"envoy": 0.40, "haproxy": 0.92}),
    "S3h1": dict(text="two sidecars, HTTP/1.1 inside mTLS between them", front="h1", up="h1", hop="h1", load=H1, rate=4000,
                 bounds={"envoy": 0.30, "haproxy": 0.82}),
    "S3h2": dict(text="two sidecars, HTTP/2 inside mTLS between them", front="h1", up="h1", hop="h2", load=H1, rate=4000,
                 bounds={"envoy": 0.24, "haproxy": 0.92}),
    "S4": dict(text="HTTP/2 → HTTP/2, cleartext, 1 connection, 100 streams", front="h2", up="h2", load=["conns=1", *GRPC],
               rate=8000, bounds={"envoy": 0.15, "haproxy": 0.33}),
    "S4w": dict(text="as S4, load by h2load, no request body", front="h2", up="h2", tool="h2load"),
    "S4c8": dict(text="as S4, 8 connections", front="h2", up="h2", load=["conns=8", *GRPC], rate=8000,
                 bounds={"envoy": 0.08, "haproxy": 0.25}),
    "S5a": dict(text="100 KiB answers", front="h1", up="100k", load=["conns=16"], rate=0),
    "S5b": dict(text="1 MiB answers", front="h1", up="1m", load=["conns=8"], rate=0),
    "S5t": dict(text="1 MiB answers over TLS", front="h1", up="1m", tls=True, load=["conns=8"], rate=0,
                bounds={"envoy": 0.50}),
    "S6f": dict(text="a TLS connection per request, full handshakes", front="h1", up="h1", tls=True,
                load=["conns=8", "close=1"], rate=0, bounds={"envoy": 0.72}),
    "S6r": dict(text="a TLS connection per request, resumed", front="h1", up="h1", tls=True,
                load=["conns=6", "close=1", "resume=1"], rate=0, bounds={"envoy": 0.85}),
    "S7": dict(text="KiB per idle connection", front="h1", up="h1", idle=8000, load=[], rate=0, most=6),
    "S7t": dict(text="KiB per idle connection, TLS", front="h1", up="h1", tls=True, idle=8000, load=[], rate=0, most=20),
    "S8h": dict(text="as S1, 10,000 virtual hosts", front="h1", up="h1", hosts=10000, load=[*H1, "hosts=10000"], rate=0),
    "S8p": dict(text="as S1, 1,000 prefixes", front="h1", up="h1", paths=1000, load=[*H1, "paths=1000"], rate=0),
    # Beyond the usual: only when they are named.
    "S1f": dict(text="as S1, 30 more header fields", front="h1", up="h1", load=[*H1, "fields=30"], rate=6000, extra=True),
    "S1m": dict(text="as S1, 1,000 connections", front="h1", up="h1", load=["conns=1000"], rate=6000, extra=True),
    "S1l": dict(text="as S1, 8 connections with 8 requests pipelined", front="h1", up="h1", load=["conns=8", "streams=8"],
                rate=0, extra=True),
}

USUAL = [name for name, scenario in SCENARIOS.items() if not scenario.get("extra")]


def hops(scenario):
    """(listen port, protocol in, TLS in?, upstream port, protocol out, TLS out?) of every proxy on the way."""
    up = BACK[scenario["up"]]
    if scenario.get("hop"):
        return [(IN, "h1", False, MID, scenario["hop"], True), (MID, scenario["hop"], True, up, "h1", False)]
    protocol = "h2" if scenario["up"] == "h2" else "h1"
    return [(IN, scenario["front"], scenario.get("tls", False), up, protocol, False)]


def key(name):
    """The figure that is compared."""
    return "kb_per_conn" if SCENARIOS[name].get("idle") else "cpu_us"
