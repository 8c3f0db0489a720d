use crate::bed::*;
use outrigger_engine::proxy::ProxyHandle;
use outrigger_testkit::Origin;
use outrigger_testkit::certs::{Authority, Leaf, client_config, client_config_versions};
use outrigger_traffic::config::{
    CertificateSource, Config, DownstreamTls, SanType, StringPattern, TlsVersion, ValidationContext,
    ValidationSource,
};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn der(leaf: &Leaf) -> Vec<u8> {
    CertificateDer::from_pem_slice(leaf.cert_pem.as_bytes()).unwrap().to_vec()
}

/// One TLS chain in front of an echo.
fn echo_behind(tls: DownstreamTls, origin: SocketAddr) -> Config {
    config(listener(vec![chain(tcp_to("a"), Some(tls))]), vec![cluster("a", &[origin])])
}

/// A mutual TLS echo that admits [`CLIENT`] of `authority`.
async fn mutual(authority: &Authority) -> (ProxyHandle, Origin) {
    let origin = Origin::tcp_echo("a").await;
    let server = authority.leaf(&["spiffe://mesh.test/ns/default/sa/web", "localhost"]);
    let proxy = start(echo_behind(tls(&server, Some(trust(authority, &[CLIENT]))), origin.address()));
    (proxy, origin)
}

#[tokio::test]
async fn chain_and_certificate_follow_the_server_name() {
    let authority = Authority::new("root");
    let (one, two) = (authority.leaf(&["one.test"]), authority.leaf(&["*.two.test"]));
    let (a, b) = (greeter("a").await, greeter("b").await);
    let mut first = chain(tcp_to("a"), Some(tls(&one, None)));
    first.matches.server_names = vec!["one.test".into()];
    let mut second = chain(tcp_to("b"), Some(tls(&two, None)));
    second.matches.server_names = vec!["*.two.test".into()];
    let proxy = start(config(listener(vec![first, second]), vec![cluster("a", &[a]), cluster("b", &[b])]));
    for (name, expected) in [("one.test", "a"), ("ONE.test", "a"), ("x.two.test", "b"), ("x.y.two.test", "b")]
    {
        let mut stream = certs_tls(address(&proxy), name, client(&authority, None)).await.unwrap();
        assert_eq!(until_closed(&mut stream).await, expected.as_bytes(), "{name}");
        let shown = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        assert_eq!(shown, der(if expected == "a" { &one } else { &two }), "{name}");
    }
    assert!(certs_tls(address(&proxy), "three.test", client(&authority, None)).await.is_err());
    assert_eq!(listener_count(&proxy, |s| s.no_filter_chain_match.value()), 1);
}

#[tokio::test]
async fn certificate_of_one_chain_follows_the_server_name() {
    let authority = Authority::new("root");
    let leaves =
        [authority.leaf(&["first.test"]), authority.leaf(&["*.wild.test"]), authority.leaf(&["x.wild.test"])];
    let mut context = tls(&leaves[0], None);
    context.certificates = leaves.iter().map(|leaf| CertificateSource::Inline(certificate(leaf))).collect();
    let origin = Origin::tcp_echo("a").await;
    let proxy = start(echo_behind(context, origin.address()));
    for (name, expected) in [("first.test", 0), ("y.wild.test", 1), ("x.wild.test", 2), ("unknown.test", 0)] {
        let shown = echo_over_tls(address(&proxy), name, client(&authority, None)).await.unwrap();
        assert_eq!(shown, der(&leaves[expected]), "{name}");
    }
}

#[tokio::test]
async fn plaintext_and_tls_on_one_port_take_their_chains() {
    let authority = Authority::new("root");
    let leaf = authority.leaf(&["localhost"]);
    let mut secure = chain(tcp_to("a"), Some(tls(&leaf, None)));
    secure.matches.transport_protocol = Some("tls".into());
    let mut plain = chain(tcp_to("b"), None);
    plain.matches.transport_protocol = Some("raw_buffer".into());
    let (a, b) = (Origin::tcp_echo("a").await, Origin::tcp_echo("b").await);
    let proxy = start(config(
        listener(vec![secure, plain]),
        vec![cluster("a", &[a.address()]), cluster("b", &[b.address()])],
    ));
    echo_over_tls(address(&proxy), "localhost", client(&authority, None)).await.unwrap();
    let mut stream = TcpStream::connect(address(&proxy)).await.unwrap();
    echo(&mut stream, b"hello, this is plain").await.unwrap();
    assert_eq!((a.connections(), b.connections()), (1, 1));
}

