//! What a checkpoint holds (safetensors, its index, GGUF), by its header alone,
//! and a trace of a program that uses all of it, in order, in each step.
//!
//! A header says how large weights are, not how long kernels take: that follows
//! from the card, and from how many positions (tokens, pixels of a latent) a step
//! works on, which the user has to say.
//! Files come from anywhere: every length in them is checked before it is believed.

use autooffload_lab::workload::{Builder, Event, Launch, Trace, Use, limits};
use serde_json::Value;
use std::fs::File;
use std::io::{BufReader, Read, Result, Seek};
use std::path::Path;

/// Smaller ones are not moved by the library.
const MANAGED_BYTES: u64 = 1 << 20;
/// Iterations that a steady state is read from.
const ITERATIONS: usize = 12;
const TENSORS: u64 = 1 << 20;
const HEADER_BYTES: u64 = 100_000_000;
const INDEX: &str = ".index.json";

/// What the header does not say.
#[derive(Clone, Copy)]
pub struct Assumed {
    pub tokens: u64,
    /// Device memory beside the weights.
    pub beside_bytes: u64,
}

#[derive(Debug, PartialEq)]
struct Tensor {
    name: String,
    elements: u64,
    bytes: u64,
}

/// Whether the name is that of a checkpoint.
pub fn is_one(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    [".safetensors", ".gguf", INDEX].iter().any(|end| name.ends_with(end))
}

pub fn trace(path: &Path, assumed: Assumed) -> std::result::Result<Trace, String> {
    let tensors = tensors(path).map_err(|why| format!("{}: {why}", path.display()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().replace(char::is_control, "");
    let name: String = name.chars().take(40).collect();
    let trace = trace_of(&name, tensors, assumed);
    trace.check().map_err(|(_, why)| format!("{}: {why}", path.display()))?;
    Ok(trace)
}

fn trace_of(name: &str, mut tensors: Vec<Tensor>, assumed: Assumed) -> Trace {
    // Blocks are used in the order of their numbers: `10` comes after `9`.
    tensors.sort_by_cached_key(|tensor| natural(&tensor.name));
    let small = |tensor: &&Tensor| tensor.bytes < MANAGED_BYTES;
    let small: u64 = tensors.iter().filter(small).map(|tensor| tensor.bytes).sum();
    let mut builder = Builder::new(name, assumed.beside_bytes.saturating_add(small));
    tensors.retain(|tensor| tensor.bytes >= MANAGED_BYTES);
    let chunks: Vec<u32> = tensors.iter().map(|tensor| builder.chunk(tensor.bytes)).collect();
    let iterations = ITERATIONS.min((limits::EVENTS - 1) / (tensors.len() + 1));
    for _ in 0..iterations {
        builder.event(Event::Iteration { phase: 0 });
        for (tensor, &chunk) in tensors.iter().zip(&chunks) {
            let flops = tensor.elements.saturating_mul(2).saturating_mul(assumed.tokens);
            let work = Launch {
                first_use: 0,
                use_count: 0,
                ns: 0,
                flops,
                bytes: tensor.bytes,
                kernels: 1,
            };
            builder.launch(work, &[Use { chunk, permille: 1000, writes: false }]);
        }
    }
    builder.finish()
}

/// Words and numbers, to be compared as people order them.
fn natural(name: &str) -> Vec<(String, u64)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        parts.push((word.to_string(), tail[..end].parse().unwrap_or(0)));
        rest = &tail[end..];
    }
    parts
}

fn tensors(path: &Path) -> std::result::Result<Vec<Tensor>, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let found = if name.ends_with(INDEX) {
        return all_parts(path);
    } else if name.ends_with(".gguf") {
        gguf(path)
    } else {
        safetensors(path)
    };
    let found = found.map_err(|why| match why.kind() {
        std::io::ErrorKind::UnexpectedEof => "the file ends within its header".to_string(),
        _ => why.to_string(),
    })?;
    if found.is_empty() { Err("it holds no tensors".to_string()) } else { Ok(found) }
}

/// Of a checkpoint in several files: all that its index names, beside it.
fn all_parts(index: &Path) -> std::result::Result<Vec<Tensor>, String> {
    let mut text = String::new();
    let file = File::open(index).map_err(|why| why.to_string())?;
    file.take(HEADER_BYTES).read_to_string(&mut text).map_err(|why| why.to_string())?;
    let map: Value = serde_json::from_str(&text).map_err(|why| format!("not JSON: {why}"))?;
    let names = map["weight_map"].as_object().ok_or("it has no weight_map")?;
    let mut files: Vec<&str> = names.values().filter_map(Value::as_str).collect();
    files.sort_unstable();
    files.dedup();
    let mut all = Vec::new();
    for name in files {
        if Path::new(name).components().count() != 1 || name.starts_with('.') {
            return Err(format!("{name} is not a file beside it"));
        }
        let part = index.with_file_name(name);
        all.extend(tensors(&part).map_err(|why| format!("{name}: {why}"))?);
    }
    if all.is_empty() { Err("it names no files".to_string()) } else { Ok(all) }
}

