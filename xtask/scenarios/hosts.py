"""ECS Anywhere hosts: a Docker each, an ECS agent as far as a task sees of it, an outrigger-agent; and the tasks on them."""
import glob, http.server, json, os, re, secrets, shutil, subprocess, threading, time
from common import WORK, start
from mesh import until
from topology import ask, at, inside, network_of, sh

AGENT = os.environ["OUTRIGGER_AGENT"]
HERE = os.path.join(os.path.dirname(__file__), "../../docker/scenarios")
CLUSTER, REGION, ACCOUNT = "scenarios", "eu-central-1", "123456789012"
METADATA, METADATA_PORT = "169.254.170.2", 51679


def picture(name, program, arguments=(), lines=()):
    """A folder for `docker build`: one program and the libraries it is linked with."""
    folder = f"{WORK}/image-{name}"
    os.makedirs(folder, exist_ok=True)
    shutil.copy(program, f"{folder}/{name}")
    for library in re.findall(r"(/\S+) \(0x", sh("ldd", program, check=False)):
        os.makedirs(folder + os.path.dirname(library), exist_ok=True)
        shutil.copy(os.path.realpath(library), folder + library)
    entry = json.dumps([f"/{name}", *arguments])
    open(f"{folder}/Dockerfile", "w").write("\n".join(["FROM scratch", "COPY . /", f"ENTRYPOINT {entry}", *lines, ""]))
    return folder


