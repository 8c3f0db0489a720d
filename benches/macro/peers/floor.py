"""What copying bytes costs without looking at them: `outrigger-load floor`."""

from scenario import hops


def commands(scenario, bench):
    if scenario.get("hop"):
        return None
    ((port, protocol_in, tls_in, upstream, protocol_out, _),) = hops(scenario)
    if tls_in or protocol_in != protocol_out:
        return None
    return [[bench.program("load"), "floor", f"listen={port}", f"upstream={upstream}"]]
