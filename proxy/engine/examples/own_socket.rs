//! The second depth of embedding: the program accepts connections itself, looks at them, and hands those over that the
//! proxy is to serve.

#![allow(unreachable_pub, reason = "the tests run it as a module")]

#[path = "common/mod.rs"]
mod common;

use std::error::Error;

use outrigger_engine::proxy::{Proxy, ProxyOptions};

fn main() -> Result<(), Box<dyn Error>> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run())
}

/// Serves two connections of its own socket, one of which it keeps to itself.
pub async fn run() -> Result<(), Box<dyn Error>> {
    let origin = common::origin("origin").await?;
    let proxy = Proxy::start(ProxyOptions::default())?;
    proxy.apply(common::config(false, &[origin])).map_err(|errors| format!("{errors:?}"))?;

    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = socket.local_addr()?;
    let accepting = tokio::spawn(async move {
        let mut number = 0;
        while let Ok((stream, _)) = socket.accept().await {
            number += 1;
            if number == 2 {
                continue; // not this one
            }
            let served = stream.into_std().map_err(|e| e.to_string());
            if let Err(error) = served.and_then(|s| proxy.serve("edge", s).map_err(|e| e.to_string())) {
                eprintln!("{error}");
            }
        }
    });
    let (status, body) = common::get(address, "/").await?;
    println!("the first connection: {status}, from {body}");
    assert_eq!((status.as_str(), body.as_str()), ("HTTP/1.1 200 OK", "origin"));
    let kept = common::get(address, "/").await;
    println!("the second connection: {kept:?}");
    assert!(!kept.is_ok_and(|(_, body)| body == "origin"));
    assert_eq!(common::get(address, "/").await?.1, "origin");
    accepting.abort();
    Ok(())
}
