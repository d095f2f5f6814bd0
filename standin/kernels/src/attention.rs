//! Attention in one kernel, forward: `softmax(q kᵀ · scale + bias) v`.
//!
//! | kernel | parameter |
//! |---|---|
//! | `fmha_cutlassF_TYPE_…` | `AttentionKernel<…>::Params` |
//! | `flash_fwd_kernel<traits, dropout, causal, local, alibi, even_mn, even_k, softcap, softmax>` | `Flash_fwd_params` |
//! | `flash_fwd_splitkv_kernel<traits, causal, local, alibi, even_mn, even_k, softcap, split, append>` | the same |
//! | `flash_fwd_splitkv_combine_kernel<traits, …>` | the same |
//!
//! Few queries and many keys: the keys are split, each part is a result of its own in f32
//! (`[part, batch, head, query, width]`) with the logarithm of its sum, and a second kernel
//! makes one of them.
//!
//! Sums are taken in f32 in the order of the keys, and nothing is rounded in
//! between. Dropout, windows, ragged batches and soft caps are refused.
//! Not here: backward.

use crate::block::{Source, Target};
use crate::name::Name;
use crate::params::{Cursor, unsupported};
use crate::value::DType;
use crate::{Cost, Fault, Kernel, Launch, Memory};

#[derive(Clone, Copy)]
enum Form {
    MemoryEfficient,
    Flash { causal: bool },
    Parts { causal: bool },
    Combine,
}

struct Attention {
    form: Form,
    data: DType,
}

pub fn find(name: &Name) -> Option<Box<dyn Kernel>> {
    if let Some(rest) = name.base.strip_prefix("fmha_cutlassF_") {
        let data = match rest.split('_').next()? {
            "f32" => DType::F32,
            "f16" => DType::F16,
            "bf16" => DType::BF16,
            _ => return None,
        };
        return Some(Box::new(Attention { form: Form::MemoryEfficient, data }));
    }
    let [traits, flags @ ..] = name.args.as_slice() else { return None };
    let flag = |index: usize| flags.get(index).map(|flag| flag == "true");
    let form = match name.base.as_str() {
        "flash_fwd_kernel" => {
            if flag(0)? || flag(2)? || flag(3)? || flag(6)? || flag(7)? {
                return None;
            }
            Form::Flash { causal: flag(1)? }
        }
        "flash_fwd_splitkv_kernel" => {
            if flag(1)? || flag(2)? || flag(5)? || flag(7)? {
                return None;
            }
            let causal = flag(0)?;
            if flag(6)? { Form::Parts { causal } } else { Form::Flash { causal } }
        }
        "flash_fwd_splitkv_combine_kernel" => Form::Combine,
        _ => return None,
    };
    let data = if traits.contains("bfloat16_t") { DType::BF16 } else { DType::F16 };
    Some(Box::new(Attention { form, data }))
}

/// A tensor of `[batch, row, head, width]`; the width is contiguous.
#[derive(Clone, Copy)]
struct Strided {
    address: u64,
    batch: u64,
    row: u64,
    head: u64,
}

impl Strided {
    fn at(&self, batch: u64, row: u64, head: u64) -> u64 {
        batch * self.batch + row * self.row + head * self.head
    }

    /// Elements from its address to the end of its last row.
    fn reach(&self, batches: u64, rows: u64, heads: u64, width: u64) -> u64 {
        if batches * rows * heads * width == 0 {
            return 0;
        }
        self.at(batches - 1, rows - 1, heads - 1) + width
    }
}

struct Problem {
    query: Strided,
    key: Strided,
    value: Strided,
    output: Strided,
    output_data: DType,
    /// A row to a query, of as many numbers as there are keys.
    bias: Option<Strided>,
    /// The logarithm of each query's sum, and queries to a head in it.
    log_sum: Option<(u64, u64)>,
    batches: u64,
    heads: u64,
    /// Query heads to a head of keys and values.
    group: u64,
    queries: u64,
    keys: u64,
    width: u64,
    value_width: u64,
    scale: f32,
    /// Query `i` sees the keys up to `i` plus this.
    causal: Option<i64>,
}

fn positive(value: i64) -> u64 {
    value.max(0) as u64
}

impl Attention {
    fn decode(&self, launch: &Launch) -> Result<Problem, Fault> {
        match self.form {
            Form::MemoryEfficient => memory_efficient(launch, self.data),
            Form::Flash { causal } | Form::Parts { causal } => flash(launch, causal, self.data),
            Form::Combine => flash(launch, false, self.data),
        }
    }
}

