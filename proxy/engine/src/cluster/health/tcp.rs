//! Probes by a connection, and bytes on it.

use super::http::contains_in_order;
use super::probe::Stream;
use outrigger_traffic::config::TcpProbe;
use outrigger_traffic::health::Found;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What is looked through for the expected bytes.
const ANSWER_MAX: usize = 64 << 10;

/// Sends, and reads until everything expected was there. What never comes is for the caller's timeout, or for the host,
/// which closes.
pub(super) async fn ask(mut stream: Box<dyn Stream>, probe: &TcpProbe) -> io::Result<Found> {
    if !probe.send.is_empty() {
        stream.write_all(&probe.send).await?;
        stream.flush().await?;
    }
    let mut answer = Vec::new();
    while !contains_in_order(&answer, &probe.receive) {
        if answer.len() >= ANSWER_MAX || stream.read_buf(&mut answer).await? == 0 {
            return Ok(Found::Unreachable);
        }
    }
    Ok(Found::Healthy)
}
