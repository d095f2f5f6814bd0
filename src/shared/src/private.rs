//! Directories and files that are the user's own, and nobody else's.
//!
//! A directory is opened once and checked: it is one, it is ours, and no other
//! may write to it. All else happens inside it, by its handle: no name holds a
//! slash, no link is followed, a file is a plain file of ours with one name that
//! others cannot read or write (0600). Whatever is otherwise is refused with the
//! reason, and nothing is mended: somebody made it so.
//!
//! Not here: what files hold.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

const NAME: &str = "autooffload";

/// A directory of the user's own.
pub struct Directory {
    handle: OwnedFd,
    path: PathBuf,
}

/// Where pages are: gone when the user logs out, or the machine restarts.
///
/// Errors: why there is none that could be trusted.
pub fn runtime() -> Result<Directory> {
    Directory::make(&runtime_path())
}

/// The same for who only looks: none is made.
pub fn runtime_if_there() -> Result<Directory> {
    Directory::open(&runtime_path())
}

fn runtime_path() -> PathBuf {
    let named = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let usual = PathBuf::from(format!("/run/user/{}", user()));
    let bases = [named.filter(|path| path.is_absolute()), Some(usual)];
    for base in bases.into_iter().flatten() {
        if is_ours(&base) {
            return base.join(NAME);
        }
    }
    std::env::temp_dir().join(format!("{NAME}-{}", user()))
}

/// Where files are that outlive a restart: the user's cache directory.
pub fn cache() -> Result<Directory> {
    let named = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let base = named.filter(|path| path.is_absolute()).or_else(home);
    let base = base.filter(|path| path.is_absolute()).ok_or_else(|| refused("there is no HOME"))?;
    if !base.exists() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&base)?;
    }
    Directory::make(&base.join(NAME))
}

/// The program runs with another user's or group's rights than whoever started
/// it: nothing of the starter's environment may choose what it reads or writes.
pub fn has_foreign_rights() -> bool {
    // SAFETY: asks the kernel's table of this process; 0 where it says nothing.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

fn user() -> u32 {
    // SAFETY: cannot fail.
    unsafe { libc::geteuid() }
}

fn refused(why: &str) -> Error {
    Error::new(ErrorKind::PermissionDenied, why)
}

fn is_ours(path: &Path) -> bool {
    std::fs::symlink_metadata(path)
        .is_ok_and(|found| found.is_dir() && found.uid() == user() && found.mode() & 0o022 == 0)
}

impl Directory {
    /// `path`, made if there is none.
    pub fn make(path: &Path) -> Result<Self> {
        match std::fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Self::open(path),
        }
    }

    pub fn open(path: &Path) -> Result<Self> {
        let name = CString::new(path.as_os_str().as_bytes())?;
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_RDONLY | libc::O_CLOEXEC;
        // SAFETY: the name ends with NUL; the answer is checked.
        let handle = unsafe { libc::open(name.as_ptr(), flags) };
        if handle < 0 {
            return Err(Error::last_os_error());
        }
        // SAFETY: just opened, and nobody else's.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(handle) });
        let found = file.metadata()?;
        if found.uid() != user() {
            return Err(refused("it is another user's"));
        }
        if found.mode() & 0o022 != 0 {
            return Err(refused("others may write to it"));
        }
        // As the kernel names it: what the maps of a process show.
        let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
            .unwrap_or_else(|_| path.to_owned());
        Ok(Self { handle: file.into(), path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of what is in it, in order.
    pub fn names(&self) -> Result<Vec<String>> {
        let entries = std::fs::read_dir(format!("/proc/self/fd/{}", self.handle.as_raw_fd()))?;
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        Ok(names)
    }

    /// A new file; what had its name is removed first, whatever it was.
    pub fn create(&self, name: &str) -> Result<File> {
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR;
        match self.open_file(name, flags) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                self.remove(name)?;
                self.open_file(name, flags)
            }
            other => other,
        }
    }

    /// A file that is there, to be read, and to be written if `writable`.
    pub fn open_private(&self, name: &str, writable: bool) -> Result<File> {
        // A pipe of that name must not hold us up.
        let flags = if writable { libc::O_RDWR } else { libc::O_RDONLY } | libc::O_NONBLOCK;
        let file = self.open_file(name, flags)?;
        let found = file.metadata()?;
        if !found.is_file() || found.nlink() != 1 {
            return Err(refused("it is no plain file"));
        }
        if found.uid() != user() || found.mode() & 0o077 != 0 {
            return Err(refused("it is not the user's alone"));
        }
        Ok(file)
    }

    /// All of a file that has at most `most` bytes.
    pub fn read(&self, name: &str, most: u64) -> Result<Vec<u8>> {
        let file = self.open_private(name, false)?;
        if file.metadata()?.len() > most {
            return Err(Error::new(ErrorKind::InvalidData, "it is too long"));
        }
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Puts `bytes` in the place of what had this name: who reads finds the one
    /// or the other, whole.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let partial = format!(".{name}.{}", std::process::id());
        let written = self
            .create(&partial)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_data()));
        let placed = written.and_then(|()| self.rename(&partial, name));
        if placed.is_err() {
            let _ = self.remove(&partial);
        }
        placed
    }

    pub fn remove(&self, name: &str) -> Result<()> {
        let name = c_name(name)?;
        // SAFETY: the handle is open, the name ends with NUL.
        answer(unsafe { libc::unlinkat(self.handle.as_raw_fd(), name.as_ptr(), 0) })
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (c_name(from)?, c_name(to)?);
        let here = self.handle.as_raw_fd();
        // SAFETY: the handle is open, both names end with NUL.
        answer(unsafe { libc::renameat(here, from.as_ptr(), here, to.as_ptr()) })
    }

    fn open_file(&self, name: &str, flags: libc::c_int) -> Result<File> {
        let name = c_name(name)?;
        let flags = flags | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        // SAFETY: the handle is open, the name ends with NUL, the mode is given.
        let file = unsafe { libc::openat(self.handle.as_raw_fd(), name.as_ptr(), flags, 0o600) };
        if file < 0 {
            return Err(Error::last_os_error());
        }
        // SAFETY: just opened, and nobody else's.
        Ok(unsafe { File::from_raw_fd(file) })
    }
}

