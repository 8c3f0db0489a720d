"""The host agent against a real Docker: tasks started as the ECS agent starts them, found, given sidecars, redirected, given back.

Needs root, dockerd, nft, iptables and nsenter. Starts a dockerd of its own when none runs, and ends it."""
import atexit, http.client, json, os, re, shutil, subprocess, sys, threading, time, urllib.error, urllib.request
from common import WORK, check, finish, start, FAILED
from mesh import Mesh, until

AGENT, DEMO = os.environ["OUTRIGGER_AGENT"], os.environ["OUTRIGGER_XTASK"]
RUN = f"{os.getpid()}"
ECS = "com.amazonaws.ecs."
_containers, _images = [], []


def sh(*argv, check=True):
    done = subprocess.run(argv, capture_output=True, text=True)
    if check and done.returncode:
        raise SystemExit(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


@atexit.register
def _clean():
    ours = sh("docker", "ps", "-aq", "--filter", "label=outrigger.io/role=sidecar", check=False).split()
    for container in ours + _containers:
        sh("docker", "rm", "-f", container, check=False)
    for name in _images:
        sh("docker", "rmi", "-f", name, check=False)


class Dockerd:
    """Docker, where none runs yet."""

    def __init__(self):
        self.process = None
        if subprocess.run(["docker", "version"], capture_output=True).returncode:
            self.start()

    def start(self):
        self.process = start(["dockerd", "--data-root", f"{WORK}/docker", "--pidfile", f"{WORK}/dockerd.pid"], "dockerd")
        if not until(lambda: not subprocess.run(["docker", "version"], capture_output=True).returncode, 60):
            raise SystemExit("dockerd does not start: " + open(self.process.log_path).read()[-2000:])

    def restart(self):
        self.process.terminate()
        self.process.wait(60)
        self.start()


def image(name, program, arguments=()):
    """An image of one program and the libraries it is linked with."""
    folder = f"{WORK}/image-{name}"
    os.makedirs(folder)
    shutil.copy(program, f"{folder}/{name}")
    for library in re.findall(r"(/\S+) \(0x", sh("ldd", program, check=False)):
        os.makedirs(folder + os.path.dirname(library), exist_ok=True)
        shutil.copy(os.path.realpath(library), folder + library)
    entry = json.dumps([f"/{name}", *arguments])
    open(f"{folder}/Dockerfile", "w").write(f"FROM scratch\nCOPY . /\nENTRYPOINT {entry}\n")
    full = f"{name}:peers-{RUN}"
    sh("docker", "build", "-q", "-t", full, folder)
    _images.append(full)
    return full


def address():
    route = json.loads(sh("ip", "-j", "route", "get", "198.51.100.1"))[0]
    return route["prefsrc"]


class Task:
    """A container as the ECS agent starts it."""
    count = 0

    def __init__(self, picture, family, arguments, labels, publish=("8080",), extra=()):
        Task.count += 1
        self.task = f"{Task.count:032x}"
        self.arn = f"arn:aws:ecs:eu-west-1:123456789012:task/peers/{self.task}"
        ecs = {"cluster": "peers", "container-name": "app", "task-arn": self.arn, "task-definition-family": family, "task-definition-version": "1"}
        every = {ECS + key: value for key, value in ecs.items()} | {"outrigger.io/" + key: value for key, value in labels.items()}
        argv = ["docker", "run", "-d", "--name", f"ecs-{family}-1-app-{RUN}{Task.count:04x}"]
        argv += [word for key, value in every.items() for word in ("--label", f"{key}={value}")]
        argv += [word for port in publish for word in ("-p", port)] + list(extra)
        self.id = sh(*argv, picture, *arguments)
        _containers.append(self.id)

    def inspect(self):
        return json.loads(sh("docker", "inspect", self.id))[0]

    def port(self, target=8080):
        return int(self.inspect()["NetworkSettings"]["Ports"][f"{target}/tcp"][0]["HostPort"])

    def sidecars(self, running=False):
        argv = ["docker", "ps", "-q", "--no-trunc", "--filter", f"label=outrigger.io/for={self.id}"] + ([] if running else ["-a"])
        return sh(*argv).split()

    def healthy(self):
        for sidecar in self.sidecars(running=True):
            state = json.loads(sh("docker", "inspect", sidecar, check=False) or "[{}]")[0].get("State", {})
            if state.get("Health", {}).get("Status") == "healthy":
                return sidecar
        return None

    def inside(self, *argv):
        return sh("nsenter", "-t", str(self.inspect()["State"]["Pid"]), "-n", *argv, check=False)


def get(port, host="localhost", seconds=5):
    asked = urllib.request.Request(f"http://{ADDRESS}:{port}/", headers={"host": host})
    try:
        with urllib.request.urlopen(asked, timeout=seconds) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)


