//! Draws the matrix of P(better): how sure it is that the method of a row beats the method of a column.

use super::Figure;
use super::axes::{MARGIN, NAME_SIZE, TICK_SIZE, shortened};
use super::canvas::{Canvas, Rect, Stroke};
use super::palette::{FAINT, GREY, WHITE, diverging};
use super::text::{Anchor, TextStyle, fit, width};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Most methods of a matrix.
const MAX_METHODS: usize = 100;
const CELL: (f64, f64) = (38.0, 21.0);
/// Most room for the name of a row.
const ROW_ROOM: f64 = 250.0;
/// Most room for the name of a column, which reads upward.
const COLUMN_ROOM: f64 = 170.0;
const HEAD: f64 = 26.0;
const SPACE: f64 = 6.0;
/// The page is at least so wide, so that its texts fit.
const NARROWEST: f64 = 360.0;

/// Posterior probabilities that the method of a row is better than the method of a column, on one metric.
///
/// ```
/// use bayes_lora::plot::BetterMatrix;
///
/// let values = vec![vec![0.5, 0.03], vec![0.97, 0.5]];
/// let figure = BetterMatrix::new("NLL", ["maximum likelihood", "Laplace"], values).figure()?;
/// assert!(figure.svg_without_font().contains("0.97"));
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BetterMatrix {
    /// Name of the metric.
    pub metric: String,
    /// The methods, in the order of rows and columns; at most 100.
    pub names: Vec<String>,
    /// `[n_methods][n_methods]`, each in [0, 1]; the diagonal is not drawn.
    pub values: Vec<Vec<f64>>,
}

impl BetterMatrix {
    /// Takes the matrix.
    pub fn new(
        metric: impl Into<String>,
        names: impl IntoIterator<Item = impl Into<String>>,
        values: Vec<Vec<f64>>,
    ) -> Self {
        Self { metric: metric.into(), names: names.into_iter().map(Into::into).collect(), values }
    }

    /// Draws a coloured cell with its number for every pair.
    ///
    /// # Errors
    /// [`Error::Empty`] without methods, [`Error::Config`] beyond 100 or for a value outside [0, 1], [`Error::Count`] where
    /// the matrix does not have a row and a column for each method.
    pub fn figure(&self) -> Result<Figure> {
        self.check()?;
        Figure::of("better matrix", self.draw(), self)
    }

    fn check(&self) -> Result<()> {
        let n = self.names.len();
        if n == 0 {
            return Err(Error::empty("list of methods"));
        }
        if n > MAX_METHODS {
            return Err(Error::config("methods", format!("at most {MAX_METHODS}"), n));
        }
        if self.values.len() != n {
            return Err(Error::Count { what: "rows of the matrix".into(), expected: n, found: self.values.len() });
        }
        for (name, row) in self.names.iter().zip(&self.values) {
            if row.len() != n {
                let what = format!("columns in the row of `{name}`");
                return Err(Error::Count { what, expected: n, found: row.len() });
            }
            // written so that NaN fails too
            if let Some(value) = row.iter().find(|value| !(0.0..=1.0).contains(*value)) {
                return Err(Error::config(format!("P(better) in the row of `{name}`"), "in [0, 1]", value));
            }
        }
        Ok(())
    }

    fn draw(&self) -> Canvas {
        let set = |room: f64| -> Vec<(String, u32)> {
            self.names.iter().map(|name| fit(name, TICK_SIZE, TICK_SIZE - 1, room)).collect()
        };
        let longest = |names: &[(String, u32)]| names.iter().map(|(n, s)| width(n, *s)).fold(0.0, f64::max);
        let (rows, columns) = (set(ROW_ROOM), set(COLUMN_ROOM));
        let left = MARGIN + longest(&rows) + SPACE;
        let top = HEAD + longest(&columns) + SPACE;
        let n = self.names.len() as f64;
        let (right, bottom) = (left + n * CELL.0, top + n * CELL.1);
        let page = (right + MARGIN).max(NARROWEST);
        let mut canvas = Canvas::new(page, bottom + 22.0);
        let title = shortened(&format!("P(row better than column), {}", self.metric), page - 2.0 * MARGIN);
        canvas.text(MARGIN, 16.0, &title, TextStyle::plain(NAME_SIZE));
        for (i, ((row, row_size), (column, column_size))) in rows.iter().zip(&columns).enumerate() {
            let style = TextStyle::plain(*row_size).anchored(Anchor::End);
            let y = top + (i as f64 + 0.5) * CELL.1 + style.middle_to_baseline();
            canvas.text(left - SPACE, y, row, style);
            let style = TextStyle::plain(*column_size).upward();
            let x = left + (i as f64 + 0.5) * CELL.0 + style.middle_to_baseline();
            canvas.text(x, top - SPACE, column, style);
        }
        for (i, row) in self.values.iter().enumerate() {
            for (j, &value) in row.iter().enumerate() {
                let cell =
                    Rect { x: left + j as f64 * CELL.0, y: top + i as f64 * CELL.1, width: CELL.0, height: CELL.1 };
                let fill = if i == j { FAINT } else { diverging(value) };
                canvas.rect(cell, Some(fill), Some(Stroke::solid(WHITE, 1.0)));
                if i != j {
                    let style = TextStyle::plain(9).anchored(Anchor::Middle);
                    let (x, y) = cell.center();
                    canvas.text(x, y + style.middle_to_baseline(), &written(value), style);
                }
            }
        }
        let legend = "blue: the row is better · orange: the column is better";
        canvas.text(MARGIN, bottom + 15.0, legend, TextStyle::plain(9).colored(GREY));
        canvas
    }
}

