//! `StatefulSession`.

use super::super::At;
use super::super::value::{cookie_text, duration, header_name};
use outrigger_api::envoy::extensions::filters::http::stateful_session::v3 as proto;
use outrigger_api::envoy::extensions::http::stateful_session as state;
use outrigger_api::envoy::r#type::http::v3::Cookie;
use outrigger_traffic::config::{HashCookie, SessionRoute, SessionState, StatefulSession};
use proto::stateful_session_per_route::Override as O;

pub(super) fn session(message: &proto::StatefulSession, at: &At<'_>) -> Option<StatefulSession> {
    let state = match &message.session_state {
        None => None,
        Some(extension) => {
            let at = at.field("session_state");
            at.field("name").need_text(&extension.name);
            let at = at.field("typed_config");
            let any = at.need(extension.typed_config.as_ref())?;
            Some(if let Some(found) = at.unpack::<state::cookie::v3::CookieBasedSessionState>(any) {
                let at = at.field("cookie");
                SessionState::Cookie(cookie(at.need(found.message()?.cookie.as_ref())?, &at))
            } else if let Some(found) = at.unpack::<state::header::v3::HeaderBasedSessionState>(any) {
                SessionState::Header(header_name(&found.message()?.name, false, &at.field("name")))
            } else {
                at.refuse_type(any);
                return None;
            })
        }
    };
    Some(StatefulSession { state, strict: message.strict, counted: !message.stat_prefix.is_empty() })
}

pub(super) fn route(message: &proto::StatefulSessionPerRoute, at: &At<'_>) -> Option<SessionRoute> {
    match at.need(message.r#override.as_ref())? {
        O::Disabled(true) => Some(SessionRoute::Disabled),
        O::Disabled(false) => {
            at.field("disabled").refuse("must be true");
            None
        }
        O::StatefulSession(message) => {
            let at = at.field("stateful_session");
            if !message.stat_prefix.is_empty() {
                at.field("stat_prefix").refuse("has no effect here: sessions of routes are not counted");
            }
            session(message, &at).map(SessionRoute::Instead)
        }
    }
}

fn cookie(message: &Cookie, at: &At<'_>) -> HashCookie {
    at.field("name").need_text(&message.name);
    let attribute = |(i, one): (usize, &outrigger_api::envoy::r#type::http::v3::CookieAttribute)| {
        let at = at.item("attributes", i);
        at.field("name").need_text(&one.name);
        (cookie_text(&one.name, &at.field("name")), cookie_text(&one.value, &at.field("value")))
    };
    HashCookie {
        name: cookie_text(&message.name, &at.field("name")),
        ttl: message.ttl.as_ref().and_then(|ttl| duration(ttl, &at.field("ttl"))),
        path: cookie_text(&message.path, &at.field("path")),
        attributes: message.attributes.iter().enumerate().map(attribute).collect(),
    }
}
