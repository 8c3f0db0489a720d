//! DNS over TCP (RFC 7766): each message behind its length.

use super::server::{Service, answer};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections served at a time by one listener.
const CONNECTIONS_MAX: usize = 64;
/// Time for the next question on a connection, and for taking an answer (RFC 7766 section 6.2.3: some seconds).
const IDLE: Duration = Duration::from_secs(10);
/// Pause when accepting fails, such as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts for ever.
pub(super) async fn serve(service: Arc<Service>, listener: TcpListener) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // Those beyond wait in the system's queue.
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let service = service.clone();
                tokio::spawn(async move {
                    let _permit = permit;
                    if let Err(error) = converse(&service, stream).await {
                        tracing::debug!(listener = &*service.listener, error = %error, "dns connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::debug!(listener = &*service.listener, error = %error, "dns accept failed");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn converse(service: &Service, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let length = match within(stream.read_u16()).await {
            Ok(length) => usize::from(length),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut question = vec![0; length];
        within(stream.read_exact(&mut question)).await?;
        let Some(reply) = answer(service, &question, false).await else { return Ok(()) };
        let Ok(length) = u16::try_from(reply.len()) else { return Ok(()) };
        let mut framed = Vec::with_capacity(reply.len() + 2);
        framed.extend(length.to_be_bytes());
        framed.extend(reply);
        within(stream.write_all(&framed)).await?;
    }
}

async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(IDLE, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