fn answer(code: libc::c_int) -> Result<()> {
    if code == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}

/// A name, and no path.
fn c_name(name: &str) -> Result<CString> {
    if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        return Err(Error::new(ErrorKind::InvalidInput, "not a name"));
    }
    Ok(CString::new(OsStr::new(name).as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ao-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            Directory::make(&path).expect("a directory of ours");
            Self(path)
        }

        fn open(&self) -> Directory {
            Directory::open(&self.0).expect("ours")
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).expect("there").mode() & 0o777
    }

    #[test]
    fn files_are_the_users_alone_and_replaced_whole() {
        let scratch = Scratch::new("whole");
        let directory = scratch.open();
        assert_eq!(mode(&scratch.0), 0o700);
        for text in ["one", "the other"] {
            directory.replace("file", text.as_bytes()).expect("written");
            assert_eq!(directory.read("file", 100).expect("read"), text.as_bytes());
        }
        assert_eq!(mode(&scratch.0.join("file")), 0o600);
        assert_eq!(directory.names().expect("listed"), ["file"], "and nothing beside it");
        assert!(directory.read("file", 5).is_err(), "too long");
        directory.remove("file").expect("removed");
        assert!(directory.read("file", 5).is_err());
    }

    #[test]
    fn a_directory_that_others_may_write_to_and_a_link_to_one_are_refused() {
        let scratch = Scratch::new("open");
        let link = scratch.0.with_extension("link");
        let _ = std::fs::remove_file(&link);
        symlink(&scratch.0, &link).expect("a link");
        assert!(Directory::make(&link).is_err());
        std::fs::remove_file(&link).expect("removed");
        std::fs::set_permissions(&scratch.0, PermissionsExt::from_mode(0o777)).expect("ours");
        assert!(Directory::make(&scratch.0).is_err());
    }

    #[test]
    fn links_pipes_second_names_and_readable_files_are_refused() {
        let scratch = Scratch::new("files");
        let directory = scratch.open();
        let at = |name: &str| scratch.0.join(name);
        std::fs::write(at("target"), "theirs").expect("written");
        std::fs::set_permissions(at("target"), PermissionsExt::from_mode(0o600)).expect("ours");
        assert!(directory.read("target", 100).is_ok());
        symlink(at("target"), at("link")).expect("a link");
        assert!(directory.read("link", 100).is_err());
        std::fs::hard_link(at("target"), at("second")).expect("a second name");
        assert!(directory.read("second", 100).is_err());
        std::fs::write(at("open"), "x").expect("written");
        std::fs::set_permissions(at("open"), PermissionsExt::from_mode(0o644)).expect("ours");
        assert!(directory.read("open", 100).is_err());
        let pipe = CString::new(at("pipe").as_os_str().as_bytes()).expect("no NUL");
        // SAFETY: the name ends with NUL.
        assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
        assert!(directory.read("pipe", 100).is_err());
        // What is written replaces a link, and does not go where it leads.
        directory.replace("link", b"ours").expect("written");
        assert_eq!(std::fs::read(at("target")).expect("there"), b"theirs");
        directory.create("link").expect("made");
        assert_eq!(std::fs::read(at("target")).expect("there"), b"theirs");
    }

    #[test]
    fn a_name_is_no_path() {
        let scratch = Scratch::new("names");
        let directory = scratch.open();
        for name in ["", ".", "..", "../x", "/etc/passwd", "a/b", "a\0b"] {
            assert!(
                directory.create(name).is_err() && directory.read(name, 1).is_err(),
                "{name:?}"
            );
        }
    }
}
