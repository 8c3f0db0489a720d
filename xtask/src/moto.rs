//! moto's server: AWS's APIs on this machine, for checks.

use anyhow::{Context, bail};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long it may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A server, as long as this lives.
pub struct Moto {
    server: Child,
    address: SocketAddr,
}

impl Moto {
    /// Starts the server of a Python environment.
    ///
    /// # Errors
    /// It is not installed, or does not listen in time.
    pub fn start(venv: &Path) -> anyhow::Result<Self> {
        let program = venv.join("bin/moto_server");
        // Taken and given back: nobody else takes it in this moment on a machine that runs checks.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let server = Command::new(&program)
            .args(["-H", "127.0.0.1", "-p", &address.port().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| program.display().to_string())?;
        let mut moto = Self { server, address };
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = moto.server.try_wait()? {
                bail!("moto_server ended: {status}");
            }
            if began.elapsed() > START_TIMEOUT {
                bail!("moto_server does not listen at {address}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(moto)
    }

    /// Gives a command where the server is, and credentials it takes.
    pub fn tell(&self, command: &mut Command) {
        command
            .env("OUTRIGGER_MOTO", format!("http://{}", self.address))
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test");
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
