use crate::bed::*;
use outrigger_engine::proxy::ProxyHandle;
use outrigger_testkit::certs::{Authority, Leaf, server_config};
use outrigger_traffic::config::{
    CertificateSource, Config, SanType, StringPattern, TlsParams, UpstreamTls, ValidationContext,
    ValidationSource,
};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const SERVER: &str = "spiffe://mesh.test/ns/default/sa/web";

/// A TLS echo that first says which SNI it was sent and whether the session was resumed.
async fn secure_echo(config: Arc<rustls::ServerConfig>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = TlsAcceptor::from(config.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let session = stream.get_ref().1;
                let resumed = session.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
                let hello = format!("{}|{resumed}\n", session.server_name().unwrap_or("-"));
                stream.write_all(hello.as_bytes()).await.unwrap();
                let mut buf = [0; 1000];
                while let Ok(n @ 1..) = stream.read(&mut buf).await {
                    stream.write_all(&buf[..n]).await.unwrap();
                }
                let _ = stream.shutdown().await;
            });
        }
    });
    address
}

fn context(authority: &Authority, sans: Vec<outrigger_traffic::config::SanMatch>) -> UpstreamTls {
    let context = ValidationContext { sans, ..trust(authority, &[]) };
    UpstreamTls {
        sni: "web.mesh.test".into(),
        certificate: None,
        validation: Some(ValidationSource::Inline(context)),
        alpn: Vec::new(),
        params: TlsParams::default(),
        max_session_keys: 1,
    }
}

fn through(origin: SocketAddr, tls: UpstreamTls) -> Config {
    let mut config = simple(origin, |_| {});
    config.clusters[0].tls = Some(tls);
    config
}

/// What the host said first; empty where no connection to it came about.
async fn greeting(proxy: &ProxyHandle) -> String {
    let mut stream = TcpStream::connect(address(proxy)).await.unwrap();
    stream.shutdown().await.unwrap();
    String::from_utf8(until_closed(&mut stream).await).unwrap()
}

fn uri(text: &str) -> outrigger_traffic::config::SanMatch {
    san(SanType::Uri, StringPattern::Exact(text.into()))
}

#[tokio::test]
async fn host_is_verified_by_chain_and_names() {
    let (authority, stranger) = (Authority::new("root"), Authority::new("root"));
    let leaf = authority.leaf(&[SERVER, "*.mesh.test"]);
    let origin = secure_echo(server_config(&leaf, None, &[])).await;
    let dns = |name: &str| san(SanType::Dns, StringPattern::Exact(name.into()));
    let table = [
        ("chain only", context(&authority, vec![]), true),
        ("another authority", context(&stranger, vec![]), false),
        ("right id", context(&authority, vec![uri(SERVER)]), true),
        ("one of two ids", context(&authority, vec![uri("spiffe://mesh.test/x"), uri(SERVER)]), true),
        ("wrong id", context(&authority, vec![uri("spiffe://mesh.test/ns/default/sa/other")]), false),
        ("wildcard of the certificate", context(&authority, vec![dns("web.mesh.test")]), true),
        ("two labels", context(&authority, vec![dns("a.web.mesh.test")]), false),
        ("nothing verified", UpstreamTls { validation: None, ..context(&authority, vec![]) }, true),
    ];
    for (what, tls, reached) in table {
        let proxy = start(through(origin, tls));
        let got = greeting(&proxy).await;
        assert_eq!(got, if reached { "web.mesh.test|false\n" } else { "" }, "{what}");
        let failed =
            cluster_count(&proxy, "a", |s| s.ssl_fail_verify_san.value() + s.ssl_fail_verify_error.value());
        assert_eq!(failed, u64::from(!reached), "{what}");
    }
}

