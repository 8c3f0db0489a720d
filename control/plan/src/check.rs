//! The proxy's own compiler tries a configuration before anyone is sent it.

use outrigger_traffic::config::{Config, ConfigError};

/// Compiles a configuration and throws the result away.
///
/// *Errors*: every reason why a proxy would refuse it.
pub fn check(config: &Config) -> Result<(), Vec<ConfigError>> {
    outrigger_traffic::compile::compile(config, None).map(drop)
}
