//! Draws what calibration and uncertainty look like, as SVG, PNG and the numbers behind them.
//!
//! - [`reliability_diagram`]: accuracy against confidence, up to four methods side by side;
//! - [`Regions`]: confidence or entropy over a two-dimensional input, with the training points;
//! - [`CurveChart`]: curves over a logarithmic axis, such as the log evidence over the prior precision, or over a linear one,
//!   such as risk over coverage;
//! - [`Histograms`]: how often a number has which size, in several groups of items, a panel for each method;
//! - [`ForestPlot`]: numbers with their intervals, a row for each method, a panel for each metric;
//! - [`BetterMatrix`]: how sure it is that one method beats another, for all pairs.
//!
//! All make a [`Figure`], which [`Figure::save`] writes as `stem.svg` (with its font inside), `stem.png` and
//! `stem.json` (the drawn data). Colours are safe for colour-blind readers (Okabe and Ito; viridis) and the background
//! is white, for print. No window, browser or installed font is needed.
//!
//! ```
//! use bayes_lora::plot::{Grid, Regions};
//!
//! let grid = Grid { x: (-2.0, 2.0), y: (-2.0, 2.0), n_x: 20, n_y: 20 };
//! let distance: Vec<f64> = grid.centres().iter().map(|[x, y]| x.hypot(*y)).collect();
//! let figure = Regions::new(grid, "distance").with_panel("from the origin", distance).figure()?;
//!
//! let dir = std::env::temp_dir().join(format!("bayes-lora-plot-{}", std::process::id()));
//! let files = figure.save(&dir, "distance")?;
//! assert!(files.png.is_file() && files.svg.is_file() && files.json.is_file());
//! # std::fs::remove_dir_all(&dir).ok();
//! # Ok::<(), bayes_lora::error::Error>(())
//! ```

mod axes;
mod canvas;
mod curves;
mod forest;
mod histogram;
mod inline;
mod key;
mod matrix;
mod palette;
mod regions;
mod reliability;
mod scene;
mod text;

pub use curves::{AxisScale, Curve, CurveChart, Mark};
pub use forest::{ForestPanel, ForestPlot};
pub(crate) use forest::{MAX_ROWS, MAX_SERIES};
pub use histogram::{HistogramPanel, Histograms};
pub use matrix::BetterMatrix;
pub use regions::{Grid, LabelledPoint, RegionPanel, Regions};
pub use reliability::reliability_diagram;

use crate::atomic_file::write_atomic;
use crate::error::{Error, Result};
use canvas::Canvas;
use kuva::backend::{raster::RasterBackend, svg::SvgBackend};
use scene::scene;
use serde::Serialize;
use std::path::{Component, Path, PathBuf};

/// Pixels per drawing unit in the PNG: 288 to the inch, as print wants, where a unit is 1/96 inch.
const PNG_SCALE: f32 = 3.0;

/// Most panels that fit side by side on a page.
const MAX_PANELS: usize = 4;

/// A finished drawing together with the numbers that it shows.
#[derive(Debug)]
pub struct Figure {
    canvas: Canvas,
    data: serde_json::Value,
}

/// Where [`Figure::save`] wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FigureFiles {
    /// The vector picture, its font embedded.
    pub svg: PathBuf,
    /// The pixel picture.
    pub png: PathBuf,
    /// The drawn data.
    pub json: PathBuf,
}

impl Figure {
    fn new(canvas: Canvas, data: &impl Serialize) -> Result<Self> {
        let data = serde_json::to_value(data).map_err(|e| Error::format("figure data", e))?;
        Ok(Self { canvas, data })
    }

    /// The figure of a drawable value, whose fields are written beside it after the kind of figure.
    fn of(kind: &'static str, canvas: Canvas, drawn: &impl Serialize) -> Result<Self> {
        #[derive(Serialize)]
        struct Data<'a, T> {
            kind: &'static str,
            #[serde(flatten)]
            drawn: &'a T,
        }
        Self::new(canvas, &Data { kind, drawn })
    }

    /// Width and height in drawing units (CSS pixels); the PNG has three times as many pixels each way.
    pub fn size(&self) -> (f64, f64) {
        (self.canvas.width, self.canvas.height)
    }

    /// The drawn numbers, as they are written beside the picture.
    pub fn data(&self) -> &serde_json::Value {
        &self.data
    }

    /// Renders the picture as one self-contained SVG document of about one megabyte, most of it the font.
    pub fn svg(&self) -> String {
        let svg = SvgBackend::new().with_embedded_font(true).render_scene(&scene(&self.canvas));
        let (width, height) = self.size();
        // kuva writes no viewBox, without which a page that resizes the picture crops it
        keep_regular_face(svg).replacen("<svg ", &format!("<svg viewBox=\"0 0 {width} {height}\" "), 1)
    }

    /// Writes the picture as an SVG element of some kilobytes, to be set into an HTML page that names a font of DejaVu Sans'
    /// widths or narrower.
    ///
    /// It has no ground, and a page may give its greys and blues other colours, for readers who choose dark: `--plot-page`,
    /// `--plot-ink`, `--plot-soft`, `--plot-line`, `--plot-black`, `--plot-blue`, `--plot-pale-blue`. Positions are rounded to
    /// a tenth of a unit.
    pub fn svg_without_font(&self) -> String {
        inline::element(&self.canvas)
    }

    /// Renders the picture as PNG bytes.
    ///
    /// # Errors
    /// If the rasteriser or the PNG encoder refuses.
    pub fn png(&self) -> Result<Vec<u8>> {
        RasterBackend::new()
            .with_scale(PNG_SCALE)
            .render_scene(&scene(&self.canvas))
            .map_err(|reason| Error::numerical("drawing the PNG", reason))
    }

    /// Writes `dir/stem.json`, `dir/stem.svg` and `dir/stem.png`, making `dir` where it does not exist.
    ///
    /// Each file appears whole or not at all: it is written under a temporary name in `dir`, synchronised to the disk,
    /// then renamed over any older file. All three are rendered before the first is written.
    ///
    /// # Errors
    /// [`Error::Io`] with the path that the file system refused, [`Error::Config`] for a stem that is not a plain file
    /// name.
    pub fn save(&self, dir: impl AsRef<Path>, stem: &str) -> Result<FigureFiles> {
        let dir = dir.as_ref();
        let mut parts = Path::new(stem).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(name)), None) if name == stem) {
            return Err(Error::config("stem", "a plain file name", stem));
        }
        let at = |extension: &str| dir.join(format!("{stem}.{extension}"));
        let files = FigureFiles { svg: at("svg"), png: at("png"), json: at("json") };
        let mut json = serde_json::to_vec_pretty(&self.data).map_err(|e| Error::format(files.json.display(), e))?;
        json.push(b'\n');
        let (svg, png) = (self.svg(), self.png()?);
        std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
        write_atomic(&files.json, &json)?;
        write_atomic(&files.svg, svg.as_bytes())?;
        write_atomic(&files.png, &png)?;
        Ok(files)
    }
}