#[tokio::test]
async fn client_certificate_is_shown_and_rotates() {
    let authority = Authority::new("root");
    let old = Authority::new("old root");
    let origin = secure_echo(server_config(&authority.leaf(&[SERVER]), Some(&authority), &[])).await;
    let mut tls = context(&authority, vec![uri(SERVER)]);
    tls.certificate = Some(CertificateSource::Sds("own".into()));
    let mut config = through(origin, tls);
    let proxy = start(config.clone());
    assert_eq!(greeting(&proxy).await, "", "no certificate yet: no connection");
    assert!(cluster_count(&proxy, "a", |s| s.ssl_secret_missing.value()) >= 1);
    for (leaf, reached) in [(old.spiffe(CLIENT), false), (authority.spiffe(CLIENT), true)] {
        config.secrets = vec![secret("own", &leaf)];
        proxy.apply(config.clone()).unwrap();
        let got = greeting(&proxy).await;
        assert_eq!(got.starts_with("web.mesh.test|"), reached, "{got}");
    }
}

#[tokio::test]
async fn sessions_are_resumed_until_the_certificate_changes() {
    let authority = Authority::new("root");
    let origin = secure_echo(server_config(&authority.leaf(&[SERVER]), Some(&authority), &[])).await;
    let leaf = |_: usize| -> Leaf { authority.spiffe(CLIENT) };
    let mut tls = context(&authority, vec![uri(SERVER)]);
    tls.certificate = Some(CertificateSource::Sds("own".into()));
    let mut config = through(origin, tls);
    config.secrets = vec![secret("own", &leaf(1))];
    let proxy = start(config.clone());
    assert_eq!(greeting(&proxy).await, "web.mesh.test|false\n");
    assert_eq!(greeting(&proxy).await, "web.mesh.test|true\n");
    config.secrets = vec![secret("own", &leaf(2))];
    proxy.apply(config).unwrap();
    assert_eq!(greeting(&proxy).await, "web.mesh.test|false\n");
    assert_eq!(cluster_count(&proxy, "a", |s| s.ssl_session_reused.value()), 1);
}

#[tokio::test]
async fn without_sni_none_is_sent() {
    let authority = Authority::new("root");
    let origin = secure_echo(server_config(&authority.leaf(&[SERVER]), None, &[])).await;
    let tls = UpstreamTls { sni: String::new(), ..context(&authority, vec![uri(SERVER)]) };
    let proxy = start(through(origin, tls));
    assert_eq!(greeting(&proxy).await, "-|false\n");
}

#[tokio::test]
async fn tls_on_both_sides_carries_data_and_half_close() {
    let authority = Authority::new("root");
    let origin = secure_echo(server_config(&authority.leaf(&[SERVER]), None, &[])).await;
    let mut config = through(origin, context(&authority, vec![uri(SERVER)]));
    let front = authority.leaf(&["localhost"]);
    config.listeners[0].filter_chains[0].tls = Some(tls(&front, Some(trust(&authority, &[CLIENT]))));
    let proxy = start(config);
    let me = authority.spiffe(CLIENT);
    let mut stream = certs_tls(address(&proxy), "localhost", client(&authority, Some(&me))).await.unwrap();
    let data: Vec<u8> = (0..300_000_u32).map(|i| (i >> 2) as u8).collect();
    let (mut read, mut write) = tokio::io::split(stream);
    let mut all = Vec::new();
    let (said, heard) = tokio::join!(
        async {
            write.write_all(&data).await?;
            write.shutdown().await
        },
        read.read_to_end(&mut all)
    );
    said.unwrap();
    heard.unwrap();
    let newline = all.iter().position(|b| *b == b'\n').unwrap();
    assert!(all[newline + 1..] == data);
    stream = read.unsplit(write);
    drop(stream);
}

#[tokio::test]
async fn host_that_never_answers_the_handshake_is_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = listener.local_addr().unwrap();
    let authority = Authority::new("root");
    let mut config = through(origin, context(&authority, vec![]));
    config.clusters[0].connect_timeout = std::time::Duration::from_millis(60);
    let proxy = start(config);
    assert_eq!(greeting(&proxy).await, "");
    assert_eq!(cluster_count(&proxy, "a", |s| s.upstream_cx_connect_timeout.value()), 1);
    drop(listener);
}

#[tokio::test]
async fn names_without_roots_are_refused() {
    let authority = Authority::new("root");
    let mut tls = context(&authority, vec![uri(SERVER)]);
    tls.validation =
        Some(ValidationSource::Inline(ValidationContext { sans: vec![uri(SERVER)], ..Default::default() }));
    let proxy = start(Config::default());
    let errors = proxy.apply(through(nobody().await, tls)).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0].resource, "cluster/a");
}
