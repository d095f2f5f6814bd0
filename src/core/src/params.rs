//! Finds device addresses among the bytes of a kernel's parameters.
//!
//! Pure. An integer that looks like an address costs a fetch, never
//! correctness; a pointer that lies in device memory is not seen.
//! Not here: how long each parameter is, and who owns an address.

/// Bits of a word that can be a device address. The first word of an sm_90
/// tensor map holds flags above bit 56 and the global address below.
pub const ADDRESS_MASK: u64 = (1 << 57) - 1;

const WORD: usize = 8;
/// Bytes from one word to the next; they overlap.
const STEP: usize = 4;

/// The address ranges worth looking up: `[base, base + bytes)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub base: u64,
    pub bytes: u64,
}

impl Span {
    pub fn contains(self, address: u64) -> bool {
        address.wrapping_sub(self.base) < self.bytes
    }
}

/// Calls `hit` with every address within `span` that the bytes of one
/// parameter could hold.
///
/// Looks at 8-byte little-endian words at every 4-byte step: structs packed to
/// 4 bytes put pointers there. What is shorter than 8 bytes holds no pointer;
/// a tail shorter than 8 bytes is seen as part of the last whole word before it.
pub fn scan(param: &[u8], span: Span, mut hit: impl FnMut(u64)) {
    let mut rest = param;
    while let Some(word) = rest.first_chunk::<WORD>() {
        let address = u64::from_le_bytes(*word) & ADDRESS_MASK;
        if span.contains(address) {
            hit(address);
        }
        rest = &rest[STEP..];
    }
}

/// Words whose high halves [`scan_blocks`] compares at once.
const LANES: usize = 8;
/// Bytes from the first of those words to the first of the next.
const GROUP: usize = LANES * STEP;
/// Bytes that [`scan_blocks`] passes over if nothing in them fits.
const BLOCK: usize = 4 * GROUP;

/// Shorter parameters are no work for [`scan_blocks`].
pub const BLOCKS_FROM: usize = BLOCK + STEP;

/// [`scan`], for long parameters: calls `hit` with the same addresses in the
/// same order.
///
/// An address has a high half that few others share (an arena of 1 TiB has 257
/// of them), so whole blocks are passed over by comparing high halves, which
/// compilers turn into vector instructions. Where one fits, the few words
/// around it are scanned plainly. Inlined, so that the caller decides which
/// instructions.
#[inline(always)]
pub fn scan_blocks(param: &[u8], span: Span, mut hit: impl FnMut(u64)) {
    if span.bytes == 0 {
        return;
    }
    let high = |address: u64| (address >> 32) as u32;
    let first = high(span.base);
    let last = high(span.base.saturating_add(span.bytes - 1)).wrapping_sub(first);
    // How far behind the span's first high half each one lies.
    let behind =
        |half: &[u8; STEP]| (u32::from_le_bytes(*half) & high(ADDRESS_MASK)).wrapping_sub(first);
    let mut rest = param;
    while let Some(block) = rest.first_chunk::<BLOCKS_FROM>() {
        let groups = block[STEP..].as_chunks::<STEP>().0.as_chunks::<LANES>().0;
        let mut least = [u32::MAX; LANES];
        for halves in groups {
            for (least, half) in least.iter_mut().zip(halves) {
                *least = behind(half).min(*least);
            }
        }
        if any_up_to(last, least) {
            for (index, halves) in groups.iter().enumerate() {
                if any_up_to(last, halves.each_ref().map(behind)) {
                    let start = index * GROUP;
                    scan(&block[start..start + GROUP + STEP], span, &mut hit);
                }
            }
        }
        rest = &rest[BLOCK..];
    }
    scan(rest, span, hit);
}

/// Whether any of `lanes` is at most `last`; without a branch for each.
#[inline(always)]
fn any_up_to(last: u32, lanes: [u32; LANES]) -> bool {
    let mut any = false;
    for lane in lanes {
        any |= lane <= last;
    }
    any
}

/// A small set in order of insertion: the chunks of one launch. The first
/// `INLINE` need no allocation.
#[derive(Clone, Debug)]
pub struct SmallSet<T, const INLINE: usize = 24> {
    inline: [Option<T>; INLINE],
    len: usize,
    spilled: Vec<T>,
}

impl<T: Copy + Eq, const INLINE: usize> Default for SmallSet<T, INLINE> {
    fn default() -> Self {
        SmallSet { inline: [None; INLINE], len: 0, spilled: Vec::new() }
    }
}

