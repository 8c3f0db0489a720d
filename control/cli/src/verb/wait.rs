//! Waiting for proxies to acknowledge; shared by `apply` and `delete`.

use std::time::Duration;

use http::Method;
use serde_json::Value;

use crate::client::Client;
use crate::failure::Failure;
use crate::output::cell;

/// Waits until every connected proxy holds `revision`.
///
/// # Errors
/// [`Failure::NotAcknowledged`] when one rejects it, or time is up.
pub(super) async fn acknowledged(client: &Client, revision: u64, timeout: u64) -> Result<(), Failure> {
    let path = format!("/api/v1/wait?version={revision}&timeout={timeout}");
    let answer = client.call(Method::GET, &path, "", Duration::from_secs(timeout)).await?;
    if answer["done"] == Value::Bool(true) {
        eprintln!("every connected proxy holds revision {revision}");
        return Ok(());
    }
    let rejected = answer["rejected"].as_array().is_some_and(|list| !list.is_empty());
    Err(Failure::NotAcknowledged(if rejected {
        format!("stored, but rejected by {}; see `outrigger proxy status`", cell(&answer["rejected"]))
    } else {
        format!("stored, but not acknowledged within {timeout} s by {}", cell(&answer["pending"]))
    }))
}
