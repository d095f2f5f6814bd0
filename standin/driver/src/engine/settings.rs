//! The `STANDIN_*` environment: parsed once, when the driver is first called.
//!
//! A value that cannot be read is named on stderr and the default is used.
//! Not here: what a setting means (see the module that takes it).

use super::prices::Prices;
use std::env;
use std::sync::OnceLock;

/// In what order runnable work is executed. Every policy is legal: it chooses
/// among operations whose dependencies are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As submitted, at once.
    Eager,
    /// At once, in an order drawn from the seed.
    Random(u64),
    /// Nothing before the host waits for it, then in an order drawn from the seed.
    Late(u64),
    /// Copies at once; everything else as in [`Order::Late`].
    CopiesFirst,
    /// Kernels at once; everything else as in [`Order::Late`].
    KernelsFirst,
}

/// What becomes of a launch whose kernel has no implementation here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// The launch fails.
    Fail,
    /// It passes; what it may have written is tainted, and must not be read.
    Touch,
    /// It passes and is counted.
    Count,
}

/// An entry of `STANDIN_FAULT`: the `nth` call of that kind fails with `code`,
/// and all later ones, too, if it says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultRule {
    /// A kind of call, or the name of an entry point.
    pub kind: String,
    pub nth: u64,
    pub later_too: bool,
    pub code: i32,
}

impl FaultRule {
    pub fn names(&self, nth: u64) -> bool {
        nth == self.nth || self.later_too && nth > self.nth
    }
}

/// Physical memory of the host behind device addresses (`cuMemCreate` with a
/// host NUMA location).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostLocated {
    Yes,
    /// The device says that it cannot.
    No,
    /// The device says that it can, but handles are refused, as in some containers.
    Refused,
}

/// What becomes of modules that come as PTX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ptx {
    /// Kernels with an implementation in Rust run by that, others by their text.
    Twin,
    /// All run by their text, some hundred times slower.
    Text,
    /// Refused, as where the driver's compiler is switched off.
    Off,
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub vram_bytes: u64,
    pub devices: usize,
    /// Of each device, its number on the machine.
    pub machine_numbers: Vec<usize>,
    pub order: Order,
    pub unknown: Unknown,
    pub workers: usize,
    /// Bytes per second of each copy engine.
    pub link_rate: f64,
    /// Bytes per second of device memory.
    pub memory_rate: f64,
    /// Floating-point operations per second.
    pub flop_rate: f64,
    /// Copies in are slower while copies go out, and the other way round.
    pub shared_link: bool,
    /// What calls cost the host.
    pub prices: Option<Prices>,
    /// The file through which processes share the devices' memory.
    pub shared: Option<String>,
    /// Path of the account written at exit; `%p` is the process id.
    pub account: Option<String>,
    pub faults: Vec<FaultRule>,
    /// Compute capability.
    pub capability: (i32, i32),
    /// Devices say that they have virtual memory management.
    pub vmm: bool,
    pub host_located: HostLocated,
    /// How much host memory may be pinned at once.
    pub pinned_limit: u64,
    pub ptx: Ptx,
    /// Hardware queues of each kind per context, which streams share; 0: each
    /// stream has its own.
    pub queues: u32,
    /// Every call that may wait for its whole context does.
    pub implied_waits: bool,
}

pub const MAX_DEVICES: usize = 8;

impl Settings {
    pub fn from_env() -> Settings {
        let order = read("STANDIN_ORDER", Order::Eager, parse_order);
        // One worker, so that an adversarial order is reproducible.
        let default_workers = if order == Order::Eager { 2 } else { 1 };
        let connections = read("CUDA_DEVICE_MAX_CONNECTIONS", 0, parse_queues);
        let on_machine = read("STANDIN_DEVICES", 1, |t| {
            t.parse().ok().filter(|n| (0..=MAX_DEVICES).contains(n))
        });
        let machine_numbers = match env::var("CUDA_VISIBLE_DEVICES") {
            Ok(text) => visible(&text, on_machine),
            Err(_) => (0..on_machine).collect(),
        };
        Settings {
            vram_bytes: read("STANDIN_VRAM", 16 << 30, parse_bytes),
            devices: machine_numbers.len(),
            machine_numbers,
            order,
            unknown: read("STANDIN_UNKNOWN", Unknown::Fail, |t| match t {
                "fail" => Some(Unknown::Fail),
                "touch" => Some(Unknown::Touch),
                "count" => Some(Unknown::Count),
                _ => None,
            }),
            workers: read("STANDIN_WORKERS", default_workers, |t| {
                t.parse().ok().filter(|n| (1..=64).contains(n))
            }),
            link_rate: 1e9 * read("STANDIN_LINK", 25.0, parse_positive),
            memory_rate: 1e9 * read("STANDIN_MEMORY", 400.0, parse_positive),
            flop_rate: 1e12 * read("STANDIN_TFLOPS", 1.0, parse_positive),
            shared_link: read("STANDIN_DUPLEX", false, |t| match t {
                "full" => Some(false),
                "shared" => Some(true),
                _ => None,
            }),
            prices: read("STANDIN_PRICES", None, |t| Prices::parse(t).map(Some)),
            shared: env::var("STANDIN_SHARED").ok().filter(|path| !path.is_empty()),
            account: env::var("STANDIN_ACCOUNT").ok().filter(|p| !p.is_empty()),
            faults: faults_from_env(),
            capability: read("STANDIN_SM", (8, 6), |t| {
                let (major, minor) = t.split_once('.')?;
                Some((major.parse().ok()?, minor.parse().ok()?))
            }),
            vmm: read("STANDIN_VMM", true, |t| match t {
                "yes" => Some(true),
                "no" => Some(false),
                _ => None,
            }),
            host_located: read("STANDIN_HOST_LOCATED", HostLocated::Yes, |t| match t {
                "yes" => Some(HostLocated::Yes),
                "no" => Some(HostLocated::No),
                "refused" => Some(HostLocated::Refused),
                _ => None,
            }),
            pinned_limit: read("STANDIN_PINNED", u64::MAX, parse_bytes),
            ptx: read("STANDIN_PTX", Ptx::Twin, |t| match t {
                "twin" => Some(Ptx::Twin),
                "text" => Some(Ptx::Text),
                "off" => Some(Ptx::Off),
                _ => None,
            }),
            queues: read("STANDIN_QUEUES", connections, parse_queues),
            implied_waits: read("STANDIN_IMPLIED_WAITS", false, |t| match t {
                "yes" => Some(true),
                "no" => Some(false),
                _ => None,
            }),
        }
    }
}