fn refused<T>(why: &str) -> Result<T> {
    Err(std::io::Error::new(std::io::ErrorKind::InvalidData, why.to_string()))
}

fn safetensors(path: &Path) -> Result<Vec<Tensor>> {
    let mut file = File::open(path)?;
    let all = file.metadata()?.len();
    let length = u64::from_le_bytes(exactly(&mut file)?);
    if length > HEADER_BYTES || length > all.saturating_sub(8) {
        return refused("the header is longer than the file, or than any header may be");
    }
    let mut text = vec![0; length as usize];
    file.read_exact(&mut text)?;
    let Ok(Value::Object(header)) = serde_json::from_slice(&text) else {
        return refused("the header is not a JSON object");
    };
    let data = all - 8 - length;
    let mut found = Vec::new();
    for (name, tensor) in header.into_iter().filter(|(name, _)| name != "__metadata__") {
        let offset = |index: usize| tensor["data_offsets"][index].as_u64();
        let (Some(begin), Some(end)) = (offset(0), offset(1)) else {
            return refused("a tensor has no offsets");
        };
        if begin > end || end > data {
            return refused("a tensor lies outside the file");
        }
        let shape = tensor["shape"].as_array();
        let sizes = shape.into_iter().flatten().map(|size| size.as_u64().unwrap_or(0));
        let elements = sizes.fold(1u64, u64::saturating_mul);
        // A shape that cannot be is not reckoned with.
        let elements = elements.min((end - begin).saturating_mul(8));
        found.push(Tensor { name, elements, bytes: end - begin });
    }
    Ok(found)
}

fn exactly<const N: usize>(from: &mut impl Read) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The sizes follow from where tensors begin, so that no table of types is needed.
fn gguf(path: &Path) -> Result<Vec<Tensor>> {
    let file = File::open(path)?;
    let all = file.metadata()?.len();
    let mut from = BufReader::new(file);
    let number =
        |from: &mut BufReader<File>| Ok::<u64, std::io::Error>(u64::from_le_bytes(exactly(from)?));
    let small =
        |from: &mut BufReader<File>| Ok::<u32, std::io::Error>(u32::from_le_bytes(exactly(from)?));
    if &exactly::<4>(&mut from)? != b"GGUF" {
        return refused("it does not begin as GGUF does");
    }
    if !(2..=3).contains(&small(&mut from)?) {
        return refused("a version of GGUF that is not known (2 and 3 are)");
    }
    let (tensors, values) = (number(&mut from)?, number(&mut from)?);
    if tensors > TENSORS || values > TENSORS {
        return refused("more tensors or values than any model has");
    }
    let mut alignment = 32;
    for _ in 0..values {
        let key = string(&mut from)?;
        let kind = small(&mut from)?;
        if key == "general.alignment" && kind == 4 {
            alignment = u64::from(small(&mut from)?).clamp(1, 1 << 20);
        } else {
            skip(&mut from, kind, 0)?;
        }
    }
    let mut found: Vec<(u64, Tensor)> = Vec::new();
    for _ in 0..tensors {
        let name = string(&mut from)?;
        let dimensions = small(&mut from)?;
        if dimensions > 8 {
            return refused("a tensor of more than eight dimensions");
        }
        let mut elements = 1u64;
        for _ in 0..dimensions {
            elements = elements.saturating_mul(number(&mut from)?);
        }
        small(&mut from)?; // its type
        found.push((number(&mut from)?, Tensor { name, elements, bytes: 0 }));
    }
    let data = all.saturating_sub(from.stream_position()?.next_multiple_of(alignment));
    found.sort_by_key(|(offset, _)| *offset);
    let ends: Vec<u64> = found.iter().skip(1).map(|(offset, _)| *offset).chain([data]).collect();
    for ((offset, tensor), end) in found.iter_mut().zip(ends) {
        if *offset > end || end > data {
            return refused("a tensor lies outside the file");
        }
        tensor.bytes = end - *offset;
        tensor.elements = tensor.elements.min(tensor.bytes.saturating_mul(8));
    }
    Ok(found.into_iter().map(|(_, tensor)| tensor).collect())
}

