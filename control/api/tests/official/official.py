"""The official descriptors: every generated module of the packages xds-protos, opentelemetry-proto and
grpcio-health-checking that is installed for the running interpreter, in a descriptor pool.

xds-protos brings an old OTLP of its own; the folder in the variable OUTRIGGER_OTLP, or one that is made inside the
virtual environment, takes its place.
"""

import importlib
import importlib.util
import os
import pathlib
import subprocess
import sys
import types


def other_packages():
    """The folder with opentelemetry-proto and grpcio-health-checking, installed apart from the interpreter's own packages."""
    otlp = os.environ.get("OUTRIGGER_OTLP") or os.path.join(sys.prefix, "otlp")
    if not os.path.isdir(os.path.join(otlp, "opentelemetry")):
        wanted = ["opentelemetry-proto", "grpcio-health-checking"]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--target", otlp, *wanted], check=True)
    return otlp


def pool():
    """A pool with everything official that can be imported."""
    site = pathlib.Path(importlib.util.find_spec("xds").submodule_search_locations[0]).parent
    otlp = other_packages()
    module = types.ModuleType("opentelemetry")
    module.__path__ = [os.path.join(otlp, "opentelemetry")]
    sys.modules["opentelemetry"] = module
    sys.path.append(otlp)
    roots = [(site, r) for r in ("envoy", "xds", "udpa", "google/rpc")]
    roots += [(pathlib.Path(otlp), r) for r in ("opentelemetry/proto", "grpc_health")]
    for base, root in roots:
        for path in sorted((base / root).rglob("*_pb2.py")):
            name = ".".join(path.relative_to(base).with_suffix("").parts)
            if root == "envoy" and not ("/v3/" in str(path) or "/type/" in str(path) or "annotations" in str(path)):
                continue
            # What is built on other telemetry versions clashes with the newer OTLP and holds nothing of ours.
            if ("open_telemetry" in name and "access_loggers" not in name) or "opentelemetry/proto/profiles" in str(path):
                continue
            importlib.import_module(name)
    from google.protobuf import descriptor_pool

    return descriptor_pool.Default()


def ours(path):
    """Our descriptor set as a list of FileDescriptorProto."""
    from google.protobuf import descriptor_pb2

    files = descriptor_pb2.FileDescriptorSet()
    files.ParseFromString(pathlib.Path(path).read_bytes())
    return [f for f in files.file if not f.name.startswith(("google/protobuf/", "outrigger/"))]


def messages(files):
    """Every message of ours as (full name, descriptor), nested ones included."""

    def walk(prefix, message):
        name = f"{prefix}.{message.name}"
        yield name, message
        for nested in message.nested_type:
            yield from walk(name, nested)

    for file in files:
        for message in file.message_type:
            yield from walk(file.package, message)


def enums(files):
    """Every enumeration of ours as (full name, descriptor)."""
    for file in files:
        for enum in file.enum_type:
            yield f"{file.package}.{enum.name}", enum
    for name, message in messages(files):
        for enum in message.enum_type:
            yield f"{name}.{enum.name}", enum
