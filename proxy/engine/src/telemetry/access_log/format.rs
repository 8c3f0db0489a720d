//! How a line looks: a text, or a JSON object.

use jiff::Timestamp;
use outrigger_traffic::config::AccessLogFormat;
use outrigger_traffic::template::{AddressPart, Command, Facts, GrpcStatusFormat, Template};
use serde_json::Value;

/// Envoy's default line. Source: Envoy: access logging, default format string.
const DEFAULT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
    %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \
    \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// Objects may be nested this deep.
const DEPTH_MAX: usize = 16;

/// A compiled format.
#[derive(Debug)]
pub struct LineFormat(Shape);

#[derive(Debug)]
enum Shape {
    Text(Template),
    /// Absent values are left out.
    Omitting(Template),
    Json(Vec<JsonPart>),
    /// Names of absent values are left out.
    Sparse(Sparse),
}

/// A value of which parts may be left out.
#[derive(Debug)]
enum Sparse {
    /// Names with quotes and colon.
    Object(Vec<(Vec<u8>, Sparse)>),
    List(Vec<Sparse>),
    Raw(Vec<u8>),
    Text(Template),
    Lone(Command, bool),
}

#[derive(Debug)]
enum JsonPart {
    /// Punctuation, names and fixed values.
    Raw(Vec<u8>),
    /// A text with commands.
    Text(Template),
    /// One command alone: a number where it is one, `null` where it is absent.
    Lone(Command, bool),
}

impl LineFormat {
    /// Compiles a configured format.
    ///
    /// *Errors*: a text that is no valid format, with its place and reason.
    pub fn compile(format: &AccessLogFormat) -> Result<Self, String> {
        let shape = match format {
            AccessLogFormat::Default => Shape::Text(parse(DEFAULT)?),
            AccessLogFormat::Text(text) => Shape::Text(parse(text)?),
            AccessLogFormat::Json(object) => {
                let mut parts = Vec::new();
                compile_object(object, &mut parts, 0)?;
                push_raw(&mut parts, b"\n");
                Shape::Json(parts)
            }
            AccessLogFormat::TextOmitting(text) => Shape::Omitting(parse(text)?),
            AccessLogFormat::JsonOmitting(object) => Shape::Sparse(Sparse::object(object, 0)?),
        };
        Ok(Self(shape))
    }

    /// Appends a line.
    pub fn write(&self, facts: &dyn Facts, out: &mut Vec<u8>) {
        match &self.0 {
            Shape::Text(template) => template.render(facts, out),
            Shape::Json(parts) => parts.iter().for_each(|part| part.write(facts, out)),
            Shape::Omitting(template) => template.render_with(facts, b"", out),
            Shape::Sparse(object) => {
                object.write(facts, out);
                out.push(b'\n');
            }
        }
    }
}

impl Sparse {
    fn object(from: &serde_json::Map<String, Value>, depth: usize) -> Result<Self, String> {
        if depth >= DEPTH_MAX {
            return Err(format!("objects are nested deeper than {DEPTH_MAX}"));
        }
        let mut members = Vec::with_capacity(from.len());
        for (name, value) in from {
            let mut key = vec![b'"'];
            key.extend_from_slice(name.as_bytes());
            close_quote(&mut key, 0);
            key.push(b':');
            members.push((key, Self::value(value, depth).map_err(|reason| format!("{name}: {reason}"))?));
        }
        Ok(Self::Object(members))
    }