#[tokio::test]
async fn tls_is_passed_through_by_server_name_untouched() {
    let authority = Authority::new("root");
    let leaf = authority.leaf(&["behind.test"]);
    // The host behind is a TLS proxy of its own.
    let inner_origin = Origin::tcp_echo("a").await;
    let inner = start(echo_behind(tls(&leaf, None), inner_origin.address()));
    let mut through = chain(tcp_to("a"), None);
    through.matches.server_names = vec!["behind.test".into()];
    let outer = start(config(listener(vec![through]), vec![cluster("a", &[address(&inner)])]));
    let shown = echo_over_tls(address(&outer), "behind.test", client(&authority, None)).await.unwrap();
    assert_eq!(shown, der(&leaf));
}

/// A leaf with everything to choose.
fn odd_leaf(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (Leaf, Authority) {
    let authority = Authority::new("odd root");
    let mut params = CertificateParams::default();
    params.subject_alt_names =
        names.iter().map(|uri| rcgen::SanType::URI((*uri).try_into().unwrap())).collect();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    (authority.sign(&params), authority)
}

#[tokio::test]
async fn only_the_expected_client_is_admitted() {
    let authority = Authority::new("root");
    let (proxy, _origin) = mutual(&authority).await;
    let stranger = Authority::new("root");
    let (day, now) = (Duration::from_secs(86_400), SystemTime::now());
    let table: Vec<(&str, Option<Leaf>, bool)> = vec![
        ("right", Some(authority.spiffe(CLIENT)), true),
        ("right, with a DNS name", Some(authority.leaf(&[CLIENT, "client.test"])), true),
        ("none", None, false),
        ("another authority of the same name", Some(stranger.spiffe(CLIENT)), false),
        ("another identity", Some(authority.spiffe("spiffe://mesh.test/ns/default/sa/intruder")), false),
        ("longer", Some(authority.spiffe(&format!("{CLIENT}-admin"))), false),
        ("other case", Some(authority.spiffe("spiffe://mesh.test/ns/default/sa/Client")), false),
        ("other trust domain", Some(authority.spiffe("spiffe://mesh.test.evil/ns/default/sa/client")), false),
        ("dns only", Some(authority.leaf(&["client.mesh.test"])), false),
        ("no name", Some(authority.leaf(&[])), false),
        (
            "two identities",
            Some(authority.leaf(&["spiffe://mesh.test/ns/default/sa/intruder", CLIENT])),
            false,
        ),
        ("two identities, ours first", Some(authority.leaf(&[CLIENT, "https://mesh.test/"])), false),
        ("expired", Some(authority.leaf_valid(&[CLIENT], now - 2 * day, now - day)), false),
        ("not yet valid", Some(authority.leaf_valid(&[CLIENT], now + day, now + 2 * day)), false),
    ];
    for (what, leaf, admitted) in table {
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let config = client_config_versions(&authority, leaf.as_ref(), &[], &[version]);
            let got = echo_over_tls(address(&proxy), "localhost", config).await;
            assert_eq!(got.is_ok(), admitted, "{what} {version:?}: {got:?}");
        }
    }
    // A client learns of its refusal by the alert, which leaves before it is counted.
    eventually("refusals to be counted", || {
        listener_count(&proxy, |s| s.ssl_fail_verify_no_cert.value()) == 2
            && listener_count(&proxy, |s| s.ssl_fail_verify_san.value()) == 16
            && listener_count(&proxy, |s| s.ssl_fail_verify_error.value()) == 6
    })
    .await;
}

