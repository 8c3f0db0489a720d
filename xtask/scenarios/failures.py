"""What fails when something ends: each under load, each request counted."""
import threading, time
from common import check
from hosts import joined
from load import Load, answered_by, failed, kinds
from mesh import until
from topology import cut, heal

ROWS = []


# Accepted by a program that ended without finishing it, and nothing that may be done twice: no mesh can save such a request.
IN_HAND = "connection termination"
IN_HAND_MAX = 2


class Trial:
    """One row of the table: what is done under load, and how many requests may fail (beside those in the hand of a program that ends)."""

    def __init__(self, load, name, allowed, settle=2.0):
        self.load, self.name, self.allowed, self.settle = load, name, allowed, settle

    def __enter__(self):
        self.load.take()
        time.sleep(1.0)
        return self

    def __exit__(self, kind, error, trace):
        if kind:
            return
        time.sleep(self.settle)
        records = self.load.take()
        lost, slowest = failed(records), max((record[1] for record in records), default=0)
        posts = sum(record[2] == "POST" for record in lost)
        ROWS.append((self.name, len(records), len(lost), len(lost) - posts, posts, self.allowed, slowest))
        in_hand = sum(record[2] == "POST" and IN_HAND in record[4] for record in lost)
        detail = f"{len(records)} requests, {len(lost)} failed, slowest {slowest:.2f} s, answered by {dict(answered_by(records))}"
        check(f"{self.name}: at most {self.allowed} fail", len(lost) - min(in_hand, IN_HAND_MAX) <= self.allowed and len(records) > 200, detail)
        for text, times in kinds(records).most_common(6):
            print(f"     {times} × {text}", flush=True)


def both_answer(load):
    def seen():
        load.take()
        time.sleep(0.4)
        return {"b-v1", "b-v2"} <= set(answered_by(load.take()))
    return bool(until(seen, 30))


def table():
    lines = ["| what happens | requests | failed | of them GET | POST | promised | slowest |", "|---|---|---|---|---|---|---|"]
    lines += [f"| {name} | {sent} | {lost} | {gets} | {posts} | {'none' if allowed == 0 else f'at most {allowed}'} | {slowest:.2f} s |" for name, sent, lost, gets, posts, allowed, slowest in ROWS]
    return "\n".join(lines)


def run(world, tasks, tls, host):
    """`tasks`: a and b-v1 on host 1, b-v2 on host 2."""
    a, b1, b2 = tasks
    load = Load(tls, host, "/call/b.payments.mesh/")
    # Requests under way at a time: as many as there are users.
    under_way = len(load.users)
    check("load: both instances answer", both_answer(load))
    with Trial(load, "nothing", 0):
        time.sleep(3)

    with Trial(load, "a task is stopped (`docker stop`; its program ends at once)", 0):
        world.two.docker("stop", "-t", "30", b2.id)
    b2 = world.task(world.two, "b-v2")
    check("load: the new task answers", both_answer(load))

    with Trial(load, "a task moves to the other host, with another port", 0, settle=3.0):
        moved = world.task(world.two, "b-v1")
        world.one.docker("stop", "-t", "30", b1.id)
    b1 = world.task(world.one, "b-v1")
    world.two.docker("stop", "-t", "5", moved.id)
    check("load: all is as it was", both_answer(load))

    with Trial(load, "a task is killed", under_way):
        world.two.docker("kill", b2.id)
    b2 = world.task(world.two, "b-v2")
    check("load: the new task answers", both_answer(load))

    with Trial(load, "a sidecar is killed", under_way):
        world.two.docker("kill", b2.sidecars()[0])
        joined(world.mesh, b2)
    check("load: both answer", both_answer(load))

    with Trial(load, "all sidecars are upgraded in place", 0, settle=3.0):
        old = {sidecar for task in (a, b1, b2) for sidecar in task.sidecars()}
        for place in (world.one, world.two):
            place.stop_agent()
            place.settings["sidecar"]["logLevel"] = "warning"
            place.start_agent()
        fresh = until(lambda: not old & {s for task in (a, b1, b2) for s in task.sidecars()} and all(task.healthy() for task in (a, b1, b2)), 60)
        check("sidecars are new", bool(fresh))

    with Trial(load, "both agents are killed and started again", 0):
        for place in (world.one, world.two):
            place.agent.kill()
            place.agent.wait(10)
        time.sleep(2)
        for place in (world.one, world.two):
            place.start_agent()

    with Trial(load, "docker restarts on host 1, with live-restore", 0, settle=4.0):
        world.one.restart_docker()
    check("the tasks of host 1 ran on", all(joined(world.mesh, task) is not None for task in (a, b1)))

    with Trial(load, "docker restarts on host 2, without live-restore", under_way, settle=3.0):
        world.two.restart_docker()
        # The ECS agent starts a new task for the one that ended.
        b2 = world.task(world.two, "b-v2")
    check("load: both answer after docker's restart", both_answer(load))

    with Trial(load, "the control service is away, and a task restarts in the meantime", under_way, settle=3.0):
        world.mesh.process.kill()
        world.mesh.process.wait(10)
        time.sleep(2)
        world.one.docker("restart", "-t", "5", b1.id)
        check("the restarted task has a sidecar", bool(until(b1.healthy, 30)))
        time.sleep(2)
    with Trial(load, "the control service comes back", 0, settle=4.0):
        world.mesh.again()
        joined(world.mesh, b1)
    check("load: both answer after the control service came back", both_answer(load))

    # Without a policy a request waits for a host that has fallen silent, up to the route's timeout of 15 s: none fails when the network is
    # back in time. With one, a GET goes elsewhere after a second, a POST that may have arrived fails, and soon nobody asks that host any more.
    for what, prepare, allowed in (("", None, under_way), (", with a policy for that", "resilience", 2 * under_way)):
        if prepare:
            world.apply(prepare)
            time.sleep(1)
        with Trial(load, f"the network between the hosts is cut for 10 s, and heals{what}", allowed, settle=6.0):
            cut("host1", "host2")
            time.sleep(10)
            heal("host1", "host2")
        check(f"load: both answer after the network healed{what}", both_answer(load))
    load.end()
    return b1, b2