#[cfg(test)]
impl Figure {
    /// The SVG without the font, whose base64 could spell anything that a test looks for.
    fn shapes(&self) -> String {
        SvgBackend::new().render_scene(&scene(&self.canvas))
    }
}

/// Drops the embedded font faces that no figure of this module uses (bold, oblique, mono): two thirds of the file.
fn keep_regular_face(svg: String) -> String {
    const OPEN: &str = "<style>@font-face{";
    let Some((head, rest)) = svg.split_once(OPEN) else {
        return svg;
    };
    match (rest.split_once('}'), rest.split_once("</style>")) {
        (Some((face, _)), Some((_, body)))
            if face.contains("'DejaVu Sans'") && face.contains("font-weight:normal;font-style:normal") =>
        {
            format!("{head}{OPEN}{face}}}</style>{body}")
        }
        _ => svg,
    }
}

/// Refuses a figure without panels, or with more than fit side by side.
fn check_panels(found: usize) -> Result<()> {
    match found {
        0 => Err(Error::empty("list of panels")),
        1..=MAX_PANELS => Ok(()),
        _ => Err(Error::config("panels", format!("at most {MAX_PANELS}"), found)),
    }
}

/// Refuses a range of numbers that no axis or scale spans.
fn check_range(field: &str, (low, high): (f64, f64)) -> Result<()> {
    let span = high - low;
    if span > 0.0 && span.is_finite() {
        return Ok(());
    }
    Err(Error::config(field, "a finite ascending range", format!("{low} to {high}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure() -> Figure {
        let mut canvas = Canvas::new(120.0, 60.0);
        canvas.text(60.0, 30.0, "a < b & c", text::TextStyle::plain(11));
        Figure::new(canvas, &[1.5, 2.5]).unwrap()
    }

    #[test]
    fn svg_scales_escapes_its_text_and_carries_one_font_face() {
        let svg = figure().svg();
        assert!(svg.contains("viewBox=\"0 0 120 60\""));
        assert!(svg.contains("a &lt; b &amp; c"));
        assert_eq!(svg.matches("@font-face").count(), 1);
        assert!(svg.contains("base64,") && svg.ends_with("</svg>"), "{}", &svg[svg.len() - 80..]);
        assert!(svg.len() < 1_200_000, "{} bytes", svg.len());
    }

    #[test]
    fn the_picture_for_a_page_has_its_texts_and_no_font() {
        let without = figure().svg_without_font();
        assert!(without.starts_with("<svg ") && without.contains("viewBox=\"0 0 120 60\""), "{without}");
        assert!(without.len() < 400, "{without}");
        assert!(!without.contains("@font-face") && without.contains("a &lt; b &amp; c"));
    }

    #[test]
    fn png_has_three_pixels_per_unit() {
        let png = figure().png().unwrap();
        assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
        // The header chunk holds width and height, big-endian, at bytes 16 and 20.
        assert_eq!(u32::from_be_bytes(png[16..20].try_into().unwrap()), 360);
        assert_eq!(u32::from_be_bytes(png[20..24].try_into().unwrap()), 180);
    }

    #[test]
    fn save_makes_the_directory_and_leaves_only_the_three_files() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        let files = figure().save(&inner, "x.y").unwrap();
        let mut names: Vec<_> =
            std::fs::read_dir(&inner).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["x.y.json", "x.y.png", "x.y.svg"]);
        let data: Vec<f64> = serde_json::from_slice(&std::fs::read(&files.json).unwrap()).unwrap();
        assert_eq!(data, [1.5, 2.5]);
    }

    #[test]
    fn save_into_a_file_names_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let occupied = dir.path().join("occupied");
        std::fs::write(&occupied, b"").unwrap();
        let error = figure().save(&occupied, "x").unwrap_err();
        assert!(matches!(&error, Error::Io { path, .. } if *path == occupied), "{error}");
    }

    #[test]
    fn a_stem_with_directories_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for stem in ["", "..", "a/b", "/a", "a/", "./a"] {
            let error = figure().save(dir.path(), stem).unwrap_err();
            assert!(matches!(error, Error::Config { .. }), "{stem}: {error}");
        }
    }
}
