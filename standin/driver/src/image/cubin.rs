//! Cubins: ELF files whose `.nv.info.<kernel>` sections describe parameters.
//!
//! Attributes (observed, not documented): each is `{u8 format, u8 attribute,
//! u16 value or payload bytes}`. 0x17 describes one parameter: `{u32 index,
//! u16 ordinal, u16 offset, u32 word}`, size = word >> 18. 0x45 does the same
//! for kernels with big by-value structs, with a plain u16 size.

use super::{Fields, Layout, Symbols};

pub const ELF_MAGIC: u32 = 0x464C_457F;
/// Attribute format whose payload follows; the others carry it in place.
const FORMAT_SIZED: u8 = 4;
const PARAMETER: u8 = 0x17;
const PARAMETER_WIDE: u8 = 0x45;
const SECTION_SYMBOLS: u32 = 2;
const SYMBOL_OBJECT: u8 = 1;

/// Bytes of the ELF file at `data`, from its own headers.
///
/// # Safety
/// `data` points to a complete ELF file.
pub unsafe fn length(data: *const u8) -> Option<usize> {
    // SAFETY: every ELF64 file starts with a 64-byte header.
    let header = unsafe { std::slice::from_raw_parts(data, 64) };
    let sections = header.u64_at(40)? as usize;
    let table = header.u16_at(58)? as usize * header.u16_at(60)? as usize;
    let programs =
        header.u64_at(32)? as usize + header.u16_at(54)? as usize * header.u16_at(56)? as usize;
    let mut end = sections.checked_add(table)?.max(programs);
    // SAFETY: the section table lies within the file.
    let table = unsafe { std::slice::from_raw_parts(data.add(sections), table) };
    for section in table.chunks_exact((header.u16_at(58)? as usize).max(64)) {
        const NO_BITS: u32 = 8;
        if section.u32_at(4)? != NO_BITS {
            end = end.max(section.u64_at(24)?.checked_add(section.u64_at(32)?)? as usize);
        }
    }
    Some(end)
}

struct Section<'a> {
    name: &'a str,
    kind: u32,
    link: usize,
    data: &'a [u8],
}

fn sections(elf: &[u8]) -> Option<Vec<Section<'_>>> {
    let start = elf.u64_at(40)? as usize;
    let (size, count, names) =
        (elf.u16_at(58)? as usize, elf.u16_at(60)? as usize, elf.u16_at(62)? as usize);
    let header = |i: usize| elf.get(start.checked_add(i * size)?..)?.get(..size);
    let data = |h: &[u8]| {
        const NO_BITS: u32 = 8;
        if h.u32_at(4)? == NO_BITS {
            return Some(&elf[..0]);
        }
        let at = h.u64_at(24)? as usize;
        elf.get(at..at.checked_add(h.u64_at(32)? as usize)?)
    };
    let strings = data(header(names)?)?;
    (0..count)
        .map(|i| {
            let h = header(i)?;
            Some(Section {
                name: string_at(strings, h.u32_at(0)? as usize)?,
                kind: h.u32_at(4)?,
                link: h.u32_at(40)? as usize,
                data: data(h)?,
            })
        })
        .collect()
}

fn string_at(strings: &[u8], at: usize) -> Option<&str> {
    let tail = strings.get(at..)?;
    let end = tail.iter().position(|&b| b == 0)?;
    std::str::from_utf8(&tail[..end]).ok()
}

/// Adds the kernels and globals of one cubin.
pub fn read(elf: &[u8], symbols: &mut Symbols) -> Option<()> {
    let sections = sections(elf)?;
    for section in &sections {
        if let Some(kernel) = section.name.strip_prefix(".text.") {
            symbols.kernels.entry(kernel.to_string()).or_default();
        }
    }
    for section in &sections {
        if let Some(kernel) = section.name.strip_prefix(".nv.info.")
            && let Some(layout) = symbols.kernels.get_mut(kernel)
        {
            *layout = parameters(section.data)?;
        }
        if section.kind == SECTION_SYMBOLS {
            let strings = sections.get(section.link)?.data;
            for symbol in section.data.chunks_exact(24) {
                if symbol[4] & 15 == SYMBOL_OBJECT && symbol.u64_at(16)? > 0 {
                    let name = string_at(strings, symbol.u32_at(0)? as usize)?;
                    symbols.globals.insert(name.to_string(), symbol.u64_at(16)?);
                }
            }
        }
    }
    Some(())
}

fn parameters(info: &[u8]) -> Option<Layout> {
    let mut found: Vec<(u16, u32, u32)> = Vec::new();
    let mut at = 0;
    while at + 4 <= info.len() {
        let (format, attribute) = (info[at], info[at + 1]);
        let payload_bytes = if format == FORMAT_SIZED { info.u16_at(at + 2)? as usize } else { 0 };
        let payload = info.get(at + 4..at + 4 + payload_bytes)?;
        if format == FORMAT_SIZED && (attribute == PARAMETER || attribute == PARAMETER_WIDE) {
            let (ordinal, offset) = (payload.u16_at(4)?, payload.u16_at(6)?);
            let size = match attribute {
                PARAMETER => payload.u32_at(8)? >> 18,
                _ => u32::from(payload.u16_at(8)?),
            };
            found.push((ordinal, u32::from(offset), size));
        }
        at += 4 + payload_bytes;
    }
    found.sort_unstable();
    found.dedup_by_key(|p| p.0);
    Some(found.into_iter().map(|(_, offset, size)| (offset, size)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_parameter_attributes() {
        let mut info = vec![4, PARAMETER, 12, 0];
        info.extend([0, 0, 0, 0, 1, 0, 8, 0]);
        info.extend((16u32 << 18 | 0x1f000).to_le_bytes());
        info.extend([3, 0x1b, 255, 0]);
        info.extend([4, PARAMETER_WIDE, 12, 0]);
        info.extend([0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0]);
        assert_eq!(parameters(&info), Some(vec![(0, 8), (8, 16)]));
    }
}
