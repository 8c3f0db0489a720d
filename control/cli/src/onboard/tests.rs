use super::bundle::{Bundle, Token};
use super::host::{Host, HostIdentity, RunBy, host_name, host_port};
use super::script;
use serde_json::{Value, json};

fn host(run_by: RunBy) -> Host {
    Host {
        name: "rack7".to_owned(),
        control: vec!["control.example:15012".to_owned()],
        identities: vec![HostIdentity::parse("cart.shop=cart,basket").unwrap()],
        address: Some("10.0.0.7".parse().unwrap()),
        locality: Some("hq/rack7".to_owned()),
        clusters: vec!["prod".to_owned()],
        settings: None,
        image: Some("registry.example/outrigger-proxy:1".to_owned()),
        run_by,
        agent_image: "registry.example/outrigger-agent:1".to_owned(),
        agent_binary: None,
    }
}

fn token() -> Token {
    Token { file: "cart.shop.token".to_owned(), text: "ojt_00_secret".to_owned() }
}

/// Fields of the agent's settings that this command writes. `control/agent` reads them; its own tests say they are so named.
#[test]
fn settings_of_the_agent_are_what_the_flags_say() {
    let settings = host(RunBy::Docker).agent_settings("/etc/outrigger").unwrap();
    let read: Value = serde_saphyr::from_str(&settings).unwrap();
    let expected = json!({
        "control": ["control.example:15012"],
        "trustBundle": "/etc/outrigger/trust-bundle.pem",
        "identities": [{
            "namespace": "shop", "serviceAccount": "cart",
            "joinTokenFile": "/etc/outrigger/tokens/cart.shop.token", "families": ["basket", "cart"],
        }],
        "address": "10.0.0.7",
        "locality": "hq/rack7",
        "clusters": ["prod"],
        "sidecar": {"image": "registry.example/outrigger-proxy:1"},
    });
    assert_eq!(read, expected);
}

#[test]
fn further_settings_are_kept_and_may_not_say_what_flags_say() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("more.yaml");
    std::fs::write(&path, "sidecar: {uid: 2000}\ncapture: {onFailure: open}\n").unwrap();
    let with = Host { settings: Some(path.clone()), ..host(RunBy::Docker) };
    let read: Value = serde_saphyr::from_str(&with.agent_settings("/etc/outrigger").unwrap()).unwrap();
    assert_eq!(read["sidecar"], json!({"uid": 2000, "image": "registry.example/outrigger-proxy:1"}));
    assert_eq!(read["capture"]["onFailure"], "open");
    for bad in ["identities: []\n", "- a\n", "control: [x:1]\n", "sidecar: 7\n", "{"] {
        std::fs::write(&path, bad).unwrap();
        assert!(with.agent_settings("/etc/outrigger").is_err(), "{bad}");
    }
}

#[test]
fn token_is_in_its_file_and_in_no_command() {
    for run_by in [RunBy::Docker, RunBy::Systemd] {
        let bundle = Bundle::of(&host(run_by), "PEM", &[token()], (1_000, 4_600)).unwrap();
        let file = bundle.files.iter().find(|file| file.path.ends_with("/tokens/cart.shop.token")).unwrap();
        assert_eq!((file.mode, file.bytes.as_slice(), file.secret), (0o600, &b"ojt_00_secret\n"[..], true));
        let install = script::install(&bundle);
        assert!(!install.contains("ojt_00_secret"), "encoded only");
        assert!(!script::offboard(&bundle).contains("b2p0"), "an offboarding has no token in it");
    }
}

#[test]
fn flags_that_make_no_sense_are_refused() {
    assert!(host_name("rack7").is_ok() && host_name("Rack 7").is_err() && host_name("").is_err());
    assert!(host_port("c.example:15012").is_ok() && host_port("[::1]:15012").is_ok());
    for bad in ["c.example", ":15012", "c.example:0", "c.example:x"] {
        assert!(host_port(bad).is_err(), "{bad}");
    }
    for bad in ["cart", "cart.Shop", ".shop", "cart.", "cart.shop.x"] {
        assert!(HostIdentity::parse(bad).is_err(), "{bad}");
    }
    assert!(HostIdentity::parse("cart.shop").unwrap().families.is_empty());
}
