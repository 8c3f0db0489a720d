"""nginx, one worker. No HTTP/2 towards upstreams other than gRPC, no HTTP/2 in with HTTP/1.1 out, no second sidecar."""

from scenario import hops


def commands(scenario, bench):
    if scenario.get("hop"):
        return None
    ((port, protocol_in, tls_in, upstream, protocol_out, _),) = hops(scenario)
    if "h2" in (protocol_in, protocol_out):
        return None
    certs, work = bench.certs, bench.work
    tls = ""
    if tls_in:
        tls = (f"ssl_certificate {certs}/app.pem; ssl_certificate_key {certs}/app.key; ssl_client_certificate {certs}/ca.pem; "
               "ssl_verify_client on; ssl_protocols TLSv1.3; ssl_session_cache shared:s:10m;")
    to = ('proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; '
          "proxy_max_temp_file_size 0;")
    listen = f"listen 127.0.0.1:{port}{' ssl' if tls_in else ''};"
    first = listen.replace(";", " backlog=4096;")
    if scenario.get("hosts"):
        servers = "".join(f"server {{ {listen if n else first} server_name svc-{n}.mesh; location / {{ {to} }} }}\n"
                          for n in range(scenario["hosts"]))
    else:
        places = [f"/api/r{n}/" for n in range(scenario["paths"])] if scenario.get("paths") else ["/"]
        locations = "".join(f"location {place} {{ {to} }}\n" for place in places)
        servers = f"server {{ {first} {tls} {locations} }}"
    file = bench.write("nginx.conf", f"""daemon off; worker_processes 1; user root; pid {work}/nginx.pid;
error_log {work}/nginx.log error; worker_rlimit_nofile 20000;
events {{ worker_connections 19000; }}
http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 600s; server_names_hash_max_size 65536;
proxy_temp_path {work}/nginx-1; client_body_temp_path {work}/nginx-2;
upstream b {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 100000000; }}
{servers} }}
""")
    return [[bench.program("nginx"), "-c", file]]
