//! What cards and links can do: the one table of hardware figures.
//!
//! Every figure is either a vendor's (the source stands beside it) or an
//! assumption, named as one. Durations follow from work by a roofline:
//! a kernel takes the longer of its arithmetic and its memory traffic, each at
//! the share of the peak that PyTorch programs are seen to reach.
//!
//! Not here: what a program does (`models`), what follows for a schedule (`bounds`).

use autooffload_core::plan::IN_PLACE_LINK_SHARE;

use super::{Launch, Nanos};

/// One model of card.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Card {
    pub name: &'static str,
    pub vram_bytes: u64,
    /// Dense bf16 with fp32 accumulation, tensor cores.
    pub flops_per_s: f64,
    /// Device memory.
    pub memory_bytes_per_s: f64,
    /// Share of `flops_per_s` that large matrix products and attention reach.
    pub compute_share: f64,
    /// Share of `memory_bytes_per_s` that streaming kernels reach.
    pub memory_share: f64,
    /// Start, ramp and tail of one kernel, not overlapped with its neighbour's.
    pub kernel_ns: Nanos,
    /// The link it is usually plugged into, by name.
    pub link: &'static str,
}

/// `compute_share` is set on two anchors, one forward of FLUX.1-dev at 1024²:
/// 0.59 s on an RTX 4090, 0.23 s on an H100 (and 0.49 s on an L40S), elementwise
/// kernels counted apart by their traffic. The other cards take the share of the
/// anchor of their class: 0.85 where the tensor cores are cut to half rate
/// (GeForce), the H100's for the H200. The A100's 0.6 is an assumption.
/// Programs differ: Qwen-Image comes out at 0.22 s a pass on an H100 where
/// 0.155 s is published. What a plan is worth is judged over a range of both.
/// `memory_share` is an assumption, 0.85 to 0.9, in the range that copy kernels show.
/// `kernel_ns` is an assumption in the range of 2 to 4 µs.
pub const CARDS: &[Card] = &[
    // NVIDIA GeForce RTX 4090, "NVIDIA Ada GPU Architecture" whitepaper, appendix A.
    Card {
        name: "rtx-4090",
        vram_bytes: 24 << 30,
        flops_per_s: 165.2e12,
        memory_bytes_per_s: 1008e9,
        compute_share: 0.85,
        memory_share: 0.88,
        kernel_ns: 3_000,
        link: "pcie4",
    },
    // "NVIDIA H200 Tensor Core GPU" data sheet, SXM: half of the sparse figure.
    Card {
        name: "h200",
        vram_bytes: 141_000_000_000,
        flops_per_s: 989.5e12,
        memory_bytes_per_s: 4800e9,
        compute_share: 0.36,
        memory_share: 0.88,
        kernel_ns: 3_000,
        link: "pcie5",
    },
    // "NVIDIA H100 Tensor Core GPU" data sheet, SXM.
    Card {
        name: "h100",
        vram_bytes: 80_000_000_000,
        flops_per_s: 989.5e12,
        memory_bytes_per_s: 3350e9,
        compute_share: 0.36,
        memory_share: 0.88,
        kernel_ns: 3_000,
        link: "pcie5",
    },
    // "NVIDIA A100 Tensor Core GPU" data sheet, 40 GB.
    Card {
        name: "a100-40g",
        vram_bytes: 40_000_000_000,
        flops_per_s: 312e12,
        memory_bytes_per_s: 1555e9,
        compute_share: 0.6,
        memory_share: 0.88,
        kernel_ns: 3_000,
        link: "pcie4",
    },
    // "NVIDIA L40S" data sheet.
    Card {
        name: "l40s",
        vram_bytes: 48_000_000_000,
        flops_per_s: 362e12,
        memory_bytes_per_s: 864e9,
        compute_share: 0.5,
        memory_share: 0.88,
        kernel_ns: 3_000,
        link: "pcie4",
    },
    // "NVIDIA RTX Blackwell GPU Architecture" whitepaper, appendix A.
    Card {
        name: "rtx-5090",
        vram_bytes: 32 << 30,
        flops_per_s: 209.5e12,
        memory_bytes_per_s: 1792e9,
        compute_share: 0.85,
        memory_share: 0.88,
        kernel_ns: 3_000,
        link: "pcie5",
    },
    // Product page of the 4070 family for memory; tensor rate as for the 4090,
    // twice the fp32 rate of 44.1 TFLOP/s.
    Card {
        name: "rtx-4070-ti-super",
        vram_bytes: 16 << 30,
        flops_per_s: 88.2e12,
        memory_bytes_per_s: 672e9,
        compute_share: 0.85,
        memory_share: 0.88,
        kernel_ns: 3_000,
        link: "pcie4",
    },
    // "NVIDIA Ampere GA102 GPU Architecture" whitepaper, table of GeForce cards.
    Card {
        name: "rtx-3090",
        vram_bytes: 24 << 30,
        flops_per_s: 71.2e12,
        memory_bytes_per_s: 936e9,
        compute_share: 0.85,
        memory_share: 0.88,
        kernel_ns: 3_000,
        link: "pcie4",
    },
    // Product page of the 3060 family for memory; tensor rate as for the 3090,
    // twice the fp32 rate of 12.7 TFLOP/s.
    Card {
        name: "rtx-3060-12g",
        vram_bytes: 12 << 30,
        flops_per_s: 25.5e12,
        memory_bytes_per_s: 360e9,
        compute_share: 0.85,
        memory_share: 0.88,
        kernel_ns: 3_000,
        link: "pcie4",
    },
];

