"""Processes, cores, counters of the kernel, certificates: everything between the scenarios and the machine."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time

CORE_PROXY, CORE_LOAD = 0, 1


class Bench:
    """A working folder, certificates, and where the programs are."""

    def __init__(self, work, programs):
        self.work = os.path.abspath(work)
        self.certs = self.work + "/certs"
        self.programs = programs
        os.makedirs(self.work, exist_ok=True)

    def program(self, name):
        return self.programs[name]

    def write(self, name, content):
        """A file in the working folder: text, or JSON of anything else."""
        path = f"{self.work}/{name}"
        with open(path, "w") as file:
            file.write(content if isinstance(content, str) else json.dumps(content))
        return path

    def make_certificates(self):
        """An authority; `app` (the server) and `client`, each with a SPIFFE id. ECDSA P-256, as in the mesh."""
        if os.path.exists(self.certs + "/client.both"):
            return
        os.makedirs(self.certs, exist_ok=True)

        def sh(command):
            subprocess.run(command, shell=True, check=True, cwd=self.certs, stderr=subprocess.DEVNULL)

        new = "openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out"
        sh(f"{new} ca.key; openssl req -x509 -new -key ca.key -subj /CN=ca -days 3650 -out ca.pem "
           "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign")
        spiffe = "spiffe://mesh/ns/default/sa/"
        for name, names in (("app", f"DNS:app.mesh,URI:{spiffe}app"), ("client", f"URI:{spiffe}client")):
            sh(f"{new} {name}.key; openssl req -new -key {name}.key -subj /CN={name} -out {name}.csr; "
               f"printf 'subjectAltName={names}\\nextendedKeyUsage=serverAuth,clientAuth\\n' > {name}.ext; "
               f"openssl x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -extfile {name}.ext "
               f"-out {name}.pem; cat {name}.pem {name}.key > {name}.both")

    def tls_load(self):
        """Options of the load for mutual TLS."""
        return [f"ca={self.certs}/ca.pem", f"cert={self.certs}/client.pem", f"key={self.certs}/client.key", "sni=app.mesh"]

    def start(self, argv, core, **options):
        """A process on one core (or several: "0,1"), which ends when we do."""
        command = ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", str(core), *argv]
        with open(self.work + "/errors.log", "a") as errors:
            return subprocess.Popen(command, env=os.environ | {"GOMAXPROCS": "1"}, cwd=self.work, stdin=options.get("stdin", subprocess.DEVNULL),
                                    stdout=options.get("stdout", subprocess.DEVNULL), stderr=errors, text=True)


def isolate():
    """Runs us again in a network namespace of our own, where we may have one: no firewall hooks, no port clashes, and a
    congestion control without pacing timers. Says so where we may not."""
    if "BENCH_NAMESPACE" in os.environ:
        return
    if shutil.which("unshare") and not subprocess.run(["unshare", "-n", "true"], stderr=subprocess.DEVNULL).returncode:
        setup = ("ip link set lo up; sysctl -qw net.ipv4.tcp_congestion_control=reno "
                 'net.ipv4.ip_local_port_range="2000 28000" net.ipv4.tcp_max_syn_backlog=8192; exec "$@"')
        os.execvpe("unshare", ["unshare", "-n", "sh", "-c", setup, "sh", sys.executable, *sys.argv],
                   os.environ | {"BENCH_NAMESPACE": "1"})
    print("no network namespace of our own (needs root): other traffic of this machine may disturb", file=sys.stderr)


def stop(process):
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def tree(pid):
    """A process and all below it."""
    found = [pid]
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children") as file:
            for child in file.read().split():
                found += tree(int(child))
    return found


def status_kb(pids, field):
    """Sum of a field of /proc/PID/status in KiB, such as VmRSS."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/status") as file:
            total += sum(int(line.split()[1]) for line in file if line.startswith(field + ":"))
    return total


def wait_port(port, process=None, seconds=60):
    """Until somebody listens; fails when `process` ends first."""
    end = time.time() + seconds
    while time.time() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process and process.poll() is not None:
            raise RuntimeError(f"{process.args[6]} ended with {process.returncode} before it listened")
        time.sleep(0.02)
    raise RuntimeError(f"port {port} did not open")


def busy_seconds():
    """Seconds that our two cores worked for anybody (niced work and idling apart)."""
    ticks = 0
    with open("/proc/stat") as file:
        for line in file:
            if line[:3] == "cpu" and line[3:5].strip() in (str(CORE_PROXY), str(CORE_LOAD)):
                user, _, system, _, _, irq, softirq, steal = map(int, line.split()[1:9])
                ticks += user + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids):
    """Seconds on a core of every thread of these processes, by the scheduler's nanosecond counters."""
    total = 0
    for pid in pids:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/schedstat") as file:
                total += int(file.read().split()[0])
    return total / 1e9


def realtime(pids, on):
    """FIFO scheduling for latency runs, so that other people's processes do not make our tail. False: not allowed."""
    try:
        for pid in pids:
            for task in os.listdir(f"/proc/{pid}/task"):
                os.sched_setscheduler(int(task), os.SCHED_FIFO if on else os.SCHED_OTHER, os.sched_param(int(on)))
    except PermissionError:
        return False
    return True
