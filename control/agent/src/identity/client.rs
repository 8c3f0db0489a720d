//! Connections to the control service.

use std::sync::Arc;
use std::time::Duration;

use outrigger_channel::{ControlAddress, Transport};
use rustls::ClientConfig;
use tonic::transport::Channel;

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
    let tls = tls.clone();
    let control = ControlAddress {
        addresses: addresses.to_vec(),
        tls: Some(Arc::new(move || tls.clone())),
        server_name: server_name.to_owned(),
        connect_timeout: CONNECT_TIMEOUT,
    };
    Ok(control.channel().await?)
}
