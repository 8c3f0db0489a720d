//! Which rule a request meets, and why: the proxy's own decision, asked without a proxy.

use outrigger_traffic::compile;
use outrigger_traffic::config::{Config, ConfigError};
use outrigger_traffic::route::Action;
use outrigger_traffic::view::{FieldView, RequestView};
use serde::Serialize;

/// A request head to ask about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// `GET`, `POST`, …
    pub method: String,
    /// `http` or `https`.
    pub scheme: String,
    /// Host, with the port where the request has one.
    pub authority: String,
    /// Path with query.
    pub path: String,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
}

/// What happens to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The virtual host of its authority.
    pub virtual_host: String,
    /// The route that matched first; may have no name.
    pub route: String,
    /// `forward`, `redirect` or `answer`.
    pub action: &'static str,
}

impl FieldView for Question {
    fn header(&self, lower: &[u8]) -> Option<&[u8]> {
        self.headers.iter().find(|(name, _)| name.as_bytes() == lower).map(|(_, value)| value.as_bytes())
    }

    fn for_each_header(&self, lower: &[u8], f: &mut dyn FnMut(&[u8])) {
        self.headers.iter().filter(|(name, _)| name.as_bytes() == lower).for_each(|(_, v)| f(v.as_bytes()));
    }
}

impl RequestView for Question {
    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }

    fn scheme(&self) -> &[u8] {
        self.scheme.as_bytes()
    }

    fn authority(&self) -> &[u8] {
        self.authority.as_bytes()
    }

    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }
}

/// Asks a table of a configuration. `None`: no virtual host or no route is for the request (404).
///
/// `draw` takes the place of chance, for routes that are for a share of requests only.
///
/// *Errors*: the configuration does not compile.
pub fn explain(
    config: &Config,
    table: &str,
    question: &Question,
    draw: u32,
) -> Result<Option<Answer>, Vec<ConfigError>> {
    let snapshot = compile(config, None)?;
    let found = snapshot.tables().find(|(_, compiled)| compiled.config.name == table);
    Ok(found.and_then(|(_, compiled)| {
        let matched = compiled.find(question, draw)?;
        Some(Answer {
            virtual_host: matched.virtual_host.name.to_string(),
            route: matched.route.name.to_string(),
            action: match matched.route.action {
                Action::Forward(_) => "forward",
                Action::Redirect(_) => "redirect",
                Action::Direct(_) => "answer",
            },
        })
    }))
}
