//! A GET over HTTP/1.1, in plain text or over TLS.

use outrigger_api::outrigger::v1::HttpProbe;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Most bytes of an answer that are read: a status line is all that matters.
const ANSWER_BYTES_MAX: usize = 4 << 10;

/// Asks; an answer from 200 to 399 is a success.
///
/// *Errors*: what was wrong, for people.
pub(super) async fn get(stream: TcpStream, http: &HttpProbe, application: IpAddr) -> Result<(), String> {
    let request = request(http, application);
    if !http.tls {
        return ask(stream, &request).await;
    }
    let name = match http.host.as_str() {
        "" => ServerName::from(application),
        host => ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?,
    };
    let tls = TlsConnector::from(any_certificate()?).connect(name, stream).await;
    ask(tls.map_err(|error| error.to_string())?, &request).await
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Result<(), String> {
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    stream.flush().await.map_err(|error| error.to_string())?;
    let status = status(&mut stream).await?;
    if (200..400).contains(&status) { Ok(()) } else { Err(format!("status {status}")) }
}

/// Names and values were checked when the group was applied; what could still end a line ends the request here.
fn request(http: &HttpProbe, application: IpAddr) -> String {
    let plain = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
    let host = match http.host.as_str() {
        "" => application.to_string(),
        host => plain(host),
    };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let named = http.headers.iter().any(|header| header.name.eq_ignore_ascii_case("host"));
    let mut out = format!("GET {} HTTP/1.1\r\n", plain(&http.path).replace(' ', "%20"));
    if !named {
        out.push_str(&format!("host: {host}:{}\r\n", http.port));
    }
    for header in &http.headers {
        out.push_str(&format!("{}: {}\r\n", plain(&header.name), plain(&header.value)));
    }
    out.push_str("user-agent: outrigger-probe\r\nconnection: close\r\n\r\n");
    out
}

/// The status of an answer (RFC 9112 section 4), whatever follows it.
async fn status(stream: &mut (impl AsyncRead + Unpin)) -> Result<u16, String> {
    let mut read = Vec::with_capacity(256);
    while !read.contains(&b'\n') && read.len() < ANSWER_BYTES_MAX {
        if stream.read_buf(&mut read).await.map_err(|error| error.to_string())? == 0 {
            break;
        }
    }
    let line = read.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let version = words.next().unwrap_or_default();
    let status = words.next().and_then(|word| word.trim_end().parse().ok());
    status.filter(|_| version.starts_with("HTTP/1.")).ok_or_else(|| "not an answer of HTTP/1".to_owned())
}

/// TLS that takes every certificate, as kubelet's probes do: the application's is rarely one that this host trusts, and
/// nothing is sent that anybody could steal.
fn any_certificate() -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(AnyCertificate(provider.clone()));
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    Ok(Arc::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()))
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrigger_api::outrigger::v1::ProbeHeader;
    use rustls_pki_types::PrivateKeyDer;
    use std::net::Ipv4Addr;
    use tokio::net::TcpListener;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn request_says_what_the_probe_says_and_cannot_be_ended_early() {
        let header = |name: &str, value: &str| ProbeHeader { name: name.to_owned(), value: value.to_owned() };
        let http = HttpProbe {
            host: String::new(),
            port: 8080,
            path: "/ready?a b\r\nx: y".to_owned(),
            headers: vec![header("x-a", "b\r\nc: d")],
            tls: false,
        };
        let expected = "GET /ready?a%20bx:%20y HTTP/1.1\r\nhost: 127.0.0.1:8080\r\nx-a: bc: d\r\nuser-agent: outrigger-probe\r\nconnection: close\r\n\r\n";
        assert_eq!(request(&http, LOOPBACK), expected);
        let own = HttpProbe { headers: vec![header("Host", "a.example")], ..http };
        assert!(!request(&own, LOOPBACK).contains("127.0.0.1"));
    }

    #[tokio::test]
    async fn application_with_a_certificate_of_its_own_is_asked_over_tls() {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["nobody.test".to_owned()]).unwrap();
        let chain = vec![params.self_signed(&key).unwrap().der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for status in [204, 503] {
                let (stream, _) = listener.accept().await.unwrap();
                let mut tls = acceptor.accept(stream).await.unwrap();
                let mut asked = [0; 1_024];
                let _ = tls.read(&mut asked).await;
                let _ = tls.write_all(format!("HTTP/1.1 {status} x\r\n\r\n").as_bytes()).await;
                let _ = tls.flush().await;
            }
        });
        let probe =
            HttpProbe { port: address.port().into(), path: "/".into(), tls: true, ..HttpProbe::default() };
        let tried = async || get(TcpStream::connect(address).await.unwrap(), &probe, LOOPBACK).await;
        assert_eq!(tried().await, Ok(()));
        assert_eq!(tried().await, Err("status 503".to_owned()));
    }
}
