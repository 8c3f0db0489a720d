//! Whether the workload is healthy, as the probe of its WorkloadGroup finds out.
//!
//! The control service says with each answer which probe is to be made. While it is away the last one goes on being made,
//! and its outcome is told as soon as somebody listens. What is tried: [`http`], [`grpc`], or a connection alone.

use outrigger_api::outrigger::v1::probe::Kind;
use outrigger_api::outrigger::v1::{Health, Probe};
use std::net::IpAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;

mod grpc;
mod http;

/// Bounds of what the control service asks for, so that a mistaken answer cannot make this a busy loop.
const PERIOD_MIN: Duration = Duration::from_millis(100);
const TIMEOUT_MIN: Duration = Duration::from_millis(10);

/// See the module.
pub struct Prober {
    /// Where the application is, for probes that name no host.
    application: IpAddr,
    asked: watch::Sender<Option<Probe>>,
    health: watch::Sender<Health>,
}

impl Prober {
    /// For an application there. Healthy as long as nobody asks for a probe; `grouped`, as somebody may, not known.
    pub fn new(application: IpAddr, grouped: bool) -> Self {
        let first = if grouped { Health::Unspecified } else { Health::Healthy };
        Self { application, asked: watch::Sender::new(None), health: watch::Sender::new(first) }
    }

    /// What is known. `Unspecified` until a probe succeeded, or failed, often enough.
    pub fn health(&self) -> Health {
        *self.health.borrow()
    }

    /// Its changes.
    pub fn changes(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// What the control service asks for from now on.
    pub fn ask(&self, probe: Option<Probe>) {
        self.asked.send_if_modified(|held| {
            let changed = *held != probe;
            *held = probe;
            changed
        });
        if self.asked.borrow().is_none() {
            self.say(Health::Healthy);
        }
    }

    /// Makes the probe that is asked for, for ever.
    pub async fn run(&self) {
        let mut asked = self.asked.subscribe();
        loop {
            let probe = asked.borrow_and_update().clone();
            let making = async {
                match probe {
                    Some(probe) => self.make(&probe).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = making => {}
                changed = asked.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn make(&self, probe: &Probe) {
        let period = millis(probe.period_ms).max(PERIOD_MIN);
        let timeout = millis(probe.timeout_ms).max(TIMEOUT_MIN);
        let mut streak = Streak::default();
        tokio::time::sleep(millis(probe.initial_delay_ms)).await;
        let mut tick = tokio::time::interval(period);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let tried = tokio::time::timeout(timeout, self.attempt(probe)).await;
            let outcome = tried.unwrap_or_else(|_| Err(format!("no answer in {} ms", timeout.as_millis())));
            let good = outcome.is_ok();
            if let Some(health) = streak.note(good, probe) {
                if self.health() != health {
                    tracing::info!(healthy = good, reason = outcome.err(), "probe of the workload");
                }
                self.say(health);
            }
        }
    }

    fn say(&self, health: Health) {
        self.health.send_if_modified(|held| std::mem::replace(held, health) != health);
    }

    async fn attempt(&self, probe: &Probe) -> Result<(), String> {
        match &probe.kind {
            None => Err("a probe of a kind that is not known".to_owned()),
            Some(Kind::Tcp(tcp)) => self.connect(&tcp.host, tcp.port).await.map(drop),
            Some(Kind::Http(probe)) => {
                let stream = self.connect(&probe.host, probe.port).await?;
                http::get(stream, probe, self.application).await
            }
            Some(Kind::Grpc(probe)) => grpc::check(self.connect("", probe.port).await?, &probe.service).await,
        }
    }

    async fn connect(&self, host: &str, port: u32) -> Result<TcpStream, String> {
        let port = u16::try_from(port).map_err(|_| format!("{port} is no port"))?;
        let connected = match host {
            "" => TcpStream::connect((self.application, port)).await,
            host => TcpStream::connect((host, port)).await,
        };
        connected.map_err(|error| error.to_string())
    }
}

/// Outcomes in a row.
#[derive(Default)]
struct Streak {
    good: bool,
    length: u32,
}

impl Streak {
    /// Notes an outcome; returns what follows from it, if anything.
    fn note(&mut self, good: bool, probe: &Probe) -> Option<Health> {
        self.length = if self.good == good { self.length.saturating_add(1) } else { 1 };
        self.good = good;
        let (threshold, health) = match good {
            true => (probe.success_threshold, Health::Healthy),
            false => (probe.failure_threshold, Health::Unhealthy),
        };
        (self.length >= threshold.max(1)).then_some(health)
    }
}

fn millis(ms: u32) -> Duration {
    Duration::from_millis(ms.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrigger_api::outrigger::v1::{HttpProbe, TcpProbe};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU16, Ordering};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn probe(kind: Kind) -> Probe {
        Probe {
            initial_delay_ms: 0,
            timeout_ms: 1_000,
            period_ms: 100,
            success_threshold: 1,
            failure_threshold: 3,
            kind: Some(kind),
        }
    }

    #[test]
    fn thresholds_count_outcomes_in_a_row() {
        let probe = Probe { success_threshold: 2, failure_threshold: 3, ..Probe::default() };
        let mut streak = Streak::default();
        let outcomes = [false, false, true, false, false, false, false, true, true, true];
        let said: Vec<_> = outcomes.into_iter().map(|good| streak.note(good, &probe)).collect();
        let (good, bad) = (Some(Health::Healthy), Some(Health::Unhealthy));
        assert_eq!(said, [None, None, None, None, None, bad, bad, None, good, good]);
    }

    #[tokio::test]
    async fn health_follows_the_answers_of_the_application() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = u32::from(listener.local_addr().unwrap().port());
        let answer = Arc::new(AtomicU16::new(503));
        let now = answer.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let text = format!("HTTP/1.1 {} x\r\n\r\n", now.load(Ordering::Relaxed));
                let mut asked = [0; 1_024];
                let _ = stream.read(&mut asked).await;
                let _ = stream.write_all(text.as_bytes()).await;
            }
        });
        let prober = Arc::new(Prober::new(LOOPBACK, true));
        let mut changes = prober.changes();
        assert_eq!(*changes.borrow_and_update(), Health::Unspecified);
        let job = prober.clone();
        tokio::spawn(async move { job.run().await });
        let path = "/".to_owned();
        let http = HttpProbe { port, path, ..HttpProbe::default() };
        prober.ask(Some(probe(Kind::Http(http))));
        let mut next = async || {
            tokio::time::timeout(Duration::from_secs(10), changes.changed()).await.unwrap().unwrap();
            *changes.borrow_and_update()
        };
        assert_eq!(next().await, Health::Unhealthy, "after three failures");
        answer.store(204, Ordering::Relaxed);
        assert_eq!(next().await, Health::Healthy);
        answer.store(404, Ordering::Relaxed);
        assert_eq!(next().await, Health::Unhealthy);
        prober.ask(None);
        assert_eq!(next().await, Health::Healthy, "nobody asks any more");
    }

    #[tokio::test]
    async fn port_that_nobody_listens_on_is_a_failure_and_one_that_is_taken_none() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = u32::from(listener.local_addr().unwrap().port());
        let prober = Prober::new(LOOPBACK, true);
        let tcp = |port| probe(Kind::Tcp(TcpProbe { host: String::new(), port }));
        assert!(prober.attempt(&tcp(port)).await.is_ok());
        drop(listener);
        assert!(prober.attempt(&tcp(port)).await.is_err());
        assert!(prober.attempt(&tcp(70_000)).await.is_err());
        assert!(prober.attempt(&Probe::default()).await.is_err());
    }
}
