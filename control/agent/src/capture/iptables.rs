//! The rules for `iptables`, where `nft` is missing.
//!
//! Two chains of our own are filled in one transaction by `iptables-restore`; a jump from each built-in chain is added where
//! it is not there yet. So the rules are the same however often they are written, and the chains are never seen half full.

use std::fmt::Write as _;

use super::{DOCKER_DNS, PLATFORM, Rules, Step};

const INBOUND: &str = "OUTRIGGER_INBOUND";
const OUTBOUND: &str = "OUTRIGGER_OUTBOUND";

/// Built-in chain, ours.
const JUMPS: [(&str, &str); 2] = [("PREROUTING", INBOUND), ("OUTPUT", OUTBOUND)];

/// The family of a set of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `iptables`.
    V4,
    /// `ip6tables`.
    V6,
}

impl Family {
    fn program(self) -> &'static str {
        match self {
            Self::V4 => "iptables",
            Self::V6 => "ip6tables",
        }
    }

    fn restore(self) -> &'static str {
        match self {
            Self::V4 => "iptables-restore",
            Self::V6 => "ip6tables-restore",
        }
    }

    fn has(self, cidr: &str) -> bool {
        cidr.contains(':') == (self == Self::V6)
    }
}

/// What `iptables-restore --noflush` reads. To declare a chain empties it.
pub fn text(rules: &Rules, family: Family) -> String {
    // Writing to a String cannot fail.
    let mut out = format!("*nat\n:{INBOUND} - [0:0]\n:{OUTBOUND} - [0:0]\n-A {INBOUND} -i lo -j RETURN\n");
    for (from, to) in &rules.inbound {
        let _ = writeln!(out, "-A {INBOUND} -p tcp --dport {from} -j REDIRECT --to-ports {to}");
    }
    if rules.outbound.is_none() && rules.dns.is_none() {
        out.push_str("COMMIT\n");
        return out;
    }
    let _ = writeln!(out, "-A {OUTBOUND} -m owner --uid-owner {} -j RETURN", rules.uid);
    let excluded = rules.exclude_cidrs.iter().map(ToString::to_string);
    for cidr in PLATFORM.iter().map(|cidr| (*cidr).to_owned()).chain(excluded).filter(|c| family.has(c)) {
        let _ = writeln!(out, "-A {OUTBOUND} -d {cidr} -j RETURN");
    }
    for port in &rules.exclude_ports {
        for protocol in ["tcp", "udp"] {
            let _ = writeln!(out, "-A {OUTBOUND} -p {protocol} --dport {port} -j RETURN");
        }
    }
    if let Some(port) = rules.dns {
        if family == Family::V4 {
            for protocol in ["tcp", "udp"] {
                let _ = writeln!(
                    out,
                    "-A {OUTBOUND} -d {DOCKER_DNS}/32 -p {protocol} --dport 53 -j REDIRECT --to-ports {port}"
                );
            }
        }
        let _ = writeln!(out, "-A {OUTBOUND} -o lo -j RETURN");
        for protocol in ["tcp", "udp"] {
            let _ = writeln!(out, "-A {OUTBOUND} -p {protocol} --dport 53 -j REDIRECT --to-ports {port}");
        }
    } else {
        let _ = writeln!(out, "-A {OUTBOUND} -o lo -j RETURN");
        let _ = writeln!(out, "-A {OUTBOUND} -p tcp --dport 53 -j RETURN");
    }
    if let Some(port) = rules.outbound {
        let _ = writeln!(out, "-A {OUTBOUND} -p tcp -j REDIRECT --to-ports {port}");
    }
    out.push_str("COMMIT\n");
    out
}

/// Puts the rules in place.
pub fn install(rules: &Rules, family: Family) -> Vec<Step> {
    let mut steps = vec![Step::new(&[family.restore(), "--noflush"], text(rules, family))];
    for (from, to) in JUMPS {
        let nat = [family.program(), "-w", "5", "-t", "nat"];
        let mut insert = Step::new(&[&nat[..], &["-I", from, "1", "-j", to]].concat(), String::new());
        let check = [&nat[..], &["-C", from, "-j", to]].concat();
        insert.unless = Some(check.into_iter().map(str::to_owned).collect());
        steps.push(insert);
    }
    steps
}

/// Takes them away, if there are any.
pub fn remove(family: Family) -> Vec<Step> {
    let nat = [family.program(), "-w", "5", "-t", "nat"];
    let mut steps = Vec::new();
    for (from, to) in JUMPS {
        steps.push([&nat[..], &["-D", from, "-j", to]].concat());
        steps.push([&nat[..], &["-F", to]].concat());
        steps.push([&nat[..], &["-X", to]].concat());
    }
    let step = |argv: Vec<&str>| Step { may_fail: true, ..Step::new(&argv, String::new()) };
    steps.into_iter().map(step).collect()
}
