//! Whole tables against a slow, obvious reference.

use crate::view::{FieldView, RequestView};

/// A request head for tests.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) method: String,
    pub(crate) scheme: String,
    pub(crate) authority: String,
    pub(crate) path: String,
    pub(crate) fields: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn get(authority: &str, path: &str) -> Self {
        Self {
            method: "GET".into(),
            scheme: "http".into(),
            authority: authority.into(),
            path: path.into(),
            fields: Vec::new(),
        }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }
}

impl FieldView for Head {
    fn header(&self, lower: &[u8]) -> Option<&[u8]> {
        self.fields.iter().find(|(n, _)| n.as_bytes() == lower).map(|(_, v)| v.as_bytes())
    }
    fn for_each_header(&self, lower: &[u8], f: &mut dyn FnMut(&[u8])) {
        self.fields.iter().filter(|(n, _)| n.as_bytes() == lower).for_each(|(_, v)| f(v.as_bytes()));
    }
}

impl RequestView for Head {
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
