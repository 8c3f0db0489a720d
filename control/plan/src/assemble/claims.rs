//! What policies ask of tokens, as conditions on what the JWT filter leaves in the metadata.

use outrigger_traffic::config::{MetadataMatch, Principal, StringMatch, StringPattern, ValueMatch};

use super::authentication::{CLAIMS, FILTER};
use super::security::text_match;

fn at(path: &[String], value: ValueMatch) -> Principal {
    let path = std::iter::once(CLAIMS.to_owned()).chain(path.iter().cloned()).collect();
    Principal::Metadata(MetadataMatch { filter: FILTER.to_owned(), path, value, invert: false })
}

/// A claim that is this text, or a list with it. `*` at one end matches any rest; alone it asks for a value.
pub(super) fn claim(path: &[String], text: &str) -> Principal {
    let value = ValueMatch::Text(text_match(text, false));
    at(path, ValueMatch::Any(vec![value.clone(), ValueMatch::OneOf(Box::new(value))]))
}

/// A text, which may be empty.
enum Part<'t> {
    Is(&'t str),
    Begins(&'t str),
    Ends(&'t str),
}

/// A token about whom policies call `issuer/subject`. Issuers, and subjects, may have slashes of their own: the text fits
/// when it does with any of its slashes as the one in the middle.
pub(super) fn request_principal(text: &str) -> Principal {
    let both = |issuer: Part<'_>, subject: Part<'_>| {
        Principal::And(vec![part("iss", &issuer), part("sub", &subject)])
    };
    let splits = |text: &'_ str| -> Vec<(String, String)> {
        let slashes = text.match_indices('/');
        slashes.map(|(i, _)| (text[..i].to_owned(), text[i + 1..].to_owned())).collect()
    };
    let mut any = Vec::new();
    if let Some(end) = text.strip_prefix('*') {
        for (issuer, subject) in splits(end) {
            any.push(both(Part::Ends(&issuer), Part::Is(&subject)));
        }
        any.push(both(Part::Ends(""), Part::Ends(end)));
    } else if let Some(begin) = text.strip_suffix('*') {
        for (issuer, subject) in splits(begin) {
            any.push(both(Part::Is(&issuer), Part::Begins(&subject)));
        }
        any.push(both(Part::Begins(begin), Part::Begins("")));
    } else {
        for (issuer, subject) in splits(text) {
            any.push(both(Part::Is(&issuer), Part::Is(&subject)));
        }
        if any.is_empty() {
            // Without a slash there is no such name.
            return Principal::Not(Box::new(Principal::Any));
        }
    }
    if any.len() == 1 { any.remove(0) } else { Principal::Or(any) }
}

fn part(claim: &str, wanted: &Part<'_>) -> Principal {
    let pattern = match wanted {
        Part::Is(text) => StringPattern::Exact((*text).to_owned()),
        // Any text, but a text.
        Part::Begins("") | Part::Ends("") => StringPattern::Regex(".*".to_owned()),
        Part::Begins(text) => StringPattern::Prefix((*text).to_owned()),
        Part::Ends(text) => StringPattern::Suffix((*text).to_owned()),
    };
    at(&[claim.to_owned()], ValueMatch::Text(StringMatch { pattern, ignore_case: false }))
}

#[cfg(test)]
mod tests {
    use super::request_principal;
    use outrigger_traffic::authz::{AuthzView, CompiledRbac};
    use outrigger_traffic::config::{Permission, Policy, Rbac, RbacAction, Rules};
    use outrigger_traffic::metadata::Metadata;
    use serde_json::json;

    fn matches(pattern: &str, iss: &str, sub: &str) -> bool {
        let mut metadata = Metadata::default();
        assert!(metadata.put(super::FILTER, super::CLAIMS, json!({"iss": iss, "sub": sub})));
        let policy =
            Policy { permissions: vec![Permission::Any], principals: vec![request_principal(pattern)] };
        let rules = Rules { action: RbacAction::Allow, policies: vec![("p".into(), policy)] };
        let rbac = CompiledRbac::new(&Rbac { rules: Some(rules), ..Rbac::default() }, &mut |path, reason| {
            panic!("{path}: {reason}")
        });
        let address = "10.0.0.1:80".parse().unwrap();
        let view = AuthzView {
            destination: address,
            direct_remote: address.ip(),
            remote: address.ip(),
            server_name: None,
            peer: None,
            request: None,
            metadata: Some(&metadata),
        };
        rbac.check(&view).allowed
    }

    #[test]
    fn request_principals_fit_as_the_joined_text_would() {
        let patterns = [
            "*",
            "https://a/b/ann",
            "https://a/b/*",
            "https://a/*",
            "https*",
            "*/ann",
            "*ann",
            "*b/ann",
            "ann",
            "x/y",
            "a/b/c",
        ];
        for (iss, sub) in [
            ("https://a/b", "ann"),
            ("https://a", "b/ann"),
            ("https://a", ""),
            ("a", "b/c"),
            ("a/b", "c"),
            ("x", "y"),
        ] {
            let joined = format!("{iss}/{sub}");
            for pattern in patterns {
                let expected = if let Some(end) = pattern.strip_prefix('*') {
                    joined.ends_with(end)
                } else if let Some(begin) = pattern.strip_suffix('*') {
                    joined.starts_with(begin)
                } else {
                    joined == pattern
                };
                assert_eq!(matches(pattern, iss, sub), expected, "{pattern} on {joined}");
            }
        }
    }
}
