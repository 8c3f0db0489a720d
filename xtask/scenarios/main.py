#!/usr/bin/env python3
"""ECS Anywhere with everything that is real but AWS: hosts with a Docker and an agent each, tasks as the ECS agent starts them, a machine, an edge,
a Kubernetes workload behind Envoy. `main.py [calls] [failures] [--hand]`; with no word, all. Needs root; see docker/scenarios/README.md."""
import os, sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../peers"))
import topology  # noqa: E402

if os.geteuid():
    raise SystemExit("root is needed")
# Before any module starts a thread.
topology.build()
import functools, json, subprocess, time  # noqa: E402
from common import PROXY, WORK, check, finish, FAILED  # noqa: E402
from mesh import Mesh, until  # noqa: E402
from collector import Collector  # noqa: E402
from hosts import HERE, Host, Task, joined, picture  # noqa: E402
from topology import ask, at  # noqa: E402
import calls, failures, members  # noqa: E402

os.chmod(WORK, 0o755)
PUBLIC = "pay.example.com"


class World:
    """The mesh of the scenarios."""

    def __init__(self):
        began = time.time()
        self.secret, self.tls = members.public_certificate(PUBLIC)
        self.collector = Collector(at("control"))
        self.mesh = Mesh(at("control"), ["--access-log", "stdout", "--trace-collector", f"{at('control')}:{Collector.PORT}", "--trace-sampling", "0"])
        images = {"app": picture("app", members.APP, ["demo-service"]), "outrigger-proxy": picture("outrigger-proxy", PROXY, [], ['LABEL outrigger.io/captures="outbound dns"'])}
        self.one, self.two = Host("host1", live_restore=True), Host("host2", live_restore=False)
        for host in (self.one, self.two):
            host.images(**images)
            host.configure(self.mesh, ["a", "b"])
            host.start_agent()
        print(f"     {time.time() - began:.1f} s for hosts, dockers, agents and the control service", flush=True)

    def task(self, host, definition):
        task = Task(host, definition)
        took = joined(self.mesh, task)
        check(f"{definition} on {host.name}: in the mesh, with a sidecar", took is not None, f"{took:.1f} s" if took else open(host.agent.log_path).read()[-1500:])
        return task

    def apply(self, name, secret=""):
        """Resources as an operator wrote them, with a secret that was made for this run."""
        text = open(f"{HERE}/mesh/{name}.yaml").read() + (f"---\n{secret}\n" if secret else "")
        status, answer = self.mesh.apply(text)
        check(f"{name}.yaml is accepted", status == 200, str(answer) if status != 200 else "")


def by_name(where, path, headers, host="b.payments.mesh"):
    """A program calls by name. It is asked on its own loopback address, so that nothing of the asking is on any wire."""
    return ask(where() if callable(where) else where, "127.0.0.1", 8080, f"/call/{host}{path}", headers=headers)


def of_tasks(read, *tasks):
    return lambda: [line for task in tasks for line in read(task)]


def proxy_logs(process):
    """Access log of a proxy that is no container."""
    return lambda: [json.loads(line) for line in open(process.log_path, errors="replace") if line.startswith("{")]


def five_calls(world):
    a, b1 = world.task(world.one, "a"), world.task(world.one, "b-v1")
    b2 = world.task(world.two, "b-v2")
    metadata = ask(a.network(), "169.254.170.2", 80, f"/v4/{a.endpoint}/task")
    check("a task reads its metadata past redirection", metadata[0] == 200 and a.arn in metadata[1], "" if metadata[0] == 200 else str(metadata))
    legacy, edge, pod = members.machine(world.mesh), members.gateway(world.mesh), members.workload(world.mesh)
    for name, host in (("machine", "vm"), ("edge", "edge")):
        check(f"{name}: its proxy is ready", bool(members.ready(host)), "" if members.ready(host) else open(f"{WORK}/{host}-proxy.log").read()[-1500:])

    to_b = {"logs": {"destination": of_tasks(lambda t: t.logs(), b1, b2)}, "metrics": {"destination": lambda: b1.metrics() + "\n" + b2.metrics()}}

    def call(name, say, hops, cables, logs, metrics, refused=None):
        return calls.Call(name, say, hops, cables, {"source": logs} | to_b["logs"], ({"source": metrics} if metrics else {}) | to_b["metrics"], refused)
    wire = lambda one, other: (one, "switch", (one, other))
    user = lambda path, headers: ask("user", at("edge"), 8443, f"/call/b.payments.mesh{path}", host=PUBLIC, headers=headers, tls=world.tls)
    stats = lambda host: lambda: ask(host, "127.0.0.1", 15000, "/stats/prometheus")[1]
    # A header sends requests to the other host.
    same = call("1 same host", functools.partial(by_name, a.network), ["a", "b"], [("docker0", "host1", ())], a.logs, a.metrics)
    far = call("2 host to host", lambda path, headers: by_name(a.network, path, headers | {"x-user": "beta"}), ["a", "b"], [wire("host1", "host2")], a.logs, a.metrics)
    vm = call("3 machine to task", functools.partial(by_name, "vm"), ["legacy", "b"], [wire("vm", "host1")], proxy_logs(legacy), stats("vm"))
    end = call("4 end user to task", user, ["edge", "a", "b"], [wire("user", "edge"), wire("edge", "host1")], a.logs, a.metrics, ("edge", "a"))
    kube = call("5 Kubernetes to task", functools.partial(by_name, "cluster"), ["pod", "b"], [wire("cluster", "host1")], proxy_logs(pod), None)
    back = calls.Call("5 task to Kubernetes", functools.partial(by_name, a.network, host="pod.payments.mesh"), ["a", "pod"], [wire("host1", "cluster")],
                      {"source": a.logs, "destination": proxy_logs(pod)}, {"source": a.metrics})
    every = [same, far, vm, end, kube, back]
    world.apply("edge", secret=world.secret)
    for one in every:
        calls.works(one)
    world.apply("steering")
    until(lambda: all("b-v2" in far.say("/", {})[1] for _ in range(5)), 10)
    for one in every:
        print(f"--- {one.name}", flush=True)
        calls.encrypted(one)
        if one not in (far, back):
            calls.steered(one, world.mesh)
        calls.denied(one, world.mesh)
        calls.visible(one, world.collector)
    calls.checks_can_fail(world, same)
    check("nobody who is no member is let in", ask("user", at("host1"), b1.port())[0] == 0)
    return a, b1, b2


words = [word for word in sys.argv[1:] if not word.startswith("--")] or ["calls", "failures"]
world = World()
if "calls" in words:
    tasks = five_calls(world)
else:
    tasks = world.task(world.one, "a"), world.task(world.one, "b-v1"), world.task(world.two, "b-v2")
    members.gateway(world.mesh)
    world.apply("edge", secret=world.secret)
if "failures" in words:
    world.mesh.call("DELETE", "/api/v1/resources/VirtualService/payments/b")
    failures.run(world, tasks, world.tls, PUBLIC)
    print(failures.table(), flush=True)
for host in (world.one, world.two):
    print(f"     {host.name}: agent {host.agent_mb():.1f} MB", flush=True)
if FAILED:
    for host in (world.one, world.two):
        print(f"--- {host.name} agent\n" + open(host.agent.log_path).read()[-3000:], file=sys.stderr)
if "--hand" in sys.argv:
    print(f"control: {world.mesh.api}, token {world.mesh.token}; work in {WORK}", flush=True)
    subprocess.run(["bash"])
finish("scenarios")
