//! Convolution without cuDNN, group norm and nearest upsampling: what image models need.
//!
//! | kernel | parameters |
//! |---|---|
//! | `im2col_kernel<T>` | `long n, T* image, long height, width, kernel (h, w), padding, stride, dilation, long out_height, out_width, T* columns` |
//! | `RowwiseMomentsCUDAKernel<T>` | `long N, T eps, T* X, T* mean, T* rstd` |
//! | `RowwiseMomentsContiguousCUDAKernel<n, T, A>` | the same, and `A* mean, A* rstd` where A is not T |
//! | `ComputeFusedParamsCUDAKernel<T>` | `long N, C, groups, T* mean, rstd, gamma, beta, A* a, A* b` |
//! | `ComputeFusedParamsCUDAKernel<T, A>` | the same with `A* mean, rstd` |
//! | `upsample_nearest2d_out_frame<T, rule>` | `T* in, T* out, long planes, height, width, out_height, out_width, float scale (h, w)` |
//!
//! Those that name A are of PyTorch 2.15. Gamma and beta may be null. Layer norm has a kernel of moments of its own (see `norm`).

use crate::block::{Source, Target};
use crate::name::Name;
use crate::params::Cursor;
use crate::value::DType;
use crate::{Cost, Fault, Kernel, Launch, Memory};

#[derive(Clone, Copy)]
enum Form {
    Columns,
    Moments,
    /// Of mean and deviation.
    Fused {
        moments: DType,
    },
    Upsample {
        exact: bool,
    },
}

struct Image {
    form: Form,
    data: DType,
}

pub fn find(name: &Name) -> Option<Box<dyn Kernel>> {
    let args: Vec<&str> = name.args.iter().map(String::as_str).collect();
    let (form, data) = match (name.base.as_str(), args.as_slice()) {
        ("im2col_kernel", [data]) => (Form::Columns, data),
        ("RowwiseMomentsCUDAKernel", [data])
        | ("RowwiseMomentsContiguousCUDAKernel", [_, data, _]) => (Form::Moments, data),
        ("ComputeFusedParamsCUDAKernel", [data] | [data, _]) => {
            (Form::Fused { moments: DType::from_cpp(args.last()?)? }, data)
        }
        ("upsample_nearest2d_out_frame", [data, rule]) => {
            (Form::Upsample { exact: rule.contains("exact") }, data)
        }
        _ => return None,
    };
    Some(Box::new(Image { form, data: DType::from_cpp(data)? }))
}

fn pointer(launch: &Launch, index: usize) -> Result<u64, Fault> {
    Cursor::parameter(launch, index)?.u64()
}

fn long(launch: &Launch, index: usize) -> Result<i64, Fault> {
    Cursor::parameter(launch, index)?.i64()
}

impl Kernel for Image {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        match self.form {
            Form::Columns => columns(launch, memory, self.data),
            Form::Moments => moments(launch, memory, self.data),
            Form::Fused { moments } => fused(launch, memory, self.data, moments),
            Form::Upsample { exact } => upsample(launch, memory, self.data, exact),
        }
    }

    fn cost(&self, launch: &Launch) -> Cost {
        let long = |index| long(launch, index).unwrap_or(0).max(0) as f64;
        let elements = match self.form {
            Form::Columns => long(0) * (1.0 + long(4) * long(5)),
            Form::Moments => long(0) * f64::from(launch.grid[0]),
            Form::Fused { .. } => 2.0 * long(0) * long(1),
            Form::Upsample { .. } => long(2) * (long(3) * long(4) + long(5) * long(6)),
        };
        Cost { bytes: elements * self.data.size() as f64, flops: elements }
    }
}

fn columns(launch: &Launch, memory: &dyn Memory, data: DType) -> Result<(), Fault> {
    let mut sizes = [0i64; 12];
    for (index, size) in sizes.iter_mut().enumerate() {
        *size = long(launch, 2 + index)?;
    }
    let [height, width, kernel_h, kernel_w, pad_h, pad_w, ..] = sizes;
    let [.., stride_h, stride_w, dilation_h, dilation_w, out_h, out_w] = sizes;
    let places = out_h * out_w;
    if places <= 0 {
        return Ok(());
    }
    let channels = long(launch, 0)? / places;
    let image = Source::new(memory, pointer(launch, 1)?, data, (channels * height * width) as u64)?;
    let count = (channels * kernel_h * kernel_w * places) as u64;
    let to = Target::new(memory, pointer(launch, 14)?, data, count)?;
    let mut row = vec![0f32; out_w as usize];
    let mut line = vec![0f32; width as usize];
    for channel in 0..channels {
        for tap in 0..kernel_h * kernel_w {
            let (tap_h, tap_w) = (tap / kernel_w, tap % kernel_w);
            for y in 0..out_h {
                let from = y * stride_h - pad_h + tap_h * dilation_h;
                if (0..height).contains(&from) {
                    image.load(((channel * height + from) * width) as u64, &mut line);
                    for (x, value) in row.iter_mut().enumerate() {
                        let from = x as i64 * stride_w - pad_w + tap_w * dilation_w;
                        let inside = usize::try_from(from).ok().and_then(|from| line.get(from));
                        *value = inside.copied().unwrap_or(0.0);
                    }
                } else {
                    row.fill(0.0);
                }
                let channel_out = channel * kernel_h * kernel_w + tap;
                to.store(((channel_out * out_h + y) * out_w) as u64, &row);
            }
        }
    }
    Ok(())
}

