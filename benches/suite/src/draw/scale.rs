//! Scales: from values to places, and where to put ticks.

/// Maps values from a range to places on an axis, logarithmically.
#[derive(Clone, Copy, Debug)]
pub struct Log {
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Log {
    /// A scale on which all `values` have a place, from the power of ten below the least to the next
    /// of 1, 2, 5 after the most; `from` and `to` are the ends of the axis. Values that are not
    /// positive have no place and are ignored; without any the scale is that of 1.
    pub fn around(values: impl IntoIterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.into_iter().filter(|value| *value > 0.0 && value.is_finite()) {
            least = least.min(value);
            most = most.max(value);
        }
        if least > most {
            (least, most) = (1.0, 1.0);
        }
        let least = 10f64.powf(least.log10().floor());
        let decade = 10f64.powf(most.log10().floor());
        let end = [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * decade);
        let most = end.into_iter().find(|end| *end >= most).unwrap_or(decade * 10.0);
        Log { least, most: most.max(2.0 * least), from, to }
    }

    /// The place of a value; those outside of the range are put at its ends.
    pub fn place(&self, value: f64) -> f64 {
        let value = value.clamp(self.least, self.most);
        let part = (value / self.least).log10() / (self.most / self.least).log10();
        self.from + part * (self.to - self.from)
    }

    /// The powers of ten on the scale; with few of them, also their double and fivefold.
    pub fn ticks(&self) -> Vec<f64> {
        let (first, last) = (self.least.log10().round() as i32, self.most.log10().floor() as i32);
        let steps: &[f64] = if last - first < 3 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let ticks =
            (first..=last).flat_map(|power| steps.iter().map(move |s| s * 10f64.powi(power)));
        ticks.filter(|tick| *tick <= self.most * 1.000_001).collect()
    }
}

/// Maps values from zero on to places on an axis, evenly.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    step: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Linear {
    /// A scale from zero to the next tick after the greatest of the values, with about so many ticks;
    /// `from` and `to` are the ends of the axis. Without a value above zero the scale is that of 1.
    pub fn around(values: impl IntoIterator<Item = f64>, ticks: usize, from: f64, to: f64) -> Self {
        let most = values.into_iter().filter(|value| value.is_finite()).fold(0.0, f64::max);
        let most = if most > 0.0 { most } else { 1.0 };
        let rough = most / ticks.max(1) as f64;
        let decade = 10f64.powf(rough.log10().floor());
        let steps = [1.0, 2.0, 5.0].into_iter().map(|step| step * decade);
        let step = steps.into_iter().find(|step| *step >= rough).unwrap_or(decade * 10.0);
        Linear { step, most: (most / step).ceil() * step, from, to }
    }

    /// The same, ending at the greatest value instead of at a tick.
    pub fn until(most: f64, step: f64, from: f64, to: f64) -> Self {
        Linear { step, most, from, to }
    }

    /// The place of a value; those outside of the range are put at its ends.
    pub fn place(&self, value: f64) -> f64 {
        self.from + value.clamp(0.0, self.most) / self.most * (self.to - self.from)
    }

    /// Zero and the multiples of the step that are on the scale.
    pub fn ticks(&self) -> Vec<f64> {
        let count = (self.most / self.step + 1e-9).floor() as usize;
        (0..=count).map(|number| number as f64 * self.step).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decades_are_equally_long() {
        let scale = Log::around([3.0, 700.0], 0.0, 300.0);
        assert!((scale.place(1.0) - 0.0).abs() < 1e-9);
        assert!((scale.place(1000.0) - 300.0).abs() < 1e-9);
        assert!((scale.place(10.0) - 100.0).abs() < 1e-9);
        assert_eq!(scale.ticks(), [1.0, 10.0, 100.0, 1000.0]);
    }

    #[test]
    fn a_linear_scale_ends_at_a_round_tick() {
        let scale = Linear::around([3.0, 47.0], 5, 100.0, 0.0);
        assert_eq!(scale.ticks(), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]);
        assert!((scale.place(0.0) - 100.0).abs() < 1e-9 && scale.place(50.0).abs() < 1e-9);
        assert_eq!(Linear::around([], 4, 0.0, 1.0).ticks().last(), Some(&1.0));
        assert_eq!(Linear::until(60.0, 10.0, 0.0, 6.0).ticks().len(), 7);
    }

    #[test]
    fn without_values_there_is_still_a_scale() {
        let scale = Log::around([0.0], 0.0, 10.0);
        assert!(scale.place(1.0).is_finite() && !scale.ticks().is_empty());
    }
}
