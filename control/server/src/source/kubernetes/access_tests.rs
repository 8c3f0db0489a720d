//! Kubeconfigs, read and refused.

use super::*;

fn kubeconfig(cluster: &str, user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: here\npreferences: {{}}\ncontexts: [{{name: here, context: {{cluster: c, user: u, namespace: x}}}}]\nclusters: [{{name: c, cluster: {{{cluster}}}}}]\nusers: [{{name: u, user: {{{user}}}}}]\n"
    )
}

fn access(folder: &Path, text: &str) -> Result<Access, String> {
    let path = folder.join("config");
    std::fs::write(&path, text).unwrap();
    Access::of_kubeconfig(&path, None).map_err(|error| error.to_string())
}

#[tokio::test]
async fn token_comes_from_text_file_or_program() {
    let dir = tempfile::tempdir().unwrap();
    let server = "server: http://127.0.0.1:1/k8s/";
    let nobody = access(dir.path(), &kubeconfig(server, "")).unwrap();
    assert_eq!((nobody.prefix.as_str(), nobody.authorization().await.unwrap()), ("/k8s", None));
    let fixed = access(dir.path(), &kubeconfig(server, "token: abc")).unwrap();
    assert_eq!(fixed.authorization().await.unwrap().unwrap(), "Bearer abc");
    let file = access(dir.path(), &kubeconfig(server, "tokenFile: token")).unwrap();
    assert!(file.authorization().await.is_err(), "not there yet");
    for text in ["one\n", "two\n"] {
        std::fs::write(dir.path().join("token"), text).unwrap();
        assert_eq!(file.authorization().await.unwrap().unwrap(), format!("Bearer {}", text.trim()));
    }
    let count = dir.path().join("count");
    let script = format!(
        "echo x >> {}; printf '{{\"status\": {{\"token\": \"%s\", \"expirationTimestamp\": \"2999-01-01T00:00:00Z\"}}}}' $TOKEN",
        count.display()
    );
    let exec = format!(
        "exec: {{apiVersion: client.authentication.k8s.io/v1, command: sh, args: [-c, {}], env: [{{name: TOKEN, value: made}}]}}",
        serde_json::Value::from(script)
    );
    let program = access(dir.path(), &kubeconfig(server, &exec)).unwrap();
    for _ in 0..2 {
        assert_eq!(program.authorization().await.unwrap().unwrap(), "Bearer made");
    }
    assert_eq!(std::fs::read_to_string(&count).unwrap(), "x\n", "it is good for long");
    program.forget().await;
    program.authorization().await.unwrap();
    assert_eq!(std::fs::read_to_string(&count).unwrap(), "x\nx\n");
    let failing = "exec: {apiVersion: v1, command: 'false'}";
    let failing = access(dir.path(), &kubeconfig(server, failing)).unwrap();
    assert!(failing.authorization().await.unwrap_err().to_string().contains("false"));
}

#[test]
fn what_is_not_supported_or_senseless_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let server = "server: https://k8s.example";
    for (cluster, user, named) in [
        ("server: https://a, insecure-skip-tls-verify: true", "", "insecure-skip-tls-verify"),
        ("server: https://a, proxy-url: http://p", "", "proxy-url"),
        ("server: https://a, tls-server-name: b", "", "tls-server-name"),
        (server, "auth-provider: {name: gcp}", "auth-provider"),
        (server, "username: a, password: b", "username"),
        (server, "as: root", "as is not supported"),
        (server, "client-certificate-data: aGVsbG8=", "needs its key"),
        ("server: https://a, certificate-authority: nowhere.pem", "", "nowhere.pem"),
        ("server: https://a, certificate-authority-data: '!'", "", "base64"),
        ("server: http://k8s.example", "token: x", "not sent over http"),
        ("server: ftp://a", "", "ftp://a"),
    ] {
        let error = access(dir.path(), &kubeconfig(cluster, user)).err().unwrap_or_default();
        assert!(error.contains(named), "{cluster} {user}: {error}");
    }
    let text = kubeconfig(server, "");
    assert!(access(dir.path(), &text).unwrap().origin.has_tls());
    for (from, to) in [
        ("current-context: here", "current-context: there"),
        ("cluster: c,", "cluster: d,"),
        ("user: u,", "user: v,"),
    ] {
        assert!(access(dir.path(), &text.replacen(from, to, 1)).is_err(), "{to}");
    }
}
