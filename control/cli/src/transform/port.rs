//! Ports of the application, written as for the host agent: `NAME=[NUMBER:]CONTAINER_PORT/PROTOCOL`.

use std::str::FromStr;

use super::Refusal;
use super::setting::Wanted;
use outrigger_member::port;

/// Most ports of one workload. Source: the control service's limit.
pub(super) const PORTS_MAX: usize = 64;

/// One declared port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// DNS label, unique in the workload.
    pub name: String,
    /// The port callers name.
    pub number: u16,
    /// The port the application listens on in its container.
    pub container: u16,
    /// One of http, http2, grpc, tcp, tls.
    pub protocol: String,
}

/// A port and the way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    /// As declared.
    pub(super) port: Port,
    /// Where the proxy calls the application.
    pub(super) target: u16,
    /// Where the mesh calls the proxy.
    pub(super) inbound: u16,
}

impl FromStr for Port {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` is not NAME=[NUMBER:]CONTAINER_PORT/PROTOCOL"))?;
        Self::declared(name, rest)
    }
}

impl Port {
    /// Reads `[NUMBER:]CONTAINER_PORT/PROTOCOL`.
    pub(super) fn declared(name: &str, text: &str) -> Result<Self, String> {
        let declared = port::parse(name, text)?;
        let (number, container) = (declared.number, declared.target);
        Ok(Self { name: declared.name, number, container, protocol: declared.protocol.flag().to_owned() })
    }

    /// As the host agent's label has it.
    pub(super) fn label(&self) -> String {
        if self.number == self.container {
            format!("{}/{}", self.container, self.protocol)
        } else {
            format!("{}:{}/{}", self.number, self.container, self.protocol)
        }
    }
}

/// What the proxy's variable `OUTRIGGER_PORTS` says.
pub(super) fn variable(reached: &[Reached]) -> String {
    let one = |r: &Reached| {
        format!("{}:{}:{}:{}:{}", r.port.name, r.port.protocol, r.port.number, r.target, r.inbound)
    };
    reached.iter().map(one).collect::<Vec<_>>().join(",")
}

/// Reads that variable. The container port is taken to be the target; nothing when it is not of our writing.
pub(super) fn read_variable(text: &str) -> Option<Vec<Reached>> {
    let one = |part: &str| {
        let parts: Vec<&str> = part.split(':').collect();
        let [name, protocol, number, rest @ ..] = parts.as_slice() else { return None };
        let number: u16 = number.parse().ok()?;
        let target: u16 = rest.first().map_or(Some(number), |text| text.parse().ok())?;
        let inbound: u16 = rest.get(1).map_or(Some(0), |text| text.parse().ok())?;
        let port =
            Port { name: (*name).to_owned(), number, container: target, protocol: (*protocol).to_owned() };
        Some(Reached { port, target, inbound })
    };
    text.split(',').filter(|part| !part.is_empty()).map(one).collect()
}

/// Where application and proxy share a network namespace: each port gets an inbound port of its own, in a row, because
/// plaintext could not be told apart at a shared one.
pub(super) fn in_a_row(wanted: &Wanted, refusals: &mut Vec<Refusal>) -> Vec<Reached> {
    let taken = |port: u16| {
        port == wanted.outbound || port == wanted.admin || wanted.ports.iter().any(|p| p.container == port)
    };
    let mut free = (wanted.inbound..=u16::MAX).filter(|port| !taken(*port));
    let mut reached = Vec::new();
    for port in &wanted.ports {
        match free.next() {
            Some(inbound) => reached.push(Reached { port: port.clone(), target: port.container, inbound }),
            None => {
                refusals.push(Refusal::new("--inbound-port", "no port is left above it for every port"));
                break;
            }
        }
    }
    reached
}
