//! Where copies of a request go.

use super::Choice;
use super::split::Draw;
use crate::config::Fraction;
use crate::snapshot::{ClusterId, Snapshot};
use crate::view::FieldView;

/// A compiled [`config::Mirror`](crate::config::Mirror).
#[derive(Debug)]
pub struct MirrorTarget {
    pub(crate) cluster: Choice,
    pub(crate) fraction: Fraction,
    /// Whether the copy is sampled in traces; `None`: as the request is.
    pub trace_sampled: Option<bool>,
    /// The authority stays as it is.
    pub keep_host: bool,
    /// Authority of the copy.
    pub host_rewrite: Option<Box<[u8]>>,
}

impl MirrorTarget {
    /// Where the copy goes; `None`: there is none this time. `draw` is uniformly random.
    pub fn choose<F: FieldView + ?Sized>(
        &self,
        snapshot: &Snapshot,
        fields: &F,
        draw: u32,
    ) -> Option<ClusterId> {
        if !self.fraction.contains(draw) {
            return None;
        }
        self.cluster.choose(snapshot, fields, Draw::Random(0)).map(|(cluster, _)| cluster)
    }

    /// The cluster where it is always the same one.
    pub(crate) fn reference(&self) -> Option<ClusterId> {
        match &self.cluster {
            Choice::Single(cluster) => Some(*cluster),
            Choice::Weighted(_) | Choice::Header(_) => None,
        }
    }

    /// Appends the authority of the copy: the one that is configured, the request's, or the request's with `-shadow`
    /// before its port.
    ///
    /// Source: Envoy: request mirroring, host header of shadowed requests.
    pub fn write_authority(&self, authority: &[u8], out: &mut Vec<u8>) {
        if let Some(host) = &self.host_rewrite {
            return out.extend_from_slice(host);
        }
        if self.keep_host {
            return out.extend_from_slice(authority);
        }
        let (host, port) = match super::split_port(authority) {
            Some((host, _)) => (host, authority.get(host.len()..).unwrap_or_default()),
            None => (authority, &[][..]),
        };
        out.extend_from_slice(host);
        out.extend_from_slice(b"-shadow");
        out.extend_from_slice(port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authority_of_a_copy_has_the_suffix_before_its_port_unless_told_otherwise() {
        let written = |keep_host, host_rewrite: Option<&str>, authority: &str| {
            let target = MirrorTarget {
                cluster: Choice::Single(ClusterId(0)),
                fraction: Fraction::ONE,
                trace_sampled: None,
                keep_host,
                host_rewrite: host_rewrite.map(|host| host.as_bytes().into()),
            };
            let mut out = Vec::new();
            target.write_authority(authority.as_bytes(), &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(false, None, "a.test"), "a.test-shadow");
        assert_eq!(written(false, None, "a.test:8080"), "a.test-shadow:8080");
        assert_eq!(written(true, None, "a.test:8080"), "a.test:8080");
        assert_eq!(written(false, Some("b.test"), "a.test:8080"), "b.test");
    }
}