#[tokio::test]
async fn san_matchers_of_every_kind_admit_and_refuse() {
    let authority = Authority::new("root");
    let server = authority.leaf(&["localhost"]);
    let origin = Origin::tcp_echo("a").await;
    let leaf = authority.leaf(&["spiffe://mesh.test/ns/a/sa/b", "web.mesh.test", "10.1.2.3"]);
    let text = |s: &str| s.to_owned();
    let table = [
        (san(SanType::Uri, StringPattern::Prefix(text("spiffe://mesh.test/"))), true),
        (san(SanType::Uri, StringPattern::Prefix(text("spiffe://mesh.tes/"))), false),
        (san(SanType::Uri, StringPattern::Suffix(text("/sa/b"))), true),
        (san(SanType::Uri, StringPattern::Contains(text("/ns/a/"))), true),
        (san(SanType::Uri, StringPattern::Regex(text("spiffe://mesh.test/ns/[a-c]/sa/.*"))), true),
        (san(SanType::Uri, StringPattern::Regex(text("mesh.test"))), false),
        (san(SanType::Uri, StringPattern::Exact(text("web.mesh.test"))), false),
        (san(SanType::Dns, StringPattern::Exact(text("web.mesh.test"))), true),
        (san(SanType::Dns, StringPattern::Exact(text("mesh.test"))), false),
        (san(SanType::Ip, StringPattern::Exact(text("10.1.2.3"))), true),
        (san(SanType::Ip, StringPattern::Exact(text("10.1.2.4"))), false),
        (san(SanType::Email, StringPattern::Contains(text("mesh"))), false),
    ];
    for (matcher, admitted) in table {
        let context = ValidationContext { sans: vec![matcher.clone()], ..trust(&authority, &[]) };
        let proxy = start(echo_behind(tls(&server, Some(context)), origin.address()));
        let got = echo_over_tls(address(&proxy), "localhost", client(&authority, Some(&leaf))).await;
        assert_eq!(got.is_ok(), admitted, "{matcher:?}: {got:?}");
    }
}

#[tokio::test]
async fn certificates_rotate_while_connections_live_on() {
    let authority = Authority::new("root");
    let (old, new) = (authority.leaf(&["localhost"]), authority.leaf(&["localhost"]));
    let origin = Origin::tcp_echo("a").await;
    let mut context = tls(&old, None);
    context.certificates = vec![CertificateSource::Sds("own".into())];
    let mut config = echo_behind(context, origin.address());
    config.secrets = vec![secret("own", &old)];
    // The port must stay: it is part of what was applied.
    let proxy = start(config.clone());
    let mut living = certs_tls(address(&proxy), "localhost", client(&authority, None)).await.unwrap();
    echo(&mut living, b"before").await.unwrap();
    assert_eq!(
        echo_over_tls(address(&proxy), "localhost", client(&authority, None)).await.unwrap(),
        der(&old)
    );
    config.secrets = vec![secret("own", &new)];
    proxy.apply(config).unwrap();
    assert_eq!(
        echo_over_tls(address(&proxy), "localhost", client(&authority, None)).await.unwrap(),
        der(&new)
    );
    echo(&mut living, b"after").await.unwrap();
}

#[tokio::test]
async fn missing_secret_refuses_handshakes_until_it_comes() {
    let authority = Authority::new("root");
    let leaf = authority.leaf(&["localhost"]);
    let origin = Origin::tcp_echo("a").await;
    let mut context = tls(&leaf, None);
    context.certificates = vec![CertificateSource::Sds("own".into())];
    let mut config = echo_behind(context, origin.address());
    let proxy = start(config.clone());
    assert!(echo_over_tls(address(&proxy), "localhost", client(&authority, None)).await.is_err());
    let mut plain = TcpStream::connect(address(&proxy)).await.unwrap();
    assert!(echo(&mut plain, b"never in the clear").await.is_err());
    assert!(listener_count(&proxy, |s| s.ssl_secret_missing.value()) >= 1);
    assert_eq!(origin.connections(), 0);
    config.secrets = vec![secret("own", &leaf)];
    proxy.apply(config).unwrap();
    echo_over_tls(address(&proxy), "localhost", client(&authority, None)).await.unwrap();
}

