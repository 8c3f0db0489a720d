"""Envoy, one worker. `mesh` has the features of features.py on."""

from . import features


def commands(scenario, bench, mesh, program="envoy"):
    files = [bench.write(f"envoy-{'mesh' if mesh else 'min'}-{n}.json", document)
             for n, document in enumerate(features.configurations(scenario, bench, mesh))]
    return [[bench.program(program), "-c", file, *FLAGS] for file in files]


# Outrigger takes the same ones.
FLAGS = ["--concurrency", "1", "-l", "error", "--disable-hot-restart"]


def mesh(scenario, bench):
    return commands(scenario, bench, True)


def minimal(scenario, bench):
    return commands(scenario, bench, False)
