//! Pingora's heads as the decisions see them, and what edits do to them.

use http::{HeaderMap, HeaderName, HeaderValue};
use outrigger_traffic::config::HeaderAppend;
use outrigger_traffic::route::{Edit, Edits};
use outrigger_traffic::view::{FieldView, RequestView};
use pingora_core::Result;
use pingora_http::{RequestHeader, ResponseHeader};

/// A request head.
pub(crate) struct Head<'a> {
    pub(crate) request: &'a RequestHeader,
    /// The client spoke TLS.
    pub(crate) tls: bool,
}

fn first<'m>(map: &'m HeaderMap, lower: &[u8]) -> Option<&'m [u8]> {
    map.get(std::str::from_utf8(lower).ok()?).map(HeaderValue::as_bytes)
}

fn each(map: &HeaderMap, lower: &[u8], f: &mut dyn FnMut(&[u8])) {
    if let Ok(name) = std::str::from_utf8(lower) {
        map.get_all(name).iter().for_each(|value| f(value.as_bytes()));
    }
}

impl FieldView for Head<'_> {
    fn header(&self, lower: &[u8]) -> Option<&[u8]> {
        first(&self.request.headers, lower)
    }

    fn for_each_header(&self, lower: &[u8], f: &mut dyn FnMut(&[u8])) {
        each(&self.request.headers, lower, f);
    }
}

impl RequestView for Head<'_> {
    fn method(&self) -> &[u8] {
        self.request.method.as_str().as_bytes()
    }

    fn scheme(&self) -> &[u8] {
        if self.tls { b"https" } else { b"http" }
    }

    fn authority(&self) -> &[u8] {
        match self.request.uri.authority() {
            Some(authority) => authority.as_str().as_bytes(),
            None => first(&self.request.headers, b"host").unwrap_or_default(),
        }
    }

    fn path(&self) -> &[u8] {
        self.request.raw_path()
    }
}

/// Fields of a response.
pub(crate) struct Fields<'a>(pub(crate) &'a ResponseHeader);

impl FieldView for Fields<'_> {
    fn header(&self, lower: &[u8]) -> Option<&[u8]> {
        first(&self.0.headers, lower)
    }

    fn for_each_header(&self, lower: &[u8], f: &mut dyn FnMut(&[u8])) {
        each(&self.0.headers, lower, f);
    }
}

/// What both kinds of heads can do.
pub(crate) trait Edited {
    fn map(&self) -> &HeaderMap;
    fn put(&mut self, name: &str, value: HeaderValue, beside: bool) -> Result<()>;
    fn drop_all(&mut self, name: &str);
}

impl Edited for RequestHeader {
    fn map(&self) -> &HeaderMap {
        &self.headers
    }

    fn put(&mut self, name: &str, value: HeaderValue, beside: bool) -> Result<()> {
        let name = name.to_owned();
        if beside { self.append_header(name, value).map(drop) } else { self.insert_header(name, value) }
    }

    fn drop_all(&mut self, name: &str) {
        self.remove_header(name);
    }
}

impl Edited for ResponseHeader {
    fn map(&self) -> &HeaderMap {
        &self.headers
    }

    fn put(&mut self, name: &str, value: HeaderValue, beside: bool) -> Result<()> {
        let name = name.to_owned();
        if beside { self.append_header(name, value).map(drop) } else { self.insert_header(name, value) }
    }

    fn drop_all(&mut self, name: &str) {
        self.remove_header(name);
    }
}

/// Makes the edits. Values are plain: others were refused with their configuration.
pub(crate) fn edit(head: &mut impl Edited, edits: &Edits) -> Result<()> {
    for step in edits.steps() {
        match step {
            Edit::Remove(name) => head.drop_all(name),
            Edit::RemoveMatching(matcher) => {
                let names: Vec<HeaderName> = head
                    .map()
                    .keys()
                    .filter(|name| matcher.is_match(name.as_str().as_bytes()))
                    .cloned()
                    .collect();
                names.iter().for_each(|name| head.drop_all(name.as_str()));
            }
            Edit::Set { .. } => set(head, std::slice::from_ref(step))?,
            Edit::Together(all) => set(head, all)?,
        }
    }
    Ok(())
}

/// Sets the fields of one level: all are judged by the head as it is now, those that replace one go before those that add.
fn set(head: &mut impl Edited, all: &[Edit]) -> Result<()> {
    let mut wanted = Vec::new();
    for edit in all {
        let Edit::Set { name, value, append, keep_empty } = edit else { continue };
        let Some(text) = value.literal().filter(|text| *keep_empty || !text.is_empty()) else { continue };
        let Ok(value) = HeaderValue::from_bytes(text) else { continue };
        let there = head.map().contains_key(&**name);
        let beside = match append {
            HeaderAppend::AppendIfExistsOrAdd => true,
            HeaderAppend::AddIfAbsent if !there => true,
            HeaderAppend::OverwriteIfExists if there => false,
            HeaderAppend::OverwriteIfExistsOrAdd => false,
            HeaderAppend::AddIfAbsent | HeaderAppend::OverwriteIfExists => continue,
        };
        wanted.push((name, value, beside));
    }
    for adding in [false, true] {
        for (name, value, beside) in wanted.iter().filter(|(.., beside)| *beside == adding) {
            head.put(name, value.clone(), *beside)?;
        }
    }
    Ok(())
}