#[tokio::test]
async fn sessions_of_removed_trust_are_not_resumed() {
    let (old, new) = (Authority::new("old root"), Authority::new("new root"));
    let server = new.leaf(&["localhost"]);
    let origin = Origin::tcp_echo("a").await;
    let mut context = tls(&server, Some(trust(&old, &[CLIENT])));
    context.validation = Some(ValidationSource::Sds("roots".into()));
    let mut config = echo_behind(context, origin.address());
    config.secrets = vec![roots_secret("roots", trust(&old, &[CLIENT]))];
    let proxy = start(config.clone());
    let client = client_config(&new, Some(&old.spiffe(CLIENT)), &[]);
    for _ in 0..3 {
        echo_over_tls(address(&proxy), "localhost", client.clone()).await.unwrap();
    }
    assert_eq!(listener_count(&proxy, |s| s.ssl_session_reused.value()), 2);
    config.secrets = vec![roots_secret("roots", trust(&new, &[CLIENT]))];
    proxy.apply(config).unwrap();
    assert!(echo_over_tls(address(&proxy), "localhost", client).await.is_err());
    assert_eq!(listener_count(&proxy, |s| s.ssl_session_reused.value()), 2);
    let fresh = client_config(&new, Some(&new.spiffe(CLIENT)), &[]);
    echo_over_tls(address(&proxy), "localhost", fresh).await.unwrap();
}

#[tokio::test]
async fn alpn_is_agreed_or_left_out() {
    let authority = Authority::new("root");
    let leaf = authority.leaf(&["localhost"]);
    let origin = Origin::tcp_echo("a").await;
    let mut context = tls(&leaf, None);
    context.alpn = vec!["h2".into(), "http/1.1".into()];
    let proxy = start(echo_behind(context, origin.address()));
    let table: [(&[&str], Option<&[u8]>); 4] = [
        (&["http/1.1", "h2"], Some(b"h2")),
        (&["http/1.1"], Some(b"http/1.1")),
        (&["acme"], None),
        (&[], None),
    ];
    for (offered, expected) in table {
        let config = client_config(&authority, None, offered);
        let mut stream = certs_tls(address(&proxy), "localhost", config).await.unwrap();
        echo(&mut stream, b"x").await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), expected, "{offered:?}");
    }
}

#[tokio::test]
async fn versions_outside_the_limits_are_refused() {
    let authority = Authority::new("root");
    let leaf = authority.leaf(&["localhost"]);
    let origin = Origin::tcp_echo("a").await;
    for (min, max) in [(TlsVersion::V1_2, TlsVersion::V1_2), (TlsVersion::V1_3, TlsVersion::V1_3)] {
        let mut context = tls(&leaf, None);
        context.params.min = Some(min);
        context.params.max = Some(max);
        let proxy = start(echo_behind(context, origin.address()));
        for (version, served) in [
            (&rustls::version::TLS12, min == TlsVersion::V1_2),
            (&rustls::version::TLS13, max == TlsVersion::V1_3),
        ] {
            let config = client_config_versions(&authority, None, &[], &[version]);
            let got = echo_over_tls(address(&proxy), "localhost", config).await;
            assert_eq!(got.is_ok(), served, "{version:?} in {min:?}..={max:?}");
        }
    }
}

#[tokio::test]
async fn client_half_close_over_tls_still_gets_the_answer() {
    let authority = Authority::new("root");
    let leaf = authority.leaf(&["localhost"]);
    let listening = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = listening.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listening.accept().await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_all(format!("{} bytes", all.len()).as_bytes()).await.unwrap();
    });
    let proxy = start(echo_behind(tls(&leaf, None), origin));
    let mut stream = certs_tls(address(&proxy), "localhost", client(&authority, None)).await.unwrap();
    stream.write_all(&[0; 100_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"100000 bytes", "and the end was said, not cut");
}

