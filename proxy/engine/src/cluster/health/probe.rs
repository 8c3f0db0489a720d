//! The connection that a probe is made on.

use super::{grpc, http, tcp};
use crate::listener::proxy_header;
use crate::live::LiveCluster;
use crate::upstream::connect_tcp;
use outrigger_traffic::cluster::Host;
use outrigger_traffic::config::{HealthCheck, Probe};
use outrigger_traffic::health::Found;
use std::fmt;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

/// A connection of either kind.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Asks one host, on a connection that is kept from probe to probe where that is wanted.
#[derive(Default)]
pub(super) struct Prober {
    client: Option<http::Client>,
}

impl fmt::Debug for Prober {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prober").field("connected", &self.client.is_some()).finish()
    }
}

impl Prober {
    /// Asks once.
    ///
    /// *Cancel safety*: call [`Self::disconnect`] afterwards.
    pub(super) async fn ask(&mut self, cluster: &LiveCluster, rules: &HealthCheck, host: &Host) -> Found {
        let found = match &rules.probe {
            Probe::Tcp(probe) => match connect(cluster, rules, host).await {
                Ok(stream) => tcp::ask(stream, probe).await,
                Err(error) => Err(error),
            },
            Probe::Http(probe) => {
                let request = http::request(cluster, host, probe);
                let answer = self.exchange(cluster, rules, host, probe.http2, request).await;
                answer.and_then(|answer| http::judge(cluster, probe, &answer))
            }
            Probe::Grpc(probe) => {
                let request = grpc::request(cluster, host, rules, probe);
                self.exchange(cluster, rules, host, true, request).await.map(|answer| grpc::judge(&answer))
            }
        };
        found.unwrap_or_else(|error| {
            tracing::debug!(cluster = &*cluster.name, endpoint = %host.address, error = %error, "no answer to a probe");
            self.disconnect();
            Found::Unreachable
        })
    }

    /// Gives the connection up.
    pub(super) fn disconnect(&mut self) {
        self.client = None;
    }

    async fn exchange(
        &mut self,
        cluster: &LiveCluster,
        rules: &HealthCheck,
        host: &Host,
        http2: bool,
        request: io::Result<http::Request>,
    ) -> io::Result<http::Answer> {
        let request = request?;
        let kept = self.client.take().filter(http::Client::is_open);
        let mut client = match kept {
            Some(client) => client,
            None => http::Client::new(connect(cluster, rules, host).await?, http2).await?,
        };
        let answer = client.send(request, http::kept_bytes(&rules.probe)).await?;
        if rules.reuse_connection && !answer.closes {
            self.client = Some(client);
        }
        Ok(answer)
    }
}

/// Whether probes of this cluster go over TLS.
pub(super) fn scheme(cluster: &LiveCluster) -> &'static str {
    if cluster.tls.is_some() { "https" } else { "http" }
}

async fn connect(cluster: &LiveCluster, rules: &HealthCheck, host: &Host) -> io::Result<Box<dyn Stream>> {
    let config = &cluster.cluster.config;
    let address = host.check.target(host.address);
    let mut tcp = connect_tcp(address, config).await?;
    if let Some(version) = config.proxy_protocol {
        // A connection of our own: it comes from nobody else.
        tcp.write_all(&proxy_header::write(version, None)).await?;
    }
    let Some(tls) = &cluster.tls else { return Ok(Box::new(tcp)) };
    let (config, name) = tls.client(address.ip()).map_err(io::Error::other)?;
    let alpn = rules.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let connector = tokio_rustls::TlsConnector::from(config);
    Ok(Box::new(connector.with_alpn(alpn).connect(name, tcp).await?))
}
