//! Trying a configuration without running it: what [`super::Applier`] would refuse beyond the compiler.

use crate::identity::{ClientTls, Secrets, ServerTls};
use crate::telemetry::access_log::AccessLogger;
use crate::telemetry::local_reply::LocalReplies;
use outrigger_traffic::config::{AccessLog, Config, ConfigError, Listener, Terminal};

/// Every problem of TLS contexts, secrets and access logs. Nothing is bound, opened or kept.
pub fn check(config: &Config) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    let secrets = match Secrets::parse(&config.secrets, None) {
        Ok(secrets) => secrets,
        Err(more) => {
            errors.extend(more);
            Secrets::default()
        }
    };
    for listener in &config.listeners {
        check_listener(listener, &secrets, &mut errors);
    }
    for cluster in &config.clusters {
        let Some(tls) = &cluster.tls else { continue };
        let resource = format!("cluster/{}", cluster.name);
        let check_name = cluster.http.auto_san_validation;
        errors.extend(
            ClientTls::build(&resource, "transport_socket", tls, check_name, &secrets, None)
                .err()
                .unwrap_or_default(),
        );
    }
    errors
}

fn check_listener(listener: &Listener, secrets: &Secrets, errors: &mut Vec<ConfigError>) {
    let resource = format!("listener/{}", listener.name);
    check_logs(&listener.access_log, &resource, "", errors);
    for (index, chain) in listener.filter_chains.iter().chain(&listener.default_filter_chain).enumerate() {
        let path = if index < listener.filter_chains.len() {
            format!("filter_chains[{index}]")
        } else {
            "default_filter_chain".to_owned()
        };
        if let Some(tls) = &chain.tls {
            let built = ServerTls::build(&resource, &format!("{path}.transport_socket"), tls, secrets, None);
            errors.extend(built.err().unwrap_or_default());
        }
        if let Terminal::Http(http) = &chain.terminal
            && let Some(Err(more)) = http.local_reply.as_ref().map(LocalReplies::compile)
        {
            errors.extend(more.into_iter().map(|(at, reason)| {
                ConfigError::new(&resource, format!("{path}.local_reply_config.{at}"), reason)
            }));
        }
        let logs = match &chain.terminal {
            Terminal::Http(http) => &http.access_log,
            Terminal::Tcp(tcp) => &tcp.access_log,
        };
        check_logs(logs, &resource, &format!("{path}."), errors);
    }
}

fn check_logs(logs: &[AccessLog], resource: &str, prefix: &str, errors: &mut Vec<ConfigError>) {
    for (index, log) in logs.iter().enumerate() {
        if let Err(reason) = AccessLogger::compile(log) {
            errors.push(ConfigError::new(resource, format!("{prefix}access_log[{index}]"), reason));
        }
    }
}
