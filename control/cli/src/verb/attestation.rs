//! `outrigger attestation`

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::Global;
use crate::client::segment;
use crate::failure::Failure;
use crate::output::{self, Table, cell};
use crate::session;

/// Who may have an identity without a join token.
#[derive(clap::Subcommand)]
pub enum Attestation {
    /// Every rule.
    List,
    /// Replace the rule of a service account.
    Set {
        /// Namespace of the identity.
        #[arg(short, long, default_value = "default")]
        namespace: String,
        /// Service account of the identity.
        #[arg(long)]
        service_account: String,
        /// A role that may have it: ACCOUNT/ROLE, as in 123456789012/shop-cart. May be repeated.
        #[arg(long = "aws-role", value_parser = aws_role)]
        aws_roles: Vec<Value>,
        /// A Kubernetes service account that may have it: CLUSTER/NAMESPACE/NAME, the cluster by the name of its
        /// discovery source. May be repeated.
        #[arg(long = "kubernetes-account", value_parser = kubernetes_account)]
        kubernetes_accounts: Vec<Value>,
    },
    /// Remove the rule of a service account.
    Delete {
        /// Namespace of the identity.
        #[arg(short, long, default_value = "default")]
        namespace: String,
        /// Service account of the identity.
        #[arg(long)]
        service_account: String,
    },
}

impl Attestation {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let client = session::client(global)?;
        let path = |namespace: &str, account: &str| {
            format!("/api/v1/attestation-rules/{}/{}", segment(namespace), segment(account))
        };
        match self {
            Self::List => {
                output::print(global.output, &client.get("/api/v1/attestation-rules").await?, table)
            }
            Self::Set { namespace, service_account, aws_roles, kubernetes_accounts } => {
                let body = json!({"aws": aws_roles, "kubernetes": kubernetes_accounts});
                let path = path(&namespace, &service_account);
                let answer = client.call(Method::PUT, &path, &body.to_string(), Duration::ZERO).await?;
                output::print(global.output, &json!({"items": [answer]}), table)
            }
            Self::Delete { namespace, service_account } => {
                let path = path(&namespace, &service_account);
                client.call(Method::DELETE, &path, "", Duration::ZERO).await?;
                println!("attestation rule of {namespace}/{service_account} removed");
                Ok(())
            }
        }
    }
}

fn table(answer: &Value) -> Table {
    let mut table = Table::new(&["NAMESPACE", "SERVICE ACCOUNT", "AWS ROLES", "KUBERNETES ACCOUNTS"]);
    let joined = |items: &Value, fields: &[&str]| {
        let lines = items.as_array().into_iter().flatten().map(|item| {
            let parts: Vec<&str> = fields.iter().filter_map(|field| item[*field].as_str()).collect();
            Value::from(parts.join("/"))
        });
        cell(&Value::Array(lines.collect()))
    };
    for item in output::items(answer) {
        let rule = &item["rule"];
        table.row(vec![
            cell(&item["namespace"]),
            cell(&item["serviceAccount"]),
            joined(&rule["aws"], &["account", "role"]),
            joined(&rule["kubernetes"], &["cluster", "namespace", "serviceAccount"]),
        ]);
    }
    table
}

fn aws_role(text: &str) -> Result<Value, String> {
    let (account, role) = text.split_once('/').ok_or("ACCOUNT/ROLE")?;
    Ok(json!({"account": account, "role": role}))
}

fn kubernetes_account(text: &str) -> Result<Value, String> {
    match text.split('/').collect::<Vec<_>>().as_slice() {
        [cluster, namespace, name] => {
            Ok(json!({"cluster": cluster, "namespace": namespace, "serviceAccount": name}))
        }
        _ => Err("CLUSTER/NAMESPACE/NAME".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::{aws_role, kubernetes_account};

    #[test]
    fn callers_are_read_or_refused() {
        assert_eq!(aws_role("123456789012/a").unwrap()["role"], "a");
        assert_eq!(kubernetes_account("k/n/a").unwrap()["serviceAccount"], "a");
        assert!(aws_role("a").is_err() && kubernetes_account("n/a").is_err());
    }
}