class Load(threading.Thread):
    """Asks until it is told to end; keeps what was not answered well."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.asked, self.bad, self.ended = port, 0, [], False
        self.start()

    def run(self):
        while not self.ended:
            status, text = get(self.port)
            self.asked += 1
            if status != 200:
                self.bad.append((time.time(), status, text[:120]))
            time.sleep(0.005)

    def end(self):
        self.ended = True
        self.join(10)
        return self.asked, self.bad


class Agent:
    """A running agent, and its settings."""

    def __init__(self, **settings):
        self.path, self.admin = f"{WORK}/agent.yaml", 15_000 + os.getpid() % 10_000
        self.settings, self.process = settings, None

    def write(self):
        every = {"adminAddress": f"127.0.0.1:{self.admin}", "stateDir": f"{WORK}/agent"} | self.settings
        json.dump(every, open(self.path, "w"))

    def run(self):
        self.write()
        self.process = start([AGENT, "run", "--config", self.path], "agent")
        health = [AGENT, "health", "--admin-address", f"127.0.0.1:{self.admin}"]
        check("the agent is ready", until(lambda: subprocess.run(health, capture_output=True).returncode == 0))

    def kill(self):
        self.process.kill()
        self.process.wait(10)

    def end(self):
        self.process.terminate()
        self.process.wait(10)

    def resident_mb(self):
        return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{self.process.pid}/status").read())[1]) / 1024

    def page(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=5) as answer:
            return answer.read().decode()

    def metric(self, name):
        return int(re.search(rf"^outrigger_agent_{name} (\d+)$", self.page("/metrics"), re.M)[1])

    def verb(self, *words):
        return subprocess.run([AGENT, *words, "--config", self.path], capture_output=True, text=True)


def instances(service):
    return [w["instanceId"] for w in MESH.call("GET", "/api/v1/workloads")[1]["items"] if w["service"] == service]


def joined(task, service, name):
    ok = until(lambda: task.healthy() and any(i.startswith(task.task) for i in instances(service)), 40)
    check(f"{name}: its sidecar is healthy and it is in the registry", ok, "" if ok else sh("tail", "-5", f"{WORK}/agent.log"))
    check(f"{name}: one sidecar", len(task.sidecars()) == 1, str(len(task.sidecars())))


def calls(times=20):
    """How many of so many calls host → a → (mesh) → b succeeded."""
    return sum(get(A.port())[0] == 200 for _ in range(times))


if os.geteuid():
    raise SystemExit("root is needed")
DOCKER = Dockerd()
ADDRESS = address()
MESH = Mesh(address=ADDRESS)
PROXY_IMAGE, APP_IMAGE = image("outrigger-proxy", os.environ["OUTRIGGER_PROXY"]), image("demo", DEMO, ["demo-service"])
for account in ("a", "b"):
    open(f"{WORK}/{account}.token", "w").write(MESH.join_token("shop", account))
agent = Agent(control=[f"{ADDRESS}:{MESH.port}"], trustBundle=MESH.root, namespace="shop", reconcileSeconds=5,
              sidecar={"image": PROXY_IMAGE, "drainSeconds": 5, "pull": False}, capture={"outbound": "on", "dns": "on"},
              identities=[{"namespace": "shop", "serviceAccount": n, "joinTokenFile": f"{WORK}/{n}.token"} for n in ("a", "b")])
b_labels = {"service": "b", "version": "v1", "port.http": "80:8080/http"}

# One task before the agent, one after it, and two that are none of its business.
B = Task(APP_IMAGE, "shop-b", ["0.0.0.0:8080", "b-v1"], b_labels)
alone = Task(APP_IMAGE, "shop-b", ["0.0.0.0:8080", "alone"], b_labels | {"inject": "false"})
wrong = Task(APP_IMAGE, "shop-x", ["0.0.0.0:8080", "x"], {"service": "x"})
agent.write()
rehearsed = agent.verb("run", "--dry-run")
check("a dry run says what it would do, and does nothing", "would make and start" in rehearsed.stdout and not B.sidecars(), rehearsed.stdout[-300:] + rehearsed.stderr[-300:])
agent.run()
joined(B, "b", "task that was there before the agent")
# It calls the service by its name, as any program does. Its own port is the test's way in.
A = Task(APP_IMAGE, "shop-a", ["0.0.0.0:8080", "a", "b.shop.mesh:80", "b.shop.mesh"], {"service": "a", "exclude-inbound-ports": "8080"})
began = time.time()
joined(A, "a", "task that was started after the agent")
print(f"     {time.time() - began:.1f} s from start to membership")
check("a container that wants no sidecar has none", not alone.sidecars())
check("a container that may not be who it wants to be has none", not wrong.sidecars())
check("and it is said why", "identity shop/x is not among" in agent.page("/containers"))

answer = until(lambda: (lambda r: r if r[0] == 200 else None)(get(A.port())), 20)
check("an unmodified application calls through the mesh, redirected on both sides", answer and "hello from b-v1" in answer[1], str(answer or get(A.port())))
# Another one calls an address that nobody has: only redirection can answer, by the host it names.
N = Task(APP_IMAGE, "shop-a", ["0.0.0.0:8080", "n", "198.51.100.7:80", "b.shop.mesh"], {"service": "a", "exclude-inbound-ports": "8080"})
joined(N, "a", "a caller by address")
answer = until(lambda: (lambda r: r if r[0] == 200 else None)(get(N.port())), 20)
check("a call to any address is routed by its host", answer and "hello from b-v1" in answer[1], str(answer or get(N.port())))
sh("docker", "rm", "-f", N.id)
until(lambda: len(os.listdir(f"{WORK}/agent/sidecar")) == 2, 20)
check("plaintext from outside the mesh is refused", get(B.port())[0] == 0, str(get(B.port())))
sidecar = json.loads(sh("docker", "inspect", B.healthy()))[0]
locked = sidecar["HostConfig"]["ReadonlyRootfs"] and sidecar["HostConfig"]["CapDrop"] == ["ALL"] and sidecar["Config"]["User"] == "1337:1337"
check("the sidecar is locked up", locked and sidecar["HostConfig"]["Memory"] == 128 << 20)
rules = B.inside("nft", "list", "table", "inet", "outrigger")
check("rules are in the task's namespace", "tcp dport 8080 redirect to :15006" in rules and "169.254.170.2 return" in rules, rules)
check("and not in the host's", "outrigger" not in sh("nft", "list", "tables"))
print(f"     agent: {agent.resident_mb():.1f} MB resident")
check("the agent needs less than 20 MB", agent.resident_mb() < 20, f"{agent.resident_mb():.1f} MB")

# The agent dies and comes back.
before = B.sidecars() + A.sidecars()
agent.kill()
check("without the agent calls go on", calls() == 20)
agent.run()
until(lambda: agent.metric("rules_installed_total") >= 2)
check("a new agent adopts what runs", B.sidecars() + A.sidecars() == before and agent.metric("sidecars_created_total") == 0)
check("and calls go on", calls() == 20)
second = agent.verb("run")
check("a second agent is refused", second.returncode != 0 and "another agent" in second.stderr, second.stderr[-200:])

# A sidecar that is killed comes back; meanwhile nothing passes by it.
sh("docker", "kill", B.healthy())
check("fail closed: without its sidecar the task is not reached in plaintext", get(B.port())[0] == 0)
check("a sidecar that was killed is started again", until(lambda: B.healthy() and calls(1) == 1, 30))

# The upgrade of all sidecars, under load.
old = set(B.sidecars() + A.sidecars())
load = Load(A.port())
agent.settings["sidecar"]["logLevel"] = "warning"
agent.end()
agent.run()
fresh = until(lambda: (lambda now: len(now) == 2 and not now & old)(set(B.sidecars() + A.sidecars())), 60)
asked, bad = load.end()
check("sidecars are upgraded", fresh, f"{B.sidecars()} {A.sidecars()}")
check(f"upgraded in place without a failed call (of {asked})", not bad and asked > 100, str(bad[:5]))

# Another instance comes, and one is stopped.
B2 = Task(APP_IMAGE, "shop-b", ["0.0.0.0:8080", "b-v2"], b_labels | {"version": "v2"})
joined(B2, "b", "second instance")
check("both are called", until(lambda: {get(A.port())[1] for _ in range(20)} >= {"a heard: hello from b-v1\n", "a heard: hello from b-v2\n"}, 20))
load, began = Load(A.port()), time.time()
gone = threading.Thread(target=lambda: sh("docker", "stop", B2.id))
gone.start()
left = until(lambda: not any(i.startswith(B2.task) for i in instances("b")) and time.time() - began, 10)
gone.join()
check("a task that is stopped is out of the registry at once", left and left < 3, f"{left or 0:.2f} s")
check("its sidecar goes with it", until(lambda: not B2.sidecars(), 20))
asked, bad = load.end()
print(f"     {asked} calls while it stopped, {len(bad)} failed {bad[:3]}")
sh("docker", "start", B2.id)
joined(B2, "b", "task that is started again, in a new namespace")
sh("docker", "kill", B2.id)
check("a task that is killed is out of the registry at once", until(lambda: not any(i.startswith(B2.task) for i in instances("b")), 5))

sh("docker", "rm", B2.id)
check("a task that is removed leaves no keys", until(lambda: len(os.listdir(f"{WORK}/agent/sidecar")) == 2), str(os.listdir(f"{WORK}/agent/sidecar")))

# Docker itself restarts.
if DOCKER.process is not None:
    agent_before = agent.process.pid
    DOCKER.restart()
    sh("docker", "start", A.id, B.id)
    joined(B, "b", "after a restart of docker")
    joined(A, "a", "after a restart of docker")
    check("calls go on after a restart of docker", until(lambda: calls() == 20, 20))
    check("the agent outlived it", agent.process.poll() is None and agent.metric("docker_reconnects_total") > 0)

# A task in host mode: nothing is redirected, its sidecar has ports of its own.
H = Task(APP_IMAGE, "shop-b", ["127.0.0.1:18080", "b-host"], b_labels | {"version": "host", "port.http": "80:18080/http"}, publish=(), extra=("--network", "host"))
joined(H, "b", "task in host mode")
check("a task in host mode is called", until(lambda: "a heard: hello from b-host\n" in {get(A.port())[1] for _ in range(20)}, 20))
settings = json.loads(sh("docker", "inspect", H.healthy()))[0]["Config"]["Env"]
out = int(next(e for e in settings if e.startswith("OUTRIGGER_OUTBOUND_PORT=")).split("=")[1])
asked = subprocess.run(["curl", "-s", "-H", "host: b.shop.mesh", f"http://127.0.0.1:{out}/"], capture_output=True, text=True).stdout
check("and calls by its sidecar's port", asked.startswith("hello from b-"), asked)
check("no rule is in the host's namespace", "outrigger" not in sh("nft", "list", "tables"))
sh("docker", "rm", "-f", H.id)
check("its sidecar goes with it", until(lambda: not H.sidecars(), 20))

# The control service is away while a task restarts whose port stays the same.
S = Task(APP_IMAGE, "shop-b", ["0.0.0.0:8080", "b-static"], b_labels | {"version": "static"}, publish=(f"{20_000 + os.getpid() % 10_000}:8080",))
joined(S, "b", "task with a port of its own choice")
check("it is called", until(lambda: "a heard: hello from b-static\n" in {get(A.port())[1] for _ in range(20)}, 20))
MESH.process.terminate()
MESH.process.wait(20)
was = S.sidecars()
sh("docker", "restart", "-t", "1", S.id)
check("without the control service a task that restarts gets a sidecar", until(lambda: S.healthy() and S.sidecars() != was, 30), str(S.sidecars()))
check("that serves from what is on disk", until(lambda: "a heard: hello from b-static\n" in {get(A.port())[1] for _ in range(20)}, 30))
MESH.again()
joined(S, "b", "after the control service came back")
sh("docker", "rm", "-f", S.id)

# All is given back; then once more with iptables.
agent.end()
given = agent.verb("offboard")
check("offboarding succeeds", given.returncode == 0, given.stderr[-500:])
check("no sidecar is left", not B.sidecars() and not A.sidecars())
check("no rule is left", not B.inside("nft", "list", "tables").count("outrigger"))
check("the application is as it was", get(B.port())[1] == "hello from b-v1\n", str(get(B.port())))
agent.settings["capture"]["tool"] = "iptables"
agent.run()
joined(B, "b", "with iptables")
joined(A, "a", "with iptables")
check("calls are redirected by iptables", until(lambda: calls() == 20, 20))
check("in two chains of our own", "OUTRIGGER_INBOUND -p tcp -m tcp --dport 8080 -j REDIRECT --to-ports 15006" in B.inside("iptables", "-t", "nat", "-S"), B.inside("iptables", "-t", "nat", "-S"))
agent.end()
check("offboarding removes them", agent.verb("offboard").returncode == 0 and "OUTRIGGER" not in B.inside("iptables", "-t", "nat", "-S"))

# The same agent as a container, with no more than it needs; rules are written with the host's programs.
agent.settings["capture"]["tool"] = "nft"
agent.write()
flags = ["--network", "host", "--pid", "host", "--read-only", "--cap-drop", "ALL", "--security-opt", "apparmor=unconfined", "--memory", "64m"]
for capability in ["SYS_ADMIN", "NET_ADMIN", "NET_RAW", "SYS_PTRACE", "SYS_CHROOT", "CHOWN", "DAC_OVERRIDE", "FOWNER"]:
    flags += ["--cap-add", capability]
passed_on = ":rslave" if "shared" in sh("findmnt", "-no", "PROPAGATION", "/") else ""
mounts = ["-v", "/var/run/docker.sock:/var/run/docker.sock", "-v", f"{WORK}:{WORK}", "-v", "/:/host" + passed_on]
boxed = sh("docker", "run", "-d", *flags, *mounts, image("agent", AGENT), "run", "--config", agent.path)
_containers.append(boxed)
C = Task(APP_IMAGE, "shop-b", ["0.0.0.0:8080", "b-v3"], b_labels | {"version": "v3"})
joined(C, "b", "task of an agent in a container")
joined(A, "a", "the caller, of the agent in a container")
print("     " + subprocess.run(["docker", "logs", "--tail", "8", boxed], capture_output=True, text=True).stderr.replace("\n", "\n     "))
check("redirected with the host's nft", "redirect to :15006" in C.inside("nft", "list", "table", "inet", "outrigger"), sh("docker", "logs", "--tail", "5", boxed, check=False))
check("and called", until(lambda: "a heard: hello from b-v3\n" in {get(A.port())[1] for _ in range(20)}, 20))
sh("docker", "stop", boxed)
check("offboarding removes all of the agent in a container", agent.verb("offboard").returncode == 0 and not C.sidecars())
if FAILED:
    print(open(f"{WORK}/agent.log").read()[-6000:], file=sys.stderr)
finish("agent")
