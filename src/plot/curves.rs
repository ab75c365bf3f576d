//! Draws curves over a logarithmic axis, such as the log evidence over the prior precision, or over a linear one, such as risk

mod draw;

use super::palette::CURVES;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Most curves that an eye keeps apart.
const MAX_CURVES: usize = 2 * CURVES.len();
/// Most marks whose labels fit above the curves.
const MAX_MARKS: usize = 6;

/// A line through points, which are joined in ascending order of x.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Written in the key.
    pub name: String,
    /// At least two pairs of x, positive on a logarithmic axis, and y, in any order.
    pub points: Vec<(f64, f64)>,
}

/// A vertical line at a value of x that deserves attention.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// Where it stands.
    pub x: f64,
    /// Written beside its upper end.
    pub label: String,
}

/// How a horizontal axis places its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AxisScale {
    /// By their logarithms.
    #[default]
    Logarithmic,
    /// As they are.
    Linear,
}

impl AxisScale {
    fn place(self, x: f64) -> f64 {
        if self == Self::Logarithmic { x.log10() } else { x }
    }
}

/// Draws one to twelve curves of the same quantity over the same axis, and up to six marks.
///
///
/// A prior precision, or a factor on a covariance, is searched over powers of ten. Drawn so, the curve tells whether the
/// chosen value lies at a clear optimum, on a plateau, or at the end of what was searched.
///
/// ```
/// use bayes_lora::plot::CurveChart;
///
/// let precisions = (-8..=8).map(|i| 10f64.powf(f64::from(i) / 2.0));
/// let evidence = precisions.map(|p| (p, -410.0 - 12.0 * (p / 20.0).ln().powi(2) / (1.0 + p.sqrt()))).collect();
/// let figure = CurveChart::new("prior precision λ", "log evidence in nats")
///     .with_curve("Kronecker-factored Laplace", evidence)
///     .with_mark(20.0, "chosen λ = 20")
///     .figure()?;
///
/// let dir = std::env::temp_dir().join(format!("bayes-lora-curves-{}", std::process::id()));
/// figure.save(&dir, "evidence")?;
/// # std::fs::remove_dir_all(&dir).ok();
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
///
/// The vertical axis is linear. Both axes span all curves, the horizontal one also the marks. A curve of at most twenty
/// points has a dot at each, so that it shows where it was evaluated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CurveChart {
    /// Name of the horizontal axis.
    pub x_label: String,
    /// Name of the vertical axis.
    pub y_label: String,
    /// Scale of the horizontal axis.
    #[serde(default)]
    pub x_scale: AxisScale,
    /// Width and height of the frame in drawing units.
    #[serde(default = "usual_size")]
    pub size: (f64, f64),
    /// Each with a colour and a dash pattern of its own.
    pub curves: Vec<Curve>,
    /// Drawn under the curves, dashed and grey.
    pub marks: Vec<Mark>,
}

impl CurveChart {
    /// Starts a chart without curves or marks, over a logarithmic axis, 420 units wide and 280 high.
    pub fn new(x_label: impl Into<String>, y_label: impl Into<String>) -> Self {
        Self {
            x_label: x_label.into(),
            y_label: y_label.into(),
            x_scale: AxisScale::default(),
            size: usual_size(),
            curves: Vec::new(),
            marks: Vec::new(),
        }
    }

    /// Sets the scale of the horizontal axis.
    pub fn with_x_scale(self, x_scale: AxisScale) -> Self {
        Self { x_scale, ..self }
    }

    /// Sets width and height of the frame in drawing units, each at least 100.
    pub fn with_size(self, width: f64, height: f64) -> Self {
        Self { size: (width, height), ..self }
    }

    /// Adds a curve through pairs of x and y.
    pub fn with_curve(mut self, name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        let name = name.into();
        self.curves.push(Curve { name, points });
        self
    }

    /// Adds a vertical line with a short label.
    pub fn with_mark(mut self, x: f64, label: impl Into<String>) -> Self {
        let label = label.into();
        self.marks.push(Mark { x, label });
        self
    }

    fn check(&self) -> Result<()> {
        if self.curves.is_empty() {
            return Err(Error::empty("list of curves"));
        }
        if self.curves.len() > MAX_CURVES {
            let bound = format!("at most {MAX_CURVES} (a colour and a dash pattern each)");
            return Err(Error::config("curves", bound, self.curves.len()));
        }
        for (what, length) in [("width of the frame", self.size.0), ("height of the frame", self.size.1)] {
            if !(100.0..=10_000.0).contains(&length) {
                return Err(Error::config(what, "between 100 and 10000", length));
            }
        }
        if self.marks.len() > MAX_MARKS {
            return Err(Error::config("marks", format!("at most {MAX_MARKS}"), self.marks.len()));
        }
        for Curve { name, points } in &self.curves {
            match points.len() {
                0 => return Err(Error::empty(format!("curve `{name}`"))),
                1 => return Err(Error::config(format!("points of curve `{name}`"), "at least 2", 1)),
                _ => {}
            }
            for (i, &(x, y)) in points.iter().enumerate() {
                self.check_x(x, || format!("curve `{name}`, point {i}"))?;
                if !y.is_finite() {
                    return Err(Error::config(format!("curve `{name}`, point {i}, y"), "finite", y));
                }
            }
        }
        self.marks.iter().try_for_each(|mark| self.check_x(mark.x, || format!("mark `{}`", mark.label)))
    }

    /// Refuses what has no place on the axis.
    fn check_x(&self, x: f64, place: impl Fn() -> String) -> Result<()> {
        let (fits, bound) = match self.x_scale {
            AxisScale::Logarithmic => (x > 0.0 && x.is_finite(), "positive and finite on a logarithmic axis"),
            AxisScale::Linear => (x.is_finite(), "finite"),
        };
        if fits {
            return Ok(());
        }
        Err(Error::config(format!("{}, x", place()), bound, x))
    }
}

fn usual_size() -> (f64, f64) {
    (420.0, 280.0)
}

#[cfg(test)]
mod tests;
