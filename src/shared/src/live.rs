//! A process's page as a file: made by its writer, found by readers, and removed
//! by whoever finds that its writer is gone.
//!
//! A page is alive while its process has it mapped. That alone tells a process
//! that ended from another that got its id, and from the same one that has become
//! another program. In another process id namespace nothing can be told: such
//! pages are left alone.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicU64;

use crate::page::{PAGE_BYTES, Page, Unreadable, View, WORDS};
use crate::private::Directory;

const SUFFIX: &str = ".page";

fn name_of(pid: u32) -> String {
    format!("{pid}{SUFFIX}")
}

/// By the clock that all processes of this machine share.
pub fn now_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is there to be written; this clock exists everywhere.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The number of this process's process id namespace; 0 if it is not told.
pub fn namespace() -> u64 {
    let link = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let text = link.to_string_lossy().into_owned();
    text.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0)
}

/// A page in memory that is shared with its file.
struct Mapping(*mut libc::c_void);

// SAFETY: it is memory of the process, and all its words are atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `file` has [`PAGE_BYTES`] bytes. Should somebody cut it short, touching it
    /// is a fault: the directory is the user's alone.
    fn new(file: &File) -> Result<Self> {
        if file.metadata()?.len() < PAGE_BYTES as u64 {
            return Err(Error::new(ErrorKind::InvalidData, "it is too short"));
        }
        // SAFETY: a fresh mapping of an open file; the kernel picks the address.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        // A forked child is another process, and has no page.
        // SAFETY: the range is the mapping just made.
        unsafe { libc::madvise(address, PAGE_BYTES, libc::MADV_DONTFORK) };
        Ok(Self(address))
    }

    fn page(&self) -> Page<'_> {
        // SAFETY: the mapping has that size and alignment, and lives as long as
        // `self`; it is only ever looked at as atomics.
        Page::new(unsafe { &*self.0.cast::<[AtomicU64; WORDS]>() })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made by `new` with this length.
        unsafe { libc::munmap(self.0, PAGE_BYTES) };
    }
}

/// This process's page. Dropping it removes the file.
pub struct OwnPage {
    mapping: Mapping,
    directory: Directory,
    pid: u32,
}

impl OwnPage {
    pub fn create(directory: Directory) -> Result<Self> {
        let pid = std::process::id();
        let file = directory.create(&name_of(pid))?;
        file.set_len(PAGE_BYTES as u64)?;
        let mapping = Mapping::new(&file)?;
        mapping.page().begin();
        Ok(Self { mapping, directory, pid })
    }

    pub fn page(&self) -> Page<'_> {
        self.mapping.page()
    }
}

impl Drop for OwnPage {
    fn drop(&mut self) {
        let _ = self.directory.remove(&name_of(self.pid));
    }
}

/// Another process's page.
pub struct OtherPage {
    pub pid: u32,
    mapping: Mapping,
}

impl OtherPage {
    pub fn page(&self) -> Page<'_> {
        self.mapping.page()
    }

    pub fn read(&self) -> std::result::Result<View, Unreadable> {
        self.page().read()
    }
}

/// The pages of processes that live, by process id. Those of others are removed.
/// Second: what stood in the way, a sentence each.
pub fn pages(directory: &Directory) -> Result<(Vec<OtherPage>, Vec<String>)> {
    let (mut found, mut said) = (Vec::new(), Vec::new());
    let here = namespace();
    for name in directory.names()? {
        let Some(pid) = name.strip_suffix(SUFFIX).and_then(|pid| pid.parse::<u32>().ok()) else {
            continue;
        };
        let path = directory.path().join(&name);
        let opened = directory.open_private(&name, true).and_then(|file| Mapping::new(&file));
        let page = match opened {
            Ok(mapping) => OtherPage { pid, mapping },
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => {
                said.push(format!("{}: {error}", path.display()));
                continue;
            }
        };
        let view = page.read();
        let elsewhere = view.as_ref().is_ok_and(|view| view.process.namespace != here);
        if elsewhere {
            continue;
        }
        if maps(pid, &path) {
            found.push(page);
        } else {
            let _ = directory.remove(&name);
        }
    }
    found.sort_by_key(|page| page.pid);
    Ok((found, said))
}

/// Whether process `pid` has `path` mapped. What may not be looked at is taken
/// for alive.
fn maps(pid: u32, path: &std::path::Path) -> bool {
    match std::fs::read(format!("/proc/{pid}/maps")) {
        Ok(maps) => {
            let path = path.as_os_str().as_encoded_bytes();
            maps.split(|&byte| byte == b'\n').any(|line| line.ends_with(path))
        }
        Err(error) => error.kind() == ErrorKind::PermissionDenied,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Process;
    use std::path::PathBuf;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("ao-live-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        path
    }

    fn view() -> View {
        let pid = u64::from(std::process::id());
        let process = Process { pid, namespace: namespace(), ..Process::default() };
        View { process, devices: Vec::new() }
    }

    #[test]
    fn a_page_is_found_while_its_process_has_it() {
        let path = scratch("own");
        let own = OwnPage::create(Directory::make(&path).expect("made")).expect("a page");
        own.page().write(&view());
        let directory = Directory::open(&path).expect("ours");
        let (found, said) = pages(&directory).expect("listed");
        assert_eq!((found.len(), said.len()), (1, 0));
        assert_eq!(found[0].read(), Ok(view()));
        found[0].page().watch(now_ns() + 1_000_000_000);
        assert!(own.page().is_watched(now_ns()), "what a reader writes is seen");
        drop(own);
        assert_eq!(pages(&directory).expect("listed").0.len(), 0);
        assert_eq!(directory.names().expect("listed"), Vec::<String>::new());
        std::fs::remove_dir_all(path).expect("removed");
    }

    #[test]
    fn what_a_process_left_is_removed_and_what_is_no_page_is_said() {
        let path = scratch("left");
        let directory = Directory::make(&path).expect("made");
        // One process has no such file mapped; the other does not exist.
        let mut other = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("started");
        for pid in [other.id(), u32::MAX - 1] {
            let file = directory.create(&name_of(pid)).expect("made");
            file.set_len(PAGE_BYTES as u64).expect("as long as a page");
        }
        directory.create(&name_of(0)).expect("made");
        directory.create("something else").expect("made");
        let (found, said) = pages(&directory).expect("listed");
        assert!(found.is_empty() && said.len() == 1 && said[0].contains("too short"), "{said:?}");
        let left = directory.names().expect("listed");
        assert_eq!(left, [name_of(0), "something else".into()]);
        drop(other.stdin.take());
        other.wait().expect("ended");
        std::fs::remove_dir_all(path).expect("removed");
    }

    #[test]
    fn pages_of_another_namespace_are_left_alone() {
        let path = scratch("elsewhere");
        let directory = Directory::make(&path).expect("made");
        let file = directory.create(&name_of(u32::MAX - 1)).expect("made");
        file.set_len(PAGE_BYTES as u64).expect("as long as a page");
        let mapping = Mapping::new(&file).expect("mapped");
        let mut theirs = view();
        theirs.process.namespace += 1;
        mapping.page().begin();
        mapping.page().write(&theirs);
        assert!(pages(&directory).expect("listed").0.is_empty());
        assert_eq!(directory.names().expect("listed").len(), 1);
        std::fs::remove_dir_all(path).expect("removed");
    }
}
