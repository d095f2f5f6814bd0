//! Writes the least ELF that holds sections: for tests, and for the seeds of the
//! fuzz target `image`. Not here: what is in them.

/// Name (where it stands among the names), kind, content, and the section linked to.
pub type Section<'a> = (u32, u32, &'a [u8], u32);

/// A file of `sections`, of which number `names` holds their names.
pub fn elf(names: u16, sections: &[Section]) -> Vec<u8> {
    let mut file = vec![0u8; 64];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    let mut headers = Vec::new();
    for &(name, kind, content, link) in sections {
        let mut header = [0u8; 64];
        header[..4].copy_from_slice(&name.to_le_bytes());
        header[4..8].copy_from_slice(&kind.to_le_bytes());
        header[24..32].copy_from_slice(&(file.len() as u64).to_le_bytes());
        header[32..40].copy_from_slice(&(content.len() as u64).to_le_bytes());
        header[40..44].copy_from_slice(&link.to_le_bytes());
        headers.extend(header);
        file.extend(content);
    }
    let at = file.len() as u64;
    file[40..48].copy_from_slice(&at.to_le_bytes());
    file[58..60].copy_from_slice(&64u16.to_le_bytes());
    file[60..62].copy_from_slice(&(sections.len() as u16).to_le_bytes());
    file[62..64].copy_from_slice(&names.to_le_bytes());
    file.extend(headers);
    file
}
