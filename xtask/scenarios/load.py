"""End users: a steady load of GET and POST through the edge, of which every single request is counted."""
import http.client, socket, threading, time
from collections import Counter
from topology import at, network_of

PATIENCE = 15


class User(threading.Thread):
    """One connection, kept alive; half of the requests must not be sent twice."""

    def __init__(self, load, number):
        super().__init__(daemon=True)
        self.load, self.number, self.connection = load, number, None
        self.start()

    def connect(self):
        with network_of("user"):
            wire = socket.create_connection((at("edge"), 8443), PATIENCE)
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = http.client.HTTPConnection(self.load.host, 8443, timeout=PATIENCE)
        self.connection.sock = self.load.tls.wrap_socket(wire, server_hostname=self.load.host)

    def run(self):
        count = self.number
        while not self.load.ended:
            began, method = time.time(), ("GET", "POST")[count % 2]
            count += 1
            try:
                if self.connection is None:
                    self.connect()
                self.connection.request(method, self.load.path, headers={"host": self.load.host})
                answer = self.connection.getresponse()
                status, text = answer.status, answer.read().decode(errors="replace")
                if answer.will_close:
                    self.connection = None
            except (OSError, http.client.HTTPException) as error:
                status, text, self.connection = 0, f"{type(error).__name__}: {error}", None
            self.load.count(began, method, status, text)
            time.sleep(max(0.0, self.load.pause - (time.time() - began)))


class Load:
    def __init__(self, tls, host, path, users=8, per_second=240):
        self.tls, self.host, self.path, self.pause = tls, host, path, users / per_second
        self.lock, self.records, self.ended = threading.Lock(), [], False
        self.users = [User(self, number) for number in range(users)]

    def count(self, began, method, status, text):
        with self.lock:
            self.records.append((began, time.time() - began, method, status, text.strip()[:160]))

    def take(self):
        """All requests since the last time."""
        with self.lock:
            taken, self.records = self.records, []
        return taken

    def end(self):
        self.ended = True
        for user in self.users:
            user.join(PATIENCE + 5)


def failed(records):
    return [record for record in records if record[3] != 200]


def kinds(records):
    """Failures by kind."""
    return Counter(f"{method} {status} {text}"[:140] for _, _, method, status, text in failed(records))


def answered_by(records):
    return Counter(text.rsplit(" ", 1)[-1] for _, _, _, status, text in records if status == 200)
