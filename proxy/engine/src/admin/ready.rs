//! `/ready`, `/healthcheck/fail`, `/healthcheck/ok`.

use super::server::{Context, Reply};
use http::StatusCode;

/// 200 `LIVE`, or 503 with Envoy's name of the state.
pub(super) fn ready(context: &Context<'_>) -> Reply {
    match context.steering.readiness() {
        Ok(()) => Reply::text("LIVE\n"),
        Err(state) => Reply::status(StatusCode::SERVICE_UNAVAILABLE, format!("{state}\n")),
    }
}

/// Makes readiness fail from now on.
pub(super) fn fail(context: &Context<'_>) -> Reply {
    context.steering.shared.drain.fail_health(true);
    Reply::text("OK\n")
}

/// Takes the above back.
pub(super) fn ok(context: &Context<'_>) -> Reply {
    context.steering.shared.drain.fail_health(false);
    Reply::text("OK\n")
}
