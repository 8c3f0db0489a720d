use super::*;
use crate::identity::{ClientTls, Secrets, ServerTls, TlsOptions};
use outrigger_testkit::certs::Authority;
use outrigger_traffic::config::{
    CertificateSource, DownstreamTls, TlsCertificate, TlsParams, UpstreamTls, ValidationContext,
    ValidationSource,
};
use std::rc::Rc;
use tokio::net::TcpListener;

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), async {
        listener.accept().await.unwrap().0
    });
    (near.unwrap(), far)
}

struct Tls {
    server: Arc<ServerTls>,
    client: Arc<ClientTls>,
}

fn tls() -> Tls {
    let authority = Authority::new("test root");
    let leaf = authority.leaf(&["spiffe://mesh.test/ns/a/sa/b", "web.mesh.test"]);
    let pair = TlsCertificate { chain_pem: leaf.cert_pem, key_pem: leaf.key_pem };
    let trust = ValidationContext { trusted_ca_pem: Some(authority.pem()), ..ValidationContext::default() };
    let validation = Some(ValidationSource::Inline(trust));
    let down = DownstreamTls {
        certificates: vec![CertificateSource::Inline(pair.clone())],
        validation: validation.clone(),
        require_client_certificate: true,
        alpn: vec!["h2".into(), "http/1.1".into()],
        params: TlsParams::default(),
        disable_stateless_session_resumption: false,
    };
    let up = UpstreamTls {
        sni: "web.mesh.test".into(),
        certificate: Some(CertificateSource::Inline(pair)),
        validation,
        alpn: vec!["http/1.1".into()],
        params: TlsParams::default(),
        max_session_keys: 1,
    };
    let secrets = Secrets::default();
    Tls {
        server: ServerTls::build("listener/l", "tls", &down, &secrets, None).unwrap(),
        client: ClientTls::build("cluster/c", "tls", &up, false, &secrets, None).unwrap(),
    }
}

/// Both ends of a TLS connection, after the handshake. Also used to hand over a prefix.
async fn secured(tls: &Tls) -> (Rc<Io>, Rc<Io>) {
    let (near, far) = sockets().await;
    let buffers = BufferPool::default();
    let address = near.peer_addr().unwrap().ip();
    let client = tls.client.connection(address, &TlsOptions::default()).unwrap();
    let near = Io::tls(near, None, buffers.clone(), client.into()).unwrap();
    let config = tls.server.config(&[b"http/1.1".to_vec()]).unwrap().clone();
    let server = rustls::ServerConnection::new(config).unwrap();
    let far = Io::tls(far, None, buffers, server.into()).unwrap();
    let (a, b) = tokio::join!(near.handshake(), far.handshake());
    a.unwrap();
    b.unwrap();
    (Rc::new(near), Rc::new(far))
}

async fn read_to_end(io: &Io) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut buf = vec![0; 50_000];
    loop {
        match io.read(&mut buf).await? {
            0 => return Ok(all),
            n => all.extend_from_slice(&buf[..n]),
        }
    }
}

#[tokio::test]
async fn plain_prefix_is_read_before_the_socket() {
    let (near, far) = sockets().await;
    let buffers = BufferPool::default();
    let mut prefix = buffers.take();
    prefix.append(b"hello ");
    let near = Io::plain(near, None, buffers.clone()).unwrap();
    let far = Io::plain(far, Some(prefix), buffers.clone()).unwrap();
    near.write_all_two(b"wor", b"ld").await.unwrap();
    near.shutdown().await.unwrap();
    assert!(!far.is_quiet());
    assert_eq!(read_to_end(&far).await.unwrap(), b"hello world");
    assert_eq!((near.bytes_written(), far.bytes_read()), (5, 11));
    assert_eq!(buffers.free(), (1, 0), "the prefix went back to the pool");
}

#[tokio::test]
async fn tls_carries_much_data_both_ways_at_once() {
    let (near, far) = secured(&tls()).await;
    let up: Vec<u8> = (0..5_000_000_u32).map(|i| ((i * 7) >> 3) as u8).collect();
    let down: Vec<u8> = (0..3_000_000_u32).map(|i| ((i * 13) >> 5) as u8).collect();
    let say = async |io: &Io, data: &[u8]| {
        for piece in data.chunks(70_001) {
            io.write_all(piece).await.unwrap();
        }
        io.shutdown().await.unwrap();
    };
    let ((), (), at_far, at_near) =
        tokio::join!(say(&near, &up), say(&far, &down), read_to_end(&far), read_to_end(&near));
    assert!(at_far.unwrap() == up);
    assert!(at_near.unwrap() == down);
}

#[tokio::test]
async fn tls_half_close_leaves_the_other_direction_open() {
    let (near, far) = secured(&tls()).await;
    near.write_all(b"question").await.unwrap();
    near.shutdown().await.unwrap();
    assert_eq!(read_to_end(&far).await.unwrap(), b"question");
    far.write_all(b"answer").await.unwrap();
    far.shutdown().await.unwrap();
    assert_eq!(read_to_end(&near).await.unwrap(), b"answer");
}