/// The devices that `CUDA_VISIBLE_DEVICES` leaves, in its order: those before the
/// first that there is not; none if one is named twice.
fn visible(text: &str, on_machine: usize) -> Vec<usize> {
    let named: Vec<usize> = text
        .split(',')
        .map_while(|word| word.trim().parse().ok().filter(|&number| number < on_machine))
        .collect();
    let twice = (1..named.len()).any(|at| named[..at].contains(&named[at]));
    if twice { Vec::new() } else { named }
}

/// Needed by entry points before there are other settings; read once.
pub fn faults_from_env() -> Vec<FaultRule> {
    static RULES: OnceLock<Vec<FaultRule>> = OnceLock::new();
    RULES.get_or_init(|| read("STANDIN_FAULT", Vec::new(), parse_faults)).clone()
}

fn read<T>(name: &str, default: T, parse: impl Fn(&str) -> Option<T>) -> T {
    match env::var(name) {
        Ok(text) if !text.trim().is_empty() => parse(text.trim()).unwrap_or_else(|| {
            eprintln!("standin: {name}={text} is not understood; the default is used");
            default
        }),
        _ => default,
    }
}

/// `512`, `384M`, `1G`, `1.5GiB`: powers of 1024.
fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim().trim_end_matches("iB").trim_end_matches('B');
    let scale = match unit.to_ascii_uppercase().as_str() {
        "" => 1u64,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        _ => return None,
    };
    Some((number * scale as f64) as u64)
}

/// As many as the hardware has at most, which is 32.
fn parse_queues(text: &str) -> Option<u32> {
    text.parse().ok().map(|queues: u32| queues.min(32))
}

fn parse_positive(text: &str) -> Option<f64> {
    text.parse().ok().filter(|v: &f64| v.is_finite() && *v > 0.0)
}

fn parse_order(text: &str) -> Option<Order> {
    let (name, seed) = text.split_once(':').unwrap_or((text, "0"));
    let seed = seed.parse().ok()?;
    match name {
        "eager" => Some(Order::Eager),
        "random" => Some(Order::Random(seed)),
        "late" => Some(Order::Late(seed)),
        "copies-first" => Some(Order::CopiesFirst),
        "kernels-first" => Some(Order::KernelsFirst),
        _ => None,
    }
}

fn parse_faults(text: &str) -> Option<Vec<FaultRule>> {
    text.split(',')
        .map(|rule| {
            let mut parts = rule.trim().split(':');
            let kind = parts.next()?.to_string();
            let known = ["alloc", "hostalloc", "hostregister", "launch"];
            if !known.contains(&kind.as_str()) && !kind.starts_with("cu") {
                return None;
            }
            let nth = parts.next()?;
            let later_too = nth.ends_with('+');
            let nth = nth.trim_end_matches('+').parse().ok()?;
            let code = parts.next()?.parse().ok()?;
            parts.next().is_none().then_some(FaultRule { kind, nth, later_too, code })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_bytes("384M"), Some(384 << 20));
        assert_eq!(parse_bytes("1.5GiB"), Some(3 << 29));
        assert_eq!(parse_bytes("1048576"), Some(1 << 20));
        assert_eq!(parse_bytes("one"), None);
    }

    #[test]
    fn faults_and_orders() {
        assert_eq!(
            parse_faults("alloc:3:2"),
            Some(vec![FaultRule { kind: "alloc".into(), nth: 3, later_too: false, code: 2 }])
        );
        assert!(parse_faults("cuMemMap:3+:2").is_some_and(|rules| rules[0].names(4)));
        assert_eq!(parse_faults("alloc:3"), None);
        assert_eq!(parse_order("late:7"), Some(Order::Late(7)));
        assert_eq!(parse_order("sideways"), None);
    }
}
