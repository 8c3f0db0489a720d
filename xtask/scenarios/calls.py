"""The five calls: each encrypted, steered, denied when policy says so, and visible."""
import contextlib, io, re, secrets
from collections import Counter
from common import FAILED, check
from hosts import HERE
from mesh import until
from topology import Wire

TLS_RECORD = re.compile(rb"^[\x14-\x17]\x03[\x01-\x03]")


class Call:
    """A way from a caller to a callee.

    `say(path, headers)` makes the caller call the callee; `hops` are the accounts on the way, the first one the caller's; `cables` is where its
    bytes pass: (device, namespace, names of the two hosts). `logs` and `metrics` are read at the last hop's "source" and "destination", as far as that
    side has them; `refused` are the two of whom one refuses the other when policy says so."""

    def __init__(self, name, say, hops, cables, logs, metrics, refused=None):
        self.name, self.say, self.hops, self.cables, self.logs, self.metrics = name, say, hops, cables, logs, metrics
        self.refused = refused or hops[-2:]


def spiffe(account):
    return f"spiffe://cluster.local/ns/payments/sa/{account}"


def policy(caller, callee):
    return open(f"{HERE}/mesh/deny.yaml").read().replace("CALLEE", callee).replace("CALLER", caller)


def works(call, seconds=30):
    answer = until(lambda: (lambda r: r if r[0] == 200 else None)(call.say("/", {})), seconds)
    check(f"{call.name}: answered", bool(answer), "" if answer else str(call.say("/", {})))
    return answer


def encrypted(call):
    """Nothing of a request can be read on the wire, and the callee is told who called, by certificate."""
    marker = secrets.token_hex(12)
    wires = [(Wire(device, where), pair) for device, where, pair in call.cables]
    answers = [call.say("/headers", {"x-marker": marker}) for _ in range(20)]
    seen_by_app = sum(marker in text for _, text in answers)
    check(f"{call.name}: the callee reads the marker", seen_by_app == 20, str(answers[0]) if seen_by_app < 20 else "")
    told = all(f"URI={spiffe(call.hops[-2])}" in text for _, text in answers)
    check(f"{call.name}: the callee is told who called", told, "" if told else answers[0][1][-600:])
    for wire, pair in wires:
        streams = wire.end().streams(*pair)
        bare = [key for key, data in streams.items() if marker.encode() in data or b"HTTP/1.1" in data]
        records = sum(bool(TLS_RECORD.match(data)) for data in streams.values())
        amount = sum(map(len, streams.values()))
        check(f"{call.name}: TLS and nothing else {'between ' + ' and '.join(pair) if pair else 'on ' + wire.device}", records >= 2 and not bare and amount > 2000,
              f"{len(streams)} directions, {records} of TLS, {amount} bytes" + (f", readable: {bare}" if bare else ""))


def steered(call, mesh):
    """By a header and by weight; then by other weights."""
    beta = Counter(call.say("/", {"x-user": "beta"})[1].rsplit(" ", 1)[-1].strip() for _ in range(30))
    check(f"{call.name}: a header decides", set(beta) == {"b-v2"}, str(dict(beta)))
    share = Counter(call.say("/", {})[1].rsplit(" ", 1)[-1].strip() for _ in range(200))
    check(f"{call.name}: a tenth goes to version 2", 5 <= share["b-v2"] <= 45 and sum(share.values()) == share["b-v1"] + share["b-v2"], str(dict(share)))


def denied(call, mesh):
    """The callee refuses this caller and nobody else; and takes it again."""
    status, answer = mesh.apply(policy(*call.refused))
    check(f"{call.name}: policy is accepted", status == 200, str(answer) if status != 200 else "")

    def refusals(times):
        return sum("403" in f"{answer[0]} {answer[1]}" for answer in (call.say("/", {}) for _ in range(times)))
    # Each instance hears of it in its own moment.
    until(lambda: refusals(10) == 10, 10)
    refused = refusals(20)
    check(f"{call.name}: denied", refused == 20, f"{refused} of 20, {call.say('/', {})}")
    mesh.call("DELETE", "/api/v1/resources/AuthorizationPolicy/payments/refuse")
    check(f"{call.name}: and taken again", bool(until(lambda: all(call.say("/", {})[0] == 200 for _ in range(10)), 10)))