#[tokio::test]
async fn tls_end_without_close_notify_is_an_error() {
    let (near, far) = secured(&tls()).await;
    // Takes in the session tickets: closing a socket with unread bytes would reset the connection.
    far.write_all(b"x").await.unwrap();
    near.read(&mut [0; 1]).await.unwrap();
    near.write_all(b"half a mess").await.unwrap();
    drop(near);
    let mut buf = [0; 100];
    assert_eq!(far.read(&mut buf).await.unwrap(), 11);
    assert_eq!(far.read(&mut buf).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn idle_tls_connection_is_quiet_after_tickets_and_not_after_data_or_end() {
    let (near, far) = secured(&tls()).await;
    // The server's session tickets are on their way or there; they are no data.
    far.write_all(b"x").await.unwrap();
    near.read(&mut [0; 1]).await.unwrap();
    assert!(near.is_quiet());
    far.write_all(b"unasked").await.unwrap();
    near.readable().await.unwrap();
    assert!(!near.is_quiet());
    let (near, far) = secured(&tls()).await;
    far.shutdown().await.unwrap();
    let mut buf = [0; 1];
    poll_fn(|cx| near.tcp.borrow().poll_read_ready(cx)).await.unwrap();
    // Tickets come before the end; the end must be seen as well.
    while near.is_quiet() {
        tokio::task::yield_now().await;
    }
    assert_eq!(near.read(&mut buf).await.unwrap(), 0);
}

#[tokio::test]
async fn handshake_tells_what_was_agreed_and_is_resumed_the_second_time() {
    let tls = tls();
    let (near, far) = secured(&tls).await;
    far.write_all(b"x").await.unwrap();
    near.read(&mut [0; 1]).await.unwrap();
    for (io, resumed) in [(&near, false), (&far, false)] {
        let facts = io
            .with_tls(|c| crate::identity::negotiated(c, true, None, &mut crate::identity::Peers::default()))
            .unwrap();
        assert_eq!((facts.version, facts.resumed), ("TLSv1.3", resumed));
        assert_eq!(facts.alpn.as_deref(), Some(&b"http/1.1"[..]));
        assert!(facts.cipher.starts_with("TLS_"), "{}", facts.cipher);
        let peer = facts.peer.unwrap();
        assert_eq!(peer.uri_sans, ["spiffe://mesh.test/ns/a/sa/b"]);
        assert_eq!(peer.dns_sans, ["web.mesh.test"]);
        assert_eq!((&*peer.subject, peer.sha256.len()), ("CN=test leaf", 64));
    }
    let (again, _far) = secured(&tls).await;
    let facts = again
        .with_tls(|c| crate::identity::negotiated(c, true, None, &mut crate::identity::Peers::default()))
        .unwrap();
    assert!(facts.resumed);
    assert_eq!(facts.peer.unwrap().uri_sans, ["spiffe://mesh.test/ns/a/sa/b"]);
}

#[tokio::test]
async fn writer_that_nobody_reads_waits_and_does_not_grow() {
    let (near, far) = secured(&tls()).await;
    let data = vec![7; 1 << 20];
    let mut sent = 0;
    let full = poll_fn(|cx| {
        loop {
            match near.poll_write(cx, &data) {
                Poll::Ready(Ok(n)) => sent += n,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Ready(Ok(())),
            }
            assert!(sent < 64 << 20, "accepted without end");
        }
    });
    full.await.unwrap();
    let reading = async {
        let mut got = 0;
        let mut buf = vec![0; 100_000];
        while got < sent {
            got += far.read(&mut buf).await.unwrap();
        }
        got
    };
    let (flushed, got) = tokio::join!(near.flush(), reading);
    flushed.unwrap();
    assert_eq!(got, sent);
}

#[tokio::test]
async fn end_that_only_tls_announced_is_readable_and_not_quiet() {
    let (near, far) = secured(&tls()).await;
    near.write_all(b"last words").await.unwrap();
    near.tls.as_ref().unwrap().borrow_mut().close();
    near.flush().await.unwrap();
    let mut buf = [0; 100];
    assert_eq!(far.read(&mut buf).await.unwrap(), 10);
    tokio::time::timeout(std::time::Duration::from_secs(10), far.readable()).await.unwrap().unwrap();
    while far.is_quiet() {
        tokio::task::yield_now().await;
    }
    assert_eq!(far.read(&mut buf).await.unwrap(), 0);
    tokio::time::timeout(std::time::Duration::from_secs(10), far.readable()).await.unwrap().unwrap();
    far.write_all(b"answer").await.unwrap();
    assert_eq!(near.read(&mut buf).await.unwrap(), 6);
}
