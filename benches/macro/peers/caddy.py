"""Caddy (Go; held to one core by GOMAXPROCS)."""

from scenario import hops


def commands(scenario, bench):
    if scenario.get("hop") or scenario.get("hosts") or scenario.get("paths"):
        return None
    ((port, protocol_in, tls_in, upstream, protocol_out, _),) = hops(scenario)
    if tls_in and protocol_in == "h2":
        return None
    transport = {"protocol": "http", "versions": ["h2c", "2"] if protocol_out == "h2" else ["1.1"],
                 "keep_alive": {"max_idle_conns_per_host": 512}}
    proxy = {"handler": "reverse_proxy", "upstreams": [{"dial": f"127.0.0.1:{upstream}"}], "transport": transport}
    server = {"listen": [f"127.0.0.1:{port}"], "automatic_https": {"disable": True},
              "protocols": ["h2c", "h2"] if protocol_in == "h2" else ["h1"], "routes": [{"handle": [proxy]}]}
    apps = {"http": {"servers": {"a": server}}}
    if tls_in:
        certs = bench.certs
        authority = {"provider": "file", "pem_files": [f"{certs}/ca.pem"]}
        server["tls_connection_policies"] = [
            {"client_authentication": {"mode": "require_and_verify", "ca": authority}, "alpn": ["http/1.1"]}]
        apps["tls"] = {"certificates": {"load_files": [{"certificate": f"{certs}/app.pem", "key": f"{certs}/app.key"}]}}
    file = bench.write("caddy.json", {"admin": {"disabled": True}, "logging": {"logs": {"default": {"level": "ERROR"}}},
                                      "apps": apps})
    return [[bench.program("caddy"), "run", "--config", file]]