/// What pinned host-to-device copies reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    pub name: &'static str,
    pub bytes_per_s: f64,
}

/// Large pinned copies over 16 lanes: 11.5 to 12, 26.0, and 52 to 60 GB/s are
/// what published measurements show of 15.8, 31.5 and 63.0 GB/s raw.
pub const LINKS: &[Link] = &[
    Link { name: "pcie3", bytes_per_s: 12e9 },
    Link { name: "pcie4", bytes_per_s: 26e9 },
    Link { name: "pcie5", bytes_per_s: 55e9 },
];

/// The card called `name`.
pub fn card(name: &str) -> Option<&'static Card> {
    CARDS.iter().find(|card| card.name == name)
}

/// The link called `name`.
pub fn link(name: &str) -> Option<&'static Link> {
    LINKS.iter().find(|link| link.name == name)
}

impl Card {
    /// How long the kernels of `launch` run when everything is in place.
    pub fn kernel_time(&self, launch: &Launch) -> Nanos {
        let compute = launch.flops as f64 / (self.compute_share * self.flops_per_s);
        let memory = launch.bytes as f64 / (self.memory_share * self.memory_bytes_per_s);
        launch.ns
            + u64::from(launch.kernels) * self.kernel_ns
            + (compute.max(memory) * 1e9).round() as Nanos
    }
}

/// What operations cost beside the work itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// Added by the copy engine to every copy, so that a copy of `s` bytes runs
    /// at `s / (copy_ns + s / bandwidth)`. Measured by the feasibility study's
    /// sources: 0.86 MiB at 58 % of PCIe 5 is 11 µs, larger links show 5 to 8.
    pub copy_ns: Nanos,
    /// Host time to launch one kernel from PyTorch, interception included.
    /// Assumption: 4 µs (published dispatch costs are 3 to 6).
    pub launch_ns: Nanos,
    /// Host time to submit one copy (published: 3 to 8 µs).
    pub submit_ns: Nanos,
    /// Host time to record or to wait for one event. Assumption: two-stream
    /// synchronisation is published as about 3 µs for record and wait.
    pub event_ns: Nanos,
    /// From the end of the last queued work to the moment the waiting host
    /// goes on. Assumption, 10 to 20 µs for a blocking `.item()`.
    pub sync_ns: Nanos,
    /// Launches that may be queued before the host has to wait. The driver's
    /// own limit is 1024.
    pub queue_depth: u32,
    /// Our kernel that looks for what was written, from release to the answer:
    /// fixed, and by size (assumption: its few blocks get a third of 900 GB/s,
    /// on any card). What it takes from other kernels is less, see `sim::run`.
    pub hash_ns: Nanos,
    pub hash_bytes_per_s: f64,
    /// The link's rate towards the device while a copy runs the other way, as a
    /// share (published for PCIe 4: 18.6 of 26.0 GB/s).
    pub duplex_share: f64,
    /// Rate of copies from pageable memory as a share of the pinned rate.
    /// Assumption: staging through one core's memcpy.
    pub pageable_share: f64,
    /// Rate of memory that arrives by page faults as a share of the pinned rate
    /// (published: 1 to 3 %).
    pub fault_share: f64,
    /// Rate of kernels that read host memory over the link, as a share of the
    /// pinned rate.
    pub zero_copy_share: f64,
    /// By how much a kernel runs longer while a copy runs beside it, as a share
    /// of its time. Nought by default: copies take 1 to 3 % of the memory
    /// bandwidth, which only memory-bound kernels can feel; benchmarks vary it.
    pub copy_slowdown: f64,
}

impl Default for Costs {
    fn default() -> Self {
        Self {
            copy_ns: 8_000,
            launch_ns: 4_000,
            submit_ns: 4_000,
            event_ns: 1_500,
            sync_ns: 15_000,
            queue_depth: 1024,
            hash_ns: 10_000,
            hash_bytes_per_s: 300e9,
            duplex_share: 18.6 / 26.0,
            pageable_share: 0.4,
            fault_share: 0.02,
            zero_copy_share: IN_PLACE_LINK_SHARE,
            copy_slowdown: 0.0,
        }
    }
}

/// How long the copy engine is busy with `bytes` at `bytes_per_s`.
pub fn copy_time(bytes: u64, bytes_per_s: f64, copy_ns: Nanos) -> Nanos {
    copy_ns + (bytes as f64 / bytes_per_s * 1e9).round() as Nanos
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_links_exist() {
        for (index, entry) in CARDS.iter().enumerate() {
            assert!(CARDS[..index].iter().all(|other| other.name != entry.name));
            assert!(link(entry.link).is_some(), "{}", entry.name);
            assert!((0.0..=1.0).contains(&entry.compute_share));
            assert!((0.0..=1.0).contains(&entry.memory_share));
        }
        assert!(card("no such card").is_none());
    }

    #[test]
    fn a_kernel_takes_the_longer_of_arithmetic_and_traffic() {
        let h200 = card("h200").unwrap();
        let launch =
            |flops, bytes| Launch { first_use: 0, use_count: 0, ns: 7, flops, bytes, kernels: 2 };
        assert_eq!(h200.kernel_time(&launch(0, 0)), 7 + 2 * h200.kernel_ns);
        let by_traffic = h200.kernel_time(&launch(1, 4_224_000_000));
        assert_eq!(by_traffic, 7 + 2 * h200.kernel_ns + 1_000_000);
        assert_eq!(h200.kernel_time(&launch(1_000_000_000, 4_224_000_000)), by_traffic);
        assert!(h200.kernel_time(&launch(1_000_000_000_000, 4_224_000_000)) > by_traffic);
    }
}
