"""How many instructions a request costs in user space, counted by callgrind: the same to a percent on any machine of one
kind, however busy it is. A bound that is passed is a change that made every request dearer."""
import json, re, socket, subprocess, threading
import common
from common import WORK, check, cluster, finish, free_port, listener, start, wait_port

REQUESTS = 1500
REQUEST = (b"GET /api/items?full=1 HTTP/1.1\r\nHost: app.mesh\r\nUser-Agent: count/1\r\nAccept: application/json\r\n"
           b"Accept-Encoding: gzip\r\nX-Request-Id: 7b2f0a52-58d5-4b6c-9b53-3a4a1fbc6c7a\r\n\r\n")
BODY = b"x" * 1024
RESPONSE = (b"HTTP/1.1 200 OK\r\nServer: app\r\nDate: Sat, 22 Nov 2025 22:00:00 GMT\r\nContent-Type: application/json\r\n"
            b"Cache-Control: no-store\r\nContent-Length: 1024\r\n\r\n" + BODY)
# Instructions per request, with some room for another compiler or machine.
BOUND = 27_000


def origin():
    server = socket.create_server(("127.0.0.1", 0))

    def answer(stream):
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while stream.recv(65536):
            stream.sendall(RESPONSE)

    def serve():
        while True:
            threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1]


def ask(stream, times):
    for _ in range(times):
        stream.sendall(REQUEST)
        have = b""
        while not have.endswith(BODY):
            have += stream.recv(65536)
        assert have.startswith(b"HTTP/1.1 200 OK\r\n"), have[:200]


def counted(port, pid):
    """Instructions of REQUESTS requests on a kept connection."""
    with socket.create_connection(("127.0.0.1", port)) as stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ask(stream, 300)
        subprocess.run(["callgrind_control", "-i", "on", str(pid)], check=True, capture_output=True)
        ask(stream, REQUESTS)
        subprocess.run(["callgrind_control", "-i", "off", str(pid)], check=True, capture_output=True)


port, app = free_port(), origin()
document = {"static_resources": {
    "clusters": [cluster("app", app) | {
        "outlier_detection": {"consecutive_5xx": 5},
        "circuit_breakers": {"thresholds": [{"max_connections": 10000, "max_requests": 10000}]}}],
    "listeners": [listener("in", port, [{
        "name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {
            "cluster": "app", "timeout": "15s",
            "retry_policy": {"retry_on": "gateway-error,connect-failure", "num_retries": 2}}}]}])]}}
path = f"{WORK}/proxy.json"
with open(path, "w") as file:
    json.dump(document, file)
out = f"{WORK}/callgrind.out"
proxy = start(["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--instr-atstart=no", common.PROXY,
               "-c", path, "--concurrency", "1", "-l", "error"], "proxy")
wait_port(port, proxy, seconds=180)
counted(port, proxy.pid)
proxy.terminate()
proxy.wait(60)
totals = re.search(r"^totals: (\d+)", open(out).read(), re.M)
each = int(totals.group(1)) / REQUESTS
check("instructions of a kept-alive HTTP/1.1 request", 0 < each <= BOUND, f"{each:.0f}, bound {BOUND}")
finish("instructions")
