//! DNS as a source, against a name server on loopback.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, SRV};
use hickory_resolver::proto::rr::{Name, Record, RecordType};
use tokio::net::UdpSocket;

use super::*;
use crate::source::Catalog;
use crate::source::settings::{DNS, SourcesFile};
use crate::source::status::State;

type Zone = Arc<Mutex<Option<Vec<(&'static str, RData)>>>>;

/// Answers from the zone; while there is none, with SERVFAIL.
async fn name_server(zone: Zone) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1_500];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            let question = Message::from_vec(&buffer[..length]).unwrap();
            let query = question.queries[0].clone();
            let mut answer = Message::response(question.id, question.op_code);
            answer.add_query(query.clone());
            match zone.lock().unwrap().as_ref() {
                None => answer.metadata.response_code = ResponseCode::ServFail,
                Some(records) => {
                    let name = query.name().to_utf8();
                    let known: Vec<_> = records.iter().filter(|(owner, _)| *owner == name).collect();
                    if known.is_empty() {
                        answer.metadata.response_code = ResponseCode::NXDomain;
                    }
                    for (_, data) in known.into_iter().filter(|(_, d)| d.record_type() == query.query_type())
                    {
                        answer.add_answer(Record::from_rdata(query.name().clone(), 1, data.clone()));
                    }
                }
            }
            socket.send_to(&answer.to_vec().unwrap(), peer).await.unwrap();
        }
    });
    address
}

fn a(last: u8) -> RData {
    RData::A(A::new(192, 0, 2, last))
}

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(priority, weight, port, Name::from_utf8(target).unwrap()))
}

#[tokio::test]
async fn addresses_follow_their_names_and_outlive_the_name_server() {
    let zone: Zone = Arc::new(Mutex::new(Some(vec![
        ("db.test.", a(1)),
        ("db.test.", a(2)),
        ("_web._tcp.test.", srv(1, 0, 8_001, "one.test.")),
        ("_web._tcp.test.", srv(1, 7, 8_002, "two.test.")),
        ("_web._tcp.test.", srv(2, 0, 8_003, "db.test.")),
        ("one.test.", a(11)),
        ("two.test.", a(12)),
    ])));
    let server = name_server(Arc::clone(&zone)).await;
    let file = SourcesFile::parse(&format!(
        "sources: [{{name: n, dns: {{intervalSeconds: 1, servers: ['{server}'], names: [
           {{host: db.test., service: db, namespace: shop, port: {{number: 5432, protocol: tcp}}, locality: hq/a}},
           {{host: _web._tcp.test., records: SRV, service: web, namespace: shop, port: {{number: 80, protocol: http}}}}]}}}}]"
    ))
    .unwrap();
    let registered = tokio::sync::watch::Sender::new(Vec::new().into());
    let catalog = Catalog::new(registered.subscribe(), None);
    let sink = catalog.add("n", DNS).await;
    let job = tokio::spawn(run(file.sources[0].dns.clone().unwrap(), sink, Reach::Network));
    let mut workloads = catalog.workloads();
    let all = workloads.wait_for(|all| all.len() == 4).await.unwrap().clone();
    let line = |w: &crate::source::Workload| (w.instance_id.clone(), w.ports[0].target_port, w.weight);
    let lines: Vec<_> = all.iter().map(|w| line(w)).collect();
    assert!(lines.contains(&("db-192.0.2.1-5432".into(), 5_432, 1)), "{lines:?}");
    assert!(lines.contains(&("web-192.0.2.12-8002".into(), 8_002, 7)), "{lines:?}");
    assert!(!lines.iter().any(|(_, port, _)| *port == 8_003), "only the best priority: {lines:?}");

    zone.lock().unwrap().as_mut().unwrap().remove(1);
    let after = workloads.wait_for(|all| all.len() == 3).await.unwrap().clone();
    assert!(!after.iter().any(|w| w.instance_id == "db-192.0.2.2-5432"));
    *zone.lock().unwrap() = None;
    while catalog.statuses()[0].state != State::Stale {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(workloads.borrow().len(), 3, "a name server that fails takes nobody away");
    *zone.lock().unwrap() = Some(vec![("db.test.", a(9))]);
    workloads.wait_for(|all| all.len() == 1).await.unwrap();
    assert_eq!(RecordType::A, a(9).record_type());
    job.abort();
}
