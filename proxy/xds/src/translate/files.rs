//! What `filename` and `environment_variable` of a data source read.

use super::At;
use outrigger_api::envoy::config::core::v3::DataSource;
use outrigger_api::envoy::config::core::v3::data_source::Specifier;
use std::io;

/// Largest file taken into a configuration, bytes. Trust bundles of public roots have about 250 KiB.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Reads what configurations refer to; a seam so that translation can be tested and validated without a disk.
pub trait FileReader {
    /// The content of a file.
    ///
    /// *Errors*: the system's, shown to the operator with the path.
    fn read(&self, path: &str) -> io::Result<Vec<u8>>;

    /// The value of an environment variable.
    fn variable(&self, name: &str) -> Option<String>;
}

/// The file system and the environment of the process.
#[derive(Clone, Copy, Debug)]
pub struct Disk;

impl FileReader for Disk {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        use std::io::Read;
        // A pipe or a device would be waited for, and configuration with it.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a regular file"));
        }
        let mut content = Vec::new();
        std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut content)?;
        if content.len() as u64 > FILE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 16 MiB"));
        }
        Ok(content)
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// The bytes of a data source.
pub(crate) fn bytes(source: &DataSource, at: &At<'_>) -> Option<Vec<u8>> {
    match at.need(source.specifier.as_ref())? {
        Specifier::Filename(path) => {
            let at = at.field("filename");
            at.need_text(path);
            match at.files().read(path) {
                Ok(content) => Some(content),
                Err(error) => {
                    at.refuse(format!("cannot read `{path}`: {error}"));
                    None
                }
            }
        }
        Specifier::InlineBytes(content) => Some(content.clone()),
        Specifier::InlineString(text) => Some(text.clone().into_bytes()),
        Specifier::EnvironmentVariable(name) => {
            let at = at.field("environment_variable");
            let value = at.files().variable(name);
            if value.is_none() {
                at.refuse(format!("the variable `{name}` is not set"));
            }
            value.map(String::into_bytes)
        }
    }
}

/// The text of a data source.
pub(crate) fn text(source: &DataSource, at: &At<'_>) -> Option<String> {
    match String::from_utf8(bytes(source, at)?) {
        Ok(text) => Some(text),
        Err(_) => {
            at.refuse("is not UTF-8");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Disk, FileReader};

    #[test]
    fn files_are_read_and_devices_are_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "content").unwrap();
        assert_eq!(Disk.read(file.path().to_str().unwrap()).unwrap(), b"content");
        for path in ["/dev/null", "/dev/zero", "/"] {
            assert!(Disk.read(path).is_err(), "{path}");
        }
    }
}
