//! What operations need of the lane types: PyTorch's meaning of arithmetic,
//! `%`, `//`, minimum and maximum on each of them.
//!
//! Not here: which functor computes what (see `ops`).

use crate::value::Lane;

/// Arithmetic every lane type has. Integers wrap, as they do on the device.
pub trait Arithmetic: Lane {
    fn add(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    fn abs(self) -> Self;
    fn neg(self) -> Self;
    fn sign(self) -> Self;
    fn is_nan(self) -> bool;
    /// C's `fmod` and integer `%`: the sign of the dividend.
    fn fmod(self, other: Self) -> Self;
    fn div_trunc(self, other: Self) -> Self;
    fn pow(self, exponent: Self) -> Self;

    /// Python's `%`: the sign of the divisor.
    fn remainder(self, other: Self) -> Self {
        let zero = Self::default();
        let rest = self.fmod(other);
        if rest != zero && (rest < zero) != (other < zero) { rest.add(other) } else { rest }
    }

    /// Python's `//`.
    fn div_floor(self, other: Self) -> Self;

    /// PyTorch's minimum and maximum: a NaN wins.
    fn minimum(self, other: Self) -> Self {
        if self.is_nan() || self < other { self } else { other }
    }
    fn maximum(self, other: Self) -> Self {
        if self.is_nan() || self > other { self } else { other }
    }
}

impl Arithmetic for i64 {
    fn add(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
    fn mul(self, other: Self) -> Self {
        self.wrapping_mul(other)
    }
    // Division by zero is undefined on the device; it must not panic here.
    fn div(self, other: Self) -> Self {
        if other == 0 { -1 } else { self.wrapping_div(other) }
    }
    fn abs(self) -> Self {
        self.wrapping_abs()
    }
    fn neg(self) -> Self {
        self.wrapping_neg()
    }
    fn sign(self) -> Self {
        self.signum()
    }
    fn is_nan(self) -> bool {
        false
    }
    fn fmod(self, other: Self) -> Self {
        if other == 0 { self } else { self.wrapping_rem(other) }
    }
    fn div_trunc(self, other: Self) -> Self {
        self.div(other)
    }
    fn div_floor(self, other: Self) -> Self {
        let quotient = self.div(other);
        let rest = self.fmod(other);
        if rest != 0 && (rest < 0) != (other < 0) { quotient - 1 } else { quotient }
    }
    fn pow(self, exponent: Self) -> Self {
        if exponent >= 0 {
            let (mut result, mut base, mut left) = (1i64, self, exponent);
            while left > 0 {
                if left & 1 == 1 {
                    result = result.wrapping_mul(base);
                }
                base = base.wrapping_mul(base);
                left >>= 1;
            }
            return result;
        }
        match self {
            1 => 1,
            -1 => {
                if exponent % 2 == 0 {
                    1
                } else {
                    -1
                }
            }
            _ => 0,
        }
    }
}

/// What only floating-point lanes can do.
pub trait Real: Arithmetic {
    fn of(value: f64) -> Self;
    fn exp(self) -> Self;
    fn expm1(self) -> Self;
    fn ln_1p(self) -> Self;
    fn tanh(self) -> Self;
    fn erf(self) -> Self;
    fn sqrt(self) -> Self;
    /// One-argument functions by the name PyTorch's kernels carry.
    fn named(name: &str) -> Option<fn(Self) -> Self>;
    fn atan2(self, other: Self) -> Self;
    fn copysign(self, sign: Self) -> Self;

    fn gelu_tanh(self) -> Self {
        let beta = Self::of(std::f64::consts::SQRT_2 * std::f64::consts::FRAC_2_SQRT_PI * 0.5);
        let cube = self.mul(self).mul(self);
        let inner = beta.mul(self.add(Self::of(0.044715).mul(cube)));
        Self::of(0.5).mul(self).mul(Self::of(1.0).add(inner.tanh()))
    }

    fn gelu_erf(self) -> Self {
        let scaled = self.mul(Self::of(std::f64::consts::FRAC_1_SQRT_2));
        self.mul(Self::of(0.5)).mul(Self::of(1.0).add(scaled.erf()))
    }

    fn gelu_tanh_slope(self) -> Self {
        let (half, one) = (Self::of(0.5), Self::of(1.0));
        let beta = Self::of(std::f64::consts::SQRT_2 * std::f64::consts::FRAC_2_SQRT_PI * 0.5);
        let square = self.mul(self);
        let inner = beta.mul(self.add(Self::of(0.044715).mul(square).mul(self)));
        let tanh = inner.tanh();
        let slope = beta.mul(one.add(Self::of(3.0 * 0.044715).mul(square)));
        let left = half.mul(one.add(tanh));
        left.add(half.mul(self).mul(one.add(tanh.mul(tanh).neg())).mul(slope))
    }

