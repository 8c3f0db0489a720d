//! Asking other servers what the table does not know.

use super::cache::{Cache, Found};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use outrigger_traffic::config::DnsForward;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::Semaphore;

/// Times a server is asked.
const ATTEMPTS: usize = 2;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskError {
    /// Too many questions are under way.
    Busy,
    /// No server answered in time.
    Timeout,
    /// A server refused, or could not answer.
    Failed(String),
}

/// The resolvers of a DNS listener, with their cache.
#[derive(Debug)]
pub struct Forwarder {
    config: DnsForward,
    /// Made at the first question: the system's settings may be read then, and not before.
    resolver: Mutex<Option<TokioResolver>>,
    cache: Cache,
    pending: Semaphore,
}

impl Forwarder {
    /// Asks nobody yet.
    pub fn new(config: &DnsForward) -> Self {
        let most = usize::try_from(config.max_pending).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self {
            config: config.clone(),
            resolver: Mutex::new(None),
            cache: Cache::default(),
            pending: Semaphore::new(most),
        }
    }

    /// The answer kept for a question.
    pub fn known(&self, name: &Name, kind: RecordType) -> Option<Found> {
        self.cache.look_up(name, kind, Instant::now())
    }

    /// Asks. What may be kept is kept.
    ///
    /// *Errors*: see [`AskError`]; an answer that there is nothing is no error.
    ///
    /// *Cancel safety*: safe.
    pub async fn ask(&self, name: &Name, kind: RecordType) -> Result<Found, AskError> {
        if let Some(known) = self.known(name, kind) {
            return Ok(known);
        }
        let Ok(_permit) = self.pending.try_acquire() else { return Err(AskError::Busy) };
        let resolver = self.resolver().map_err(AskError::Failed)?;
        // With the final dot the search list of the system is not applied: the application's own resolver did that.
        let mut full = name.clone();
        full.set_fqdn(true);
        let asked = tokio::time::timeout(self.config.timeout, resolver.lookup(full, kind)).await;
        let found = match asked {
            Err(_) => return Err(AskError::Timeout),
            Ok(Ok(lookup)) => Found {
                code: ResponseCode::NoError,
                answers: lookup.answers().to_vec(),
                authorities: Vec::new(),
            },
            Ok(Err(error)) => nothing(&error)?,
        };
        self.cache.keep(name, kind, &found, Instant::now());
        Ok(found)
    }

    /// The addresses of a name, IPv4 first.
    ///
    /// *Errors*: as [`Self::ask`], where neither family has an answer.
    pub async fn addresses(&self, name: &Name) -> Result<Vec<IpAddr>, AskError> {
        let first = self.ask(name, RecordType::A).await;
        let mut addresses = of(&first);
        if addresses.is_empty() {
            addresses = of(&self.ask(name, RecordType::AAAA).await);
        }
        match first {
            Err(error) if addresses.is_empty() => Err(error),
            _ => Ok(addresses),
        }
    }

    fn resolver(&self) -> Result<TokioResolver, String> {
        let mut held = self.resolver.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(resolver) = &*held {
            return Ok(resolver.clone());
        }
        let mut builder = if self.config.resolvers.is_empty() {
            TokioResolver::builder_tokio().map_err(|error| error.to_string())?
        } else {
            let servers = self.config.resolvers.iter().map(|server| {
                let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
                (udp.port, tcp.port) = (server.port(), server.port());
                NameServerConfig::new(server.ip(), true, vec![udp, tcp])
            });
            let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        // The cache is ours; the hosts file was the application's to read.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.preserve_intermediates = true;
        options.attempts = ATTEMPTS;
        options.timeout = self.config.timeout / 2;
        let resolver = builder.build().map_err(|error| error.to_string())?;
        *held = Some(resolver.clone());
        Ok(resolver)
    }
}

fn of(found: &Result<Found, AskError>) -> Vec<IpAddr> {
    let answers = found.as_ref().map_or(&[][..], |found| found.answers.as_slice());
    answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        })
        .collect()
}

/// An error that is an answer: there is no such name, or nothing of the kind at it.
fn nothing(error: &NetError) -> Result<Found, AskError> {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none))
            if matches!(none.response_code, ResponseCode::NoError | ResponseCode::NXDomain) =>
        {
            let mut authorities = Vec::new();
            if let Some(soa) = &none.soa {
                let ttl = none.negative_ttl.map_or(soa.ttl, |ttl| ttl.min(soa.ttl));
                authorities.push(Record::from_rdata(soa.name.clone(), ttl, RData::SOA(soa.data.clone())));
            }
            Ok(Found { code: none.response_code, answers: Vec::new(), authorities })
        }
        NetError::Timeout => Err(AskError::Timeout),
        other => Err(AskError::Failed(other.to_string())),
    }
}