fn string(from: &mut BufReader<File>) -> Result<String> {
    let length = u64::from_le_bytes(exactly(from)?);
    if length > 1 << 16 {
        return refused("a name that is longer than any name");
    }
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Past a value of `kind`.
fn skip(from: &mut BufReader<File>, kind: u32, depth: u32) -> Result<()> {
    const STRING: u32 = 8;
    const ARRAY: u32 = 9;
    let past = |from: &mut BufReader<File>, bytes: u64| match i64::try_from(bytes) {
        Ok(bytes) => from.seek_relative(bytes),
        Err(_) => refused("a value that is longer than any file"),
    };
    let size = match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        10..=12 => 8,
        STRING => u64::from_le_bytes(exactly(from)?),
        ARRAY => {
            let kind = u32::from_le_bytes(exactly(from)?);
            let count = u64::from_le_bytes(exactly(from)?);
            if count > 1 << 28 || depth > 3 {
                return refused("an array that is larger than any");
            }
            let fixed = match kind {
                0 | 1 | 7 => 1,
                2 | 3 => 2,
                4..=6 => 4,
                10..=12 => 8,
                _ => 0,
            };
            if fixed > 0 {
                return past(from, count * fixed);
            }
            for _ in 0..count {
                skip(from, kind, depth + 1)?;
                // Past the end nothing follows, however much was announced.
                if from.stream_position()? > from.get_ref().metadata()?.len() {
                    return refused("the file ends within its header");
                }
            }
            0
        }
        _ => return refused("a value of a kind that is not known"),
    };
    past(from, size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, bytes: &[u8]) -> std::path::PathBuf {
        let folder =
            std::env::temp_dir().join(format!("autooffload-checkpoint-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn a_safetensors() -> Vec<u8> {
        let header = r#"{"__metadata__":{"format":"pt"},
            "layers.10.w":{"dtype":"F16","shape":[1024,2048],"data_offsets":[4194304,8388608]},
            "layers.9.w":{"dtype":"F16","shape":[1024,2048],"data_offsets":[0,4194304]},
            "norm":{"dtype":"F32","shape":[4],"data_offsets":[8388608,8388624]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + 8388624, 0);
        bytes
    }

    fn a_gguf() -> Vec<u8> {
        let text = |to: &mut Vec<u8>, text: &str| {
            to.extend((text.len() as u64).to_le_bytes());
            to.extend(text.as_bytes());
        };
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3u32.to_le_bytes());
        bytes.extend(2u64.to_le_bytes());
        bytes.extend(3u64.to_le_bytes());
        text(&mut bytes, "general.alignment");
        bytes.extend(4u32.to_le_bytes());
        bytes.extend(64u32.to_le_bytes());
        text(&mut bytes, "words");
        bytes.extend(9u32.to_le_bytes());
        bytes.extend(8u32.to_le_bytes());
        bytes.extend(2u64.to_le_bytes());
        text(&mut bytes, "a");
        text(&mut bytes, "bc");
        text(&mut bytes, "rate");
        bytes.extend(12u32.to_le_bytes());
        bytes.extend(1f64.to_le_bytes());
        for (name, offset) in [("blk.0.w", 0u64), ("blk.1.w", 2 << 20)] {
            text(&mut bytes, name);
            bytes.extend(2u32.to_le_bytes());
            bytes.extend(1024u64.to_le_bytes());
            bytes.extend(1024u64.to_le_bytes());
            bytes.extend(1u32.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(64) + (4 << 20), 0);
        bytes
    }

    const ASSUMED: Assumed = Assumed { tokens: 3, beside_bytes: 100 };

    #[test]
    fn blocks_come_in_the_order_of_their_numbers() {
        let trace = trace(&written("a.safetensors", &a_safetensors()), ASSUMED).unwrap();
        assert_eq!(trace.chunks, [4 << 20, 4 << 20]);
        assert_eq!(trace.activation_bytes, 116);
        let Event::Launch(first) = trace.events[1] else { panic!() };
        assert_eq!((first.bytes, first.flops), (4 << 20, 2 * 1024 * 2048 * 3));
        assert!(natural("layers.9.w") < natural("layers.10.w"));
    }

    #[test]
    fn gguf_is_read_by_offsets() {
        let trace = trace(&written("a.gguf", &a_gguf()), ASSUMED).unwrap();
        assert_eq!(trace.chunks, [2 << 20, 2 << 20]);
        let Event::Launch(first) = trace.events[1] else { panic!() };
        assert_eq!(first.flops, 2 * 1024 * 1024 * 3);
    }

    #[test]
    fn an_index_names_its_files() {
        written("part.safetensors", &a_safetensors());
        let index =
            written("m.safetensors.index.json", br#"{"weight_map":{"x":"part.safetensors"}}"#);
        assert_eq!(trace(&index, ASSUMED).unwrap().chunks.len(), 2);
        let away =
            written("n.safetensors.index.json", br#"{"weight_map":{"x":"../part.safetensors"}}"#);
        assert!(trace(&away, ASSUMED).unwrap_err().contains("not a file beside it"));
    }

    #[test]
    fn damage_is_refused_or_harmless() {
        let mut state = 7u64;
        let mut next = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize
        };
        let mut read = 0;
        for (name, whole) in [("d.safetensors", a_safetensors()), ("d.gguf", a_gguf())] {
            // The header is what is read.
            let head = 500;
            for case in 0..400 {
                let mut bytes = whole[..head].to_vec();
                if case % 4 == 0 {
                    bytes.truncate(next() % head);
                } else {
                    for _ in 0..1 + next() % 4 {
                        bytes[next() % head] = next() as u8;
                    }
                }
                let path = written(name, &bytes);
                if case % 4 != 0 {
                    let file = File::options().write(true).open(&path).unwrap();
                    file.set_len(whole.len() as u64).unwrap();
                }
                if let Ok(trace) = trace(&path, ASSUMED) {
                    read += 1;
                    assert!(trace.weight_bytes() <= whole.len() as u64 * 2);
                }
            }
        }
        assert!(read > 50, "hardly anything passed: {read}");
    }
}
