//! Our HTTP/2 against the `h2` crate, on both sides, over a pipe that cuts the octets as it likes.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use outrigger_wire::h2::{Connection, Event, Options, Role, Settings, StreamKey};
use outrigger_wire::{FieldBlock, Method, RequestHead, ResponseHead};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// What is sent one way.
#[derive(Clone, Debug, Default)]
struct Message {
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    trailers: Vec<(String, Vec<u8>)>,
}

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// What arrived.
#[derive(Clone, Debug, Default, PartialEq)]
struct Arrived {
    fields: Fields,
    body: Vec<u8>,
    trailers: Fields,
}

impl Message {
    fn expected(&self) -> Arrived {
        let sorted = |fields: &[(String, Vec<u8>)]| {
            sort(fields.iter().map(|(name, value)| (name.clone().into_bytes(), value.clone())).collect())
        };
        Arrived { fields: sorted(&self.fields), body: self.body.clone(), trailers: sorted(&self.trailers) }
    }
}

/// `HeaderMap` keeps the order of values of one name only.
fn sort(mut fields: Fields) -> Fields {
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields
}

fn of_block(fields: &FieldBlock) -> Fields {
    sort(fields.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect())
}

fn of_map(map: &HeaderMap) -> Fields {
    sort(map.iter().map(|(name, value)| (name.as_str().into(), value.as_bytes().into())).collect())
}

fn block(fields: &[(String, Vec<u8>)]) -> FieldBlock {
    let mut made = FieldBlock::default();
    for (name, value) in fields {
        assert!(made.append(name.as_bytes(), value));
    }
    made
}

fn map(fields: &[(String, Vec<u8>)]) -> HeaderMap {
    let mut made = HeaderMap::new();
    for (name, value) in fields {
        made.append(HeaderName::try_from(name.as_str()).unwrap(), HeaderValue::from_bytes(value).unwrap());
    }
    made
}

/// One stream as our end sees it.
#[derive(Default)]
struct Ours {
    key: Option<StreamKey>,
    path: Vec<u8>,
    arrived: Arrived,
    ended: bool,
    /// What we send, and how much of it is sent.
    send: Message,
    sent: usize,
    finished: bool,
}

/// Our end of a connection: answers what arrives with `answers`, or asks with them.
struct End {
    conn: Connection,
    io: DuplexStream,
    streams: Vec<Ours>,
    /// Responses (server) or requests (client) to be sent.
    messages: Vec<Message>,
}

fn options() -> Options {
    Options {
        settings: Settings {
            max_header_list_bytes: 60 << 10,
            max_concurrent_streams: 100,
            ..Settings::default()
        },
        connection_window: 100_000,
        max_fields: 100,
        secure: false,
    }
}

impl End {
    fn new(role: Role, io: DuplexStream, messages: Vec<Message>) -> Self {
        Self { conn: Connection::new(role, options(), Duration::ZERO), io, streams: Vec::new(), messages }
    }

    /// Runs until `wanted` streams are complete both ways and everything is sent.
    async fn run(&mut self, wanted: usize) {
        let (mut held, mut writing) = (Vec::new(), Vec::new());
        loop {
            self.push();
            if writing.is_empty() {
                self.conn.take_output(&mut writing);
            }
            let done = self.streams.iter().filter(|one| one.ended && one.finished).count() == wanted;
            if done && writing.is_empty() {
                return;
            }
            let mut part = [0u8; 777];
            if writing.is_empty() {
                let n = self.io.read(&mut part).await.unwrap();
                assert!(n > 0, "the peer went away");
                held.extend_from_slice(&part[..n]);
            } else {
                // Reading must go on while writing: the other end may wait for it.
                let (mut read_half, mut write_half) = tokio::io::split(&mut self.io);
                tokio::select! {
                    n = read_half.read(&mut part) => {
                        let n = n.unwrap();
                        assert!(n > 0, "the peer went away");
                        held.extend_from_slice(&part[..n]);
                    }
                    n = write_half.write(&writing) => {
                        writing.drain(..n.unwrap());
                    }
                }
            }
            let taken = self.take(&held);
            held.drain(..taken);
        }
    }

