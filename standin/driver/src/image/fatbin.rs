//! Fat binaries: a header, then entries per architecture, of which the best
//! match is decompressed and read.
//!
//! Layout as emitted by CUDA 12 and 13 (observed in the binaries, not
//! documented): data header `{u32 magic, u16 version, u16 header bytes, u64
//! payload bytes}`; entry `{u16 kind, u16, u32 header bytes, u64 padded payload
//! bytes, u32 compressed bytes, u32, u32 minor?, u32 sm, …, u64 plain bytes at
//! 56}`. The compression is told by the payload's own first bytes.

use super::{Fields, Symbols, cubin};
use crate::abi::{INVALID_IMAGE, NO_BINARY_FOR_GPU, Outcome};
use std::borrow::Cow;
use std::io::Read;

pub const WRAPPER_MAGIC: u32 = 0x4662_43b1;
pub const DATA_MAGIC: u32 = 0xBA55_ED50;
const KIND_ELF: u16 = 2;
const ZSTD_MAGIC: u32 = 0xFD2F_B528;
/// Bytes of the data header up to and including the payload size.
const DATA_HEADER: usize = 16;
/// No cubin is larger; guards against a size read from garbage.
const LARGEST_CUBIN: u64 = 1 << 30;

/// Where a fat binary lies in memory.
pub struct Place {
    data: *const u8,
    len: usize,
}

// SAFETY: read-only bytes, valid as long as the image is (contract of
// `Image::open`), whichever thread reads them.
unsafe impl Send for Place {}
// SAFETY: as above.
unsafe impl Sync for Place {}

impl Place {
    /// # Safety
    /// `data` starts a fat-binary wrapper `{u32 magic, u32, const void *data}`.
    pub unsafe fn of_wrapper(data: *const u8) -> Option<Place> {
        // SAFETY: the wrapper is at least 16 bytes, with the pointer at 8.
        let inner = unsafe { data.add(8).cast::<*const u8>().read_unaligned() };
        if inner.is_null() {
            return None;
        }
        // SAFETY: the wrapper's pointer leads to a data header.
        let place = unsafe { Place::of_data(inner) };
        // SAFETY: as above; four bytes of the header.
        (unsafe { inner.cast::<u32>().read_unaligned() } == DATA_MAGIC).then_some(place)
    }

    /// # Safety
    /// `data` starts a fat-binary data header, followed by its payload.
    pub unsafe fn of_data(data: *const u8) -> Place {
        // SAFETY: the header is 16 bytes long.
        let (header, payload) = unsafe {
            (data.add(6).cast::<u16>().read_unaligned(), data.add(8).cast::<u64>().read_unaligned())
        };
        Place { data, len: header as usize + payload as usize }
    }

    /// # Safety
    /// The memory is still there.
    pub unsafe fn bytes(&self) -> &[u8] {
        // SAFETY: the header's own length, and the caller's promise.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}

struct Entry<'a> {
    sm: u32,
    payload: &'a [u8],
    plain_bytes: u64,
}

/// Reads every cubin of the architecture that suits `capability` best.
pub fn read(bytes: &[u8], capability: (i32, i32)) -> Outcome<Symbols> {
    let entries = entries(bytes).ok_or(INVALID_IMAGE)?;
    let wanted = (capability.0 * 10 + capability.1) as u32;
    let best = entries.iter().map(|e| e.sm).max_by_key(|&sm| suitability(sm, wanted));
    let mut symbols = Symbols::default();
    for entry in entries.iter().filter(|e| Some(e.sm) == best) {
        let cubin = plain(entry).ok_or(INVALID_IMAGE)?;
        cubin::read(&cubin, &mut symbols).ok_or(INVALID_IMAGE)?;
    }
    if best.is_none() { Err(NO_BINARY_FOR_GPU) } else { Ok(symbols) }
}

/// Larger is better: runs here natively, then any older, then any newer one
/// (nothing is executed, so even that tells us what we need).
fn suitability(sm: u32, wanted: u32) -> (u32, i64) {
    let class = match sm {
        sm if sm / 10 == wanted / 10 && sm <= wanted => 2,
        sm if sm <= wanted => 1,
        _ => 0,
    };
    (class, if class == 0 { -i64::from(sm) } else { i64::from(sm) })
}

fn entries(bytes: &[u8]) -> Option<Vec<Entry<'_>>> {
    if bytes.u32_at(0)? != DATA_MAGIC {
        return None;
    }
    let mut at = (bytes.u16_at(6)? as usize).max(DATA_HEADER);
    let mut found = Vec::new();
    while at + 64 <= bytes.len() {
        let entry = &bytes[at..];
        let header = entry.u32_at(4)? as usize;
        let padded = entry.u64_at(8)? as usize;
        if header < 32 || padded == 0 {
            break;
        }
        if entry.u16_at(0)? == KIND_ELF {
            let payload = entry.get(header..header.checked_add(padded)?)?;
            let compressed = entry.u32_at(16)? as usize;
            let exact = if (1..=padded).contains(&compressed) { compressed } else { padded };
            found.push(Entry {
                sm: entry.u32_at(28)?,
                payload: if payload.u32_at(0)? == cubin::ELF_MAGIC {
                    payload
                } else {
                    &payload[..exact]
                },
                plain_bytes: entry.u64_at(56).unwrap_or(0),
            });
        }
        at = at.checked_add(header)?.checked_add(padded)?;
    }
    Some(found)
}

fn plain<'a>(entry: &Entry<'a>) -> Option<Cow<'a, [u8]>> {
    match entry.payload.u32_at(0)? {
        cubin::ELF_MAGIC => Some(Cow::Borrowed(entry.payload)),
        ZSTD_MAGIC => {
            let mut plain = Vec::with_capacity(entry.plain_bytes.min(LARGEST_CUBIN) as usize);
            let decoder = ruzstd::decoding::StreamingDecoder::new(entry.payload).ok()?;
            decoder.take(LARGEST_CUBIN).read_to_end(&mut plain).ok()?;
            Some(Cow::Owned(plain))
        }
        _ if entry.plain_bytes <= LARGEST_CUBIN => {
            let plain = lz4_flex::block::decompress(entry.payload, entry.plain_bytes as usize);
            plain.ok().map(Cow::Owned)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_older_architecture_of_the_family_wins() {
        let best = |sms: &[u32]| *sms.iter().max_by_key(|&&sm| suitability(sm, 86)).unwrap();
        assert_eq!(best(&[75, 80, 86, 90, 120]), 86);
        assert_eq!(best(&[75, 80, 90]), 80);
        assert_eq!(best(&[70, 75, 90]), 75);
        assert_eq!(best(&[120, 90]), 90);
    }
}
