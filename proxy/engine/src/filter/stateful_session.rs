//! Sessions that stay with their host (`envoy.filters.http.stateful_session`).

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outrigger_traffic::balance::Wanted;
use outrigger_traffic::config::SessionState;
use outrigger_traffic::filter::stateful_session::SessionHost;
use outrigger_traffic::filter::{RouteFilter, SessionRoute, StatefulSession};

use super::{After, Verdict};
use crate::exchange::{self, Exchange, Front, Notes};
use crate::http::view::HeadView;
use crate::telemetry::ResponseFlags;

/// The session of a request, until its response.
#[derive(Debug)]
pub(crate) struct Session {
    of: Whose,
    /// The request has one; otherwise its path has none.
    is_there: bool,
    host: Option<SessionHost>,
}

/// Whose settings hold.
#[derive(Debug)]
enum Whose {
    Filter(Arc<StatefulSession>),
    Route(Arc<SessionRoute>),
}

impl Whose {
    fn session(&self) -> Option<&StatefulSession> {
        match self {
            Self::Filter(session) => Some(session),
            Self::Route(route) => match &**route {
                SessionRoute::Disabled => None,
                SessionRoute::Instead(session) => Some(session),
            },
        }
    }

    /// Those of routes are not counted, as in Envoy.
    fn is_counted(&self) -> bool {
        matches!(self, Self::Filter(session) if session.config.counted)
    }
}

/// Reads what host the session wants.
pub(super) fn on_request(
    x: &Exchange,
    notes: &mut Notes,
    filter: &Arc<StatefulSession>,
    settings: Option<&RouteFilter>,
) -> Verdict {
    notes.wanted = None;
    let of = match settings {
        Some(RouteFilter::StatefulSession(own)) => Whose::Route(own.clone()),
        _ => Whose::Filter(filter.clone()),
    };
    let Some(session) = of.session() else { return Verdict::Next };
    let state = session.state_for(x.front.request.path());
    let host = state.and_then(|state| {
        let decoded = STANDARD.decode(state.kept(&HeadView(&x.front.request))?).ok()?;
        state.read(&decoded, now())
    });
    notes.wanted = host.map(|host| Wanted {
        address: match host {
            SessionHost::At(address) => Some(address),
            SessionHost::Nowhere => None,
        },
        strict: session.config.strict,
    });
    let is_there = state.is_some();
    notes.after.push(After::Session(Box::new(Session { of, is_there, host })));
    Verdict::Next
}

/// Tells the client which host its session has now, where that is another one.
pub(super) fn on_response(x: &mut Front, notes: &Notes, kept: &Session) {
    let Some(session) = kept.of.session() else { return };
    let serving = x.serving.clone();
    let stats = serving.stats(&x.connection.worker);
    let counted = kept.of.is_counted();
    let Some(upstream) = &notes.upstream else {
        if counted && session.config.strict && notes.flags.contains(ResponseFlags::NO_HEALTHY_UPSTREAM) {
            stats.stateful_session_failed_closed.inc();
        }
        return;
    };
    if !kept.is_there {
        if counted {
            stats.stateful_session_no_session.inc();
        }
        return;
    }
    let address = upstream.host.address;
    if kept.host == Some(SessionHost::At(address)) {
        if counted {
            stats.stateful_session_routed.inc();
        }
        return;
    }
    if counted && !session.config.strict {
        stats.stateful_session_failed_open.inc();
    }
    match &session.config.state {
        Some(state @ SessionState::Cookie(cookie)) => {
            let value = STANDARD.encode(state.write(address, now()));
            let text = exchange::set_cookie(cookie, &value);
            x.response.fields.append(b"set-cookie", text.as_bytes());
        }
        Some(state @ SessionState::Header(name)) => {
            let value = STANDARD.encode(state.write(address, now()));
            x.response.fields.set(name.as_bytes(), value.as_bytes());
        }
        None => {}
    }
}

/// Seconds since 1970: the end of a cookie is told between machines.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
