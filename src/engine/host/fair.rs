//! What of the host's memory is left to the user's other processes that stream,
//! when each takes what it finds (`AUTOOFFLOAD_RAM=auto`).
//!
//! Nothing is taken away from a process that came first; what is not taken yet is
//! shared evenly among those that may still need it. Their pages tell how much
//! each has, and, until it has a plan, what it may come to need: all that it has
//! on the card.
//! Not here: what is left in all (`autooffload_core::host_limits`), pages
//! (`autooffload_shared`).

use autooffload_shared::live::{self, OtherPage};
use autooffload_shared::private::{self, Directory};

/// Another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Other {
    pub used_bytes: u64,
    /// It may take so much more.
    pub needs_bytes: u64,
}

/// This user's others, now. Where pages cannot be read there are none.
pub fn others() -> Vec<Other> {
    let directory = private::runtime_if_there();
    directory.map_or(Vec::new(), |directory| others_in(&directory, std::process::id()))
}

fn others_in(directory: &Directory, own: u32) -> Vec<Other> {
    // To look whether the others live costs them something.
    if directory.names().is_ok_and(|names| names.len() < 2) {
        return Vec::new();
    }
    let Ok((pages, _)) = live::pages(directory) else { return Vec::new() };
    pages.iter().filter(|page| page.pid != own).filter_map(other).collect()
}

fn other(page: &OtherPage) -> Option<Other> {
    let process = page.read().ok()?.process;
    // One with a plan has what the plan wants.
    let needs_bytes = if process.plans > 0 { 0 } else { process.frames_bytes };
    Some(Other { used_bytes: process.host_bytes, needs_bytes })
}

/// Of `left_bytes`, which anybody may take, those that this process may, which
/// has `used_bytes` already: its even share for certain; beyond it what the
/// others' shares leave, as far as they need them.
pub fn share(left_bytes: u64, used_bytes: u64, others: &[Other]) -> u64 {
    let all = others.iter().fold(left_bytes + used_bytes, |all, other| all + other.used_bytes);
    let even = all / (others.len() as u64 + 1);
    let kept: u64 = others
        .iter()
        .map(|other| even.saturating_sub(other.used_bytes).min(other.needs_bytes))
        .sum();
    let own = even.saturating_sub(used_bytes).min(left_bytes);
    own.max(left_bytes.saturating_sub(kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn other(used_bytes: u64, needs_bytes: u64) -> Other {
        Other { used_bytes, needs_bytes }
    }

    #[test]
    fn others_tell_by_their_pages() {
        use autooffload_shared::live::{OwnPage, namespace};
        use autooffload_shared::page::{Process, View};
        let path = std::env::temp_dir().join(format!("ao-fair-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        let open = || Directory::make(&path).expect("made");
        // This process's stands for another's.
        let page = OwnPage::create(open()).expect("a page");
        open().create("1.page").expect("a file");
        let mut process = Process {
            pid: u64::from(std::process::id()),
            namespace: namespace(),
            host_bytes: 7,
            frames_bytes: 50,
            ..Process::default()
        };
        let told = |process| {
            page.page().write(&View { process, devices: Vec::new() });
            others_in(&open(), 0)
        };
        assert_eq!(told(process), [other(7, 50)]);
        process.plans = 1;
        assert_eq!(told(process), [other(7, 0)]);
        assert_eq!(others_in(&open(), std::process::id()), [], "oneself is no other");
        std::fs::remove_dir_all(&path).expect("removed");
    }

    #[test]
    fn alone_everything_is_ours() {
        assert_eq!(share(100, 7, &[]), 100);
        assert_eq!(share(0, 7, &[]), 0);
    }

    #[test]
    fn who_comes_first_leaves_the_other_its_half() {
        // Nobody has anything yet, both need more than there is.
        assert_eq!(share(100, 0, &[other(0, 500)]), 50);
        // The one took its half: nothing more; the other still finds its own.
        assert_eq!(share(50, 50, &[other(0, 500)]), 0);
        assert_eq!(share(50, 0, &[other(50, 500)]), 50);
    }

    #[test]
    fn what_the_other_does_not_need_is_not_kept_for_it() {
        assert_eq!(share(100, 0, &[other(0, 10)]), 90);
        assert_eq!(share(40, 60, &[other(0, 10)]), 30);
        assert_eq!(share(100, 0, &[other(30, 0)]), 100);
    }

    #[test]
    fn an_earlier_one_that_has_more_than_its_share_keeps_it() {
        // 90 are gone; what is left is the newcomer's.
        assert_eq!(share(10, 0, &[other(90, 500)]), 10);
        assert_eq!(share(10, 90, &[other(0, 500)]), 0);
    }

    #[test]
    fn shares_add_up() {
        // Whoever asks, in whatever order, all end with as much, and nothing is left over.
        let mut used = [0u64; 3];
        let all = 90;
        for round in 0..200 {
            let me = round * 7 % 3;
            let others: Vec<Other> =
                (0..3).filter(|&k| k != me).map(|k| other(used[k], 1000)).collect();
            let left = all - used.iter().sum::<u64>();
            used[me] += share(left, used[me], &others).min(4);
        }
        assert_eq!(used, [30, 30, 30]);
    }
}
