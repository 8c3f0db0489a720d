//! The HTTP/2 side of an origin.

use std::sync::Arc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::script::{Body, Ending, Reply};
use super::{Seen, Shared};

pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, shared: &Arc<Shared>, number: usize) {
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(4 << 20).max_concurrent_streams(1000);
    let mut connection = match builder.handshake::<_, Bytes>(stream).await {
        Ok(connection) => connection,
        Err(error) => return shared.refuse(format!("h2: {error}")),
    };
    let goaway = Arc::new(Notify::new());
    let mut streams = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            () = goaway.notified() => {
                connection.graceful_shutdown();
                continue;
            }
        };
        match accepted {
            Some(Ok((request, respond))) => {
                while streams.try_join_next().is_some() {}
                let (shared, goaway) = (Arc::clone(shared), Arc::clone(&goaway));
                streams.spawn(async move {
                    let _ = serve_one(request, respond, &shared, &goaway, number).await;
                });
            }
            Some(Err(error)) if error.is_io() => return,
            Some(Err(error)) => return shared.refuse(format!("h2: {error}")),
            None => return,
        }
    }
}

async fn serve_one(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    shared: &Shared,
    goaway: &Notify,
    number: usize,
) -> Result<(), h2::Error> {
    let seen = read(request, number).await?;
    let reply = shared.script.reply(&seen);
    let is_head = seen.method == "HEAD";
    shared.record(seen);
    tokio::time::sleep(reply.delay).await;
    match reply.ending {
        Ending::Hang => std::future::pending().await,
        Ending::AbortBefore => respond.send_reset(Reason::INTERNAL_ERROR),
        Ending::Refuse => respond.send_reset(Reason::REFUSED_STREAM),
        Ending::AbortInBody => {
            let mut stream = respond.send_response(head(&reply, &shared.name), false)?;
            send(&mut stream, Bytes::from_static(b"half"), false).await?;
            stream.send_reset(Reason::INTERNAL_ERROR);
        }
        Ending::Keep | Ending::AnnouncedClose | Ending::SilentClose => {
            write(&reply, respond, is_head, &shared.name).await?;
            if reply.ending != Ending::Keep {
                goaway.notify_one();
            }
        }
    }
    Ok(())
}

async fn read(request: Request<RecvStream>, connection: usize) -> Result<Seen, h2::Error> {
    let (parts, mut stream) = request.into_parts();
    let mut fields = Vec::new();
    if let Some(scheme) = parts.uri.scheme_str() {
        fields.push((":scheme".to_owned(), scheme.to_owned()));
    }
    if let Some(authority) = parts.uri.authority() {
        fields.push((":authority".to_owned(), authority.to_string()));
    }
    fields.extend(pairs(&parts.headers));
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    let trailers = stream.trailers().await?.map(|trailers| pairs(&trailers)).unwrap_or_default();
    Ok(Seen {
        method: parts.method.to_string(),
        target: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        version: "HTTP/2",
        fields,
        body,
        trailers,
        connection,
    })
}

fn head(reply: &Reply, name: &str) -> Response<()> {
    let mut response = Response::builder().status(reply.status).header("x-origin", name);
    for (name, value) in &reply.fields {
        response = response.header(name, value);
    }
    if let Body::Full(body) = &reply.body
        && reply.trailers.is_empty()
    {
        let length = if reply.ending == Ending::AbortInBody { 1000 } else { body.len() };
        response = response.header("content-length", length);
    }
    response.body(()).expect("a scripted head")
}

async fn write(
    reply: &Reply,
    mut respond: SendResponse<Bytes>,
    is_head: bool,
    name: &str,
) -> Result<(), h2::Error> {
    let no_body = is_head || matches!(&reply.body, Body::None);
    let mut stream = respond.send_response(head(reply, name), no_body && reply.trailers.is_empty())?;
    if no_body && reply.trailers.is_empty() {
        return Ok(());
    }
    let ends_with_data = reply.trailers.is_empty();
    match &reply.body {
        Body::None => {}
        Body::Full(body) => send(&mut stream, Bytes::from(body.clone()), ends_with_data).await?,
        Body::Chunks { chunk, count, gap } => {
            for _ in 0..*count {
                tokio::time::sleep(*gap).await;
                send(&mut stream, Bytes::from(chunk.clone()), false).await?;
            }
            if ends_with_data {
                stream.send_data(Bytes::new(), true)?;
            }
        }
    }
    if !ends_with_data {
        stream.send_trailers(map(&reply.trailers))?;
    }
    Ok(())
}

/// Sends within what flow control allows.
pub(crate) async fn send(
    stream: &mut SendStream<Bytes>,
    mut data: Bytes,
    end: bool,
) -> Result<(), h2::Error> {
    if data.is_empty() {
        return stream.send_data(data, end);
    }
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let granted = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let granted = granted.ok_or_else(|| h2::Error::from(Reason::CANCEL))??;
        if granted == 0 {
            continue;
        }
        let part = data.split_to(granted.min(data.len()));
        stream.send_data(part, end && data.is_empty())?;
    }
    Ok(())
}

pub(crate) fn pairs(map: &HeaderMap) -> Vec<(String, String)> {
    map.iter().map(|(n, v)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned())).collect()
}

pub(crate) fn map(pairs: &[(String, String)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        let name: HeaderName = name.parse().expect("a field name");
        map.append(name, HeaderValue::from_str(value).expect("a field value"));
    }
    map
}
