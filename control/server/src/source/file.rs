//! A file with workloads, read again when it changes.
//!
//! A file that cannot be read, or is not understood as a whole, changes nothing: what it said last counts.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::catalog::{Found, Reading, Sink};
use super::fact::{Draft, DraftPort};
use super::settings::{FileSettings, FileWorkload, WorkloadsFile};
use super::status::Unusable;
use super::workload::{Health, Protocol, Reach};

/// How often the file is looked at. A look is one system call.
const POLL: Duration = Duration::from_millis(250);

/// Largest file, in bytes.
pub const FILE_BYTES_MAX: u64 = 32 << 20;

/// By what a change is seen: inode, length, time of the last change.
type Mark = (u64, u64, Option<SystemTime>);

/// Follows the file, for ever.
pub async fn run(settings: FileSettings, sink: Sink, reach: Reach) {
    let mut seen: Option<Mark> = None;
    let mut failed = false;
    loop {
        match look(settings.path.clone(), seen).await {
            Ok(None) => {
                if failed {
                    sink.confirm();
                }
                failed = false;
            }
            Ok(Some((mark, text))) => {
                // Seen, whatever is in it: a file that is not understood is told of once.
                seen = Some(mark);
                match read(&text, sink.name(), reach) {
                    Ok(found) => {
                        sink.replace(found, Reading::Full);
                        failed = false;
                    }
                    Err(error) => sink.fail(&format!("{}: {error}", settings.path.display())),
                }
            }
            Err(error) => {
                // Once for as long as it lasts, and read again when it is back.
                if !failed {
                    sink.fail(&format!("{}: {error}", settings.path.display()));
                }
                failed = true;
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The file's text, if it is another one than was seen.
async fn look(path: PathBuf, seen: Option<Mark>) -> std::io::Result<Option<(Mark, String)>> {
    use std::os::unix::fs::MetadataExt as _;
    let look = move || {
        let found = std::fs::metadata(&path)?;
        let mark = (found.ino(), found.len(), found.modified().ok());
        if seen == Some(mark) {
            return Ok(None);
        }
        if found.len() > FILE_BYTES_MAX {
            let text = format!("larger than {FILE_BYTES_MAX} bytes");
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text));
        }
        Ok(Some((mark, std::fs::read_to_string(&path)?)))
    };
    tokio::task::spawn_blocking(look).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

/// The workloads of a text.
///
/// *Errors*: not YAML, or a field that is not known or of the wrong type.
pub fn read(text: &str, source: &str, reach: Reach) -> Result<Found, String> {
    let file: WorkloadsFile = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let mut found = Found::default();
    for (index, workload) in file.workloads.into_iter().enumerate() {
        match draft(workload, index).and_then(|draft| draft.check(source, reach)) {
            Ok(workload) => found.workloads.push(workload),
            Err(unusable) => found.unusable.push(unusable),
        }
    }
    Ok(found)
}

fn draft(workload: FileWorkload, index: usize) -> Result<Draft, Unusable> {
    let object = format!("workloads[{index}]");
    let refuse = |reason: String| Unusable { object: object.clone(), reason };
    let health = match workload.health.as_str() {
        "" | "HEALTHY" => Health::Healthy,
        "UNHEALTHY" => Health::Unhealthy,
        "DRAINING" => Health::Draining,
        other => return Err(refuse(format!("health: {other:?} is none of HEALTHY, UNHEALTHY, DRAINING"))),
    };
    let mut ports = Vec::with_capacity(workload.ports.len());
    for (index, port) in workload.ports.into_iter().enumerate() {
        let protocol = Protocol::parse(&port.protocol).ok_or_else(|| {
            refuse(format!("ports[{index}].protocol: must be HTTP, HTTP2, GRPC, TCP or TLS"))
        })?;
        let target = if port.target == 0 { port.number } else { port.target };
        ports.push(DraftPort {
            name: port.name,
            number: port.number,
            protocol,
            target,
            mesh_tls: port.mesh_tls,
        });
    }
    let name = if workload.name.is_empty() {
        format!("{}-{}", workload.service, workload.address)
    } else {
        workload.name
    };
    Ok(Draft {
        object,
        instance_id: name,
        namespace: workload.namespace,
        service: workload.service,
        service_account: workload.service_account,
        version: String::new(),
        address: workload.address,
        ports,
        labels: workload.labels,
        locality: workload.locality,
        weight: workload.weight,
        health,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Catalog;
    use crate::source::settings::FILE;
    use crate::source::status::State;

    const ONE: &str = "workloads:
- {namespace: shop, service: db, address: 192.0.2.1, locality: hq/rack7, ports: [{number: 5432, protocol: tcp, meshTls: true}]}
- {namespace: shop, service: db, address: nowhere, ports: []}
- {namespace: shop, service: db, address: 192.0.2.2, ports: [{number: 1, protocol: smtp}]}
";

    #[test]
    fn usable_entries_count_and_the_others_are_told() {
        let found = read(ONE, "list", Reach::Network).unwrap();
        assert_eq!(found.workloads.len(), 1);
        assert_eq!(found.workloads[0].instance_id, "db-192.0.2.1");
        assert_eq!(found.workloads[0].ports[0].inbound_port, Some(5_432));
        let told: Vec<&str> = found.unusable.iter().map(|u| u.object.as_str()).collect();
        assert_eq!(told, ["workloads[1]", "workloads[2]"]);
        assert!(read("workloads: [{colour: red}]", "list", Reach::Network).is_err());
        assert!(read("", "list", Reach::Network).is_ok_and(|found| found.workloads.is_empty()));
    }

    #[tokio::test]
    async fn change_is_followed_and_a_file_that_is_gone_or_broken_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("workloads.yaml");
        let put = |text: &str| {
            std::fs::write(dir.path().join("new"), text).unwrap();
            std::fs::rename(dir.path().join("new"), &path).unwrap();
        };
        let registered = tokio::sync::watch::Sender::new(Vec::new().into());
        let catalog = Catalog::new(registered.subscribe(), None);
        let sink = catalog.add("list", FILE).await;
        let mut workloads = catalog.workloads();
        let job = tokio::spawn(run(FileSettings { path: path.clone() }, sink, Reach::Network));
        let is = async |state: State| {
            while catalog.statuses()[0].state != state {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        put(ONE);
        assert_eq!(workloads.wait_for(|all| all.len() == 1).await.unwrap()[0].service, "db");
        put("workloads: {");
        is(State::Stale).await;
        put(&ONE.replace("192.0.2.2", "192.0.2.3").replace("smtp", "http"));
        workloads.wait_for(|all| all.len() == 2).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        is(State::Stale).await;
        assert_eq!(workloads.borrow().len(), 2);
        put(ONE);
        workloads.wait_for(|all| all.len() == 1).await.unwrap();
        assert_eq!(catalog.statuses()[0].state, State::Synced);
        job.abort();
    }
}
