//! The way of finished spans off the data path.
//!
//! A worker keeps the spans it made for a moment and hands many over at once ([`WorkerSpans`]): a hand-over wakes another thread,
//! which costs more than a span. The queue behind it ([`span_queue`]) is bounded; what finds no room is dropped and counted.

use super::Span;
use crate::worker::Worker;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// Spans handed over at once.
const HAND_OVER_SPANS: usize = 64;

/// A span waits no longer than this for others.
const FLUSH_AFTER: Duration = Duration::from_millis(50);

/// Takes finished spans from the data path.
pub trait SpanSink: Send + Sync + std::fmt::Debug {
    /// Takes spans, and returns how many of them there was room for. Must not block.
    fn accept(&self, spans: Vec<Span>) -> usize;
}

/// A bounded queue as a [`SpanSink`].
#[derive(Clone, Debug)]
pub struct SpanQueue {
    sender: mpsc::UnboundedSender<Vec<Span>>,
    waiting: Arc<AtomicUsize>,
    spans_max: usize,
}

/// Where spans of a queue are taken out.
#[derive(Debug)]
pub struct SpanReceiver {
    receiver: mpsc::UnboundedReceiver<Vec<Span>>,
    waiting: Arc<AtomicUsize>,
}

/// A queue for at most `spans_max` spans and the end an exporter reads from.
pub fn span_queue(spans_max: usize) -> (SpanQueue, SpanReceiver) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    (SpanQueue { sender, waiting: waiting.clone(), spans_max }, SpanReceiver { receiver, waiting })
}

impl SpanSink for SpanQueue {
    fn accept(&self, mut spans: Vec<Span>) -> usize {
        let asked = spans.len();
        let before = self.waiting.fetch_add(asked, Ordering::Relaxed);
        let over = before.saturating_add(asked).saturating_sub(self.spans_max).min(asked);
        if over > 0 {
            self.waiting.fetch_sub(over, Ordering::Relaxed);
            spans.truncate(asked - over);
        }
        let taken = spans.len();
        // What is sent is at least one span of those counted: the channel is as bounded as they are.
        if taken > 0 && self.sender.send(spans).is_err() {
            self.waiting.fetch_sub(taken, Ordering::Relaxed);
            return 0;
        }
        taken
    }
}

impl SpanReceiver {
    /// Spans that were handed over together; `None` when nobody is left to send. Cancel safe.
    pub async fn recv(&mut self) -> Option<Vec<Span>> {
        let spans = self.receiver.recv().await?;
        self.waiting.fetch_sub(spans.len(), Ordering::Relaxed);
        Some(spans)
    }
}

/// Spans of one worker that were not yet handed over. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct WorkerSpans(Rc<RefCell<Outbox>>);

#[derive(Debug, Default)]
struct Outbox {
    waiting: Vec<Span>,
    /// Whether a job will hand them over.
    scheduled: bool,
    sink: Option<Arc<dyn SpanSink>>,
}

impl Outbox {
    /// Hands over; how many were taken and how many dropped.
    fn flush(&mut self) -> (u64, u64) {
        let spans = std::mem::take(&mut self.waiting);
        let all = spans.len();
        let taken = self.sink.as_ref().map_or(0, |sink| sink.accept(spans)).min(all);
        (taken as u64, (all - taken) as u64)
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        if !self.waiting.is_empty() {
            self.flush();
        }
    }
}

/// Takes a span of this worker for `sink`.
pub(in crate::telemetry) fn send(worker: &Worker, sink: &Arc<dyn SpanSink>, span: Span) {
    let mut outbox = worker.spans.0.borrow_mut();
    if outbox.sink.is_none() {
        outbox.sink = Some(sink.clone());
    }
    if outbox.waiting.capacity() == 0 {
        outbox.waiting.reserve_exact(HAND_OVER_SPANS);
    }
    outbox.waiting.push(span);
    if outbox.waiting.len() >= HAND_OVER_SPANS {
        count(worker, outbox.flush());
    } else if !outbox.scheduled {
        outbox.scheduled = true;
        drop(outbox);
        flush_later(worker);
    }
}

fn flush_later(worker: &Worker) {
    let spans = worker.spans.clone();
    let (shared, id) = (worker.shared.clone(), worker.id);
    worker.jobs.spawn(async move {
        tokio::time::sleep(FLUSH_AFTER).await;
        let mut outbox = spans.0.borrow_mut();
        outbox.scheduled = false;
        let (taken, dropped) = outbox.flush();
        let stats = shared.server.at(id);
        stats.spans_exported.add(taken);
        stats.spans_dropped.add(dropped);
    });
}

fn count(worker: &Worker, (taken, dropped): (u64, u64)) {
    let stats = worker.shared.server.at(worker.id);
    stats.spans_exported.add(taken);
    stats.spans_dropped.add(dropped);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::trace::{Attributes, SpanKind};

    fn spans(count: usize) -> Vec<Span> {
        let span = Span {
            trace_id: 1,
            span_id: 2,
            parent_span_id: 0,
            name: "GET".into(),
            kind: SpanKind::Server,
            service_name: "s".into(),
            start_unix_nanos: 1,
            end_unix_nanos: 2,
            is_error: false,
            attributes: Attributes::default(),
            events: Vec::new(),
        };
        vec![span; count]
    }

    #[tokio::test]
    async fn queue_takes_as_many_spans_as_it_may_hold_and_again_when_they_are_out() {
        let (queue, mut receiver) = span_queue(10);
        assert_eq!(queue.accept(spans(9)), 9);
        assert_eq!(queue.accept(spans(3)), 1, "up to the limit, no further");
        assert_eq!(queue.accept(spans(1)), 0);
        assert_eq!(receiver.recv().await.map(|spans| spans.len()), Some(9));
        assert_eq!(queue.accept(spans(10)), 9);
        assert_eq!(queue.accept(Vec::new()), 0);
        drop(receiver);
        assert_eq!(queue.accept(spans(1)), 0, "nobody reads");
    }
}
