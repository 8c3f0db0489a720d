#!/usr/bin/env bash
# CPU per request of outrigger-proxy beside HAProxy and nginx, on this machine, in one run.
#
#   benches/macro/run.sh [-b path/to/outrigger-proxy] [-s h1,tls,h2] [-p outrigger,haproxy,nginx] [-r rounds] [-t seconds]
#
# Needs: wrk, h2load (nghttp2-client), haproxy, nginx, openssl, taskset, and two cores. See ../README.md for the method.
set -euo pipefail

binary=target/release/outrigger-proxy scenarios=h1,tls,h2 proxies=outrigger,haproxy,nginx rounds=3 seconds=3
while getopts b:s:p:r:t: option; do
    case $option in
        b) binary=$OPTARG ;; s) scenarios=$OPTARG ;; p) proxies=$OPTARG ;;
        r) rounds=$OPTARG ;; t) seconds=$OPTARG ;; *) exit 2 ;;
    esac
done
for tool in wrk h2load haproxy nginx openssl taskset; do
    command -v "$tool" >/dev/null || { echo "needs $tool" >&2; exit 2; }
done
[ -x "$binary" ] || { echo "no binary at $binary; build it with: cargo build --release -p outrigger-proxy" >&2; exit 2; }
binary=$(realpath "$binary")

front=${BENCH_PORT:-28100} origin=$((${BENCH_PORT:-28100} + 1))
work=$(mktemp -d)
started=()
cleanup() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

cd "$work"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout app.key -out app.pem \
    -subj /CN=app.mesh -days 30 -addext subjectAltName=DNS:app.mesh 2>/dev/null
cat app.pem app.key > app.both

# ---- the origin: 1 KiB, on the load generator's core
body=$(printf 'x%.0s' $(seq 1024))
cat > origin.conf <<EOF
daemon off; master_process off; pid $work/origin.pid; error_log $work/origin.log error;
events { worker_connections 4096; }
http { access_log off; keepalive_requests 1000000000; server { listen 127.0.0.1:$origin backlog=4096; location / { return 200 "$body"; } } }
EOF

