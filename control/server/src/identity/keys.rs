//! Files of the authority: written whole or not at all, and private keys readable by the owner only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Mode of files that hold secrets.
pub const SECRET_MODE: u32 = 0o600;

/// Mode of files anybody may read.
pub const PUBLIC_MODE: u32 = 0o644;

/// Creates a directory only its owner may enter, if it does not exist.
///
/// *Errors*: what the file system says.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

/// Replaces a file in one step: a reader, or a start after a power failure, sees the old content or
/// the new one.
///
/// *Errors*: what the file system says; the old file is then untouched.
pub fn write_atomic(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let missing = || io::Error::new(io::ErrorKind::InvalidInput, "path without a file name");
    let dir = path.parent().ok_or_else(missing)?;
    let mut name = path.file_name().ok_or_else(missing)?.to_owned();
    name.push(".new");
    let temporary = dir.join(name);
    // A file left by a crash may have another mode: it is removed rather than reused.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    // Without this the rename itself may be lost.
    File::open(dir)?.sync_all()
}

/// Reads a text file; `None` when it does not exist.
///
/// *Errors*: what the file system says, other than "not found".
pub fn read_optional(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Refuses a secret file that others may read.
///
/// *Errors*: `PermissionDenied` when group or others have any access; what the file system says.
pub fn check_private(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        let text = format!("{} must be accessible by its owner only (mode 0600)", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_file_is_private_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.key");
        write_atomic(&path, b"one", SECRET_MODE).unwrap();
        fs::write(dir.path().join("ca.key.new"), b"left by a crash").unwrap();
        write_atomic(&path, b"two", SECRET_MODE).unwrap();
        assert_eq!(read_optional(&path).unwrap().unwrap(), "two");
        check_private(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(check_private(&path).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(read_optional(&dir.path().join("none")).unwrap(), None);
    }
}