    fn value(from: &Value, depth: usize) -> Result<Self, String> {
        Ok(match from {
            Value::Object(object) => Self::object(object, depth + 1)?,
            Value::String(text) => {
                let template = parse(text)?;
                match template.only_command() {
                    Some(command) => Self::Lone(command.clone(), is_number(command)),
                    None => Self::Text(template),
                }
            }
            Value::Array(_) if depth >= DEPTH_MAX => {
                return Err(format!("lists are nested deeper than {DEPTH_MAX}"));
            }
            Value::Array(values) => {
                Self::List(values.iter().map(|one| Self::value(one, depth + 1)).collect::<Result<_, _>>()?)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => Self::Raw(from.to_string().into_bytes()),
        })
    }

    /// Whether there was something to write; nothing is written otherwise.
    fn write(&self, facts: &dyn Facts, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        match self {
            Self::Raw(bytes) => out.extend_from_slice(bytes),
            Self::Text(template) => {
                out.push(b'"');
                template.render_with(facts, b"", out);
                close_quote(out, start);
            }
            Self::Lone(command, is_number) => {
                if !is_number {
                    out.push(b'"');
                }
                if !facts.write(command, out) {
                    out.truncate(start);
                    return false;
                }
                if !is_number {
                    close_quote(out, start);
                }
            }
            Self::Object(members) => {
                out.push(b'{');
                for (key, value) in members {
                    let before = out.len();
                    if before > start + 1 {
                        out.push(b',');
                    }
                    out.extend_from_slice(key);
                    if !value.write(facts, out) {
                        out.truncate(before);
                    }
                }
                out.push(b'}');
            }
            Self::List(values) => {
                out.push(b'[');
                for value in values {
                    let before = out.len();
                    if before > start + 1 {
                        out.push(b',');
                    }
                    if !value.write(facts, out) {
                        out.truncate(before);
                    }
                }
                out.push(b']');
            }
        }
        true
    }
}

impl JsonPart {
    fn write(&self, facts: &dyn Facts, out: &mut Vec<u8>) {
        let start = out.len();
        match self {
            Self::Raw(bytes) => out.extend_from_slice(bytes),
            Self::Text(template) => {
                out.push(b'"');
                template.render(facts, out);
                close_quote(out, start);
            }
            Self::Lone(command @ Command::DynamicMetadata(_), _) => {
                if !facts.write_json(command, out) {
                    out.truncate(start);
                    out.extend_from_slice(b"null");
                }
            }
            Self::Lone(command, is_number) => {
                if !is_number {
                    out.push(b'"');
                }
                if !facts.write(command, out) {
                    out.truncate(start);
                    out.extend_from_slice(b"null");
                } else if !is_number {
                    close_quote(out, start);
                }
            }
        }
    }
}

fn parse(text: &str) -> Result<Template, String> {
    let template = Template::parse(text)?;
    for command in template.commands() {
        if let Command::StartTime(Some(format)) = command {
            start_time(Timestamp::UNIX_EPOCH, Some(format))
                .ok_or_else(|| format!("`%START_TIME({format})%` is no valid time format"))?;
        }
    }
    Ok(template)
}

fn compile_object(
    object: &serde_json::Map<String, Value>,
    parts: &mut Vec<JsonPart>,
    depth: usize,
) -> Result<(), String> {
    if depth >= DEPTH_MAX {
        return Err(format!("objects are nested deeper than {DEPTH_MAX}"));
    }
    push_raw(parts, b"{");
    for (index, (name, value)) in object.iter().enumerate() {
        let mut key = if index > 0 { b",".to_vec() } else { Vec::new() };
        let start = key.len();
        key.push(b'"');
        key.extend_from_slice(name.as_bytes());
        close_quote(&mut key, start);
        key.push(b':');
        push_raw(parts, &key);
        compile_value(value, parts, depth).map_err(|reason| format!("{name}: {reason}"))?;
    }
    push_raw(parts, b"}");
    Ok(())
}

fn compile_value(value: &Value, parts: &mut Vec<JsonPart>, depth: usize) -> Result<(), String> {
    match value {
        Value::Object(object) => compile_object(object, parts, depth + 1)?,
        Value::String(text) => {
            let template = parse(text)?;
            parts.push(match template.only_command() {
                Some(command) => JsonPart::Lone(command.clone(), is_number(command)),
                None => JsonPart::Text(template),
            });
        }
        Value::Array(values) => {
            if depth >= DEPTH_MAX {
                return Err(format!("lists are nested deeper than {DEPTH_MAX}"));
            }
            push_raw(parts, b"[");
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    push_raw(parts, b",");
                }
                compile_value(value, parts, depth + 1)?;
            }
            push_raw(parts, b"]");
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => push_raw(parts, value.to_string().as_bytes()),
    }
    Ok(())
}

fn push_raw(parts: &mut Vec<JsonPart>, bytes: &[u8]) {
    if let Some(JsonPart::Raw(raw)) = parts.last_mut() {
        raw.extend_from_slice(bytes);
    } else {
        parts.push(JsonPart::Raw(bytes.to_vec()));
    }
}

/// Whether a command's value, where there is one, is made of digits.
fn is_number(command: &Command) -> bool {
    matches!(
        command,
        Command::ResponseCode
            | Command::BytesReceived
            | Command::BytesSent
            | Command::RequestHeadersBytes
            | Command::ResponseHeadersBytes
            | Command::Duration
            | Command::RequestDuration
            | Command::RequestTxDuration
            | Command::ResponseDuration
            | Command::ResponseTxDuration
            | Command::UpstreamRequestAttemptCount
            | Command::ConnectionId
            | Command::GrpcStatus(GrpcStatusFormat::Number)
            | Command::DownstreamRemoteAddress(AddressPart::Port)
            | Command::DownstreamDirectRemoteAddress(AddressPart::Port)
            | Command::DownstreamLocalAddress(AddressPart::Port)
            | Command::UpstreamRemoteAddress(AddressPart::Port)
            | Command::UpstreamLocalAddress(AddressPart::Port)
    )
}