def visible(call, collector):
    """Metrics, access log and trace at every hop."""
    trace, root = secrets.token_hex(16), secrets.token_hex(8)
    # Envoy wants the second header too: without it its own share decides, which is none here.
    status, text = call.say("/", {"traceparent": f"00-{trace}-{root}-01", "x-client-trace-id": "1"})
    check(f"{call.name}: answered with a trace", status == 200, text if status != 200 else "")
    pairs = list(zip(call.hops, call.hops[1:]))
    # Who sends makes a client's span, who receives a server's; a proxy with a span of each kind has the one in the other.
    wanted = [(f"{one}.payments", "client") for one, _ in pairs] + [(f"{other}.payments", "server") for _, other in pairs]
    spans = until(lambda: (lambda found: found if all(w in [f[:2] for f in found] for w in wanted) else None)(collector.of(trace)), 10) or collector.of(trace)
    parents, names = {own: parent for _, _, own, parent in spans}, [span[:2] for span in spans]

    def reaches_root(span):
        for _ in range(64):
            if span == root:
                return True
            span = parents.get(span)
        return False
    connected = bool(spans) and all(reaches_root(own) for own in parents)
    check(f"{call.name}: one trace over all hops", all(w in names for w in wanted) and connected, f"{len(spans)} spans: {names}")
    for side, account in (("source", call.hops[-2]), ("destination", call.hops[-1])):
        lines = until(lambda: [line for line in call.logs[side]() if line.get("trace_id") == trace], 5) or []
        check(f"{call.name}: access log of the {side}", any(line["response_code"] == 200 for line in lines), str(call.logs[side]()[-1:]) if not lines else "")
        principals = [f'source_principal="{spiffe(call.hops[-2])}"', f'destination_principal="{spiffe(call.hops[-1])}"', f'reporter="{side}"']
        # Envoy counts in its own way: its filter for these metrics is Istio's, not Envoy's.
        if side not in call.metrics:
            continue
        text = call.metrics[side]()
        found = [line for line in text.splitlines() if line.startswith("istio_requests_total") and all(p in line for p in principals)]
        check(f"{call.name}: metrics of the {side} name both", bool(found), "" if found else "\n".join(line for line in text.splitlines() if line.startswith("istio_requests_total"))[:2000])


def finds(name, judge, wanted):
    """The same check on something that is broken on purpose: it must say so."""
    before, said = len(FAILED), io.StringIO()
    with contextlib.redirect_stdout(said):
        judge()
    found = FAILED[before:]
    del FAILED[before:]
    check(f"check of the check: {name} is found", any(wanted in one for one in found), "" if found else said.getvalue()[-800:])


def checks_can_fail(world, call):
    """Without steering, without policy, without a collector, without TLS."""
    world.mesh.call("DELETE", "/api/v1/resources/VirtualService/payments/b")
    until(lambda: "b-v1" in call.say("/", {"x-user": "beta"})[1], 10)
    finds("a header that does not steer", lambda: steered(call, world.mesh), "a header decides")
    finds("a policy about somebody else", lambda: denied(Call(call.name, call.say, call.hops, [], {}, {}, ("nobody", call.hops[-1])), world.mesh), "denied")
    blind = type("Collector", (), {"of": lambda self, trace: [span for span in world.collector.of(trace) if span[0] != "a.payments"]})()
    finds("a trace with a hole", lambda: visible(call, blind), "one trace over all hops")
    world.apply("unprotected")

    def bare():
        return "URI=" not in call.say("/headers", {})[1]
    until(bare, 10)
    finds("a call in plaintext", lambda: encrypted(call), "TLS and nothing else")
    world.mesh.call("DELETE", "/api/v1/resources/PeerAuthentication/payments/b")
    world.mesh.call("DELETE", "/api/v1/resources/DestinationRule/payments/b")
    check("encrypted again", bool(until(lambda: not bare(), 10)))