fn memory_efficient(launch: &Launch, data: DType) -> Result<Problem, Fault> {
    // From PyTorch 2.15 on there are three numbers more.
    const BYTES: [usize; 2] = [272, 280];
    let mut p = Cursor::parameter(launch, 0)?;
    let later = p.size() == BYTES[1];
    if !BYTES.contains(&p.size()) {
        return Err(unsupported(launch, &format!("parameters of {} bytes", p.size())));
    }
    let (query, key, value, bias) = (p.u64()?, p.u64()?, p.u64()?, p.u64()?);
    let ragged = [p.u64()?, p.u64()?, p.u64()?];
    let diagonal = i64::from(p.u32()?);
    let (output, _accumulator, log_sum) = (p.u64()?, p.u64()?, p.u64()?);
    let window = p.i32()?;
    let scale = p.scalar::<f32>(DType::F32)?;
    let mut dims = [0u64; 5];
    for dim in &mut dims {
        *dim = positive(i64::from(p.i32()?));
    }
    let [width, value_width, queries, keys, _absolute] = dims;
    let mask = p.u8()?;
    let mut int = || p.i32().map(|value| positive(i64::from(value)));
    let (query_row, key_row, value_row) = (int()?, int()?, int()?);
    let (bias_row, output_row) = (int()?, int()?);
    let (query_head, key_head, value_head) = (int()?, int()?, int()?);
    let mut long = || p.i64().map(positive);
    let bias_head = long()?;
    let (query_batch, key_batch, value_batch) = (long()?, long()?, long()?);
    let bias_batch = long()?;
    let batches = p.i32()?;
    let first = if later { [p.i32()?, p.i32()?] } else { [0; 2] };
    let heads = p.i32()?;
    let shared = if later { p.i32()? } else { 1 };
    if (first, shared) != ([0; 2], 1) {
        return Err(unsupported(launch, "a part of the batches, or heads that share keys"));
    }
    let dropout = p.u8()? != 0;
    if dropout || window > 0 || ragged != [0; 3] {
        return Err(unsupported(launch, "dropout, a window, or sequences of several lengths"));
    }
    let causal = match mask {
        0 => None,
        1 => Some(diagonal),
        _ => Some(diagonal + keys as i64 - queries as i64),
    };
    let strided = |address, batch, row, head| Strided { address, batch, row, head };
    Ok(Problem {
        query: strided(query, query_batch, query_row, query_head),
        key: strided(key, key_batch, key_row, key_head),
        value: strided(value, value_batch, value_row, value_head),
        output: strided(output, queries * output_row, output_row, value_width),
        output_data: data,
        bias: (bias != 0).then(|| strided(bias, bias_batch, bias_row, bias_head)),
        log_sum: (log_sum != 0).then(|| (log_sum, queries.next_multiple_of(32))),
        batches: positive(i64::from(batches)),
        heads: positive(i64::from(heads)),
        group: 1,
        queries,
        keys,
        width,
        value_width,
        scale,
        causal,
    })
}

fn flash(launch: &Launch, causal: bool, data: DType) -> Result<Problem, Fault> {
    let mut p = Cursor::parameter(launch, 0)?;
    let (query, key, value) = (p.u64()?, p.u64()?, p.u64()?);
    let mut longs = [0u64; 9];
    for long in &mut longs {
        *long = positive(p.i64()?);
    }
    let (heads, key_heads, _ratio) = (p.i32()?, p.i32()?, p.i32()?);
    let (output, _accumulator) = (p.u64()?, p.u64()?);
    let mut of_output = [0u64; 3];
    for long in &mut of_output {
        *long = positive(p.i64()?);
    }
    let (_probabilities, log_sum, _log_sums) = (p.u64()?, p.u64()?, p.u64()?);
    let mut ints = [0i64; 10];
    for int in &mut ints {
        *int = i64::from(p.i32()?);
    }
    let [batches, queries, keys, _new, width, ..] = ints;
    let scale = p.scalar::<f32>(DType::F32)?;
    let _scale_of_log2 = p.scalar::<f32>(DType::F32)?;
    if [p.u64()?, p.u64()?, p.u64()?, p.u64()?] != [0; 4] {
        return Err(unsupported(launch, "sequences of several lengths"));
    }
    if heads <= 0 || key_heads <= 0 {
        return Err(unsupported(launch, "no heads"));
    }
    let strided = |address, i: usize| Strided {
        address,
        batch: longs[i],
        row: longs[3 + i],
        head: longs[6 + i],
    };
    Ok(Problem {
        query: strided(query, 0),
        key: strided(key, 1),
        value: strided(value, 2),
        output: Strided {
            address: output,
            batch: of_output[0],
            row: of_output[1],
            head: of_output[2],
        },
        output_data: data,
        bias: None,
        log_sum: (log_sum != 0).then(|| (log_sum, positive(queries))),
        batches: positive(batches),
        heads: positive(i64::from(heads)),
        group: positive(i64::from(heads / key_heads)).max(1),
        queries: positive(queries),
        keys: positive(keys),
        width: positive(width),
        value_width: positive(width),
        scale,
        causal: causal.then(|| keys - queries),
    })
}

