//! A card that several processes share (`STANDIN_SHARED=FILE`): a file in which
//! each says how much of each device it uses, so that all of them together stay
//! within its capacity.
//!
//! A line of the file is one process's. Lines are changed under the file's lock;
//! that of a process that is gone, however it ended, counts no more.
//! Not here: what the memory holds; no process sees another's.

use super::settings::MAX_DEVICES;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Processes at a time.
const LINES: usize = 64;

/// All bits zero: nobody's.
#[repr(C)]
struct Line {
    pid: AtomicU64,
    used: [AtomicU64; MAX_DEVICES],
}

pub struct Card {
    file: File,
    lines: &'static [Line; LINES],
    own: usize,
}

impl Card {
    /// Errors: a sentence; the file cannot be used, or too many use it.
    pub fn open(path: &str) -> Result<Card, String> {
        let failed = |error: std::io::Error| format!("{path}: {error}");
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path).map_err(failed)?;
        let bytes = size_of::<[Line; LINES]>();
        file.set_len(bytes as u64).map_err(failed)?;
        // SAFETY: a fresh mapping of the file's whole length, never unmapped.
        let mapped = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), bytes, access, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if mapped == libc::MAP_FAILED {
            return Err(failed(std::io::Error::last_os_error()));
        }
        // SAFETY: page-aligned, of that length, lives on; any bits are atomics.
        let lines = unsafe { &*mapped.cast::<[Line; LINES]>() };
        let mut card = Card { file, lines, own: LINES };
        card.own = card
            .locked(|card| {
                let free = card.lines.iter().position(|line| !is_alive(line))?;
                card.lines[free].used.iter().for_each(|used| used.store(0, Relaxed));
                card.lines[free].pid.store(u64::from(std::process::id()), Relaxed);
                Some(free)
            })
            .ok_or_else(|| format!("{path}: {LINES} processes use it already"))?;
        Ok(card)
    }

    /// Bytes of device `number` of the machine that other processes use.
    pub fn used_by_others(&self, number: usize) -> u64 {
        let others = self.lines.iter().enumerate().filter(|&(line, _)| line != self.own);
        others
            .filter(|(_, line)| is_alive(line))
            .map(|(_, line)| line.used[number].load(Relaxed))
            .sum()
    }

    /// Takes `bytes` if all together then use at most `capacity`.
    pub fn take(&self, number: usize, bytes: u64, capacity: u64) -> bool {
        self.locked(|card| {
            let own = &card.lines[card.own].used[number];
            let fits = card.used_by_others(number) + own.load(Relaxed) + bytes <= capacity;
            if fits {
                own.fetch_add(bytes, Relaxed);
            }
            fits
        })
    }

    pub fn give_back(&self, number: usize, bytes: u64) {
        self.lines[self.own].used[number].fetch_sub(bytes, Relaxed);
    }

    fn locked<T>(&self, act: impl FnOnce(&Card) -> T) -> T {
        // SAFETY: plain system calls on our own descriptor. Where locking fails,
        // two processes may take the same bytes: no memory is wrong for that.
        unsafe { libc::flock(self.file.as_raw_fd(), libc::LOCK_EX) };
        let answer = act(self);
        // SAFETY: as above.
        unsafe { libc::flock(self.file.as_raw_fd(), libc::LOCK_UN) };
        answer
    }
}

fn is_alive(line: &Line) -> bool {
    let pid = line.pid.load(Relaxed);
    // SAFETY: signal 0 only asks.
    pid != 0 && unsafe { libc::kill(pid as i32, 0) } == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> String {
        let path = std::env::temp_dir().join(format!("standin-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path.to_str().expect("text").to_string()
    }

    #[test]
    fn all_together_stay_within_the_card() {
        let path = file("together");
        let cards = [Card::open(&path).unwrap(), Card::open(&path).unwrap()];
        assert!(cards[0].take(0, 60, 100));
        assert!(!cards[1].take(0, 41, 100) && cards[1].take(0, 40, 100));
        assert!(cards[1].take(1, 100, 100), "another device");
        assert_eq!((cards[0].used_by_others(0), cards[1].used_by_others(0)), (40, 60));
        cards[0].give_back(0, 60);
        assert!(cards[1].take(0, 60, 100));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn who_is_gone_uses_nothing() {
        let path = file("gone");
        let card = Card::open(&path).unwrap();
        let other = Card::open(&path).unwrap();
        assert!(other.take(0, 100, 100));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        other.lines[other.own].pid.store(u64::from(child.id()), Relaxed);
        child.wait().unwrap();
        assert!(card.take(0, 100, 100));
        let next = Card::open(&path).unwrap();
        assert_eq!((next.own, next.lines[next.own].used[0].load(Relaxed)), (other.own, 0));
        std::fs::remove_file(path).unwrap();
    }
}
