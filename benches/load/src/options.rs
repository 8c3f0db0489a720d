//! What load to make: `key=value` arguments.

use crate::Failure;
use crate::http2::{self, Block};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

/// Trace contexts of requests that their caller does not sample, and of those that it does: one in [`SAMPLED_EVERY`].
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
const TRACE_SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// One request in so many is sampled.
pub(crate) const SAMPLED_EVERY: usize = 100;

/// The load. The name of a field is the key of its argument, unless said otherwise.
pub(crate) struct Options {
    /// Where to. Required.
    pub(crate) port: u16,
    /// `proto=h2`; default `h1`.
    pub(crate) h2: bool,
    /// Connections. Default 64.
    pub(crate) conns: usize,
    /// Requests at a time per connection; more than 1 on HTTP/1.1 is pipelining. Default 1.
    pub(crate) streams: u32,
    /// Seconds before counting begins. Default 1.
    pub(crate) warm: f64,
    /// Seconds of counting. Default 3.
    pub(crate) secs: f64,
    /// Requests per second, arriving at random (Poisson); 0, the default: as fast as answers come.
    pub(crate) rate: f64,
    /// `close=1`: a connection per request.
    pub(crate) close: bool,
    /// `idle=1`: one request on each connection, which then stays open until standard input ends.
    pub(crate) idle: bool,
    /// From `ca`, `cert`, `key`; `resume=1` resumes sessions.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// Default `app.mesh`.
    pub(crate) sni: ServerName<'static>,
    /// Requests of HTTP/1.1, whole; taken in turn.
    pub(crate) requests: Vec<Vec<u8>>,
    /// Head of an HTTP/2 request.
    pub(crate) head: Block,
    /// The same of a sampled request, for every use but the first of a connection.
    pub(crate) head_sampled: Vec<u8>,
    /// Bytes of a request's body: `body=N`. Default none. With HTTP/2 a body makes it a gRPC request.
    pub(crate) body: Vec<u8>,
    /// Processes whose CPU time is divided by requests: `watch=PID,PID`.
    pub(crate) watch: Vec<u32>,
}

/// Arguments by key; what nobody asked for is an error.
struct Args<'a>(HashMap<&'a str, &'a str>);

impl<'a> Args<'a> {
    fn text(&mut self, key: &str, default: &'a str) -> &'a str {
        self.0.remove(key).unwrap_or(default)
    }

    fn number<T: FromStr>(&mut self, key: &str, default: T) -> Result<T, Failure>
    where
        T::Err: Display,
    {
        let Some(text) = self.0.remove(key) else { return Ok(default) };
        text.parse().map_err(|error| format!("{key}={text}: {error}").into())
    }

    fn flag(&mut self, key: &str) -> Result<bool, Failure> {
        Ok(self.number::<u8>(key, 0)? != 0)
    }
}

impl Options {
    /// Reads arguments.
    pub(crate) fn parse(args: &[String]) -> Result<Self, Failure> {
        let pairs = args.iter().map(|a| a.split_once('=').ok_or_else(|| format!("not key=value: {a}")));
        let mut args = Args(pairs.collect::<Result<_, _>>()?);
        let h2 = args.text("proto", "h1") == "h2";
        let host = args.text("host", "app.mesh");
        let path = args.text("path", "/api/v1/items/42?full=1");
        let (hosts, paths) = (args.number("hosts", 0)?, args.number("paths", 0)?);
        let fields = args.number("fields", 0)?;
        let body = vec![b'q'; args.number("body", 0)?];
        let tls = tls(&mut args, h2)?;
        let watch = args.text("watch", "");
        let (head, head_sampled) = heads2(host, path, tls.is_some(), !body.is_empty());
        let options = Self {
            port: args.number("port", 0)?,
            h2,
            conns: args.number("conns", 64)?,
            streams: args.number("streams", 1)?,
            warm: args.number("warm", 1.0)?,
            secs: args.number("secs", 3.0)?,
            rate: args.number("rate", 0.0)?,
            close: args.flag("close")?,
            idle: args.flag("idle")?,
            sni: ServerName::try_from(args.text("sni", "app.mesh").to_owned())?,
            requests: requests(host, path, hosts, paths, fields, &body),
            head,
            head_sampled,
            tls,
            body,
            watch: watch.split(',').filter(|s| !s.is_empty()).map(str::parse).collect::<Result<_, _>>()?,
        };
        match args.0.keys().next() {
            Some(unknown) => Err(format!("unknown key: {unknown}").into()),
            None if options.port == 0 => Err("port=PORT is needed".into()),
            None => Ok(options),
        }
    }
}

/// Requests that differ in their host or path, in an order that no cache has learnt; `fields` more fields on each.
fn requests(host: &str, path: &str, hosts: usize, paths: usize, fields: usize, body: &[u8]) -> Vec<Vec<u8>> {
    let count = hosts.max(paths).max(1);
    let more: String =
        (0..fields).map(|n| format!("X-Custom-Field-{n}: some-value-of-field-{n}\r\n")).collect();
    let (method, length) = match body.len() {
        0 => ("GET", String::new()),
        n => ("POST", format!("Content-Length: {n}\r\n")),
    };
    let one = |turn: usize| {
        let n = turn * 7919 % count;
        let trace = if turn.is_multiple_of(SAMPLED_EVERY) { TRACE_SAMPLED } else { TRACE };
        let host = if hosts > 0 { format!("svc-{n}.mesh") } else { host.to_owned() };
        let path = if paths > 0 { format!("/api/r{n}/items/42?full=1") } else { path.to_owned() };
        let mut text = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: outrigger-load/1\r\nAccept: application/json\r\n\
             Accept-Encoding: gzip\r\nX-Request-Id: 7b2f0a52-58d5-4b6c-9b53-3a4a1fbc6c7a\r\ntraceparent: {trace}\r\n\
             {more}{length}\r\n"
        )
        .into_bytes();
        text.extend_from_slice(body);
        text
    };
    (0..count.max(SAMPLED_EVERY)).map(one).collect()
}

fn heads2(host: &str, path: &str, secure: bool, grpc: bool) -> (Block, Vec<u8>) {
    let mut fields = vec![
        (":method", if grpc { "POST" } else { "GET" }),
        (":scheme", if secure { "https" } else { "http" }),
        (":authority", host),
        (":path", path),
        ("user-agent", "outrigger-load/1"),
    ];
    if grpc {
        fields.extend([("te", "trailers"), ("content-type", "application/grpc"), ("grpc-timeout", "10S")]);
    }
    fields.push(("traceparent", TRACE));
    let block = http2::block(&fields);
    // The last field is one index; here it is a literal that no table keeps, so that all other indexes stay right.
    let mut sampled = block.later.clone();
    sampled.pop();
    http2::literal(&mut sampled, "traceparent", TRACE_SAMPLED);
    (block, sampled)
}

fn tls(args: &mut Args<'_>, h2: bool) -> Result<Option<Arc<ClientConfig>>, Failure> {
    let (ca, cert, key) = (args.text("ca", ""), args.text("cert", ""), args.text("key", ""));
    let resume = args.flag("resume")?;
    if ca.is_empty() {
        return Ok(None);
    }
    let mut provider = aws_lc_rs::default_provider();
    // The same for every proxy: what is fastest everywhere, and one round trip.
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<_, _>>()?;
    let mut config = ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    config.alpn_protocols = vec![if h2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    config.resumption = if resume { Resumption::in_memory_sessions(256) } else { Resumption::disabled() };
    Ok(Some(Arc::new(config)))
}
