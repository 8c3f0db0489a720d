//! The applications of demo and scenarios: a small HTTP/1.1 service that answers with its name, and may call others first.
//!
//! `xtask demo-service LISTEN NAME [CALL-ADDRESS CALL-HOST]`. It knows nothing of the mesh. As applications do that want to be
//! seen in a trace, it hands on the headers of [`HANDED_ON`].
//!
//! | path | answer |
//! |---|---|
//! | `/call/HOST[:PORT]/PATH` | what HOST says to PATH, asked by the same method, behind its own name |
//! | `/headers` | the request as it came |
//! | `/slow/MILLISECONDS` | its name, later |
//! | any other | its name; with CALL-HOST what that says, behind its own name |

use anyhow::Context;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;

/// Headers that go on to whom is called: those of traces, and of who asks.
const HANDED_ON: [&str; 10] = [
    "traceparent",
    "tracestate",
    "x-request-id",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-sampled",
    "x-client-trace-id",
    "x-user",
    "x-marker",
];

/// Connections kept for each address called.
const IDLE_MAX: usize = 64;

/// Serves until SIGTERM. (The first process of a container has no default action for it.)
pub fn run(args: &[String]) -> anyhow::Result<()> {
    let [listen, name, rest @ ..] = args else {
        anyhow::bail!("demo-service LISTEN NAME [CALL-ADDRESS CALL-HOST]")
    };
    let call = match rest {
        [address, host] => Some((address.clone(), host.clone())),
        _ => None,
    };
    let app = Arc::new(App { name: name.clone(), call, idle: Mutex::default() });
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
    idle: Mutex<HashMap<String, Vec<BufReader<TcpStream>>>>,
}

/// A request to another service.
struct Call {
    address: String,
    host: String,
    method: String,
    path: String,
    handed_on: String,
}

impl App {
    async fn serve(&self, stream: TcpStream) -> anyhow::Result<()> {
        stream.set_nodelay(true)?;
        let mut peer = BufReader::new(stream);
        while let Some(head) = read_head(&mut peer).await? {
            let mut body = vec![0; content_length(&head)];
            peer.read_exact(&mut body).await?;
            let (status, text) = self.answer(&head).await;
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

    async fn answer(&self, head: &str) -> (&'static str, String) {
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap_or("GET"), words.next().unwrap_or("/"));
        if path == "/headers" {
            return ("200 OK", head.to_owned());
        }
        if let Some(wait) = path.strip_prefix("/slow/").and_then(|wait| wait.parse().ok()) {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            return ("200 OK", format!("hello from {}\n", self.name));
        }
        let (address, host, path) = match (path.strip_prefix("/call/"), &self.call) {
            (Some(rest), _) => {
                let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
                let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
                (address, host.to_owned(), format!("/{path}"))
            }
            (None, Some((address, host))) => (address.clone(), host.clone(), "/".to_owned()),
            (None, None) => return ("200 OK", format!("hello from {}\n", self.name)),
        };
        let call = Call { address, host, method: method.to_owned(), path, handed_on: handed_on(head) };
        match self.call_other(&call).await {
            Ok((200, text)) => ("200 OK", format!("{} heard: {text}", self.name)),
            Ok((status, text)) => {
                ("502 Bad Gateway", format!("{}: called service answered {status}: {text}", self.name))
            }
            Err(error) => ("502 Bad Gateway", format!("{}: {error:#}\n", self.name)),
        }
    }

    async fn call_other(&self, call: &Call) -> anyhow::Result<(u16, String)> {
        let open = || async {
            let stream = TcpStream::connect(&call.address).await.with_context(|| call.address.clone())?;
            stream.set_nodelay(true)?;
            anyhow::Ok(BufReader::new(stream))
        };
        // What may not be sent again is not sent on a connection that may have been closed meanwhile.
        let may_repeat = call.method == "GET";
        let kept = match may_repeat {
            true => self.idle.lock().await.get_mut(&call.address).and_then(Vec::pop),
            false => None,
        };
        let Some(kept) = kept else { return self.exchange(open().await?, call).await };
        match self.exchange(kept, call).await {
            Err(_) => self.exchange(open().await?, call).await,
            answered => answered,
        }
    }

    async fn exchange(
        &self,
        mut connection: BufReader<TcpStream>,
        call: &Call,
    ) -> anyhow::Result<(u16, String)> {
        let Call { address, host, method, path, handed_on } = call;
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{handed_on}content-length: 0\r\n\r\n");
        connection.write_all(request.as_bytes()).await?;
        let head = read_head(&mut connection).await?.context("connection was closed")?;
        let mut body = vec![0; content_length(&head)];
        connection.read_exact(&mut body).await?;
        if !head.to_ascii_lowercase().contains("connection: close") {
            let mut idle = self.idle.lock().await;
            let kept = idle.entry(address.clone()).or_default();
            if kept.len() < IDLE_MAX {
                kept.push(connection);
            }
        }
        let status = head.get(9..12).and_then(|s| s.parse().ok()).context("answer is not HTTP")?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

/// The lines of a head that go on.
fn handed_on(head: &str) -> String {
    let is_one = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default();
        HANDED_ON.iter().any(|known| known.eq_ignore_ascii_case(name))
    };
    head.lines().skip(1).filter(is_one).map(|line| format!("{line}\r\n")).collect()
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
