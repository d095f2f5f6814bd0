//! How much host memory may be taken: the machine's `MemAvailable` and the
//! cgroup's limit, version 1 or 2, whichever is tighter.
//!
//! Pure: files arrive through a lookup function.
//! Source: the Linux kernel's documentation, proc(5) meminfo,
//! cgroup-v2 "Memory Interface Files", cgroup-v1 "memory".

/// What the system says, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub total_bytes: u64,
    /// Free or freeable, on the machine.
    pub available_bytes: u64,
    /// Still allowed by the tightest cgroup, if any limits.
    pub cgroup_bytes: Option<u64>,
}

impl Limits {
    /// What may be taken while the program, and the machine, keep a margin: a
    /// sixteenth of the machine, at most 1 GiB.
    pub fn spendable(&self) -> u64 {
        let margin = (self.total_bytes / 16).min(1 << 30);
        let tightest = self.available_bytes.min(self.cgroup_bytes.unwrap_or(u64::MAX));
        tightest.saturating_sub(margin)
    }
}

/// Reads the limits; `file` answers the content of a file by its path without
/// the leading slash.
pub fn read(file: impl Fn(&str) -> Option<String>) -> Limits {
    let meminfo = file("proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = meminfo.lines().find(|line| line.starts_with(name))?;
        let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib << 10)
    };
    Limits {
        total_bytes: field("MemTotal:").unwrap_or(0),
        // A kernel without the field (before 3.14) at least tells what is free.
        available_bytes: field("MemAvailable:").or_else(|| field("MemFree:")).unwrap_or(0),
        cgroup_bytes: cgroup_headroom(&file),
    }
}

/// The tightest of the limits from our cgroup up to the root.
fn cgroup_headroom(file: &impl Fn(&str) -> Option<String>) -> Option<u64> {
    let number = |path: String| file(&path)?.trim().parse::<u64>().ok();
    let mut tightest: Option<u64> = None;
    for line in file("proc/self/cgroup")?.lines() {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next(), parts.next()?, parts.next()?);
        let (root, limit, usage, reclaimable) = if controllers.is_empty() {
            ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
        } else if controllers.split(',').any(|name| name == "memory") {
            (
                "sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            )
        } else {
            continue;
        };
        // Inside a container the path may not exist below the mounted root:
        // walking up ends at the root itself, which then is ours.
        let mut directory = path.trim_end_matches('/');
        loop {
            let at = |name: &str| format!("{root}{directory}/{name}");
            if let (Some(limit), Some(usage)) = (number(at(limit)), number(at(usage))) {
                let cached = file(&at("memory.stat"))
                    .and_then(|stat| {
                        let value = stat.lines().find_map(|line| line.strip_prefix(reclaimable))?;
                        value.trim().parse::<u64>().ok()
                    })
                    .unwrap_or(0);
                let left = limit.saturating_sub(usage.saturating_sub(cached));
                tightest = Some(tightest.map_or(left, |other: u64| other.min(left)));
            }
            let Some(up) = directory.rfind('/') else { break };
            directory = &directory[..up];
        }
    }
    tightest
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal: 16777216 kB\nMemFree: 1048576 kB\nMemAvailable: 8388608 kB\n";

    fn files<'a>(list: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        move |path| list.iter().find(|(name, _)| *name == path).map(|(_, text)| text.to_string())
    }

    #[test]
    fn without_a_cgroup_the_machine_decides() {
        let limits = read(files(&[("proc/meminfo", MEMINFO)]));
        assert_eq!(limits.available_bytes, 8 << 30);
        assert_eq!(limits.spendable(), 7 << 30);
    }

    #[test]
    fn the_tightest_cgroup_v2_on_the_way_up_counts_and_its_cache_does_not() {
        let limits = read(files(&[
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "0::/user/job\n"),
            ("sys/fs/cgroup/user/job/memory.max", "max\n"),
            ("sys/fs/cgroup/user/job/memory.current", "1\n"),
            ("sys/fs/cgroup/user/memory.max", "4294967296\n"),
            ("sys/fs/cgroup/user/memory.current", "3221225472\n"),
            ("sys/fs/cgroup/user/memory.stat", "anon 5\ninactive_file 1073741824\n"),
        ]));
        assert_eq!(limits.cgroup_bytes, Some(2 << 30));
        assert_eq!(limits.spendable(), 1 << 30);
    }

    #[test]
    fn cgroup_v1_seen_from_inside_a_container() {
        let limits = read(files(&[
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "7:cpu:/x\n5:memory:/docker/abc\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "2147483648\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1073741824\n"),
        ]));
        assert_eq!(limits.cgroup_bytes, Some(1 << 30));
        assert_eq!(limits.spendable(), 0);
    }
}