    fn take(&mut self, held: &[u8]) -> usize {
        let mut input = held;
        let mut used = Vec::new();
        while let Some(event) = self.conn.receive(&mut input, Duration::ZERO).unwrap() {
            match event {
                Event::Request { stream, ended, .. } => {
                    let mut head = RequestHead::default();
                    self.conn.swap_request(&mut head);
                    let at = self.streams.len();
                    let send = self.messages[at % self.messages.len()].clone();
                    let status: u16 = 400 + u16::try_from(at).unwrap();
                    let response = ResponseHead { status, fields: block(&send.fields) };
                    self.conn.send_response(stream, &response, false).unwrap();
                    self.streams.push(Ours {
                        key: Some(stream),
                        path: head.path().to_vec(),
                        arrived: Arrived { fields: of_block(&head.fields), ..Arrived::default() },
                        ended,
                        send,
                        ..Ours::default()
                    });
                }
                Event::Response { stream, ended, framing } => {
                    assert!(!framing.informational);
                    let mut head = ResponseHead::default();
                    self.conn.swap_response(&mut head);
                    let one = find(&mut self.streams, stream);
                    one.path = head.status.to_string().into_bytes();
                    one.arrived.fields = of_block(&head.fields);
                    one.ended = ended;
                }
                Event::Data { stream, octets, ended } => {
                    let one = find(&mut self.streams, stream);
                    one.arrived.body.extend_from_slice(octets);
                    one.ended |= ended;
                    used.push((stream, octets.len()));
                }
                Event::Trailers { stream } => {
                    let mut trailers = FieldBlock::default();
                    self.conn.swap_trailers(&mut trailers);
                    let one = find(&mut self.streams, stream);
                    one.arrived.trailers = of_block(&trailers);
                    one.ended = true;
                }
                Event::Window { .. } | Event::Room | Event::Settings => {}
                other => panic!("unexpected {other:?}"),
            }
        }
        for (stream, n) in used {
            self.conn.consumed(stream, n);
        }
        held.len() - input.len()
    }

    /// Opens what can be opened and sends what can be sent.
    fn push(&mut self) {
        for one in self.streams.iter_mut().filter(|one| !one.finished) {
            let key = one.key.unwrap();
            let rest = &one.send.body[one.sent..];
            let bare = one.send.trailers.is_empty();
            if !rest.is_empty() {
                let n = self.conn.send_data(key, rest, bare).unwrap();
                one.sent += n;
                one.finished = bare && n == rest.len();
                continue;
            }
            if bare {
                self.conn.send_data(key, b"", true).unwrap();
            } else {
                self.conn.send_trailers(key, &block(&one.send.trailers)).unwrap();
            }
            one.finished = true;
        }
        for one in self.streams.iter().filter(|one| one.ended && one.finished) {
            self.conn.release(one.key.unwrap());
        }
    }

    fn open_all(&mut self) {
        for (at, send) in self.messages.clone().into_iter().enumerate() {
            let mut head = RequestHead::default();
            assert!(head.set_method(b"POST") && head.set_authority(b"h"));
            assert!(head.set_path(format!("/{at}").as_bytes()));
            head.fields = block(&send.fields);
            let key = self.conn.open(&head, false).unwrap();
            self.streams.push(Ours { key: Some(key), send, ..Ours::default() });
        }
    }
}

fn find(streams: &mut [Ours], key: StreamKey) -> &mut Ours {
    streams.iter_mut().find(|one| one.key == Some(key)).unwrap()
}

/// Reads a whole body from the `h2` crate.
async fn drain(mut body: h2::RecvStream, fields: &HeaderMap) -> Arrived {
    let mut arrived = Arrived { fields: of_map(fields), ..Arrived::default() };
    while let Some(chunk) = body.data().await {
        let chunk = chunk.unwrap();
        arrived.body.extend_from_slice(&chunk);
        body.flow_control().release_capacity(chunk.len()).unwrap();
    }
    if let Some(trailers) = body.trailers().await.unwrap() {
        arrived.trailers = of_map(&trailers);
    }
    arrived
}

/// Sends body and trailers with the `h2` crate.
async fn fill(mut stream: h2::SendStream<Bytes>, message: Message) {
    let mut body = Bytes::from(message.body);
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let n = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
        stream.send_data(body.split_to(n.min(body.len())), false).unwrap();
    }
    if message.trailers.is_empty() {
        stream.send_data(Bytes::new(), true).unwrap();
    } else {
        stream.send_trailers(map(&message.trailers)).unwrap();
    }
}

/// The `h2` crate asks, we answer.
async fn they_ask(requests: Vec<Message>, answers: Vec<Message>, pipe: usize) {
    let (theirs, ours) = tokio::io::duplex(pipe);
    let count = requests.len();
    let mut end = End::new(Role::Server, ours, answers.clone());
    let asking = async {
        let (send, connection) = h2::client::handshake(theirs).await.unwrap();
        let driver = tokio::task::spawn_local(async move { connection.await.ok() });
        let mut tasks = Vec::new();
        for (at, message) in requests.iter().cloned().enumerate() {
            let mut send = send.clone().ready().await.unwrap();
            let mut request = Request::new(());
            *request.method_mut() = http::Method::POST;
            *request.uri_mut() = format!("http://h/{at}").parse::<Uri>().unwrap();
            *request.headers_mut() = map(&message.fields);
            let (response, stream) = send.send_request(request, false).unwrap();
            tasks.push(tokio::task::spawn_local(async move {
                let (arrived, ()) = tokio::join!(
                    async {
                        let (parts, body) = response.await.unwrap().into_parts();
                        (parts.status, drain(body, &parts.headers).await)
                    },
                    fill(stream, message)
                );
                arrived
            }));
        }
        let mut got = Vec::new();
        for task in tasks {
            got.push(task.await.unwrap());
        }
        (got, driver, send)
    };
    // The connection stays until our end has sent its last window update.
    let ((got, driver, _send), ()) = tokio::join!(asking, end.run(count));
    driver.abort();
    // A task may be served before one that was spawned earlier has sent its head, but ids grow in the order of opening.
    for (at, one) in end.streams.iter().enumerate() {
        assert_eq!(one.path, format!("/{at}").as_bytes());
        assert_eq!(one.arrived, requests[at].expected(), "request {at}");
    }
    for (at, (status, arrived)) in got.into_iter().enumerate() {
        assert_eq!(status.as_u16(), 400 + u16::try_from(at).unwrap());
        assert_eq!(arrived, answers[at % answers.len()].expected(), "response {at}");
    }
}

