//! Writes the first seeds of the fuzz target `image`: kernel images of the forms that are
//! read, small and well formed.
//!
//!     cargo run --release -p standin-driver --example image_seeds

#[path = "../tests/common/elf.rs"]
mod elf;

use elf::elf;
use std::path::Path;

fn main() -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let shim = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shim");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("cubin"), cubin())?;
    std::fs::write(folder.join("fat-plain"), fat_binary(false))?;
    std::fs::write(folder.join("fat-packed"), fat_binary(true))?;
    std::fs::write(folder.join("text"), "standin-module v1\nkernel k 8,4,16\nkernel l\n")?;
    for name in ["fingerprint", "addresses"] {
        std::fs::copy(shim.join(name).with_extension("ptx"), folder.join(format!("ptx-{name}")))?;
    }
    Ok(())
}

/// A cubin: one kernel with parameters of 8 and 16 bytes, and a global of 40.
fn cubin() -> Vec<u8> {
    const NAMES: &[u8] = b"\0.names\0.text.k\0.nv.info.k\0.symbols\0state\0";
    let mut info = vec![4, 0x17, 12, 0];
    info.extend([0, 0, 0, 0, 1, 0, 8, 0]);
    info.extend((16u32 << 18 | 0x1f000).to_le_bytes());
    info.extend([3, 0x1b, 255, 0]); // an attribute that is carried in place
    info.extend([4, 0x45, 12, 0]);
    info.extend([0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0]);
    let mut symbols = vec![0; 24];
    symbols[..4].copy_from_slice(&36u32.to_le_bytes());
    symbols[4] = 1;
    symbols[16..].copy_from_slice(&40u64.to_le_bytes());
    elf(0, &[(1, 3, NAMES, 0), (8, 1, &[0; 16], 0), (16, 1, &info, 0), (27, 2, &symbols, 0)])
}

/// A fat binary of one cubin for sm_86; `packed`: as LZ4 packs it, without repetitions.
fn fat_binary(packed: bool) -> Vec<u8> {
    let plain = cubin();
    let payload = match packed {
        false => plain.clone(),
        true => {
            let mut block = vec![0xF0];
            let mut rest = plain.len() - 15;
            while rest >= 255 {
                block.push(255);
                rest -= 255;
            }
            block.push(rest as u8);
            block.extend(&plain);
            block
        }
    };
    let padded = payload.len().next_multiple_of(8);
    let mut entry = vec![0; 64];
    entry[..2].copy_from_slice(&2u16.to_le_bytes());
    entry[4..8].copy_from_slice(&64u32.to_le_bytes());
    entry[8..16].copy_from_slice(&(padded as u64).to_le_bytes());
    entry[16..20].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    entry[28..32].copy_from_slice(&86u32.to_le_bytes());
    entry[56..64].copy_from_slice(&(plain.len() as u64).to_le_bytes());
    entry.extend(&payload);
    entry.resize(64 + padded, 0);
    let mut file = 0xBA55_ED50u32.to_le_bytes().to_vec();
    file.extend([1, 0, 16, 0]);
    file.extend((entry.len() as u64).to_le_bytes());
    file.extend(entry);
    file
}
