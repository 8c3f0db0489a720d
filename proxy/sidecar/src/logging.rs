//! Log lines: level and format from the flags, level changeable while running.

use crate::cli::LogFormat;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

/// Changes the level while the proxy runs.
pub type LevelHandle = reload::Handle<EnvFilter, Registry>;

/// Starts logging to standard error.
///
/// # Errors
/// When the level is not one, or logging was started before.
pub fn start(level: &str, format: LogFormat) -> anyhow::Result<LevelHandle> {
    let (filter, handle) = reload::Layer::new(parse(level)?);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines.with_target(false).boxed(),
    };
    Registry::default().with(filter.and_then(lines)).try_init()?;
    Ok(handle)
}

/// Envoy's level names, and `target=level` pairs after a comma.
///
/// # Errors
/// When a level is not one.
pub fn parse(level: &str) -> anyhow::Result<EnvFilter> {
    let mut directives = Vec::new();
    for part in level.split(',') {
        let (target, name) = part.split_once('=').map_or((None, part), |(t, n)| (Some(t), n));
        let name = match name.trim().to_ascii_lowercase().as_str() {
            "trace" => "trace",
            "debug" => "debug",
            "info" => "info",
            "warning" | "warn" => "warn",
            "error" | "critical" => "error",
            "off" => "off",
            other => anyhow::bail!(
                "log level `{other}` is none of trace, debug, info, warning, error, critical, off"
            ),
        };
        directives.push(target.map_or_else(|| name.to_owned(), |t| format!("{}={name}", t.trim())));
    }
    Ok(EnvFilter::try_new(directives.join(","))?)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn names_of_envoy_are_understood_and_others_refused() {
        assert_eq!(parse("warning").unwrap().to_string(), "warn");
        assert_eq!(parse("error,outrigger_xds=debug").unwrap().to_string(), "outrigger_xds=debug,error");
        assert!(parse("loud").is_err());
    }
}
