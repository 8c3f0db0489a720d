//! gRPC clients that speak xDS themselves: a listener without an address for each name of each service, its routes, and
//! plaintext clusters. They hold no certificate, so the services they call must take plaintext (`PERMISSIVE`).

use outrigger_traffic::config::{Config, RouteConfig, VirtualHost};

use super::outbound::{domains, main_port, proxyless_http, service_routes};
use crate::node::ApiListener;
use crate::scope::Scope;

/// Adds route tables, and gives the listeners.
pub fn assemble(scope: &Scope<'_>, config: &mut Config) -> Vec<ApiListener> {
    let mut listeners: Vec<ApiListener> = Vec::new();
    for service in scope.services() {
        let main = main_port(service);
        for port in service.ports.iter().filter(|(_, p)| p.protocol.is_http()).map(|(number, _)| *number) {
            let table = format!("{}:{port}", service.host);
            let names = domains(scope, service, port, main == Some(port));
            let free: Vec<String> =
                names.into_iter().filter(|n| !listeners.iter().any(|l| l.name == *n)).collect();
            if free.is_empty() {
                continue;
            }
            for name in free.iter().filter(|n| !n.contains('*')) {
                listeners
                    .push(ApiListener { name: name.clone(), http: proxyless_http(scope, table.clone()) });
            }
            let host = VirtualHost {
                name: table.clone(),
                domains: free,
                routes: service_routes(scope, service, port),
                ..VirtualHost::default()
            };
            config.route_configs.push(RouteConfig {
                name: table,
                virtual_hosts: vec![host.into()],
                ..RouteConfig::default()
            });
        }
    }
    listeners.sort_by(|a, b| a.name.cmp(&b.name));
    listeners
}
