//! A disk with one file.

use outrigger_xds::translate::files::FileReader;
use std::io;

pub struct NoFiles;

impl FileReader for NoFiles {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        if path == "/a" { Ok(b"content".to_vec()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn variable(&self, name: &str) -> Option<String> {
        (name == "A").then(|| "value".to_owned())
    }
}
