//! `outrigger-proxy health`: the container health check, for images without a shell.

use crate::cli::Health;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::Duration;

/// 0 when the admin interface answers `/ready` with 200; else 1 and one line that says why.
pub fn check(flags: &Health) -> ExitCode {
    match status(flags) {
        Ok(200) => ExitCode::SUCCESS,
        Ok(code) => {
            eprintln!("not ready: {} answered {code}", flags.admin_address);
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("not ready: {}: {error}", flags.admin_address);
            ExitCode::FAILURE
        }
    }
}

fn status(flags: &Health) -> std::io::Result<u16> {
    let timeout = Duration::from_millis(flags.timeout_ms.max(1));
    let mut stream = TcpStream::connect_timeout(&flags.admin_address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut head = [0_u8; 12];
    stream.read_exact(&mut head)?;
    let text = std::str::from_utf8(&head).unwrap_or_default();
    text.get(9..12)
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidData, "answer is not HTTP"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn answering(text: &'static str) -> Health {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let admin_address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            let mut request = [0; 64];
            let _ = peer.read(&mut request).unwrap();
            peer.write_all(text.as_bytes()).unwrap();
        });
        Health { admin_address, timeout_ms: 2000 }
    }

    #[test]
    fn ready_answer_gives_its_status() {
        assert_eq!(status(&answering("HTTP/1.1 200 OK\r\n\r\nLIVE\n")).unwrap(), 200);
        assert_eq!(status(&answering("HTTP/1.1 503 Service Unavailable\r\n\r\n")).unwrap(), 503);
    }

    #[test]
    fn answer_of_something_else_is_an_error() {
        assert!(status(&answering("220 mail ready\r\n")).is_err());
        assert!(status(&answering("")).is_err());
    }
}
