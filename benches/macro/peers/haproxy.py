"""HAProxy, one thread."""

from scenario import hops

ALPN = {"h1": "http/1.1", "h2": "h2"}


def commands(scenario, bench):
    return [command(scenario, bench, n, hop) for n, hop in enumerate(hops(scenario))]


def command(scenario, bench, number, hop):
    port, protocol_in, tls_in, upstream, protocol_out, tls_out = hop
    certs = bench.certs
    bind = "proto h2" if protocol_in == "h2" else ""
    if tls_in:
        bind = f"ssl crt {certs}/app.both ca-file {certs}/ca.pem verify required alpn {ALPN[protocol_in]}"
    server = "proto h2" if protocol_out == "h2" else ""
    if tls_out:
        server = (f"ssl crt {certs}/client.both ca-file {certs}/ca.pem verify required sni str(app.mesh) "
                  f"alpn {ALPN[protocol_out]}")
    use = "default_backend b"
    if scenario.get("hosts"):
        table = bench.write("haproxy.hosts", "".join(f"svc-{n}.mesh b\n" for n in range(scenario["hosts"])))
        use = f"use_backend %[req.hdr(host),lower,map({table},none)]"
    elif scenario.get("paths"):
        table = bench.write("haproxy.paths", "".join(f"/api/r{n}/ b\n" for n in range(scenario["paths"])))
        use = f"use_backend %[path,map_beg({table},none)]"
    file = bench.write(f"haproxy-{number}.cfg", f"""global
 nbthread 1
 maxconn 8500
 ssl-default-bind-options ssl-min-ver TLSv1.3
 ssl-default-server-options ssl-min-ver TLSv1.3
 tune.h2.max-concurrent-streams 1000
defaults
 mode http
 timeout client 60s
 timeout server 60s
 timeout connect 1s
 http-reuse always
 retries 2
frontend f
 bind 127.0.0.1:{port} {bind}
 {use}
backend b
 server s 127.0.0.1:{upstream} {server}
""")
    return [bench.program("haproxy"), "-db", "-q", "-f", file]
