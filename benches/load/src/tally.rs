//! What a run counts, and what it says at the end.

use crate::net::now;

/// CPU time and requests of the measured part of a run.
#[derive(Default)]
pub(crate) struct Tally {
    /// Whether the measured part has begun.
    pub(crate) on: bool,
    /// Requests answered with 200.
    pub(crate) done: u64,
    /// Requests lost with their connection, and connections that did not come up (these at any time).
    pub(crate) err: u64,
    /// Requests answered with anything else.
    pub(crate) bad: u64,
    /// Bytes received.
    pub(crate) bytes: u64,
    /// Full TLS handshakes.
    pub(crate) full: u64,
    /// Resumed ones.
    pub(crate) resumed: u64,
    /// Latencies in units of 100 ns.
    latencies: Vec<u32>,
    began: u64,
    cpu_at_start: u64,
    own_at_start: u64,
    ticks_at_start: (u64, u64),
}

impl Tally {
    /// Counts an answer to a request that was due at `due`.
    pub(crate) fn answer(&mut self, due: u64, ok: bool) {
        if !self.on {
            return;
        }
        if ok {
            self.done += 1;
            self.latencies.push((now().saturating_sub(due) / 100).min(u64::from(u32::MAX)) as u32);
        } else {
            self.bad += 1;
        }
    }

    /// The measured part begins.
    pub(crate) fn begin(&mut self, watch: &[u32]) {
        self.on = true;
        self.latencies.reserve(1 << 20);
        self.cpu_at_start = cpu_ns(watch);
        self.own_at_start = cpu_ns(&[std::process::id()]);
        self.ticks_at_start = ticks(watch);
        self.began = now();
    }

    /// The measured part is over: everything in one JSON object. `open`: requests not answered, due ones included.
    pub(crate) fn report(mut self, watch: &[u32], open: usize) -> String {
        let secs = (now() - self.began) as f64 / 1e9;
        let cpu = cpu_ns(watch).saturating_sub(self.cpu_at_start);
        let own = cpu_ns(&[std::process::id()]).saturating_sub(self.own_at_start);
        let ticks = ticks(watch);
        let user = ticks.0.saturating_sub(self.ticks_at_start.0) as f64;
        let system = ticks.1.saturating_sub(self.ticks_at_start.1) as f64;
        let share = if user + system > 0.0 { user / (user + system) } else { 0.0 };
        self.latencies.sort_unstable();
        let quantile = |q: f64| {
            let last = self.latencies.len().saturating_sub(1);
            let at = ((self.latencies.len() as f64 * q) as usize).min(last);
            self.latencies.get(at).map_or(0.0, |v| f64::from(*v) / 10.0)
        };
        format!(
            "{{\"done\":{},\"err\":{},\"bad\":{},\"secs\":{secs:.4},\"rps\":{:.1},\"bytes\":{},\
             \"p50\":{:.1},\"p90\":{:.1},\"p99\":{:.1},\"p999\":{:.1},\"max\":{:.1},\"full\":{},\"resumed\":{},\
             \"open\":{open},\"proxy_cpu_s\":{:.6},\"own_cpu_s\":{:.6},\"cpu_us\":{:.3},\"user\":{share:.4}}}",
            self.done,
            self.err,
            self.bad,
            self.done as f64 / secs,
            self.bytes,
            quantile(0.5),
            quantile(0.9),
            quantile(0.99),
            quantile(0.999),
            quantile(1.0),
            self.full,
            self.resumed,
            cpu as f64 / 1e9,
            own as f64 / 1e9,
            cpu as f64 / 1e3 / self.done.max(1) as f64,
        )
    }
}

/// Nanoseconds on a core of all threads of these processes, as the scheduler counts them.
fn cpu_ns(pids: &[u32]) -> u64 {
    let mut sum = 0;
    for pid in pids {
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            sum += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    sum
}

/// User and system time in ticks. They are sampled, so only their ratio is used.
fn ticks(pids: &[u32]) -> (u64, u64) {
    let mut sum = (0, 0);
    for pid in pids {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let mut fields = text.rsplit(')').next().unwrap_or_default().split(' ').skip(12);
        let mut next = || fields.next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        sum = (sum.0 + next(), sum.1 + next());
    }
    sum
}
