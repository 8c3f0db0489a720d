//! Files that only one user may read.

use anyhow::Context as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::Path;

/// The user we are.
pub fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Makes a folder that only `owner` may enter, and what leads there.
///
/// *Errors*: the file system's.
pub fn make_private(folder: &Path, owner: u32) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    give(folder, owner)
}

/// Writes a file that only `owner` may read: whole and renamed into place, so that whenever the host goes down there is
/// the old one or the new one.
///
/// *Errors*: the file system's; the old file stays then.
pub fn write_private(folder: &Path, name: &str, content: &[u8], owner: u32) -> anyhow::Result<()> {
    let part = folder.join(format!("{name}.part"));
    // What an earlier run left may be readable by others.
    match fs::remove_file(&part) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    file.write_all(content)?;
    file.sync_all()?;
    give(&part, owner)?;
    fs::rename(&part, folder.join(name)).with_context(|| name.to_owned())?;
    // Without this the rename itself may be lost.
    Ok(fs::File::open(folder)?.sync_all()?)
}

/// Only root may give files away; whoever runs as another user keeps them.
fn give(path: &Path, owner: u32) -> anyhow::Result<()> {
    if owner != own_user() {
        chown(path, Some(owner), Some(owner)).with_context(|| format!("owner of {}", path.display()))?;
    }
    Ok(())
}
