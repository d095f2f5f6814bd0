//! Files that we write for the user alone: nobody else reads them, and no link
//! leads our bytes into somebody else's file.
//!
//! Not here: what is written, and when.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Result, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Opens `path` for writing, empty, with mode 0600, and held against every other
/// process that opens it this way. An error says what is in the way.
pub fn create(path: &Path) -> Result<File> {
    let refused = |why: &str| Err(Error::new(ErrorKind::PermissionDenied, why.to_string()));
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(path)
        .map_err(|why| match why.raw_os_error() {
            Some(libc::ELOOP) => Error::new(why.kind(), "it is a link, which is not followed"),
            _ => why,
        })?;
    let known = file.metadata()?;
    // SAFETY: asks for a number.
    let user = unsafe { libc::geteuid() };
    if !known.is_file() {
        return refused("it is not a plain file");
    }
    if known.uid() != user {
        return refused("it belongs to another user");
    }
    if known.nlink() > 1 {
        return refused("it has another name (a hard link), and would be changed there, too");
    }
    // SAFETY: the descriptor is open.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
        return refused("another process is writing it; put %p into the name");
    }
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.set_len(0)?;
    Ok(file)
}

/// Puts `text` in the place of what is at `path`, so that a reader sees the one or
/// the other, whole. Only a plain file is replaced: a device or a link would be gone
/// for everybody. Where others may write, a link that they made in the place of
/// what is written first is not followed.
pub fn replace(path: &Path, text: &str) -> Result<()> {
    if std::fs::symlink_metadata(path).is_ok_and(|known| !known.is_file()) {
        return Err(Error::new(ErrorKind::PermissionDenied, "it is not a plain file"));
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{}.partial", std::process::id()));
    let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial);
    let file = create().or_else(|error| match error.kind() {
        ErrorKind::AlreadyExists => std::fs::remove_file(&partial).and_then(|()| create()),
        _ => Err(error),
    });
    file?.write_all(text.as_bytes()).and_then(|()| std::fs::rename(&partial, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_plain_file_stays_as_it_is() {
        let folder = std::env::temp_dir().join(format!("ao-private-file-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).expect("made");
        let [file, link] = ["file", "link"].map(|name| folder.join(name));
        for text in ["one", "the other"] {
            replace(&file, text).expect("written");
            assert_eq!(std::fs::read_to_string(&file).expect("read"), text);
        }
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        let socket = folder.join("socket");
        let _listens = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
        for other in [&link, &socket, &folder] {
            let before = std::fs::symlink_metadata(other).expect("there").file_type();
            assert!(replace(other, "ours").is_err() && create(other).is_err(), "{other:?}");
            assert_eq!(std::fs::symlink_metadata(other).expect("there").file_type(), before);
        }
        assert_eq!(std::fs::read_to_string(&file).expect("read"), "the other");
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
