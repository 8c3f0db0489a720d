//! The floor: copies bytes between a client and one connection of its own to the origin, and does nothing else. What it
//! costs per request is four system calls and their share of readiness: the least that a proxy can cost.

use crate::Failure;
use crate::net::{self, Got, Outbox, Poll};
use std::os::fd::OwnedFd;

/// Bytes copied at once.
const ROOM: usize = 64 << 10;

/// The listener's token; those of sockets are twice the pair's number, plus one for the upstream side.
const LISTENER: u64 = u64::MAX - 1;

struct Side {
    socket: OwnedFd,
    out: Outbox,
}

/// Copies until it is killed.
pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let port = |key: &str| -> Result<u16, Failure> {
        let value = args.iter().find_map(|arg| arg.strip_prefix(key)?.strip_prefix('='));
        Ok(value.ok_or_else(|| format!("{key}=PORT is needed"))?.parse()?)
    };
    let (listener, upstream) = (net::listen(port("listen")?)?, port("upstream")?);
    let mut poll = Poll::new(256)?;
    poll.add(&listener, LISTENER, false)?;
    let mut pairs: Vec<Option<[Side; 2]>> = Vec::new();
    let (mut room, mut ready) = (vec![0; ROOM], Vec::new());
    loop {
        poll.wait(1000, &mut ready);
        for event in &ready {
            if event.token == LISTENER {
                while let Some(client) = net::accept(&listener) {
                    let at = pairs.iter().position(Option::is_none).unwrap_or(pairs.len());
                    let token = at as u64 * 2;
                    let server = net::connect(upstream, at)?;
                    poll.add(&client, token, false)?;
                    poll.add(&server, token + 1, true)?;
                    let pair = [
                        Side { socket: client, out: Outbox::new(false) },
                        Side { socket: server, out: Outbox::new(true) },
                    ];
                    match pairs.get_mut(at) {
                        Some(slot) => *slot = Some(pair),
                        None => pairs.push(Some(pair)),
                    }
                }
                continue;
            }
            let Some(slot) = pairs.get_mut((event.token / 2) as usize) else { continue };
            if let Some(pair) = slot
                && !copy(&poll, event.token, event.readable, pair, &mut room)
            {
                *slot = None;
            }
        }
    }
}

/// Moves what came on one side to the other. False: over.
fn copy(poll: &Poll, token: u64, readable: bool, pair: &mut [Side; 2], room: &mut [u8]) -> bool {
    let [client, server] = pair;
    let (from, to, other) =
        if token.is_multiple_of(2) { (client, server, token + 1) } else { (server, client, token - 1) };
    if readable {
        match net::recv(&from.socket, room) {
            Got::Bytes(n) => {
                to.out.bytes.extend_from_slice(room.get(..n).unwrap_or_default());
                // A connection that does not stand yet has no room, and says so when it has.
                let Some(left) = to.out.send(&to.socket) else { return false };
                to.out.look(poll, &to.socket, other, left);
            }
            Got::Nothing => {}
            Got::End => return false,
        }
    }
    let Some(left) = from.out.send(&from.socket) else { return false };
    from.out.look(poll, &from.socket, token, left);
    true
}
