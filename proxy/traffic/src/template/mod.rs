//! Texts with Envoy's command operators, as in `%REQ(:METHOD)% took %DURATION% ms`.
//!
//! Parsed once when a configuration is compiled; rendered by asking [`Facts`] for each [`Command`]. `%%` is a percent
//! sign. An operator that is not known is refused by name: it is never printed as it stands.
//! Source: Envoy: access log command operators (the same set serves header values).

mod command;

pub use command::{AddressPart, Command, GrpcStatusFormat, Moment, PathSource, TimeUnit};

/// A parsed text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Box<[Part]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<[u8]>),
    Command(Command, Option<usize>),
}

/// Who knows the values. The engine implements it for a request or connection.
pub trait Facts {
    /// Appends the value of a command to `out`; false where there is none.
    fn write(&self, command: &Command, out: &mut Vec<u8>) -> bool;

    /// Appends the value of a command as JSON; false where it is none of those that have a shape of their own.
    fn write_json(&self, _command: &Command, _out: &mut Vec<u8>) -> bool {
        false
    }
}

impl Template {
    /// Parses a text.
    ///
    /// # Errors
    /// An unknown operator, wrong arguments, or a lone percent sign.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            let (before, after) = rest.split_at(at);
            literal.extend_from_slice(before.as_bytes());
            let after = after.strip_prefix('%').unwrap_or(after);
            if let Some(after) = after.strip_prefix('%') {
                literal.push(b'%');
                rest = after;
                continue;
            }
            let (command, length, after) = operator(after)?;
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal).into()));
            }
            parts.push(Part::Command(command, length));
            rest = after;
        }
        literal.extend_from_slice(rest.as_bytes());
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        Ok(Self { parts: parts.into() })
    }

    /// The whole text where it holds no command.
    pub fn literal(&self) -> Option<&[u8]> {
        match &*self.parts {
            [] => Some(&[]),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The command where the text is nothing else: JSON logs keep the type of such values.
    pub fn only_command(&self) -> Option<&Command> {
        match &*self.parts {
            [Part::Command(command, None)] => Some(command),
            _ => None,
        }
    }

    /// All commands, in order.
    pub fn commands(&self) -> impl Iterator<Item = &Command> {
        self.parts.iter().filter_map(|p| match p {
            Part::Command(command, _) => Some(command),
            Part::Literal(_) => None,
        })
    }

    /// Appends the text to `out`; values that are absent are written as `-`, as in access logs.
    pub fn render(&self, facts: &dyn Facts, out: &mut Vec<u8>) {
        self.render_with(facts, b"-", out);
    }

    /// Appends the text to `out`; `absent` stands for values that are absent (header values use the empty text).
    pub fn render_with(&self, facts: &dyn Facts, absent: &[u8], out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text),
                Part::Command(command, length) => {
                    let start = out.len();
                    if !facts.write(command, out) {
                        out.truncate(start);
                        out.extend_from_slice(absent);
                    }
                    if let Some(length) = length {
                        out.truncate(start + length.min(&(out.len() - start)));
                    }
                }
            }
        }
    }
}

/// Parses what follows the opening percent sign, up to and including the closing one.
fn operator(text: &str) -> Result<(Command, Option<usize>, &str), String> {
    let name_end = text
        .find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
        .unwrap_or(text.len());
    let (name, mut rest) = text.split_at(name_end);
    if name.is_empty() {
        return Err("a `%` that opens no command must be written `%%`".into());
    }
    let mut argument = None;
    if let Some(after) = rest.strip_prefix('(') {
        let (inside, after) =
            after.split_once(')').ok_or_else(|| format!("`%{name}(` lacks its closing parenthesis"))?;
        argument = Some(inside);
        rest = after;
    }
    let mut length = None;
    if let Some(after) = rest.strip_prefix(':') {
        let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let (digits, after) = after.split_at(end);
        let parsed = digits.parse().map_err(|_| format!("`%{name}` has a bad length `{digits}`"))?;
        length = Some(parsed);
        rest = after;
    }
    let rest = rest.strip_prefix('%').ok_or_else(|| format!("`%{name}` lacks its closing `%`"))?;
    Ok((Command::parse(name, argument)?, length, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Facts for Fixed {
        fn write(&self, command: &Command, out: &mut Vec<u8>) -> bool {
            match command {
                Command::Duration => out.extend_from_slice(b"12"),
                Command::RequestHeader { name, fallback, .. } => {
                    out.extend_from_slice(name.as_bytes());
                    if let Some(f) = fallback {
                        out.push(b'|');
                        out.extend_from_slice(f.as_bytes());
                    }
                }
                Command::StartTime(Some(format)) => out.extend_from_slice(format.as_bytes()),
                _ => {
                    out.extend_from_slice(b"half written");
                    return false;
                }
            }
            true
        }
    }

    fn rendered(text: &str) -> String {
        let mut out = b"> ".to_vec();
        Template::parse(text).unwrap().render(&Fixed, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn templates_render_literals_commands_lengths_and_absent_values() {
        assert_eq!(rendered("a %DURATION% 100%%"), "> a 12 100%");
        assert_eq!(rendered("%REQ(X-Envoy-Original-Path?:PATH)%"), "> x-envoy-original-path|:path");
        assert_eq!(rendered("%REQ(ABCDEF):3%!"), "> abc!");
        assert_eq!(rendered("%REQ(ABCDEF):0%!"), "> !");
        assert_eq!(rendered("%REQ(AB):30%!"), "> ab!");
        assert_eq!(rendered("%PROTOCOL%"), "> -");
        assert_eq!(rendered("%START_TIME(%Y/%m)%"), "> %Y/%m");
        assert_eq!(rendered(""), "> ");
        let mut out = Vec::new();
        Template::parse("%PROTOCOL%").unwrap().render_with(&Fixed, b"", &mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn plain_text_and_lone_commands_are_recognised() {
        assert_eq!(Template::parse("50%%").unwrap().literal(), Some(&b"50%"[..]));
        assert_eq!(Template::parse("").unwrap().literal(), Some(&b""[..]));
        assert_eq!(Template::parse("%DURATION%").unwrap().only_command(), Some(&Command::Duration));
        assert_eq!(Template::parse("%DURATION% ").unwrap().only_command(), None);
    }

    #[test]
    fn unknown_and_malformed_operators_are_refused_by_name() {
        for (text, word) in [
            ("%NO_SUCH%", "NO_SUCH"),
            ("%VIRTUAL_CLUSTER_NAME%", "VIRTUAL_CLUSTER_NAME"),
            ("100%", "%%"),
            ("% DURATION%", "%%"),
            ("%DURATION", "closing"),
            ("%REQ(a%", "parenthesis"),
            ("%REQ%", "REQ"),
            ("%REQ()%", "REQ"),
            ("%DURATION(x)%", "DURATION"),
            ("%DURATION:x%", "length"),
            ("%GRPC_STATUS(X)%", "GRPC_STATUS"),
        ] {
            let error = Template::parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn the_default_log_lines_of_envoy_and_istio_parse() {
        for text in [
            "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n",
            "%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n",
        ] {
            Template::parse(text).unwrap();
        }
    }
}
