"""A control service that changes endpoints as often as it is told: delta ADS, endpoints only, one cluster in turn.

    updates_server.py PORT ORIGIN_PORT

Reads a number from its input, one per line: changes per second from now on; for each it prints what happened until the next
one as JSON. Needs grpcio. Messages are written by hand: Envoy's xDS v3, protocol buffers' encoding.
"""

import concurrent.futures
import json
import queue
import sys
import threading
import time

import grpc

PORT, ORIGIN = int(sys.argv[1]), int(sys.argv[2])
EDS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7f | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def fields(data):
    """Numbers and values of a message; all of ours are numbers or have a length."""
    def number(at):
        value = shift = 0
        while True:
            value |= (data[at] & 0x7f) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 0x80:
                return value, at
    at = 0
    while at < len(data):
        key, at = number(at)
        value, at = number(at)
        if key & 7 == 2:
            value, at = data[at:at + value], at + value
        yield key >> 3, value


def endpoints(cluster, weight):
    """A ClusterLoadAssignment of the origin, whose weight says which version it is."""
    address = field(1, field(2, "127.0.0.1") + field(3, ORIGIN))
    endpoint = field(1, field(1, address)) + field(4, field(1, weight))
    return field(1, cluster) + field(2, field(2, endpoint))


def response(number, names):
    out = b""
    for name in names:
        resource = field(1, EDS) + field(2, endpoints(name, number % 100 + 1))
        out += field(2, field(1, str(number)) + field(2, resource) + field(3, name))
    return out + field(4, EDS) + field(5, str(number))


class Ads:
    """Streams of `DeltaAggregatedResources`, all of which are sent the same."""

    def __init__(self):
        self.rate, self.sent, self.acknowledged, self.refused = 0, 0, 0, 0

    def serve(self, requests, _context):
        subscribed, asked = [], queue.Queue()

        def read():
            for request in requests:
                said = list(fields(request))
                names = [value.decode() for key, value in said if key == 3]
                if any(key == 7 for key, _ in said):
                    self.refused += 1
                elif any(key == 6 and value for key, value in said):
                    self.acknowledged += 1
                if names:
                    asked.put(names)
            asked.put(None)

        threading.Thread(target=read, daemon=True).start()
        number, due = 1, time.monotonic()
        while True:
            rate = self.rate
            try:
                names = asked.get(timeout=max(0.0, due - time.monotonic()) if rate and subscribed else 0.05)
                if names is None:
                    return
                subscribed += names
                yield response(number, names)
                number += 1
            except queue.Empty:
                pass
            if not rate:
                due = time.monotonic()
            while self.rate and subscribed and due <= time.monotonic():
                yield response(number, [subscribed[number % len(subscribed)]])
                number, due, self.sent = number + 1, due + 1 / self.rate, self.sent + 1


class Handler(grpc.GenericRpcHandler):
    def __init__(self, ads):
        self.ads = ads

    def service(self, details):
        if details.method.endswith("/DeltaAggregatedResources"):
            return grpc.stream_stream_rpc_method_handler(self.ads.serve)
        return None


ads = Ads()
server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((Handler(ads),))
assert server.add_insecure_port(f"127.0.0.1:{PORT}")
server.start()
for line in sys.stdin:
    began, sent, acknowledged = time.monotonic(), ads.sent, ads.acknowledged
    ads.rate = int(line)
    line = sys.stdin.readline()
    ads.rate = 0
    seconds = time.monotonic() - began
    end = time.monotonic() + 5
    while ads.acknowledged - acknowledged < ads.sent - sent and time.monotonic() < end:
        time.sleep(0.05)
    print(json.dumps({"seconds": seconds, "sent": ads.sent - sent, "acknowledged": ads.acknowledged - acknowledged,
                      "refused": ads.refused}), flush=True)
server.stop(None)
