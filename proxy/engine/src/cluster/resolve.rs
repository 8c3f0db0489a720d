//! Asking for the addresses of a name.

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolveHosts};
use outrigger_traffic::config::DnsFamily;
use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// In the order of the answer, the preferred family first. Not empty.
    pub addresses: Vec<IpAddr>,
    /// How long it is good for.
    pub ttl: Duration,
}

/// A future of a resolution.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = Result<Answer, String>> + Send + 'a>>;

/// Something that knows the addresses of names.
pub trait Resolve: Send + Sync + fmt::Debug {
    /// Asks for the addresses of a name.
    ///
    /// *Errors*: why there are none, for people.
    fn resolve<'a>(&'a self, name: &'a str, family: DnsFamily) -> Resolving<'a>;
}

/// The system's configuration (`/etc/resolv.conf`) and hosts file, read when a family is first asked for.
#[derive(Default)]
pub struct SystemResolver {
    by_strategy: Mutex<Vec<(DnsFamily, TokioResolver)>>,
}

impl fmt::Debug for SystemResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SystemResolver")
    }
}

impl SystemResolver {
    fn resolver(&self, family: DnsFamily) -> Result<TokioResolver, String> {
        let mut all = self.by_strategy.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((_, resolver)) = all.iter().find(|(f, _)| *f == family) {
            return Ok(resolver.clone());
        }
        let mut builder = TokioResolver::builder_tokio().map_err(|error| error.to_string())?;
        let options = builder.options_mut();
        options.use_hosts_file = ResolveHosts::Always;
        options.ip_strategy = match family {
            DnsFamily::Auto => LookupIpStrategy::Ipv6thenIpv4,
            DnsFamily::V4Only => LookupIpStrategy::Ipv4Only,
            DnsFamily::V6Only => LookupIpStrategy::Ipv6Only,
            DnsFamily::V4Preferred => LookupIpStrategy::Ipv4thenIpv6,
            DnsFamily::All => LookupIpStrategy::Ipv4AndIpv6,
        };
        // The job decides when to ask again; a cache in between would only add its own time to that.
        options.cache_size = 0;
        let resolver = builder.build().map_err(|error| error.to_string())?;
        all.push((family, resolver.clone()));
        Ok(resolver)
    }
}

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str, family: DnsFamily) -> Resolving<'a> {
        Box::pin(async move {
            let resolver = self.resolver(family)?;
            let lookup = resolver.lookup_ip(name).await.map_err(|error| error.to_string())?;
            let addresses: Vec<IpAddr> = lookup.iter().collect();
            if addresses.is_empty() {
                return Err("no address".into());
            }
            let ttl = lookup.valid_until().saturating_duration_since(Instant::now());
            Ok(Answer { addresses, ttl })
        })
    }
}