/// Ends the JSON string that began with the quote at `start`, and escapes what is in it where that is needed.
fn close_quote(out: &mut Vec<u8>, start: usize) {
    let text = out.get(start + 1..).unwrap_or_default();
    // Without a way out in the middle, so that many bytes are looked at at once.
    let special = text.iter().fold(false, |special, byte| {
        special | !(0x20..0x7f).contains(byte) | (*byte == b'"') | (*byte == b'\\')
    });
    if !special {
        return out.push(b'"');
    }
    let text = String::from_utf8_lossy(text).into_owned();
    out.truncate(start);
    // Writing a string to a Vec cannot fail.
    let _ = serde_json::to_writer(out, &text);
}

/// `%START_TIME%`; `None` for a format that cannot be used.
pub(in crate::telemetry) fn start_time(at: Timestamp, format: Option<&str>) -> Option<String> {
    match format {
        None => {
            let mut text = String::with_capacity(24);
            jiff::fmt::temporal::DateTimePrinter::new()
                .precision(Some(3))
                .print_timestamp(&at, &mut text)
                .ok()?;
            Some(text)
        }
        Some(format) => jiff::fmt::strtime::format(format, at).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Fixed;

    impl Facts for Fixed {
        fn write(&self, command: &Command, out: &mut Vec<u8>) -> bool {
            match command {
                Command::ResponseCode => out.extend_from_slice(b"200"),
                Command::RouteName => out.extend_from_slice(b"a\"b\n\xff"),
                Command::Protocol => out.extend_from_slice(b"HTTP/2"),
                _ => return false,
            }
            true
        }
    }

    fn line(format: &AccessLogFormat) -> Vec<u8> {
        let mut out = Vec::new();
        LineFormat::compile(format).unwrap().write(&Fixed, &mut out);
        out
    }

    #[test]
    fn json_keeps_order_types_and_escapes() {
        let format = json!({"b": "%RESPONSE_CODE%", "a": {"route": "%ROUTE_NAME%", "n": "%DURATION%"},
            "mixed": "%PROTOCOL% %DURATION%", "fixed": [1, true, null, "%PROTOCOL%"]});
        let Value::Object(format) = format else { unreachable!() };
        let line = line(&AccessLogFormat::Json(format));
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"b\":200,\"a\":{\"route\":\"a\\\"b\\n\u{fffd}\",\"n\":null},\"mixed\":\"HTTP/2 -\",\"fixed\":[1,true,null,\"HTTP/2\"]}\n"
        );
    }

    #[test]
    fn bad_formats_are_refused_with_their_place() {
        let Value::Object(format) = json!({"a": {"b": "%NOPE%"}}) else { unreachable!() };
        let error = LineFormat::compile(&AccessLogFormat::Json(format)).unwrap_err();
        assert!(error.starts_with("a: b: ") && error.contains("NOPE"), "{error}");
        assert!(LineFormat::compile(&AccessLogFormat::Text("%START_TIME(%!)%".into())).is_err());
    }

    #[test]
    fn start_time_has_envoys_default_and_formats() {
        let at = Timestamp::from_millisecond(1_700_000_000_123).unwrap();
        assert_eq!(start_time(at, None).unwrap(), "2023-11-14T22:13:20.123Z");
        assert_eq!(start_time(at, Some("%Y/%m/%dT%H:%M:%S")).unwrap(), "2023/11/14T22:13:20");
        assert_eq!(start_time(at, Some("%s")).unwrap(), "1700000000");
    }

    #[test]
    fn absent_values_are_left_out_where_that_is_asked_for() {
        let object = json!({"code": "%RESPONSE_CODE%", "none": "%REQ(none)%", "in": {"none": "%REQ(none)%"}, "list": ["%REQ(none)%", "%RESPONSE_CODE%"], "text": "a%REQ(none)%b"});
        let Value::Object(object) = object else { panic!("an object") };
        let text = line(&AccessLogFormat::JsonOmitting(object));
        let expected = json!({"code": 200, "in": {}, "list": [200], "text": "ab"});
        assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), expected);
        assert_eq!(line(&AccessLogFormat::TextOmitting("[%REQ(none)%]".into())), b"[]");
    }
}
