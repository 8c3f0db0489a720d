//! Connections to the control service.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

/// Time for TCP and TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for a call.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to the first address that takes one.
///
/// *Errors*: that of the last address.
pub async fn connect(
    addresses: &[String],
    server_name: &str,
    tls: &Arc<ClientConfig>,
) -> anyhow::Result<Channel> {
    let name = ServerName::try_from(server_name.to_owned())
        .with_context(|| format!("`{server_name}` can be no name in a certificate"))?;
    let mut last = anyhow::anyhow!("no address");
    for address in addresses {
        let connector = Connector { address: address.clone(), name: name.clone(), tls: tls.clone() };
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(20))
            .tcp_nodelay(true);
        match endpoint.connect_with_connector(connector).await {
            Ok(channel) => return Ok(channel),
            Err(error) => last = anyhow::Error::new(error).context(address.clone()),
        }
    }
    Err(last)
}

#[derive(Clone)]
struct Connector {
    address: String,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
}

impl tower_service::Service<http::Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let connect = async {
                let tcp = TcpStream::connect(&this.address).await?;
                tcp.set_nodelay(true)?;
                TlsConnector::from(this.tls).connect(this.name, tcp).await
            };
            let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect).await;
            Ok(TokioIo::new(stream.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??))
        })
    }
}
