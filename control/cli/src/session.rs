//! Which server and which token: from flags, the environment, or what `outrigger login` saved.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Global;
use crate::client::Client;
use crate::failure::Failure;

/// Where the service listens when nobody says otherwise.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:15080";

/// What a login saves.
#[derive(Serialize, Deserialize, Default, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Saved {
    /// URL of the operator API.
    pub server: String,
    /// Operator token.
    pub token: String,
    /// PEM to trust the server by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_certificate: Option<String>,
}

/// A client for the server the flags, the environment or the last login name.
///
/// A saved token goes to the server it was saved for and to no other.
///
/// # Errors
/// Files that cannot be read; a URL that is none.
pub fn client(global: &Global) -> Result<Client, Failure> {
    let saved = load()?.unwrap_or_default();
    let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let server = global.server.clone().or_else(|| known(&saved.server));
    let server = server.unwrap_or_else(|| DEFAULT_SERVER.to_owned());
    let same_server = server == saved.server;
    let token = global.token.clone().or_else(|| if same_server { known(&saved.token) } else { None });
    let trust = match &global.ca_cert {
        Some(path) => Some(fs::read_to_string(path).map_err(|error| Failure::file(path, &error))?),
        None if same_server => saved.ca_certificate,
        None => None,
    };
    Client::new(&server, token, trust.as_deref())
}

/// Where a login is saved: `$XDG_CONFIG_HOME/outrigger/login.json`, or below `~/.config`.
///
/// # Errors
/// When neither `XDG_CONFIG_HOME` nor `HOME` is set.
pub fn path() -> Result<PathBuf, Failure> {
    let base = std::env::var_os("XDG_CONFIG_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = base.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")));
    let base = base.ok_or_else(|| Failure::Other("neither XDG_CONFIG_HOME nor HOME is set".to_owned()))?;
    Ok(base.join("outrigger").join("login.json"))
}

/// Saves a login, readable by its owner only.
///
/// # Errors
/// What the file system says.
pub fn save(saved: &Saved) -> Result<PathBuf, Failure> {
    let path = path()?;
    write_private(&path, &serde_json::to_string_pretty(saved).unwrap_or_default())
        .map_err(|error| Failure::file(&path, &error))?;
    Ok(path)
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let temporary = path.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&temporary, path)
}

fn load() -> Result<Option<Saved>, Failure> {
    let Ok(path) = path() else { return Ok(None) };
    match fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| Failure::Other(format!("{}: {error}", path.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::file(&path, &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn login_is_saved_for_its_owner_only_and_can_be_saved_again() {
        let dir = std::env::temp_dir().join(format!("outrigger-login-{}", std::process::id()));
        let path = dir.join("login.json");
        write_private(&path, "{}").unwrap();
        write_private(&path, "{\"server\":\"x\",\"token\":\"y\"}").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let saved: Saved = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!((saved.server.as_str(), saved.token.as_str()), ("x", "y"));
        fs::remove_dir_all(dir).unwrap();
    }
}