# ---- one configuration per proxy and scenario; every one forwards everything to the origin by kept-alive HTTP/1.1
configure_outrigger() {
    local codec=HTTP1 alpn=http/1.1 tls=
    [ "$1" = h2 ] && codec=HTTP2
    [ "$1" = tls ] && tls=', "transport_socket": {"name": "tls", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"alpn_protocols": ["'$alpn'"], "tls_certificates": [{"certificate_chain": {"filename": "'$work'/app.pem"}, "private_key": {"filename": "'$work'/app.key"}}]}}}'
    cat > outrigger.json <<EOF
{"static_resources": {
 "clusters": [{"name": "origin", "type": "STATIC", "connect_timeout": "1s", "load_assignment": {"cluster_name": "origin", "endpoints": [{"lb_endpoints": [
   {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": $origin}}}}]}]}}],
 "listeners": [{"name": "front", "address": {"socket_address": {"address": "127.0.0.1", "port_value": $front}}, "filter_chains": [{
   "filters": [{"name": "http", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
     "stat_prefix": "front", "codec_type": "$codec",
     "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "origin"}}]}]},
     "http_filters": [{"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]$tls}]}]}}
EOF
    command=("$binary" -c outrigger.json --concurrency 1 -l error)
}
configure_haproxy() {
    local bind=
    [ "$1" = tls ] && bind="ssl crt $work/app.both ssl-min-ver TLSv1.3 alpn http/1.1"
    [ "$1" = h2 ] && bind="proto h2"
    cat > haproxy.cfg <<EOF
global
 nbthread 1
 maxconn 4096
defaults
 mode http
 timeout client 60s
 timeout server 60s
 timeout connect 1s
 http-reuse always
frontend f
 bind 127.0.0.1:$front $bind
 default_backend b
backend b
 server s 127.0.0.1:$origin
EOF
    command=(haproxy -db -q -f haproxy.cfg)
}
configure_nginx() {
    local listen="127.0.0.1:$front backlog=4096" tls=
    [ "$1" = tls ] && listen+=" ssl" && tls="ssl_certificate $work/app.pem; ssl_certificate_key $work/app.key; ssl_protocols TLSv1.3;"
    [ "$1" = h2 ] && listen+=" http2"
    cat > nginx.conf <<EOF
daemon off; master_process off; pid $work/nginx.pid; error_log $work/nginx.log error;
events { worker_connections 4096; }
http { access_log off; keepalive_requests 1000000000; proxy_temp_path $work/t1; client_body_temp_path $work/t2;
 upstream b { server 127.0.0.1:$origin; keepalive 512; keepalive_requests 1000000000; }
 server { listen $listen; $tls location / { proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host \$host; } } }
EOF
    command=(nginx -c "$work/nginx.conf")
}

await() { # port
    for _ in $(seq 200); do
        (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return 0
        sleep 0.05
    done
    echo "nothing listens on port $1" >&2
    return 1
}
cpu_ns() { cat /proc/"$1"/task/*/schedstat | awk '{ sum += $1 } END { printf "%.0f", sum }'; }

load() { # scenario, seconds; prints "requests errors"
    case $1 in
        h1) taskset -c 1 wrk -t1 -c64 -d"$2s" "http://127.0.0.1:$front/" ;;
        tls) taskset -c 1 wrk -t1 -c64 -d"$2s" "https://127.0.0.1:$front/" ;;
        h2) taskset -c 1 h2load -t1 -c1 -m100 -D"$2" "http://127.0.0.1:$front/" ;;
    esac | awk '
        / requests in / { requests = $1 }
        /Socket errors:/ { gsub(",", ""); errors += $4 + $6 + $8 + $10 }
        /Non-2xx/ { errors += $NF }
        /^requests:/ { gsub(",", ""); requests = $8; errors += $10 + $12 }
        END { print requests + 0, errors + 0 }'
}

measure() { # scenario, proxy; prints "cpu_us requests_per_second errors rss_kib"
    local pid before after requests errors
    "configure_$2" "$1"
    taskset -c 0 "${command[@]}" >"$work/$2.out" 2>&1 &
    pid=$!
    started+=("$pid")
    await "$front"
    load "$1" 1 >/dev/null
    before=$(cpu_ns "$pid")
    read -r requests errors < <(load "$1" "$seconds")
    after=$(cpu_ns "$pid")
    local rss
    rss=$(awk '/^VmRSS:/ { print $2 }' "/proc/$pid/status")
    kill "$pid"
    wait "$pid" 2>/dev/null || true
    awk -v n="$requests" -v ns=$((after - before)) -v s="$seconds" -v e="$errors" -v r="$rss" \
        'BEGIN { if (n == 0) { print "0 0 " e + 1, r } else printf "%.2f %.0f %d %d\n", ns / 1000 / n, n / s, e, r }'
}

taskset -c 1 nginx -c "$work/origin.conf" &
started+=($!)
await "$origin"

# Proxies take turns within a round, so that a slow minute of the machine hits all of them.
for scenario in ${scenarios//,/ }; do
    for round in $(seq "$rounds"); do
        for proxy in ${proxies//,/ }; do
            echo "$scenario $proxy $(measure "$scenario" "$proxy")" | tee -a results >&2
        done
    done
done

echo "| scenario | proxy | CPU µs per request (median) | lowest–highest | requests/s | RSS under load, KiB | errors |"
echo "|---|---|---|---|---|---|---|"
for scenario in ${scenarios//,/ }; do
    for proxy in ${proxies//,/ }; do
        grep "^$scenario $proxy " results | sort -k3,3n | awk '
            { cpu[NR] = $3; rate[NR] = $4; errors += $5; rss = $6 > rss ? $6 : rss }
            END { m = int((NR + 1) / 2); printf "| %s | %s | %s | %s–%s | %s | %s | %s |\n", $1, $2, cpu[m], cpu[1], cpu[NR], rate[m], rss, errors }'
    done
done
# A table with failed requests is not a result.
awk '{ errors += $5 } END { exit errors > 0 }' results || { echo "some requests failed" >&2; exit 1; }
