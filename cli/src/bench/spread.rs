//! Median, 90th percentile and worst of ratios.

use serde_json::{Value, json};

/// By nearest rank: every figure is one that was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    pub cells: usize,
    /// `None`, like the others, where there is no cell.
    pub median: Option<f64>,
    pub p90: Option<f64>,
    pub worst: Option<f64>,
}

impl Spread {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |permille: usize| {
            let rank = (permille * values.len()).div_ceil(1000).max(1);
            values.get(rank - 1).copied()
        };
        Self { cells: values.len(), median: at(500), p90: at(900), worst: at(1000) }
    }

    pub fn json(&self) -> Value {
        json!({ "cells": self.cells, "median": self.median.map(rounded),
                "p90": self.p90.map(rounded), "worst": self.worst.map(rounded) })
    }

    /// `more` beside the figures.
    pub fn json_with(&self, more: Value) -> Value {
        let mut made = self.json();
        if let (Value::Object(made), Value::Object(more)) = (&mut made, more) {
            made.extend(more);
        }
        made
    }
}

/// A ratio as it is written: what is below a millionth is noise of the arithmetic.
pub fn rounded(ratio: f64) -> f64 {
    (ratio * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_rank() {
        let spread = Spread::of((1..=10).rev().map(f64::from));
        assert_eq!(spread.median, Some(5.0));
        assert_eq!(spread.p90, Some(9.0));
        assert_eq!(spread.worst, Some(10.0));
        assert_eq!(Spread::of([7.0]).median, Some(7.0));
        assert_eq!(Spread::of([]).worst, None);
    }
}
