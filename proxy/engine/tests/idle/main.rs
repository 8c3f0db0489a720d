//! What an open connection without a request costs: bytes of the heap, plain and TLS.
//!
//! The one test of this program has it for itself: the count is that of the whole process. Clients give up everything but
//! their sockets before it is looked at.

#[path = "../allocations/rig.rs"]
mod rig;

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use outrigger_testkit::certs::{Authority, client_config};
use outrigger_traffic::config::HttpUpstream;
use outrigger_traffic::config::{
    CertificateSource, DownstreamTls, TlsCertificate, TlsParams, ValidationContext, ValidationSource,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Connections opened; so many that what is kept per worker does not count.
const CONNECTIONS: usize = 400;
/// Bytes per idle connection.
const PLAIN_MAX: usize = 4736;
const TLS_MAX: usize = 14 * 1024;

/// Sends a request over a connection and reads the answer.
fn request(stream: &mut (impl Read + Write)) {
    stream.write_all(rig::REQUEST).unwrap();
    let mut room = [0; 4096];
    let mut have = 0;
    while !room[..have].ends_with(b"hello") {
        let n = stream.read(&mut room[have..]).unwrap();
        assert!(n > 0, "the proxy closed the connection");
        have += n;
    }
}

fn plain(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    request(&mut stream);
    stream
}

fn secured(address: SocketAddr, config: &Arc<rustls::ClientConfig>) -> TcpStream {
    let name = rustls_pki_types::ServerName::try_from("app.mesh").unwrap();
    let connection = rustls::ClientConnection::new(config.clone(), name).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, TcpStream::connect(address).unwrap());
    request(&mut stream);
    stream.sock
}

/// Bytes of the heap per connection that `open` opens, as soon as they are at most `max`, or after some seconds.
fn bytes_each(max: usize, mut open: impl FnMut() -> TcpStream) -> usize {
    // What the first ones make stays.
    let _warm: Vec<TcpStream> = (0..50).map(|_| open()).collect();
    let mut held = Vec::with_capacity(CONNECTIONS);
    let region = Region::new(COUNTED);
    held.extend((0..CONNECTIONS).map(|_| open()));
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        let change = region.change();
        let each = change.bytes_allocated.saturating_sub(change.bytes_deallocated) / CONNECTIONS;
        if each <= max || Instant::now() > until {
            return each;
        }
        std::thread::yield_now();
    }
}

#[test]
fn idle_connection_holds_little() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let origin = rig::origin();
    let proxy = rig::proxy(origin, None, HttpUpstream::Http1, 1);
    let address = proxy.listener_addrs("edge")[0];
    let each = bytes_each(PLAIN_MAX, || plain(address));
    println!("{each} bytes per idle plain connection");
    assert!(each <= PLAIN_MAX, "{each} bytes per idle plain connection");

    let authority = Authority::new("root");
    let server = authority.leaf(&["app.mesh"]);
    let client = authority.leaf(&["spiffe://mesh.test/ns/default/sa/client"]);
    let tls = DownstreamTls {
        certificates: vec![CertificateSource::Inline(TlsCertificate {
            chain_pem: server.cert_pem.clone(),
            key_pem: server.key_pem.clone(),
        })],
        validation: Some(ValidationSource::Inline(ValidationContext {
            trusted_ca_pem: Some(authority.pem()),
            ..ValidationContext::default()
        })),
        require_client_certificate: true,
        alpn: vec!["http/1.1".into()],
        params: TlsParams::default(),
        disable_stateless_session_resumption: false,
    };
    let proxy = rig::proxy(origin, Some(tls), HttpUpstream::Http1, 1);
    let address = proxy.listener_addrs("edge")[0];
    let mut config = (*client_config(&authority, Some(&client), &["http/1.1"])).clone();
    // Full handshakes: what a connection holds of its peer's certificate counts too.
    config.resumption = rustls::client::Resumption::disabled();
    let config = Arc::new(config);
    let each = bytes_each(TLS_MAX, || secured(address, &config));
    println!("{each} bytes per idle TLS connection");
    assert!(each <= TLS_MAX, "{each} bytes per idle TLS connection");
}