impl<T: Copy + Eq, const INLINE: usize> SmallSet<T, INLINE> {
    pub fn insert(&mut self, item: T) {
        if self.iter().any(|known| known == item) {
            return;
        }
        if self.len < INLINE {
            self.inline[self.len] = Some(item);
            self.len += 1;
        } else {
            self.spilled.push(item);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = T> + '_ {
        self.inline[..self.len].iter().flatten().copied().chain(self.spilled.iter().copied())
    }

    pub fn len(&self) -> usize {
        self.len + self.spilled.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Span = Span { base: 0x7000_0000_0000, bytes: 1 << 40 };

    fn hits(param: &[u8]) -> Vec<u64> {
        let mut found = Vec::new();
        scan(param, SPAN, |address| found.push(address));
        found
    }

    #[test]
    fn a_plain_pointer_is_found_and_bounds_are_exact() {
        assert_eq!(hits(&SPAN.base.to_le_bytes()), [SPAN.base]);
        let last = SPAN.base + SPAN.bytes - 1;
        assert_eq!(hits(&last.to_le_bytes()), [last]);
        assert!(hits(&(SPAN.base - 1).to_le_bytes()).is_empty());
        assert!(hits(&(SPAN.base + SPAN.bytes).to_le_bytes()).is_empty());
        assert!(hits(&0u64.to_le_bytes()).is_empty());
    }

    #[test]
    fn short_parameters_hold_no_pointer() {
        assert!(hits(&[]).is_empty());
        assert!(hits(&[0xff; 7]).is_empty());
    }

    #[test]
    fn pointers_at_every_four_byte_step_of_a_4_kb_struct() {
        for offset in (0..=4088).step_by(4) {
            let mut param = vec![0u8; 4096];
            let address = SPAN.base + 0x1234_5678;
            param[offset..offset + 8].copy_from_slice(&address.to_le_bytes());
            assert!(hits(&param).contains(&address), "offset {offset}");
        }
    }

    #[test]
    fn the_last_word_of_an_odd_length_is_seen() {
        let mut param = vec![0u8; 13];
        param[4..12].copy_from_slice(&(SPAN.base + 5).to_le_bytes());
        assert_eq!(hits(&param), [SPAN.base + 5]);
    }

    #[test]
    fn tensor_map_flags_are_masked_off() {
        let word = (SPAN.base + 0x80) | 0xfe00_0000_0000_0000;
        assert_eq!(hits(&word.to_le_bytes()), [SPAN.base + 0x80]);
    }

    /// Random parameters, most of their words near the span, against [`scan`].
    #[test]
    fn blocks_find_what_the_plain_scan_finds() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let spans = [
            SPAN,
            Span { base: 0, bytes: 1 << 36 },
            Span { base: 0x7fff_ffe0_0000, bytes: 1 << 40 },
            Span { base: 0x0001_2345_fffe_0000, bytes: 0x30_0000 },
            Span { base: 1 << 56, bytes: 1 << 56 },
            Span { base: 5 << 32, bytes: 1 },
            Span { base: 5 << 32, bytes: 0 },
            Span { base: u64::MAX - 7, bytes: 7 },
        ];
        let mut seen = 0;
        for round in 0..4000 {
            let span = spans[round % spans.len()];
            let length = (random() % if round % 3 == 0 { 300 } else { 4200 }) as usize;
            let mut param: Vec<u8> = (0..length).map(|_| random() as u8).collect();
            // From nothing to a pointer nearly everywhere, at any byte.
            for _ in 0..random() % 64 {
                let near = match random() % 4 {
                    0 => span.base.wrapping_sub(random() % 4),
                    1 => span.base.wrapping_add(span.bytes).wrapping_sub(random() % 4),
                    _ => span.base.wrapping_add(random() % span.bytes.max(1)),
                };
                let word = near | if random() % 4 == 0 { random() << 57 } else { 0 };
                let at = random() as usize % length.max(1);
                if let Some(place) = param.get_mut(at..at + 8) {
                    place.copy_from_slice(&word.to_le_bytes());
                }
            }
            let (mut plain, mut blocks) = (Vec::new(), Vec::new());
            scan(&param, span, |address| plain.push(address));
            scan_blocks(&param, span, |address| blocks.push(address));
            assert_eq!(blocks, plain, "round {round}, {span:?}, {length} bytes");
            seen += plain.len();
        }
        assert!(seen > 10_000, "{seen} addresses prove little");
    }

    #[test]
    fn the_set_keeps_order_drops_repeats_and_spills() {
        let mut set = SmallSet::<u32, 4>::default();
        assert!(set.is_empty());
        for item in [3, 1, 3, 2, 9, 1, 8, 8, 7] {
            set.insert(item);
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [3, 1, 2, 9, 8, 7]);
        assert_eq!(set.len(), 6);
    }
}
