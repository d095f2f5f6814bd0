//! What calls cost the host on the model clock besides their submission: the one
//! table of these figures, with where they are from.
//!
//! Off unless `STANDIN_PRICES` asks for them, so that an account speaks of the
//! schedule alone. They stretch with `scale`, for models, links and cards that
//! are a fraction of real ones: what lasts as long as the bytes are many keeps
//! its place beside the link.
//! Not here: what work takes that is queued (see `clock`).

use super::space::FRAME;

/// Nanoseconds per 2 MiB of each call of the virtual memory management.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prices {
    create: f64,
    map: f64,
    set_access: f64,
    unmap: f64,
    /// Nanoseconds per byte.
    host_alloc: f64,
    host_register: f64,
    host_copy: f64,
    scale: f64,
}

/// The medians that a third party measured on "another GPU" of its table; pinning
/// 16 GiB through cudaHostAlloc 7.86 s, and registering as much memory that four
/// threads had touched 1.55 s, that included (cudf, discussion 23457). One thread
/// copies 10 GB in a second in memory, the usual figure for a server's core.
const LIGHT: Prices = Prices {
    create: 7_000.0,
    map: 1_000.0,
    set_access: 19_000.0,
    unmap: 11_000.0,
    host_alloc: 7.86e9 / (16u64 << 30) as f64,
    host_register: 1.55e9 / (16u64 << 30) as f64,
    host_copy: 0.1,
    scale: 1.0,
};

/// The same table's A100.
const A100: Prices =
    Prices { create: 195_000.0, map: 1_000.0, set_access: 35_000.0, unmap: 25_000.0, ..LIGHT };

#[derive(Clone, Copy)]
pub enum Call {
    Create,
    Map,
    SetAccess,
    Unmap,
    HostAlloc,
    HostRegister,
    /// The host itself copies: from or to pageable memory.
    HostCopy,
}

impl Prices {
    /// `light`, `a100`, either with `:SCALE`.
    pub fn parse(text: &str) -> Option<Prices> {
        let (name, scale) = text.split_once(':').unwrap_or((text, "1"));
        let scale = scale.parse().ok().filter(|s: &f64| s.is_finite() && *s > 0.0)?;
        match name {
            "light" => Some(Prices { scale, ..LIGHT }),
            "a100" => Some(Prices { scale, ..A100 }),
            _ => None,
        }
    }

    /// Nanoseconds for a call on so many bytes.
    pub fn ns(&self, call: Call, bytes: u64) -> u64 {
        let per_frame = |ns: f64| ns * bytes.div_ceil(FRAME) as f64;
        let ns = match call {
            Call::Create => per_frame(self.create),
            Call::Map => per_frame(self.map),
            Call::SetAccess => per_frame(self.set_access),
            Call::Unmap => per_frame(self.unmap),
            Call::HostAlloc => self.host_alloc * bytes as f64,
            Call::HostRegister => self.host_register * bytes as f64,
            Call::HostCopy => self.host_copy * bytes as f64,
        };
        (ns * self.scale) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_by_name_and_scale() {
        let ns = |text: &str, call, bytes| Prices::parse(text).unwrap().ns(call, bytes);
        assert_eq!(ns("light", Call::Unmap, 3 * FRAME), 33_000);
        assert_eq!(ns("a100:10", Call::Create, 1), 1_950_000);
        assert_eq!(ns("light", Call::HostAlloc, 16 << 30), 7_860_000_000);
        assert_eq!(Prices::parse("light:0"), None);
        assert_eq!(Prices::parse("cheap"), None);
    }
}
