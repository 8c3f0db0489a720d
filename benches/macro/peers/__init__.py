"""The proxies, one file each. A peer has `commands(scenario, bench)`: one argument vector per hop, or None for a scenario
that it cannot serve."""

from . import caddy, envoy, floor, haproxy, nginx, outrigger, traefik

PEERS = {
    "outrigger": outrigger.mesh,  # every feature of the mesh on
    "outrigger-min": outrigger.minimal,  # a bare reverse proxy
    "envoy": envoy.mesh,  # the same file as outrigger
    "envoy-min": envoy.minimal,
    "haproxy": haproxy.commands,
    "nginx": nginx.commands,
    "traefik": traefik.commands,
    "caddy": caddy.commands,
    "floor": floor.commands,  # copies bytes: the least that a proxy can cost
}
