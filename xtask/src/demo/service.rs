//! The demo's applications: a small HTTP/1.1 service that answers with its name and version, and may call another first.
//!
//! `xtask demo-service LISTEN NAME [CALL-ADDRESS CALL-HOST]`. It knows nothing of the mesh.

use anyhow::Context;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;

/// Serves until SIGTERM. (The first process of a container has no default action for it.)
pub fn run(args: &[String]) -> anyhow::Result<()> {
    let [listen, name, rest @ ..] = args else {
        anyhow::bail!("demo-service LISTEN NAME [CALL-ADDRESS CALL-HOST]")
    };
    let call = match rest {
        [address, host] => Some((address.clone(), host.clone())),
        _ => None,
    };
    let app = Arc::new(App { name: name.clone(), call, idle: Mutex::new(Vec::new()) });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let listener = TcpListener::bind(listen).await.with_context(|| listen.clone())?;
        let mut terminate = signal(SignalKind::terminate())?;
        loop {
            let (stream, _) = tokio::select! {
                accepted = listener.accept() => accepted?,
                _ = terminate.recv() => return Ok(()),
            };
            let app = app.clone();
            tokio::spawn(async move {
                let _ = app.serve(stream).await;
            });
        }
    })
}

struct App {
    name: String,
    call: Option<(String, String)>,
    idle: Mutex<Vec<BufReader<TcpStream>>>,
}

impl App {
    async fn serve(&self, stream: TcpStream) -> anyhow::Result<()> {
        stream.set_nodelay(true)?;
        let mut peer = BufReader::new(stream);
        while let Some(head) = read_head(&mut peer).await? {
            let mut body = vec![0; content_length(&head)];
            peer.read_exact(&mut body).await?;
            let (status, text) = match &self.call {
                None => ("200 OK", format!("hello from {}\n", self.name)),
                Some(_) => match self.call_other().await {
                    Ok((200, text)) => ("200 OK", format!("{} heard: {text}", self.name)),
                    Ok((status, text)) => (
                        "502 Bad Gateway",
                        format!("{}: called service answered {status}: {text}", self.name),
                    ),
                    Err(error) => ("502 Bad Gateway", format!("{}: {error:#}\n", self.name)),
                },
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\nx-app: {}\r\ncontent-length: {}\r\n\r\n{text}",
                self.name,
                text.len()
            );
            peer.write_all(answer.as_bytes()).await?;
            if head.to_ascii_lowercase().contains("connection: close") {
                break;
            }
        }
        Ok(())
    }

    async fn call_other(&self) -> anyhow::Result<(u16, String)> {
        let (address, host) = self.call.as_ref().context("nobody to call")?;
        let kept = self.idle.lock().await.pop();
        let reused = kept.is_some();
        let first = match kept {
            Some(connection) => self.exchange(connection, host).await,
            None => self.exchange(BufReader::new(TcpStream::connect(address).await?), host).await,
        };
        match first {
            // A kept connection that the other side closed meanwhile: a GET may be sent again.
            Err(_) if reused => self.exchange(BufReader::new(TcpStream::connect(address).await?), host).await,
            other => other,
        }
    }

    async fn exchange(
        &self,
        mut connection: BufReader<TcpStream>,
        host: &str,
    ) -> anyhow::Result<(u16, String)> {
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n");
        connection.write_all(request.as_bytes()).await?;
        let head = read_head(&mut connection).await?.context("connection was closed")?;
        let mut body = vec![0; content_length(&head)];
        connection.read_exact(&mut body).await?;
        if !head.to_ascii_lowercase().contains("connection: close") {
            self.idle.lock().await.push(connection);
        }
        let status = head.get(9..12).and_then(|s| s.parse().ok()).context("answer is not HTTP")?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

/// Reads up to the empty line; `None` at the end of the connection.
async fn read_head(peer: &mut BufReader<TcpStream>) -> anyhow::Result<Option<String>> {
    let mut head = String::new();
    loop {
        let before = head.len();
        if peer.read_line(&mut head).await? == 0 {
            anyhow::ensure!(before == 0, "connection was cut");
            return Ok(None);
        }
        if head.get(before..) == Some("\r\n") {
            return Ok(Some(head));
        }
        anyhow::ensure!(head.len() < 64 << 10, "head is too long");
    }
}

fn content_length(head: &str) -> usize {
    head.lines()
        .filter_map(|l| l.split_once(':'))
        .find(|(n, _)| n.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, v)| v.trim().parse().ok())
        .unwrap_or(0)
}