    fn gelu_erf_slope(self) -> Self {
        let half = Self::of(0.5);
        let beta =
            Self::of(std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2 * 0.5);
        let scaled = self.mul(Self::of(std::f64::consts::FRAC_1_SQRT_2));
        let distribution = half.mul(Self::of(1.0).add(scaled.erf()));
        let density = half.neg().mul(self).mul(self).exp().mul(beta);
        distribution.add(self.mul(density))
    }
}

macro_rules! real {
    ($t:ty, $erf:path) => {
        impl Arithmetic for $t {
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self + other
            }
            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                self * other
            }
            #[inline(always)]
            fn div(self, other: Self) -> Self {
                self / other
            }
            #[inline(always)]
            fn abs(self) -> Self {
                self.abs()
            }
            #[inline(always)]
            fn neg(self) -> Self {
                -self
            }
            #[inline(always)]
            fn sign(self) -> Self {
                (self > 0.0) as i8 as $t - (self < 0.0) as i8 as $t
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                self.is_nan()
            }
            fn fmod(self, other: Self) -> Self {
                self % other
            }
            fn div_trunc(self, other: Self) -> Self {
                (self / other).trunc()
            }
            fn div_floor(self, other: Self) -> Self {
                if other == 0.0 {
                    return self / other;
                }
                let rest = self % other;
                let mut quotient = (self - rest) / other;
                if rest != 0.0 && (other < 0.0) != (rest < 0.0) {
                    quotient -= 1.0;
                }
                if quotient == 0.0 {
                    return (0.0 as $t).copysign(self / other);
                }
                let floor = quotient.floor();
                if quotient - floor > 0.5 { floor + 1.0 } else { floor }
            }
            fn pow(self, exponent: Self) -> Self {
                self.powf(exponent)
            }
        }

        impl Real for $t {
            #[inline(always)]
            fn of(value: f64) -> Self {
                value as $t
            }
            #[inline(always)]
            fn exp(self) -> Self {
                self.exp()
            }
            #[inline(always)]
            fn expm1(self) -> Self {
                self.exp_m1()
            }
            #[inline(always)]
            fn ln_1p(self) -> Self {
                self.ln_1p()
            }
            #[inline(always)]
            fn tanh(self) -> Self {
                self.tanh()
            }
            #[inline(always)]
            fn erf(self) -> Self {
                $erf(self)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                self.sqrt()
            }
            fn atan2(self, other: Self) -> Self {
                self.atan2(other)
            }
            fn copysign(self, sign: Self) -> Self {
                self.copysign(sign)
            }

            fn named(name: &str) -> Option<fn(Self) -> Self> {
                Some(match name {
                    "exp" => |x| x.exp(),
                    "exp2" => |x| x.exp2(),
                    "expm1" => |x| x.exp_m1(),
                    "log" => |x| x.ln(),
                    "log2" => |x| x.log2(),
                    "log10" => |x| x.log10(),
                    "log1p" => |x| x.ln_1p(),
                    "sqrt" => |x| x.sqrt(),
                    "rsqrt" => |x| 1.0 / x.sqrt(),
                    "reciprocal" => |x| 1.0 / x,
                    "sin" => |x| x.sin(),
                    "cos" => |x| x.cos(),
                    "tan" => |x| x.tan(),
                    "asin" => |x| x.asin(),
                    "acos" => |x| x.acos(),
                    "atan" => |x| x.atan(),
                    "sinh" => |x| x.sinh(),
                    "cosh" => |x| x.cosh(),
                    "tanh" => |x| x.tanh(),
                    "asinh" => |x| x.asinh(),
                    "acosh" => |x| x.acosh(),
                    "atanh" => |x| x.atanh(),
                    "erf" => |x| $erf(x),
                    "erfc" => |x| 1.0 - $erf(x),
                    "sigmoid" => |x| 1.0 / (1.0 + (-x).exp()),
                    "ceil" => |x| x.ceil(),
                    "floor" => |x| x.floor(),
                    "round" => |x| x.round_ties_even(),
                    "trunc" => |x| x.trunc(),
                    "frac" => |x| x - x.trunc(),
                    _ => return None,
                })
            }
        }
    };
}
real!(f32, libm::erff);
real!(f64, libm::erf);
