//! The rules as one transaction of `nft`: applied whole or not at all, and the same however often.

use std::fmt::Write as _;

use super::{DOCKER_DNS, PLATFORM, Rules, Step};

/// The table that is the agent's alone.
pub const TABLE: &str = "outrigger";

/// Before docker's own rules for its resolver (priority -100): the first translation holds.
const PRIORITY_OUTBOUND: i32 = -110;

/// Usual priority of destination translation (`dstnat`).
const PRIORITY_INBOUND: i32 = -100;

/// What `nft -f -` reads to put the rules in place of whatever the table held.
pub fn text(rules: &Rules) -> String {
    let mut out = removal_text();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "table inet {TABLE} {{");
    let _ = writeln!(out, "\tchain inbound {{");
    let _ = writeln!(out, "\t\ttype nat hook prerouting priority {PRIORITY_INBOUND}; policy accept;");
    let _ = writeln!(out, "\t\tiifname \"lo\" return");
    for (from, to) in &rules.inbound {
        let _ = writeln!(out, "\t\ttcp dport {from} redirect to :{to}");
    }
    let _ = writeln!(out, "\t}}");
    if rules.outbound.is_some() || rules.dns.is_some() {
        outbound(&mut out, rules);
    }
    out.push_str("}\n");
    out
}

fn outbound(out: &mut String, rules: &Rules) {
    let _ = writeln!(out, "\tchain outbound {{");
    let _ = writeln!(out, "\t\ttype nat hook output priority {PRIORITY_OUTBOUND}; policy accept;");
    let _ = writeln!(out, "\t\tmeta skuid {} return", rules.uid);
    for cidr in PLATFORM {
        let family = if cidr.contains("::") { "ip6" } else { "ip" };
        let _ = writeln!(out, "\t\t{family} daddr {cidr} return");
    }
    for cidr in &rules.exclude_cidrs {
        let family = if cidr.is_ipv4() { "ip" } else { "ip6" };
        let _ = writeln!(out, "\t\t{family} daddr {cidr} return");
    }
    for port in &rules.exclude_ports {
        let _ = writeln!(out, "\t\tmeta l4proto {{ tcp, udp }} th dport {port} return");
    }
    if let Some(port) = rules.dns {
        let _ = writeln!(
            out,
            "\t\tip daddr {DOCKER_DNS} meta l4proto {{ tcp, udp }} th dport 53 redirect to :{port}"
        );
        let _ = writeln!(out, "\t\toifname \"lo\" return");
        let _ = writeln!(out, "\t\tmeta l4proto {{ tcp, udp }} th dport 53 redirect to :{port}");
    } else {
        let _ = writeln!(out, "\t\toifname \"lo\" return");
        // Questions to a resolver over TCP are none of the outbound port's.
        let _ = writeln!(out, "\t\ttcp dport 53 return");
    }
    if let Some(port) = rules.outbound {
        let _ = writeln!(out, "\t\tmeta l4proto tcp redirect to :{port}");
    }
    let _ = writeln!(out, "\t}}");
}

fn removal_text() -> String {
    // `add` first, so that `delete` finds one: there is no `delete if exists` in the versions in use.
    format!("add table inet {TABLE}\ndelete table inet {TABLE}\n")
}

/// Puts the rules in place.
pub fn install(rules: &Rules) -> Vec<Step> {
    vec![Step::new(&["nft", "-f", "-"], text(rules))]
}

/// Takes them away, if there are any.
pub fn remove() -> Vec<Step> {
    vec![Step::new(&["nft", "-f", "-"], removal_text())]
}
