//! Abuse of sockets: whoever connects, sends or reads as no game does harms itself at most. Each is a
//! row of figures with what they may be at most.

use std::fmt;
use std::time::Duration;

/// What one abuse did.
#[derive(Clone, Debug)]
pub struct Abuse {
    /// Which abuse.
    pub name: &'static str,
    /// How many of what.
    pub size: String,
    /// What was measured.
    pub figures: Vec<Figure>,
}

/// A figure, and its bound.
#[derive(Clone, Debug)]
pub struct Figure {
    what: &'static str,
    value: f64,
    at_most: Option<f64>,
}

impl Figure {
    /// A figure for the reader alone.
    pub(super) fn told(what: &'static str, value: f64) -> Self {
        Self { what, value, at_most: None }
    }

    /// A figure that must not be more than this.
    pub(super) fn at_most(what: &'static str, value: f64, at_most: f64) -> Self {
        Self { what, value, at_most: Some(at_most) }
    }
}

impl Abuse {
    /// # Panics
    ///
    /// When a figure is more than it may be.
    pub fn must_hold(&self) {
        for Figure { what, value, at_most } in &self.figures {
            let holds = at_most.is_none_or(|most| *value <= most);
            assert!(holds, "{}: {what} is {value}, of {at_most:?} at most: {self}", self.name);
        }
    }
}

impl fmt::Display for Abuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "| {} | {} | ", self.name, self.size)?;
        for (number, Figure { what, value, at_most }) in self.figures.iter().enumerate() {
            let comma = if number == 0 { "" } else { "; " };
            let digits = usize::from(value.fract() != 0.0);
            write!(f, "{comma}{what} {value:.digits$}")?;
            if let Some(most) = at_most {
                write!(f, " (≤ {most})")?;
            }
        }
        f.write_str(" |")
    }
}

/// The value below which so many of a hundred are, in milliseconds.
pub(super) fn percentile(times: &mut [Duration], hundredths: usize) -> f64 {
    times.sort_unstable();
    let at = (times.len() * hundredths).div_ceil(100).saturating_sub(1);
    times.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}

/// Bytes in MiB.
#[expect(clippy::cast_precision_loss, reason = "memory of a process")]
pub(super) fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn abuse(figures: Vec<Figure>) -> Abuse {
        Abuse { name: "T00 a flood", size: "10 games".into(), figures }
    }

    #[test]
    fn a_row_tells_each_figure_and_its_bound() {
        let row = abuse(vec![Figure::told("lines", 7.0), Figure::at_most("ms", 1.25, 2.0)]);
        row.must_hold();
        assert_eq!(row.to_string(), "| T00 a flood | 10 games | lines 7; ms 1.2 (≤ 2) |");
    }

    #[test]
    #[should_panic(expected = "ms is 2.1")]
    fn a_row_with_a_figure_past_its_bound_fails() {
        abuse(vec![Figure::at_most("ms", 2.1, 2.0)]).must_hold();
    }

    #[test]
    #[should_panic(expected = "ms is NaN")]
    fn a_row_in_which_nothing_was_measured_fails() {
        abuse(vec![Figure::at_most("ms", percentile(&mut [], 99), 2.0)]).must_hold();
    }

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let mut times: Vec<_> = (1..=200).rev().map(Duration::from_millis).collect();
        assert!((percentile(&mut times, 99) - 198.0).abs() < 0.001);
        assert!((percentile(&mut times[..1], 99) - 1.0).abs() < 0.001);
    }
}
