//! `outrigger login`

use std::io::{IsTerminal as _, Read as _};

use crate::Global;
use crate::client::Client;
use crate::failure::Failure;
use crate::session::{self, DEFAULT_SERVER, Saved};

/// Longest token read, in bytes.
const TOKEN_BYTES_MAX: u64 = 4_096;

/// The token is taken from --token, OUTRIGGER_TOKEN, --token-file or standard input.
#[derive(clap::Args)]
pub struct Login {
    /// File with the token, e.g. the control service's admin.token.
    #[arg(long)]
    token_file: Option<std::path::PathBuf>,
}

impl Login {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let server = global.server.clone().unwrap_or_else(|| DEFAULT_SERVER.to_owned());
        let token = self.token(global)?;
        let read = |path: &std::path::PathBuf| {
            std::fs::read_to_string(path).map_err(|error| Failure::file(path, &error))
        };
        let ca_certificate = global.ca_cert.as_ref().map(read).transpose()?;
        let client = Client::new(&server, Some(token.clone()), ca_certificate.as_deref())?;
        // A login that would not work later fails now.
        let authority = client.get("/api/v1/ca").await?;
        let path = session::save(&Saved { server: server.clone(), token, ca_certificate })?;
        let domain = authority["trustDomain"].as_str().unwrap_or_default();
        println!("logged in to {server} (trust domain {domain}), saved in {}", path.display());
        Ok(())
    }

    fn token(&self, global: &Global) -> Result<String, Failure> {
        let text = match (&global.token, &self.token_file) {
            (Some(token), _) => token.clone(),
            (None, Some(path)) => {
                std::fs::read_to_string(path).map_err(|error| Failure::file(path, &error))?
            }
            (None, None) => {
                let mut text = String::new();
                let input = std::io::stdin();
                if input.is_terminal() {
                    eprintln!("Paste the operator token and end with Ctrl-D:");
                }
                let read = input.lock().take(TOKEN_BYTES_MAX).read_to_string(&mut text);
                read.map_err(|error| Failure::Other(format!("standard input: {error}")))?;
                text
            }
        };
        let token = text.trim();
        if token.is_empty() { Err(Failure::Usage("no token given".to_owned())) } else { Ok(token.to_owned()) }
    }
}
