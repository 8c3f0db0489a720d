//! Subject alternative names: reading them and matching them.

use outrigger_traffic::config::{SanMatch, SanType, StringPattern};
use outrigger_traffic::text::TextMatcher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use x509_parser::prelude::{GeneralName, X509Certificate};

/// Compiled SAN criteria: any of them suffices.
#[derive(Clone, Debug)]
pub(super) struct SanMatchers(Vec<One>);

#[derive(Clone, Debug)]
struct One {
    kind: SanType,
    text: TextMatcher,
    /// Text of an exact matcher, lower case; a wildcard of the certificate may cover it.
    dns_exact: Option<String>,
}

impl SanMatchers {
    /// Compiles criteria; an error names the one that is wrong.
    pub(super) fn compile(from: &[SanMatch]) -> Result<Self, (usize, String)> {
        from.iter()
            .enumerate()
            .map(|(i, san)| {
                let text = TextMatcher::new(&san.text).map_err(|reason| (i, reason))?;
                let dns_exact = match (&san.kind, &san.text.pattern) {
                    (SanType::Dns, StringPattern::Exact(name)) => Some(name.to_ascii_lowercase()),
                    _ => None,
                };
                Ok(One { kind: san.kind, text, dns_exact })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether any name is accepted because nothing was asked for.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a URI is asked for.
    pub(super) fn asks_uri(&self) -> bool {
        self.0.iter().any(|one| one.kind == SanType::Uri)
    }

    /// Whether any of a certificate's names satisfies any criterion.
    pub(super) fn accept(&self, cert: &X509Certificate<'_>) -> bool {
        let Ok(Some(names)) = cert.subject_alternative_name() else { return false };
        names.value.general_names.iter().any(|name| self.0.iter().any(|one| one.accepts(name)))
    }
}

impl One {
    fn accepts(&self, name: &GeneralName<'_>) -> bool {
        match (self.kind, name) {
            (SanType::Uri, GeneralName::URI(text)) | (SanType::Email, GeneralName::RFC822Name(text)) => {
                self.text.is_match(text.as_bytes())
            }
            (SanType::Dns, GeneralName::DNSName(text)) => {
                self.text.is_match(text.as_bytes())
                    || self.dns_exact.as_ref().is_some_and(|exact| wildcard_covers(text, exact))
            }
            (SanType::Ip, GeneralName::IPAddress(octets)) => {
                ip_text(octets).is_some_and(|text| self.text.is_match(text.as_bytes()))
            }
            _ => false,
        }
    }
}

/// Whether a certificate's `*.rest` covers a name: the star stands for exactly one label (RFC 6125 section 6.4.3).
pub(super) fn wildcard_covers(pattern: &str, name: &str) -> bool {
    let Some(rest) = pattern.strip_prefix("*.") else { return false };
    match name.split_once('.') {
        Some((label, tail)) => !label.is_empty() && rest.contains('.') && tail.eq_ignore_ascii_case(rest),
        None => false,
    }
}

/// The text form of an address in a certificate.
pub(super) fn ip_text(octets: &[u8]) -> Option<String> {
    let ip = match octets.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?)),
        16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?)),
        _ => return None,
    };
    Some(ip.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcard_covers_one_label_and_not_more() {
        let table = [
            ("*.mesh.test", "web.mesh.test", true),
            ("*.mesh.test", "WEB.Mesh.Test", true),
            ("*.mesh.test", "a.web.mesh.test", false),
            ("*.mesh.test", "mesh.test", false),
            ("*.mesh.test", ".mesh.test", false),
            ("*.test", "mesh.test", false),
            ("web.mesh.test", "web.mesh.test", false),
            ("*", "web", false),
        ];
        for (pattern, name, expected) in table {
            assert_eq!(wildcard_covers(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn addresses_have_their_text_form() {
        assert_eq!(ip_text(&[127, 0, 0, 1]).as_deref(), Some("127.0.0.1"));
        assert_eq!(ip_text(&[0; 16]).as_deref(), Some("::"));
        assert_eq!(ip_text(&[1, 2, 3]), None);
    }
}