/// Two digits, without claiming a certainty that draws cannot give.
fn written(value: f64) -> String {
    match value {
        v if v < 0.005 => "<0.01".into(),
        v if v > 0.995 => ">0.99".into(),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix() -> BetterMatrix {
        let values = vec![vec![0.5, 0.9996, 0.2], vec![0.0004, 0.5, 0.25], vec![0.8, 0.75, 0.5]];
        BetterMatrix::new("NLL", ["A & B", "C", "D"], values)
    }

    #[test]
    fn names_and_numbers_are_in_the_picture_but_for_the_diagonal() {
        let svg = matrix().figure().unwrap().shapes();
        assert_eq!(svg.matches(">A &amp; B<").count(), 2);
        for expected in
            [">0.20<", ">0.25<", ">0.80<", ">0.75<", ">&gt;0.99<", ">&lt;0.01<", "P(row better than column), NLL"]
        {
            assert!(svg.contains(expected), "{expected}: {svg}");
        }
        assert!(!svg.contains(">0.50<"));
    }

    #[test]
    fn colours_are_those_of_the_values() {
        let svg = matrix().figure().unwrap().shapes();
        let count = |value: f64| {
            let super::super::palette::Rgb(r, g, b) = diverging(value);
            svg.matches(&format!("#{r:02x}{g:02x}{b:02x}")).count()
        };
        assert_eq!((count(0.8), count(0.25), count(0.6)), (1, 1, 0));
    }

    #[test]
    fn long_names_are_shortened_and_columns_do_not_touch() {
        let long = "a very long name of a method and of all its settings ".repeat(3);
        let n = 20;
        let m = BetterMatrix::new("NLL", vec![long; n], vec![vec![0.5; n]; n]);
        let figure = m.figure().unwrap();
        assert!(figure.size().0 <= MARGIN + ROW_ROOM + SPACE + n as f64 * CELL.0 + MARGIN);
        assert_eq!(figure.shapes().matches("…<").count(), 2 * n);
        // A line of text is about 1.2 sizes high.
        assert!(1.2 * f64::from(TICK_SIZE) < CELL.0.min(CELL.1));
        assert!(width(">0.99", 9) < CELL.0);
    }

    #[test]
    fn the_written_data_read_back_as_the_same_matrix() {
        let figure = matrix().figure().unwrap();
        assert_eq!(serde_json::from_value::<BetterMatrix>(figure.data().clone()).unwrap(), matrix());
    }

    #[test]
    fn inconsistent_input_is_refused_with_its_numbers() {
        let refusal = |change: fn(&mut BetterMatrix)| {
            let mut m = matrix();
            change(&mut m);
            m.figure().unwrap_err().to_string()
        };
        assert_eq!(refusal(|m| m.names.clear()), "list of methods is empty");
        assert_eq!(refusal(|m| m.names.truncate(2)), "rows of the matrix: expected 2, found 3");
        assert_eq!(refusal(|m| m.values[1].truncate(1)), "columns in the row of `C`: expected 3, found 1");
        assert_eq!(refusal(|m| m.values[1][2] = 1.5), "P(better) in the row of `C`: must be in [0, 1], got 1.5");
        assert!(refusal(|m| m.values[0][1] = f64::NAN).contains("NaN"));
        assert!(refusal(|m| m.names = vec!["x".into(); 101]).contains("at most 100, got 101"));
    }
}