#[tokio::test]
async fn unusable_tls_contexts_are_refused_with_their_place() {
    let authority = Authority::new("root");
    let (leaf, other) = (authority.leaf(&["localhost"]), authority.leaf(&["localhost"]));
    let address = nobody().await;
    let context = |config: &mut Config| config.listeners[0].filter_chains[0].tls.clone().unwrap();
    type Change<'a> = Box<dyn Fn(&mut DownstreamTls) + 'a>;
    let table: Vec<(&str, Change<'_>)> = vec![
        (
            "tls_certificates[0]",
            Box::new(|tls| {
                let pair = CertificateSource::Inline(outrigger_traffic::config::TlsCertificate {
                    chain_pem: leaf.cert_pem.clone(),
                    key_pem: other.key_pem.clone(),
                });
                tls.certificates = vec![pair];
            }),
        ),
        (
            "tls_certificates[0]",
            Box::new(|tls| {
                let mut pair = certificate(&leaf);
                pair.chain_pem = "garbage".into();
                tls.certificates = vec![CertificateSource::Inline(pair)];
            }),
        ),
        (
            "tls_certificates[0]",
            Box::new(|tls| {
                let mut pair = certificate(&leaf);
                pair.key_pem = "garbage".into();
                tls.certificates = vec![CertificateSource::Inline(pair)];
            }),
        ),
        ("tls_certificates", Box::new(|tls| tls.certificates.clear())),
        ("require_client_certificate", Box::new(|tls| tls.require_client_certificate = true)),
        (
            "validation_context",
            Box::new(|tls| {
                tls.validation = Some(ValidationSource::Inline(ValidationContext::default()));
            }),
        ),
        (
            "validation_context.trusted_ca",
            Box::new(|tls| {
                let context =
                    ValidationContext { trusted_ca_pem: Some("x".into()), ..ValidationContext::default() };
                tls.validation = Some(ValidationSource::Inline(context));
            }),
        ),
        (
            "tls_params",
            Box::new(|tls| {
                tls.params.min = Some(TlsVersion::V1_3);
                tls.params.max = Some(TlsVersion::V1_2);
            }),
        ),
    ];
    let good = echo_behind(tls(&leaf, None), address);
    let proxy = start(good.clone());
    for (place, change) in table {
        let mut config = good.clone();
        let mut changed = context(&mut config);
        change(&mut changed);
        config.listeners[0].filter_chains[0].tls = Some(changed);
        let errors = proxy.apply(config).unwrap_err();
        let [error] = &errors[..] else { panic!("{place}: {errors:?}") };
        assert_eq!(error.resource, "listener/in");
        assert_eq!(error.path, format!("filter_chains[0].transport_socket.{place}"), "{error}");
    }
    let mut config = good;
    config.secrets = vec![secret("s", &Leaf { key_pem: other.key_pem.clone(), ..leaf.clone() })];
    let errors = proxy.apply(config).unwrap_err();
    assert_eq!(errors[0].resource, "secret/s", "{errors:?}");
}

#[tokio::test]
async fn leaves_that_may_sign_or_are_for_servers_only_are_refused() {
    type Change = fn(&mut CertificateParams);
    let table: [(&str, Change, bool); 4] = [
        ("ordinary", |_| {}, true),
        ("a CA", |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained), false),
        (
            "may sign certificates",
            |p| {
                p.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
            },
            false,
        ),
        ("for servers only", |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth], false),
    ];
    for (what, change, admitted) in table {
        let (leaf, authority) = odd_leaf(&[CLIENT], change);
        let (proxy, _origin) = mutual(&authority).await;
        let got = echo_over_tls(address(&proxy), "localhost", client(&authority, Some(&leaf))).await;
        assert_eq!(got.is_ok(), admitted, "{what}: {got:?}");
    }
}

#[tokio::test]
async fn garbage_after_the_hello_closes_the_connection() {
    let authority = Authority::new("root");
    let (proxy, origin) = mutual(&authority).await;
    for bytes in
        [&b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"[..], b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff"]
    {
        let mut stream = TcpStream::connect(address(&proxy)).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let _ = stream.read(&mut [0; 100]).await;
        until_closed(&mut stream).await;
    }
    assert_eq!(origin.connections(), 0);
    assert_eq!(listener_count(&proxy, |s| s.ssl_connection_error.value()), 3);
}

#[tokio::test]
async fn client_that_closes_without_close_notify_has_said_all_the_same() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = listener.local_addr().unwrap();
    let heard = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut all = Vec::new();
        let end = stream.read_to_end(&mut all).await;
        (all, end.is_ok())
    });
    let authority = Authority::new("root");
    let proxy = start(echo_behind(tls(&authority.leaf(&["one.test"]), None), origin));
    let mut stream = certs_tls(address(&proxy), "one.test", client(&authority, None)).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    stream.flush().await.unwrap();
    let (mut tcp, _) = stream.into_inner();
    tcp.shutdown().await.unwrap();
    let (all, orderly) = outrigger_testkit::within("the host to hear the end", heard).await.unwrap();
    assert_eq!((all.as_slice(), orderly), (&b"hello"[..], true));
}
