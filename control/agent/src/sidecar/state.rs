//! Folders with the keys and the last good configuration of sidecars.
//!
//! A container that is started again may be another to its peers, by a new port of the host, and so needs another sidecar; what it
//! serves and who it is stay the same. So the new sidecar goes on with what the old one left, and needs no control service to
//! begin with.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// `outrigger-CONTAINER-` of `outrigger-CONTAINER-GENERATION`.
fn container_of(name: &str) -> Option<&str> {
    name.rfind('-').and_then(|at| name.get(..=at))
}

/// Gives the folder of a sidecar that the container had before, the youngest one, to the sidecar `name`, which has none yet.
/// Those in `present` are still there, and keep theirs; so does one that belongs to another user than `owner`. Returns whether
/// there was one.
///
/// # Errors
/// Those of the file system.
pub fn inherit(folder: &Path, name: &str, present: &[&str], owner: u32) -> io::Result<bool> {
    let own = folder.join(name);
    let Some(container) = container_of(name).filter(|_| !own.exists()) else { return Ok(false) };
    let mut youngest = None;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(other) = entry.file_name().into_string() else { continue };
        let about = entry.metadata()?;
        if container_of(&other) == Some(container)
            && !present.contains(&other.as_str())
            && about.is_dir()
            && about.uid() == owner
        {
            youngest = youngest.max(Some((about.modified()?, entry.path())));
        }
    }
    match youngest {
        Some((_, left)) => fs::rename(left, own).map(|()| true),
        None => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with those of some sidecars in it, each with a file that names it; and whose they are.
    fn folders(names: &[&str]) -> (tempfile::TempDir, u32) {
        let root = tempfile::tempdir().unwrap();
        for name in names {
            fs::create_dir(root.path().join(name)).unwrap();
            fs::write(root.path().join(name).join("identity.json"), name).unwrap();
        }
        let owner = root.path().metadata().unwrap().uid();
        (root, owner)
    }

    #[test]
    fn sidecar_goes_on_with_what_another_of_its_container_left() {
        let (root, owner) = folders(&["outrigger-aaaaaaaaaaaa-000001", "outrigger-bbbbbbbbbbbb-000001"]);
        let fresh = "outrigger-aaaaaaaaaaaa-000002";
        assert!(inherit(root.path(), fresh, &[], owner).unwrap());
        let kept = fs::read_to_string(root.path().join(fresh).join("identity.json")).unwrap();
        assert_eq!(kept, "outrigger-aaaaaaaaaaaa-000001");
        assert!(!root.path().join("outrigger-aaaaaaaaaaaa-000001").exists());
        assert!(!inherit(root.path(), fresh, &[], owner).unwrap(), "it has its own now");
    }

    #[test]
    fn what_another_still_has_or_another_user_owns_is_left_alone() {
        let old = "outrigger-aaaaaaaaaaaa-000001";
        let (root, owner) = folders(&[old]);
        let fresh = "outrigger-aaaaaaaaaaaa-000002";
        assert!(!inherit(root.path(), fresh, &[old], owner).unwrap());
        assert!(!inherit(root.path(), fresh, &[], owner + 1).unwrap());
        assert!(!inherit(root.path(), "outrigger-bbbbbbbbbbbb-000002", &[], owner).unwrap());
        assert!(root.path().join(old).exists());
    }
}