/// The results of the parts of the keys, and where a part's begins.
struct Parts {
    count: u64,
    results: u64,
    log_sums: u64,
    width: u64,
}

impl Parts {
    fn of(launch: &Launch, p: &Problem) -> Result<Self, Fault> {
        // Before the two addresses of the logarithms lie the output's, its strides and one
        // that is not used here; the count is the last number before what alibi needs.
        let mut from = Cursor::parameter(launch, 0)?;
        from.skip(3 * 8 + 9 * 8 + 3 * 4 + 4 + 8);
        let results = from.u64()?;
        from.skip(3 * 8 + 8 + 8);
        let log_sums = from.u64()?;
        from.skip(7 * 4);
        let width = positive(i64::from(from.i32()?));
        let mut from = Cursor::parameter(launch, 0)?;
        from.skip(from.size().saturating_sub(28));
        let count = positive(i64::from(from.i32()?));
        if results == 0 || log_sums == 0 || width < p.width || !(1..=128).contains(&count) {
            return Err(unsupported(launch, "keys that are split in a way of another version"));
        }
        Ok(Parts { count, results, log_sums, width })
    }

    /// Results in front of a part's.
    fn rows(&self, p: &Problem, part: u64) -> u64 {
        part * p.batches * p.heads * p.queries
    }
}

impl Attention {
    /// Each part's result on its own.
    fn in_parts(&self, launch: &Launch, memory: &dyn Memory, p: Problem) -> Result<(), Fault> {
        let parts = Parts::of(launch, &p)?;
        if u64::from(launch.grid[1]) != parts.count {
            return Err(unsupported(launch, "a grid that is not of as many parts"));
        }
        let each = p.keys.div_ceil(parts.count);
        for part in 0..parts.count {
            let first = (part * each).min(p.keys);
            let moved = |at: &Strided| Strided {
                address: at.address + first * at.row * self.data.size() as u64,
                ..*at
            };
            let rows = parts.rows(&p, part);
            self.attend(
                memory,
                &Problem {
                    key: moved(&p.key),
                    value: moved(&p.value),
                    keys: each.min(p.keys - first),
                    output: Strided {
                        address: parts.results + rows * parts.width * 4,
                        batch: p.heads * p.queries * parts.width,
                        row: parts.width,
                        head: p.queries * parts.width,
                    },
                    output_data: DType::F32,
                    log_sum: Some((parts.log_sums + rows * 4, p.queries)),
                    causal: p.causal.map(|diagonal| diagonal - first as i64),
                    ..p
                },
            )?;
        }
        Ok(())
    }

    /// One result from those of the parts.
    fn combine(&self, launch: &Launch, memory: &dyn Memory, p: Problem) -> Result<(), Fault> {
        let parts = Parts::of(launch, &p)?;
        let all = parts.rows(&p, parts.count);
        let results = Source::new(memory, parts.results, DType::F32, all * parts.width)?;
        let sums = Source::new(memory, parts.log_sums, DType::F32, all)?;
        let reach = p.output.reach(p.batches, p.queries, p.heads, p.width);
        let output = Target::new(memory, p.output.address, self.data, reach)?;
        let log_sum = p.log_sum.map(|(address, _)| {
            Target::new(memory, address, DType::F32, p.batches * p.heads * p.queries)
        });
        let log_sum = log_sum.transpose()?;
        let mut part_of = vec![0f32; p.width as usize];
        for row in 0..p.batches * p.heads * p.queries {
            let mut weights: Vec<f32> =
                (0..parts.count).map(|part| sums.get(parts.rows(&p, part) + row)).collect();
            let total = weigh(&mut weights);
            let mut sum = vec![0f32; p.width as usize];
            for (part, weight) in weights.iter().enumerate() {
                let at = parts.rows(&p, part as u64) + row;
                results.load(at * parts.width, &mut part_of);
                for (sum, value) in sum.iter_mut().zip(&part_of) {
                    *sum += weight * value;
                }
            }
            let (head_of, query) = (row / p.queries, row % p.queries);
            output.store(p.output.at(head_of / p.heads, query, head_of % p.heads), &sum);
            if let Some(to) = &log_sum {
                to.store(row, &[total]);
            }
        }
        Ok(())
    }

