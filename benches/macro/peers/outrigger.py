"""Outrigger, one worker, with the very files and flags that Envoy gets."""

from . import envoy


def commands(scenario, bench, mesh):
    return envoy.commands(scenario, bench, mesh, "outrigger")


def mesh(scenario, bench):
    return commands(scenario, bench, True)


def minimal(scenario, bench):
    return commands(scenario, bench, False)
