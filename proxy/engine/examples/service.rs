//! The third depth of embedding: the proxy as a `tower::Service`. What the program sends goes through the routes, filters,
//! retries and pools of the proxy, and never through a socket that others could reach.

#![allow(unreachable_pub, reason = "the tests run it as a module")]

#[path = "common/mod.rs"]
mod common;

use std::error::Error;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use outrigger_engine::proxy::{Proxy, ProxyOptions};
use outrigger_engine::service::ProxyService;
use tower_service::Service;

fn main() -> Result<(), Box<dyn Error>> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run())
}

/// Sends requests to two origins in turn.
pub async fn run() -> Result<(), Box<dyn Error>> {
    let origins = [common::origin("one").await?, common::origin("two").await?];
    let proxy = Proxy::start(ProxyOptions::default())?;
    proxy.apply(common::config(false, &origins)).map_err(|errors| format!("{errors:?}"))?;

    let mut service = ProxyService::new(proxy, "edge");
    let mut seen = Vec::new();
    for _ in 0..4 {
        let request = Request::get("/").header("host", "shop.example").body(Full::<Bytes>::default())?;
        let response = service.call(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        println!("{status} from {}", String::from_utf8_lossy(&body));
        assert_eq!(status, 200);
        seen.push(body);
    }
    assert!(seen.contains(&Bytes::from_static(b"one")) && seen.contains(&Bytes::from_static(b"two")));
    Ok(())
}