class Host:
    """One host. `live_restore`: its containers outlive its docker."""

    def __init__(self, name, live_restore):
        self.name, self.live_restore, self.tasks = name, live_restore, {}
        self.folder = f"{WORK}/{name}"
        os.makedirs(self.folder)
        self.socket = f"unix://{self.folder}/docker.sock"
        self.dockerd = self.agent = None
        self.start_docker()
        self.start_metadata()

    def docker(self, *argv, check=True):
        return sh("docker", "-H", self.socket, *argv, check=check)

    def start_docker(self):
        argv = ["dockerd", "--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec", "--pidfile", f"{self.folder}/dockerd.pid",
                "-H", self.socket, *(["--live-restore"] if self.live_restore else [])]
        self.dockerd = start(inside(self.name, *argv), f"{self.name}-dockerd")
        if not until(lambda: subprocess.run(["docker", "-H", self.socket, "version"], capture_output=True).returncode == 0, 60):
            raise SystemExit("dockerd does not start: " + open(self.dockerd.log_path).read()[-2000:])

    def restart_docker(self):
        self.dockerd.terminate()
        self.dockerd.wait(90)
        self.start_docker()

    def images(self, **folders):
        for name, folder in folders.items():
            self.docker("build", "-q", "-t", f"{name}:scenarios", folder)

    def start_metadata(self):
        """What ecs-init sets up: tasks ask 169.254.170.2, the host's ECS agent answers."""
        rules = inside(self.name, "iptables", "-t", "nat")
        sh(*inside(self.name, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet"))
        sh(*rules, "-A", "PREROUTING", "-p", "tcp", "-d", METADATA, "--dport", "80", "-j", "DNAT", "--to-destination", f"127.0.0.1:{METADATA_PORT}")
        sh(*rules, "-A", "OUTPUT", "-d", METADATA, "-p", "tcp", "--dport", "80", "-j", "REDIRECT", "--to-ports", str(METADATA_PORT))
        host = self

        class Answers(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                found = re.fullmatch(r"/v4/([0-9a-f-]+)(/task)?", self.path)
                task = found and next((t for t in host.tasks.values() if t.endpoint == found[1]), None)
                body = json.dumps((task.task_json() if found[2] else task.container_json()) if task else {}).encode()
                self.send_response(200 if task else 404)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        with network_of(self.name):
            server = http.server.ThreadingHTTPServer(("127.0.0.1", METADATA_PORT), Answers)
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def configure(self, mesh, accounts, **settings):
        """The agent's settings, and a join token for each identity its tasks may have."""
        self.settings = json.load(open(f"{HERE}/agent.json")) | settings
        self.settings |= {"control": [f"{mesh.address}:{mesh.port}"], "trustBundle": mesh.root, "docker": f"{self.folder}/docker.sock",
                          "stateDir": f"{self.folder}/agent", "identities": []}
        for account in accounts:
            path = f"{self.folder}/{account}.token"
            open(path, "w").write(mesh.join_token("payments", account))
            self.settings["identities"].append({"namespace": "payments", "serviceAccount": account, "joinTokenFile": path})

    def start_agent(self):
        path = f"{self.folder}/agent.json"
        json.dump(self.settings, open(path, "w"))
        self.agent = start(inside(self.name, AGENT, "run", "--config", path), f"{self.name}-agent")
        if not until(lambda: ask(self.name, "127.0.0.1", 15090, "/ready")[0] == 200, 30):
            raise SystemExit(f"{self.name}: agent is not ready: " + open(self.agent.log_path).read()[-2000:])

    def stop_agent(self):
        self.agent.terminate()
        self.agent.wait(20)

    def agent_mb(self):
        return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{self.agent.pid}/status").read())[1]) / 1024


class Task:
    """A task with one container, started from its definition as the ECS agent starts it."""

    def __init__(self, host, definition, environment=None):
        self.host, self.definition = host, json.load(open(f"{HERE}/tasks/{definition}.json"))
        self.container = self.definition["containerDefinitions"][0]
        family, name = self.definition["family"], self.container["name"]
        self.task, self.endpoint = secrets.token_hex(16), f"{secrets.token_hex(16)}-{secrets.randbelow(10**10):010}"
        self.arn = f"arn:aws:ecs:{REGION}:{ACCOUNT}:task/{CLUSTER}/{self.task}"
        self.docker_name = f"ecs-{family}-1-{name}-{secrets.token_hex(10)}"
        ecs = {"cluster": CLUSTER, "container-name": name, "task-arn": self.arn, "task-definition-family": family, "task-definition-version": "1"}
        self.labels = {f"com.amazonaws.ecs.{key}": value for key, value in ecs.items()} | self.container.get("dockerLabels", {})
        given = {"AWS_EXECUTION_ENV": "AWS_ECS_EC2", "ECS_AGENT_URI": f"http://{METADATA}/api/{self.endpoint}", "ECS_CONTAINER_METADATA_URI": f"http://{METADATA}/v3/{self.endpoint}",
                 "ECS_CONTAINER_METADATA_URI_V4": f"http://{METADATA}/v4/{self.endpoint}", "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION}
        given |= {pair["name"]: pair["value"] for pair in self.container.get("environment", [])} | (environment or {})
        argv = ["run", "-d", "--name", self.docker_name, "--memory", f"{self.container['memory']}m"]
        argv += [word for key, value in self.labels.items() for word in ("--label", f"{key}={value}")]
        argv += [word for key, value in given.items() for word in ("--env", f"{key}={value}")]
        for mapping in self.container.get("portMappings", []):
            target, published = mapping["containerPort"], mapping.get("hostPort", 0)
            argv += ["-p", f"0.0.0.0:{published or ''}:{target}"]
        self.id = host.docker(*argv, self.container["image"], *self.container.get("command", []))
        host.tasks[self.id] = self

    def inspect(self):
        return json.loads(self.host.docker("inspect", self.id))[0]

    def network(self):
        return f"/proc/{self.inspect()['State']['Pid']}/ns/net"

    def port(self, target=8080):
        return int(self.inspect()["NetworkSettings"]["Ports"][f"{target}/tcp"][0]["HostPort"])

    def sidecars(self):
        return self.host.docker("ps", "-q", "--no-trunc", "--filter", f"label=outrigger.io/for={self.id}").split()

    def healthy(self):
        for sidecar in self.sidecars():
            state = json.loads(self.host.docker("inspect", sidecar, check=False) or "[{}]")[0].get("State", {})
            if state.get("Health", {}).get("Status") == "healthy":
                return sidecar
        return None

    def logs(self):
        """What its sidecars wrote: lines of the access log, parsed."""
        lines = "\n".join(self.host.docker("logs", sidecar, check=False) for sidecar in self.sidecars()).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def metrics(self):
        admin = self.admin_port()
        return ask(self.network(), "127.0.0.1", admin, "/stats/prometheus")[1]

    def admin_port(self):
        environment = json.loads(self.host.docker("inspect", self.sidecars()[0]))[0]["Config"]["Env"]
        return int(next(e for e in environment if e.startswith("OUTRIGGER_ADMIN_ADDRESS=")).rsplit(":", 1)[1])

    def sidecar_mb(self):
        pid = json.loads(self.host.docker("inspect", self.sidecars()[0]))[0]["State"]["Pid"]
        return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read())[1]) / 1024

    def container_json(self):
        """The answer at ECS_CONTAINER_METADATA_URI_V4."""
        seen = self.inspect()
        ports = [{"ContainerPort": int(key.split("/")[0]), "Protocol": "tcp", "HostPort": int(found[0]["HostPort"]), "HostIp": found[0]["HostIp"]}
                 for key, found in seen["NetworkSettings"]["Ports"].items() if found]
        return {"DockerId": self.id, "Name": self.container["name"], "DockerName": self.docker_name, "Image": self.container["image"], "ImageID": seen["Image"],
                "Ports": ports, "Labels": self.labels, "DesiredStatus": "RUNNING", "KnownStatus": "RUNNING", "Limits": {"CPU": 2, "Memory": self.container["memory"]},
                "CreatedAt": seen["Created"], "StartedAt": seen["State"]["StartedAt"], "Type": "NORMAL",
                "Networks": [{"NetworkMode": "bridge", "IPv4Addresses": [seen["NetworkSettings"]["IPAddress"]]}]}

    def task_json(self):
        return {"Cluster": CLUSTER, "TaskARN": self.arn, "Family": self.definition["family"], "Revision": "1", "DesiredStatus": "RUNNING", "KnownStatus": "RUNNING",
                "LaunchType": "EXTERNAL", "AvailabilityZone": "", "Containers": [self.container_json()]}


def joined(mesh, task):
    """Waits until a task has a healthy sidecar and is in the registry; the seconds it took."""
    began = time.time()

    def is_in():
        return task.healthy() and any(w["instanceId"].startswith(task.task) for w in mesh.call("GET", "/api/v1/workloads")[1]["items"])
    return time.time() - began if until(is_in, 60) else None
