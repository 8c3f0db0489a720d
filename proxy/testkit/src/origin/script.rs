//! What an origin does, by path.
//!
//! | path | what happens |
//! |---|---|
//! | `/status/N` | that status, body `status N` (none for 204 and 304) |
//! | `/bytes/N` | N bytes `x` with `content-length` |
//! | `/chunked/N` | N chunks `chunk` |
//! | `/slow/N/MS` | N chunks `chunk`, MS milliseconds before each |
//! | `/delay/MS` | 200 after MS milliseconds |
//! | `/hang` | nothing, ever |
//! | `/close` | 200 and `connection: close` |
//! | `/hangup` | 200, then the connection is closed unannounced |
//! | `/abort` | the connection is dropped in the middle of the response (h2: the stream is reset) |
//! | `/reset` | the connection is dropped before the response (h2: the stream is reset) |
//! | `/refuse` | h2: the stream is refused (`REFUSED_STREAM`); h1: as `/reset` |
//! | `/echo` | 200, JSON: `method`, `target`, `version`, `headers` (list of pairs), `body`, `trailers` |
//! | `/body` | 200, the request's body; its trailers too |
//! | `/count` | 200, the length of the request's body in decimal |
//! | `/trailers` | chunks, then trailer `x-check: done` |
//! | `/grpc/N` | `content-type: application/grpc`, trailers `grpc-status: N`, `grpc-message: scripted` |
//! | `/grpc-only/N` | the same in the head alone (h2: END_STREAM on HEADERS) |
//! | `/flaky/KEY/N/STATUS` | STATUS for the first N requests with this KEY, then 200 |
//! | `/set/NAME/VALUE` | 200 with that header field |
//! | `/redirect/N/URI` | status N with that `location` |
//! | `/retry-after/S` | 503 with `retry-after: S` |
//! | anything else | 200, body `OK` |

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::Duration;

use super::Seen;

/// How a response ends what it came on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Keep,
    AnnouncedClose,
    SilentClose,
    AbortInBody,
    AbortBefore,
    Refuse,
    Hang,
}

/// What to answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) delay: Duration,
    pub(super) status: u16,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Body,
    pub(super) trailers: Vec<(String, String)>,
    pub(super) ending: Ending,
}

#[derive(Debug)]
pub(super) enum Body {
    None,
    Full(Vec<u8>),
    Chunks { chunk: Vec<u8>, count: usize, gap: Duration },
}

impl Reply {
    fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self {
            delay: Duration::ZERO,
            status: 200,
            fields: Vec::new(),
            body: Body::Full(body.into()),
            trailers: Vec::new(),
            ending: Ending::Keep,
        }
    }

    fn status(status: u16) -> Self {
        let body = match status {
            100..=199 | 204 | 304 => Body::None,
            _ => Body::Full(format!("status {status}").into_bytes()),
        };
        Self { status, body, ..Self::ok("") }
    }

    fn ending(ending: Ending) -> Self {
        Self { ending, ..Self::ok("OK") }
    }

    fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// The state scripts need between requests.
#[derive(Debug, Default)]
pub(super) struct Script {
    attempts: Mutex<HashMap<String, u64>>,
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

impl Script {
    pub(super) fn reply(&self, request: &Seen) -> Reply {
        let path = request.target.split('?').next().unwrap_or_default();
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let number = |at: usize| parts.get(at).and_then(|part| part.parse::<u64>().ok()).unwrap_or(0);
        let millis = |at: usize| Duration::from_millis(number(at));
        let size = |at: usize| usize::try_from(number(at)).unwrap_or(0);
        let chunks = |count, gap| Body::Chunks { chunk: b"chunk".to_vec(), count, gap };
        match parts.first().copied().unwrap_or_default() {
            "status" => Reply::status(u16::try_from(number(1)).unwrap_or(500)),
            "bytes" => Reply::ok(vec![b'x'; size(1)]),
            "chunked" => Reply { body: chunks(size(1), Duration::ZERO), ..Reply::ok("") },
            "slow" => Reply { body: chunks(size(1), millis(2)), ..Reply::ok("") },
            "delay" => Reply { delay: millis(1), ..Reply::ok("late") },
            "hang" => Reply::ending(Ending::Hang),
            "close" => Reply::ending(Ending::AnnouncedClose),
            "hangup" => Reply::ending(Ending::SilentClose),
            "abort" => Reply::ending(Ending::AbortInBody),
            "reset" => Reply::ending(Ending::AbortBefore),
            "refuse" => Reply::ending(Ending::Refuse),
            "echo" => Reply::ok(describe(request)).field("content-type", "application/json"),
            "body" => Reply { trailers: request.trailers.clone(), ..Reply::ok(request.body.clone()) },
            "count" => Reply::ok(request.body.len().to_string()),
            "trailers" => Reply {
                body: chunks(3, Duration::ZERO),
                trailers: vec![pair("x-check", "done")],
                ..Reply::ok("").field("trailer", "x-check")
            },
            "grpc" => Reply {
                trailers: vec![pair("grpc-status", &number(1).to_string()), pair("grpc-message", "scripted")],
                ..Reply::ok(*b"\0\0\0\0\0").field("content-type", "application/grpc")
            },
            "grpc-only" => Reply { body: Body::None, ..Reply::ok("") }
                .field("content-type", "application/grpc")
                .field("grpc-status", &number(1).to_string())
                .field("grpc-message", "scripted"),
            "flaky" => self.flaky(parts.get(1).copied().unwrap_or_default(), number(2), number(3)),
            "set" => match (parts.get(1), parts.get(2)) {
                (Some(name), Some(value)) => Reply::ok("OK").field(name, value),
                _ => Reply::status(400),
            },
            "redirect" => {
                let status = u16::try_from(number(1)).unwrap_or(302);
                Reply::status(status).field("location", path.splitn(4, '/').nth(3).unwrap_or_default())
            }
            "retry-after" => Reply::status(503).field("retry-after", &number(1).to_string()),
            _ => Reply::ok("OK"),
        }
    }

    fn flaky(&self, key: &str, failures: u64, status: u64) -> Reply {
        let mut attempts = self.attempts.lock().expect("no panic under the lock");
        let attempt = attempts.entry(key.to_owned()).or_default();
        *attempt += 1;
        if *attempt > failures {
            return Reply::ok("OK");
        }
        if status == 0 {
            Reply::ending(Ending::AbortBefore)
        } else {
            Reply::status(u16::try_from(status).unwrap_or(503))
        }
    }
}

fn describe(request: &Seen) -> String {
    let pairs = |list: &[(String, String)]| {
        let pairs: Vec<_> = list.iter().map(|(n, v)| format!("[{},{}]", json(n), json(v))).collect();
        format!("[{}]", pairs.join(","))
    };
    format!(
        r#"{{"method":{},"target":{},"version":{},"headers":{},"body":{},"trailers":{}}}"#,
        json(&request.method),
        json(&request.target),
        json(request.version),
        pairs(&request.fields),
        json(&String::from_utf8_lossy(&request.body)),
        pairs(&request.trailers),
    )
}

fn json(text: &str) -> String {
    let mut out = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\0'..='\x1f' => {
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
    out.push('"');
    out
}
