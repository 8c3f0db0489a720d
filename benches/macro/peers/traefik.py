"""Traefik (Go; held to one core by GOMAXPROCS)."""

from scenario import hops


def commands(scenario, bench):
    if scenario.get("hop") or scenario.get("hosts") or scenario.get("paths"):
        return None
    ((port, protocol_in, tls_in, upstream, protocol_out, _),) = hops(scenario)
    if tls_in and protocol_in == "h2":
        return None
    router = {"rule": "PathPrefix(`/`)", "service": "b", "entryPoints": ["e"]} | ({"tls": {}} if tls_in else {})
    scheme = "h2c" if protocol_out == "h2" else "http"
    service = {"servers": [{"url": f"{scheme}://127.0.0.1:{upstream}"}], "serversTransport": "t"}
    dynamic = {"http": {"routers": {"r": router}, "services": {"b": {"loadBalancer": service}},
                        "serversTransports": {"t": {"maxIdleConnsPerHost": 512}}}}
    if tls_in:
        certs = bench.certs
        client = {"caFiles": [f"{certs}/ca.pem"], "clientAuthType": "RequireAndVerifyClientCert"}
        dynamic["tls"] = {"certificates": [{"certFile": f"{certs}/app.pem", "keyFile": f"{certs}/app.key"}],
                          "options": {"default": {"clientAuth": client}}}
    providers = {"file": {"filename": bench.write("traefik-dynamic.yml", dynamic)}}
    file = bench.write("traefik.yml", {
        "entryPoints": {"e": {"address": f"127.0.0.1:{port}"}}, "providers": providers, "log": {"level": "ERROR"},
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False}})
    return [[bench.program("traefik"), f"--configFile={file}"]]