/// We ask, the `h2` crate answers.
async fn we_ask(requests: Vec<Message>, answers: Vec<Message>, pipe: usize) {
    let (theirs, ours) = tokio::io::duplex(pipe);
    let count = requests.len();
    let mut end = End::new(Role::Client, ours, requests.clone());
    let serving = answers.clone();
    let answering = tokio::task::spawn_local(async move {
        let mut server = h2::server::handshake(theirs).await.unwrap();
        let mut tasks = Vec::new();
        while let Some(accepted) = server.accept().await {
            let Ok((request, mut respond)) = accepted else { break };
            let at: usize = request.uri().path()[1..].parse().unwrap();
            let message = serving[at % serving.len()].clone();
            tasks.push(tokio::task::spawn_local(async move {
                assert_eq!(request.method(), http::Method::POST);
                let mut response = Response::new(());
                *response.status_mut() = StatusCode::from_u16(400 + u16::try_from(at).unwrap()).unwrap();
                *response.headers_mut() = map(&message.fields);
                let stream = respond.send_response(response, false).unwrap();
                let (parts, body) = request.into_parts();
                let (arrived, ()) = tokio::join!(drain(body, &parts.headers), fill(stream, message));
                (at, arrived)
            }));
        }
        let mut got = Vec::new();
        for task in tasks {
            got.push(task.await.unwrap());
        }
        got
    });
    end.open_all();
    end.run(count).await;
    for (at, one) in end.streams.iter().enumerate() {
        assert_eq!(one.path, format!("{}", 400 + at).as_bytes());
        assert_eq!(one.arrived, answers[at % answers.len()].expected(), "response {at}");
    }
    drop(end);
    for (at, arrived) in answering.await.unwrap() {
        assert_eq!(arrived, requests[at].expected(), "request {at}");
    }
}

fn fields(most: usize) -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let name = prop_oneof![
        Just("user-agent".to_owned()),
        Just("accept-encoding".to_owned()),
        Just("authorization".to_owned()),
        Just("content-type".to_owned()),
        "x-[a-z0-9_.]{1,20}",
    ];
    let value = prop_oneof![
        Just(b"gzip, deflate".to_vec()),
        Just(b"the same".to_vec()),
        Just(Vec::new()),
        prop::collection::vec(prop_oneof![0x21u8..0x7f, 0x80u8..=0xff], 1..60),
        (1usize..6000).prop_map(|n| vec![b'v'; n]),
    ];
    prop::collection::vec((name, value), 0..most)
}

fn messages() -> impl Strategy<Value = Vec<Message>> {
    let body = prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..100),
        1 => (0usize..200_000, any::<u8>()).prop_map(|(n, byte)| vec![byte; n]),
    ];
    let trailers = fields(4);
    let message =
        (fields(8), body, trailers).prop_map(|(fields, body, trailers)| Message { fields, body, trailers });
    prop::collection::vec(message, 1..12)
}

fn in_runtime(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, work);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn server_agrees_with_the_oracle(
        requests in messages(), answers in messages(), pipe in prop_oneof![64usize..200, Just(1 << 16)],
    ) {
        in_runtime(they_ask(requests, answers, pipe));
    }

    #[test]
    fn client_agrees_with_the_oracle(
        requests in messages(), answers in messages(), pipe in prop_oneof![64usize..200, Just(1 << 16)],
    ) {
        in_runtime(we_ask(requests, answers, pipe));
    }
}

#[test]
fn methods_survive() {
    for method in [Method::Get, Method::Delete, Method::Options, Method::Connect] {
        let (mut client, mut server) = (
            Connection::new(Role::Client, options(), Duration::ZERO),
            Connection::new(Role::Server, options(), Duration::ZERO),
        );
        let mut head = RequestHead::default();
        assert!(head.set_method(method.as_bytes()) && head.set_authority(b"h:1") && head.set_path(b"/x"));
        client.open(&head, true).unwrap();
        let mut out = Vec::new();
        client.take_output(&mut out);
        let mut input = &out[..];
        let mut last = None;
        while let Some(event) = server.receive(&mut input, Duration::ZERO).unwrap() {
            last = Some(event);
        }
        assert!(matches!(last, Some(Event::Request { ended: true, .. })), "{method:?} {last:?}");
        let mut read = RequestHead::default();
        server.swap_request(&mut read);
        assert_eq!((read.method(), read.authority()), (method, &b"h:1"[..]));
    }
}