    fn attend(&self, memory: &dyn Memory, p: &Problem) -> Result<(), Fault> {
        let key_heads = p.heads.div_ceil(p.group);
        let source = |at: &Strided, rows, heads, width| {
            Source::new(memory, at.address, self.data, at.reach(p.batches, rows, heads, width))
        };
        let query = source(&p.query, p.queries, p.heads, p.width)?;
        let key = source(&p.key, p.keys, key_heads, p.width)?;
        let value = source(&p.value, p.keys, key_heads, p.value_width)?;
        let bias = p.bias.as_ref().map(|bias| source(bias, p.queries, p.heads, p.keys));
        let bias = bias.transpose()?;
        let reach = p.output.reach(p.batches, p.queries, p.heads, p.value_width);
        let output = Target::new(memory, p.output.address, p.output_data, reach)?;
        let log_sum = p.log_sum.map(|(address, row)| {
            Target::new(memory, address, DType::F32, p.batches * p.heads * row).map(|to| (to, row))
        });
        let log_sum = log_sum.transpose()?;

        let (width, value_width) = (p.width as usize, p.value_width as usize);
        let mut keys = vec![0f32; p.keys as usize * width];
        let mut values = vec![0f32; p.keys as usize * value_width];
        let (mut row, mut sum) = (vec![0f32; width], vec![0f32; value_width]);
        let mut scores = vec![0f32; p.keys as usize];
        let mut added = vec![0f32; p.keys as usize];
        for (batch, head) in (0..p.batches).flat_map(|b| (0..p.heads).map(move |h| (b, h))) {
            for i in 0..p.keys {
                let at = i as usize;
                let (k, v) =
                    (p.key.at(batch, i, head / p.group), p.value.at(batch, i, head / p.group));
                key.load(k, &mut keys[at * width..][..width]);
                value.load(v, &mut values[at * value_width..][..value_width]);
            }
            for i in 0..p.queries {
                query.load(p.query.at(batch, i, head), &mut row);
                if let (Some(source), Some(bias)) = (&bias, &p.bias) {
                    source.load(bias.at(batch, i, head), &mut added);
                }
                let seen = match p.causal {
                    None => p.keys,
                    Some(diagonal) => positive(i as i64 + diagonal + 1).min(p.keys),
                } as usize;
                for (at, score) in scores[..seen].iter_mut().enumerate() {
                    let key = &keys[at * width..][..width];
                    let dot: f32 = row.iter().zip(key).map(|(a, b)| a * b).sum();
                    *score = dot * p.scale + added[at];
                }
                let total = weigh(&mut scores[..seen]);
                sum.fill(0.0);
                for (at, weight) in scores[..seen].iter().enumerate() {
                    for (sum, value) in sum.iter_mut().zip(&values[at * value_width..]) {
                        *sum += weight * value;
                    }
                }
                output.store(p.output.at(batch, i, head), &sum);
                if let Some((to, row)) = &log_sum {
                    to.store((batch * p.heads + head) * row + i, &[total]);
                }
            }
            if let Some((to, row)) = &log_sum {
                for i in p.queries..*row {
                    to.store((batch * p.heads + head) * row + i, &[f32::INFINITY]);
                }
            }
        }
        Ok(())
    }
}

impl Kernel for Attention {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        let p = self.decode(launch)?;
        match self.form {
            Form::MemoryEfficient | Form::Flash { .. } => self.attend(memory, &p),
            Form::Parts { .. } => self.in_parts(launch, memory, p),
            Form::Combine => self.combine(launch, memory, p),
        }
    }

    fn cost(&self, launch: &Launch) -> Cost {
        let Ok(p) = self.decode(launch) else { return Cost::default() };
        let (rows, widths) = (p.batches * p.heads, p.width + p.value_width);
        Cost {
            bytes: (rows * widths * (p.queries + p.keys)) as f64 * self.data.size() as f64,
            flops: 2.0 * (rows * p.queries * p.keys * widths) as f64,
        }
    }
}

/// Scores become weights; the logarithm of their sum. Who sees nothing weighs nothing.
fn weigh(scores: &mut [f32]) -> f32 {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if max == f32::NEG_INFINITY {
        scores.fill(0.0);
        return f32::NEG_INFINITY;
    }
    let mut sum = 0f32;
    for score in scores.iter_mut() {
        *score = (*score - max).exp();
        sum += *score;
    }
    for score in scores.iter_mut() {
        *score /= sum;
    }
    max + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_sum_to_one_and_nothing_seen_is_nothing() {
        let mut scores = [1.0f32, f32::NEG_INFINITY, 3.0];
        let total = weigh(&mut scores);
        assert!((scores.iter().sum::<f32>() - 1.0).abs() < 1e-6 && scores[1] == 0.0);
        assert!((total - (1f32.exp() + 3f32.exp()).ln()).abs() < 1e-6);
        let mut unseen = [f32::NEG_INFINITY; 2];
        assert_eq!((weigh(&mut unseen), unseen), (f32::NEG_INFINITY, [0.0; 2]));
    }
}
