//! CONNECT, or POST, that ends here (`connect_config`): a host of the route's cluster gets the bytes of the tunnel over TCP, and never
//! hears of the request.

use super::attempt::until_gone;
use super::forward::Plan;
use super::notes::Notes;
use super::upgrade::{conclude, ends};
use super::{Exchange, respond, stream_tunnel};
use crate::cluster::{destination, note_destination, note_way, proxied};
use crate::error::ProxyError;
use crate::http::body::{BodyReader, BodyWriter};
use crate::io::Io;
use crate::tcp::{CopyEnd, Progress, copy_both};
use crate::telemetry::{Raised, UpstreamFacts};
use crate::upstream::{ConnectOptions, connect};
use outrigger_traffic::balance::PickContext;
use outrigger_traffic::cluster::Host;
use outrigger_traffic::outcome::Outcome;
use outrigger_wire::h1::BodyLength;
use outrigger_wire::{Method, Version};
use std::rc::Rc;
use std::sync::Arc;
use tokio::time::Instant;

/// Connects, answers 200 and copies until both ends have closed.
///
/// *Errors*: no host, or none that can be connected to; nothing was answered then. Nothing is tried twice: a host that was
/// connected to may have had effects.
pub(super) async fn terminate(x: &mut Exchange, notes: &mut Notes, plan: &Plan) -> Result<(), ProxyError> {
    let worker = x.front.worker().clone();
    let stats = plan.cluster.stats.at(worker.id);
    let host = pick(x, plan)?;
    notes.attempts = 1;
    let Ok(_permit) = plan.cluster.cluster.try_connection(&host, plan.forward.high_priority) else {
        stats.upstream_cx_overflow.inc();
        return Err(ProxyError::Overflow);
    };
    let up = reach(x, notes, plan, &host).await?;
    stats.upstream_cx_total.inc();
    let _open = host.open_connection();
    let _busy = host.start_request();
    let _active = Raised::new(plan.cluster.stats.clone(), worker.id, |stats| &stats.upstream_cx_active);
    notes.timeline.upstream_start = Some(Instant::now());
    let serving = x.front.serving.clone();
    serving.stats(&worker).downstream_cx_upgrades_total.inc();
    let _upgraded =
        Raised::new(serving.chain.stats.clone(), worker.id, |stats| &stats.downstream_cx_upgrades_active);
    x.front.response.clear();
    x.front.response.status = 200;
    notes.status = 200;
    notes.details = "via_upstream";
    respond::edit_response(&mut x.front, notes, &plan.response_edits);
    respond::decorate(&mut x.front, notes, Instant::now());
    let is_connect = x.front.request.method() == Method::Connect;
    let answered = if is_connect {
        x.front.responder.switch(&x.front.response)
    } else {
        // A POST's bytes are its body, and those of the host the body of the answer.
        x.front.responder.head(&x.front.response, BodyLength::Chunked)
    };
    answered.map_err(|_| ProxyError::ClientGone)?;
    x.front.responder.writer.flush().await.map_err(|_| ProxyError::ClientGone)?;
    let clock = x.front.clock.clone();
    clock.tunnel();
    // Copying has an idle timeout of its own; what is left to the clock is the longest life.
    clock.set_idle(None);
    let progress = Progress::default();
    let idle =
        plan.forward.idle_timeout.or(serving.config().stream_idle_timeout).filter(|idle| !idle.is_zero());
    let is_stream = matches!((&x.reader, &x.front.responder.writer), (BodyReader::H2(_), BodyWriter::H2(_)));
    let end = if is_stream || !is_connect {
        let ends = stream_tunnel::Stream { reader: &mut x.reader, writer: &mut x.front.responder.writer };
        let end = clock.guard(stream_tunnel::copy(&worker, ends, &up, None, idle, &progress)).await;
        if !matches!(end, Ok(CopyEnd::Finished)) {
            x.front.responder.close_after();
            x.front.responder.cancel();
        }
        end
    } else {
        let Some(down) = ends(&mut x.reader, &x.front.responder) else { return Err(ProxyError::Defect) };
        let begun = async {
            if let BodyWriter::H1(writer) = &mut x.front.responder.writer {
                writer.flush().await.map_err(|_| ProxyError::ClientGone)?;
            }
            // What the client sent behind its request belongs to the tunnel.
            if let Some(early) = &down.1 {
                up.write_all(early.data()).await.map_err(|_| ProxyError::UpstreamClosed)?;
            }
            Ok(())
        };
        match worker.wheel.timeout(idle, clock.guard(begun)).await {
            Some(Ok(begun)) => begun?,
            Some(Err(error)) => return Err(error),
            None => return Err(ProxyError::StreamIdle(true)),
        }
        clock.guard(copy_both(&worker, &down.0, &up, idle, &progress)).await
    };
    conclude(&x.front, notes, &end, &progress);
    stats.upstream_cx_rx_bytes_total.add(progress.b_to_a.get());
    stats.upstream_cx_tx_bytes_total.add(progress.a_to_b.get());
    stats.upstream_cx_destroy.inc();
    Ok(())
}

fn pick(x: &Exchange, plan: &Plan) -> Result<Arc<Host>, ProxyError> {
    let worker = x.front.worker();
    let cluster = &plan.cluster.cluster;
    let mut draw = || worker.draw();
    let mut context = PickContext::new(Instant::now().into_std(), &mut draw);
    if let Some(original) = cluster.original_dst() {
        context.destination = destination(original, &x.front.connection.facts, Some(&x.front.request));
    }
    let picked = cluster.pick(&mut context);
    note_destination(&plan.cluster, worker, &context);
    note_way(&plan.cluster, worker, &context);
    picked.map_err(|_| {
        plan.cluster.stats.at(worker.id).upstream_cx_none_healthy.inc();
        ProxyError::NoHealthyHost
    })
}

async fn reach(
    x: &mut Exchange,
    notes: &mut Notes,
    plan: &Plan,
    host: &Arc<Host>,
) -> Result<Rc<Io>, ProxyError> {
    let worker = x.front.worker().clone();
    let facts = x.front.connection.facts.clone();
    let mut upstream = UpstreamFacts {
        host: host.clone(),
        local: None,
        tls: None,
        protocol: Version::Http11,
        failure: String::new(),
    };
    let options =
        ConnectOptions { proxied: proxied(&plan.cluster.cluster, &facts), ..ConnectOptions::default() };
    let gone = std::future::poll_fn(|cx| x.front.responder.writer.poll_gone(cx));
    // Boxed, because making a connection is rare and its future large.
    let connecting = Box::pin(connect(&worker, &plan.cluster, host, options));
    let made = x.front.clock.guard(until_gone(connecting, gone)).await;
    let outcome = |outcome| plan.cluster.report(&worker, host, outcome, Instant::now().into_std());
    match made {
        Ok(Some(Ok(io))) => {
            outcome(Outcome::Connected);
            upstream.local = Some(io.local_addr());
            upstream.tls = io.tls_facts();
            notes.upstream = Some(upstream);
            Ok(io)
        }
        Ok(Some(Err(error))) => {
            outcome(Outcome::ConnectFailed);
            upstream.failure = error.to_string();
            notes.upstream = Some(upstream);
            tracing::debug!(cluster = %plan.cluster.name, endpoint = %host.address, error = %error, "connect failed");
            Err(if error.is_timeout() { ProxyError::ConnectTimeout } else { ProxyError::ConnectFailed })
        }
        Ok(None) => Err(ProxyError::ClientGone),
        Err(error) => Err(error),
    }
}
