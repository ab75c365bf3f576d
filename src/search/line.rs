//! Finds the least value of a function on a line, on a grid that grows until the least lies inside or the function is level.

use super::outcome::SearchEnd;
use crate::error::{Error, Result};

/// Steps by which a grid grows, and over which a function must be level to end there.
const GROWTH: usize = 8;

/// How a line is searched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    /// Step of the grid.
    pub step: f64,
    /// Width at which an optimum inside is found.
    pub width: f64,
    /// Differences of the function up to this are none.
    pub level: f64,
    /// No point is farther from 0 than this, or than the span that is searched in any case.
    pub limit: f64,
}

/// The least value on a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LineMinimum {
    /// Where it is.
    pub at: f64,
    /// What it is.
    pub value: f64,
    /// Between which points it was sought.
    pub bounds: (f64, f64),
    /// Whether it lies between them.
    pub end: SearchEnd,
}

/// The points of a grid, ascending, with the value of the function at each.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Grid {
    pub points: Vec<(f64, f64)>,
    /// Where the search ended: the least point inside, or an edge.
    pub best: usize,
    pub end: SearchEnd,
}

impl Grid {
    /// Between which points was sought.
    pub(crate) fn bounds(&self) -> (f64, f64) {
        (self.points[0].0, self.points[self.points.len() - 1].0)
    }
}

impl Line {
    /// The least value of `f`, of which the search begins at 0: [`Line::grid`], then golden sections.
    ///
    /// # Errors
    /// As [`Line::grid`].
    pub(crate) fn minimize(&self, span: (f64, f64), mut f: impl FnMut(f64) -> Result<f64>) -> Result<LineMinimum> {
        let grid = self.grid(span, &mut f)?;
        let (bounds, end) = (grid.bounds(), grid.end);
        let (at, value) = match end {
            SearchEnd::Inside => {
                let (below, above) = (grid.points[grid.best - 1].0, grid.points[grid.best + 1].0);
                self.golden(below, above, &mut f)?
            }
            SearchEnd::Undetermined => (0.0, f(0.0)?),
            SearchEnd::AtLower | SearchEnd::AtUpper => grid.points[grid.best],
        };
        Ok(LineMinimum { at, value, bounds, end })
    }

    /// A grid over `span`, which grows where the least value is at its edge and `f` still changes there.
    ///
    /// Where all points from the least to an edge are level with it the search ends at that edge, for nothing beyond is better or
    /// worse; where they are so to both edges it is undetermined. `span` must reach as far as `f` may have structure: a function
    /// that is level over eight steps and falls again beyond is not seen to fall.
    ///
    /// # Errors
    /// As `f`, or if it is finite nowhere.
    pub(crate) fn grid(&self, span: (f64, f64), mut f: impl FnMut(f64) -> Result<f64>) -> Result<Grid> {
        let (first, last) = ((span.0 / self.step).floor() as i64, (span.1 / self.step).ceil() as i64);
        let most = ((self.limit / self.step) as i64).max(last.abs()).max(first.abs());
        let growth = GROWTH as i64;
        let mut over = |low: i64, high: i64| -> Result<Vec<(f64, f64)>> {
            let point = |index| {
                let (x, value) = (index as f64 * self.step, f(index as f64 * self.step)?);
                Ok((x, if value.is_nan() { f64::INFINITY } else { value }))
            };
            (low..=high).map(point).collect()
        };
        let (mut low, mut high) = (first, last);
        let mut points = over(low, high)?;
        loop {
            let best = (0..points.len()).fold(0, |best, k| if points[k].1 < points[best].1 { k } else { best });
            let (least, edge) = (points[best].1, points.len() - 1);
            if !least.is_finite() {
                return Err(Error::numerical("search on a line", "the function is finite nowhere"));
            }
            let is_level = |(_, value): &&(f64, f64)| *value <= least + self.level;
            let below = points[..best].iter().rev().take_while(is_level).count();
            let above = points[best + 1..].iter().take_while(is_level).count();
            // the level stretch holds the least itself
            let is_long = below + above >= GROWTH;
            let (best, end) = match (below == best, above == edge - best) {
                (true, true) => (best, SearchEnd::Undetermined),
                (false, false) => (best, SearchEnd::Inside),
                (true, false) if is_long || low <= -most => (0, SearchEnd::AtLower),
                (false, true) if is_long || high >= most => (edge, SearchEnd::AtUpper),
                (true, false) => {
                    let grown = over(low - growth, low - 1)?;
                    points.splice(..0, grown);
                    low -= growth;
                    continue;
                }
                (false, true) => {
                    points.extend(over(high + 1, high + growth)?);
                    high += growth;
                    continue;
                }
            };
            return Ok(Grid { points, best, end });
        }
    }

    /// Golden sections between two points around a least one.
    fn golden(&self, mut low: f64, mut high: f64, f: &mut impl FnMut(f64) -> Result<f64>) -> Result<(f64, f64)> {
        let golden = (5f64.sqrt() - 1.0) / 2.0;
        let (mut a, mut b) = (high - golden * (high - low), low + golden * (high - low));
        let (mut at_a, mut at_b) = (f(a)?, f(b)?);
        while high - low > self.width {
            if at_a <= at_b {
                (high, b, at_b) = (b, a, at_a);
                a = high - golden * (high - low);
                at_a = f(a)?;
            } else {
                (low, a, at_a) = (a, b, at_b);
                b = low + golden * (high - low);
                at_b = f(b)?;
            }
        }
        let middle = 0.5 * (low + high);
        Ok((middle, f(middle)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: Line = Line { step: 0.5, width: 1e-4, level: 1e-7, limit: 100.0 };

    fn minimum(f: impl Fn(f64) -> f64) -> LineMinimum {
        LINE.minimize((-4.0, 4.0), |x| Ok(f(x))).unwrap()
    }

    #[test]
    fn a_least_value_is_found_inside_and_far_outside_of_the_first_span() {
        for target in [-3.3, 0.0, 3.9, -37.2, 61.0] {
            let found = minimum(|x| (x - target).powi(2));
            // the width at which the search ends
            assert!((found.at - target).abs() < 1e-4 && found.end == SearchEnd::Inside, "{found:?}");
            assert!(found.bounds.0 <= target && target <= found.bounds.1);
        }
    }

    #[test]
    fn a_search_ends_at_an_edge_where_the_function_is_level_and_at_its_limit() {
        let falls = minimum(|x| (-x).exp());
        // e^-x changes by less than 1e-7 over four units from x = 16 on
        assert!(falls.end == SearchEnd::AtUpper && falls.at >= 16.0 && falls.at < 30.0, "{falls:?}");
        assert_eq!(falls.at, falls.bounds.1);
        let rises = minimum(f64::exp);
        assert_eq!((rises.end, rises.at), (SearchEnd::AtLower, rises.bounds.0));
        let without_end = minimum(|x| -x);
        assert_eq!((without_end.end, without_end.at), (SearchEnd::AtUpper, 100.0));
        let flat = minimum(|_| 0.3);
        assert_eq!((flat.end, flat.at, flat.value), (SearchEnd::Undetermined, 0.0, 0.3));
    }

    #[test]
    fn what_is_finite_nowhere_is_refused() {
        let error = LINE.minimize((-1.0, 1.0), |_| Ok(f64::NAN)).unwrap_err().to_string();
        assert!(error.contains("finite nowhere"), "{error}");
    }
}
