"""Hosts as network namespaces around one switch, and what is seen on the wire between them.

```text
            switch (a bridge in a namespace of its own; the wire is listened to here)
   ┌──────┬──────┬───┴──┬──────┬──────┬──────┐
 control host1  host2   vm    edge  cluster  user        10.77.0.2 .11 .12 .21 .31 .41 .51
```
This process is `control`. It runs in mount, process and network namespaces of its own (`cargo xtask scenarios` makes them), so all of
it is gone when it ends, however it ends."""
import contextlib, ctypes, http.client, os, re, socket, struct, subprocess, threading, time

SUBNET, ROUTER = "10.77.0", "10.77.0.1"
HOSTS = {"control": 2, "host1": 11, "host2": 12, "vm": 21, "edge": 31, "cluster": 41, "user": 51}
CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def sh(*argv, check=True, stdin=None):
    done = subprocess.run(argv, capture_output=True, text=True, input=stdin)
    if check and done.returncode:
        raise SystemExit(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def at(host):
    """The address of a host."""
    return f"{SUBNET}.{HOSTS[host]}"


def inside(host, *argv):
    """A command line that runs in a host's network."""
    return list(argv) if host == "control" else ["nsenter", f"--net=/run/netns/{host}", "--", *argv]


def _enter(path):
    with open(path) as namespace:
        if _libc.setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {path}")


@contextlib.contextmanager
def network_of(host):
    """This thread is in the network of a host, or in the one of a file; sockets made here stay there."""
    own = f"/proc/self/task/{threading.get_native_id()}/ns/net"
    with open(own) as before:
        _enter(own if host == "control" else host if host.startswith("/") else f"/run/netns/{host}")
        try:
            yield
        finally:
            if _libc.setns(before.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns back")


def build():
    """Makes the hosts. Must be called before there is a second thread."""
    # Names in /run/netns, and a resolver nobody has, in this mount namespace only.
    sh("mount", "-t", "tmpfs", "none", "/run/netns") if os.path.isdir("/run/netns") else os.makedirs("/run/netns")
    resolver = "/run/netns/resolv.conf"
    open(resolver, "w").write(f"nameserver {ROUTER}\n")
    sh("mount", "--bind", resolver, os.path.realpath("/etc/resolv.conf"))
    sh("ip", "link", "set", "lo", "up")
    sh("ip", "netns", "add", "switch")
    sh("ip", "-n", "switch", "link", "add", "br0", "type", "bridge")
    sh("ip", "-n", "switch", "addr", "add", f"{ROUTER}/24", "dev", "br0")
    sh("ip", "-n", "switch", "link", "set", "br0", "up")
    for host in HOSTS:
        there = [] if host == "control" else ["-n", host]
        if there:
            sh("ip", "netns", "add", host)
            sh("ip", "-n", host, "link", "set", "lo", "up")
        sh("ip", *there, "link", "add", "eth0", "type", "veth", "peer", "name", host, "netns", "switch")
        sh("ip", "-n", "switch", "link", "set", host, "master", "br0", "up")
        sh("ip", *there, "addr", "add", f"{at(host)}/24", "dev", "eth0")
        sh("ip", *there, "link", "set", "eth0", "up")
        sh("ip", *there, "route", "add", "default", "via", ROUTER)


def cut(one, other):
    """Nothing passes between two hosts any more, silently; both still reach everybody else."""
    for port in (one, other):
        sh("ip", "-n", "switch", "link", "set", port, "type", "bridge_slave", "isolated", "on")


def heal(one, other):
    for port in (one, other):
        sh("ip", "-n", "switch", "link", "set", port, "type", "bridge_slave", "isolated", "off")


def ask(where, address, port, path="/", host=None, method="GET", headers=None, seconds=5, tls=None):
    """A request from a host's network: status (0: none came), text. `tls`: a context; the name in it is `host`."""
    connection = None
    try:
        with network_of(where):
            wire = socket.create_connection((address, port), seconds)
        connection = http.client.HTTPConnection(host or address, port, timeout=seconds)
        connection.sock = tls.wrap_socket(wire, server_hostname=host) if tls else wire
        connection.request(method, path, headers={"host": host or address} | (headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, f"{type(error).__name__}: {error}"
    finally:
        if connection is not None:
            connection.close()


class Wire(threading.Thread):
    """Listens on the cable of a host, or on another device: every TCP connection, both directions."""

    def __init__(self, device, where="switch"):
        super().__init__(daemon=True)
        with network_of(where):
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            self.socket.bind((device, 0))
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.socket.settimeout(0.2)
        self.device = device
        self.sent, self.ended = {}, False
        self.start()

    def run(self):
        while not self.ended:
            try:
                frame = self.socket.recv(65536)
            except TimeoutError:
                continue
            if len(frame) < 54 or frame[12:14] != b"\x08\x00" or frame[23] != 6:
                continue
            head = (frame[14] & 15) * 4
            end = 14 + struct.unpack_from("!H", frame, 16)[0]
            tcp = 14 + head
            source, target = socket.inet_ntoa(frame[26:30]), socket.inet_ntoa(frame[30:34])
            ports = struct.unpack_from("!HH", frame, tcp)
            data = frame[tcp + (frame[tcp + 12] >> 4) * 4:end]
            if data:
                self.sent.setdefault((source, ports[0], target, ports[1]), []).append(data)

    def end(self):
        time.sleep(0.3)
        self.ended = True
        self.join(5)
        return self

    def streams(self, *hosts):
        """Bytes of each direction of each connection between two hosts; without any: of all connections."""
        pair = {at(host) for host in hosts}
        return {key: b"".join(parts) for key, parts in self.sent.items() if not pair or {key[0], key[2]} == pair}