fn moments(launch: &Launch, memory: &dyn Memory, data: DType) -> Result<(), Fault> {
    let row = long(launch, 0)?.max(0) as u64;
    let eps = Cursor::parameter(launch, 1)?.scalar::<f32>(data)?;
    let rows = u64::from(launch.grid[0]);
    let x = Source::new(memory, pointer(launch, 2)?, data, rows * row)?;
    let mean = Target::new(memory, pointer(launch, 3)?, data, rows)?;
    let rstd = Target::new(memory, pointer(launch, 4)?, data, rows)?;
    let exact = data.opmath();
    let exact = match launch.layout.len() {
        7 if exact != data => Some((
            Target::new(memory, pointer(launch, 5)?, exact, rows)?,
            Target::new(memory, pointer(launch, 6)?, exact, rows)?,
        )),
        _ => None,
    };
    let mut values = vec![0f64; row as usize];
    for i in 0..rows {
        x.load(i * row, &mut values);
        let average = values.iter().sum::<f64>() / row as f64;
        let squares = values.iter().map(|value| (value - average) * (value - average));
        let variance = squares.sum::<f64>() / row as f64;
        let deviation = 1.0 / (variance + f64::from(eps)).sqrt();
        mean.store(i, &[average]);
        rstd.store(i, &[deviation]);
        if let Some((mean, rstd)) = &exact {
            mean.store(i, &[average]);
            rstd.store(i, &[deviation]);
        }
    }
    Ok(())
}

/// `y = a x + b` for each channel of each image.
fn fused(launch: &Launch, memory: &dyn Memory, data: DType, moments: DType) -> Result<(), Fault> {
    let (images, channels, groups) = (long(launch, 0)?, long(launch, 1)?, long(launch, 2)?);
    if groups <= 0 {
        return Ok(());
    }
    let moment =
        |index| Source::new(memory, pointer(launch, index)?, moments, (images * groups) as u64);
    let (mean, rstd) = (moment(3)?, moment(4)?);
    let weights = |index| match pointer(launch, index)? {
        0 => Ok(None),
        address => Source::new(memory, address, data, channels as u64).map(Some),
    };
    let (gamma, beta) = (weights(5)?, weights(6)?);
    let to = |index| {
        Target::new(memory, pointer(launch, index)?, data.opmath(), (images * channels) as u64)
    };
    let (a, b) = (to(7)?, to(8)?);
    for index in 0..images * channels {
        let group = (index / (channels / groups)) as u64;
        let channel = (index % channels) as u64;
        let scale = rstd.get::<f32>(group) * gamma.map_or(1.0, |gamma| gamma.get(channel));
        a.store(index as u64, &[scale]);
        let shift = beta.map_or(0.0, |beta| beta.get::<f32>(channel));
        b.store(index as u64, &[shift - scale * mean.get::<f32>(group)]);
    }
    Ok(())
}

fn upsample(launch: &Launch, memory: &dyn Memory, data: DType, exact: bool) -> Result<(), Fault> {
    let size = |index| long(launch, index).map(|size| size.max(0) as u64);
    let (planes, height, width) = (size(2)?, size(3)?, size(4)?);
    let (out_height, out_width) = (size(5)?, size(6)?);
    let scale = |index| Cursor::parameter(launch, index)?.scalar::<f32>(DType::F32);
    let (scale_h, scale_w) = (scale(7)?, scale(8)?);
    let from = Source::new(memory, pointer(launch, 0)?, data, planes * height * width)?;
    let to = Target::new(memory, pointer(launch, 1)?, data, planes * out_height * out_width)?;
    let half = if exact { 0.5 } else { 0.0 };
    let nearest = |at: u64, scale: f32, old: u64, new: u64| {
        let source = ((at as f32 + half) * scale).floor() as u64;
        if old == new { at } else { source.min(old.saturating_sub(1)) }
    };
    let mut line = vec![0f32; width as usize];
    let mut row = vec![0f32; out_width as usize];
    for plane in 0..planes {
        for y in 0..out_height {
            let source = nearest(y, scale_h, height, out_height);
            from.load((plane * height + source) * width, &mut line);
            for (x, value) in row.iter_mut().enumerate() {
                *value = line[nearest(x as u64, scale_w, width, out_width) as usize];
            }
            to.store((plane * out_height + y) * out_width, &row);
        }
    }
    Ok(())
}
