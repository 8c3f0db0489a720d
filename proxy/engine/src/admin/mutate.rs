//! What changes the proxy: log level, log files, drain, end.

use super::server::{Context, Reply};
use http::StatusCode;

/// `?level=LEVEL` (or `?paths=TARGET:LEVEL,…`) changes the log level; without parameters the present one is shown.
pub(super) fn logging(context: &Context<'_>) -> Reply {
    let Some(log) = &context.sources.log_level else {
        return Reply::status(StatusCode::NOT_FOUND, "the log level is not steered from here\n");
    };
    let wanted = match (context.parameter("level"), context.parameter("paths")) {
        (Some(level), None) => Some(level),
        (None, Some(paths)) => Some(paths.replace(':', "=")),
        (None, None) => None,
        (Some(_), Some(_)) => {
            return Reply::status(
                StatusCode::BAD_REQUEST,
                "usage: /logging?level=LEVEL or ?paths=TARGET:LEVEL,...\n",
            );
        }
    };
    if let Some(level) = wanted
        && let Err(reason) = log.set_level(&level)
    {
        return Reply::status(StatusCode::BAD_REQUEST, format!("{reason}\n"));
    }
    Reply::text(format!("active loggers:\n  {}\n", log.level()))
}

/// Opens access log files anew.
pub(super) fn reopen_logs(context: &Context<'_>) -> Reply {
    if context.steering.shared.telemetry.access_log.reopen() {
        Reply::text("OK\n")
    } else {
        Reply::status(StatusCode::SERVICE_UNAVAILABLE, "the log writer is too busy\n")
    }
}

/// Closes the listeners and asks connections to finish; the proxy goes on for what is left. `graceful` is accepted and is
/// always the case; `inboundonly` leaves outbound listeners open.
pub(super) fn drain_listeners(context: &Context<'_>) -> Reply {
    let inbound_only = context.parameter("inboundonly").is_some();
    context.steering.applier().close_listeners(inbound_only);
    if !inbound_only {
        context.steering.shared.drain.fail_health(true);
    }
    Reply::text("OK\n")
}

/// Ends the proxy in order: the program drains and exits.
pub(super) fn quit(context: &Context<'_>) -> Reply {
    context.steering.quit.send_replace(true);
    Reply::text("OK\n")
}

/// `?key=value&…` sets values in the administration's layer of the runtime values; an empty value takes one away.
pub(super) fn runtime_modify(context: &Context<'_>) -> Reply {
    let changes: Vec<(String, String)> = context.parameters().collect();
    if changes.is_empty() {
        let usage = "usage: /runtime_modify?key1=value1&key2=value2&keyN=valueN\nuse an empty value to remove a previously added override\n";
        return Reply::status(StatusCode::BAD_REQUEST, usage);
    }
    let Some(runtime) = &context.sources.runtime else {
        return Reply::status(StatusCode::SERVICE_UNAVAILABLE, "no admin layer specified\n");
    };
    match runtime.modify(&changes) {
        Ok(()) => Reply::text("OK\n"),
        Err(reason) => Reply::status(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}
