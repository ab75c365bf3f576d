//! Lays out how far rows are from the reference: an interval a seed on one scale, as boxes that a page sets without a drawing.

use super::format::{interval, probability, signed};
use super::standing::{Against, least_sure, mean_difference};
use serde::Serialize;

/// Free share of the scale at either end.
const FREE: f64 = 0.06;
/// Share of the scale that keeps two numbers above it apart.
const CLOSEST: f64 = 0.3;

/// Rows with their intervals under one scale.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Lead {
    /// Heading of the column of names.
    pub first: String,
    /// Zero and the ends of the scale, each with its place.
    pub ticks: Vec<Tick>,
    /// Where 0 lies, in per cent of the scale.
    pub zero: String,
    pub rows: Vec<LeadRow>,
}

/// A number and its place in per cent of the scale.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Tick {
    pub at: String,
    pub text: String,
    /// Which part of the text stands there: so none leaves the scale.
    pub anchor: &'static str,
}

/// A row; without marks where it has no comparison.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct LeadRow {
    pub name: String,
    /// A smaller text below the name.
    pub detail: String,
    /// One a seed.
    pub marks: Vec<Mark>,
    /// The mean over the seeds.
    pub difference: String,
    /// The interval of the seed that is least sure.
    pub bounds: String,
    /// P(better) of each seed.
    pub p: String,
}

/// An interval and its point, in per cent of the scale.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Mark {
    pub left: String,
    pub width: String,
    pub point: String,
    /// Which way the whole interval lies.
    pub side: &'static str,
}

/// What a row is called and how it stands against the reference.
pub(super) struct Entry {
    pub name: String,
    pub detail: String,
    pub against: Vec<Against>,
}

impl Lead {
    /// None where no row has a comparison. The scale holds every interval, and 0.
    pub fn new(first: &str, entries: Vec<Entry>) -> Option<Self> {
        let all = || entries.iter().flat_map(|entry| &entry.against).map(|against| against.difference);
        all().next()?;
        let low = all().map(|d| d.low.min(d.value)).fold(0.0, f64::min);
        let high = all().map(|d| d.high.max(d.value)).fold(0.0, f64::max);
        let free = FREE * if high > low { high - low } else { 1.0 };
        let scale = Scale { low: low - free, span: high - low + 2.0 * free };
        let tick = |value: f64, text: String, anchor| Tick { at: scale.percent(value), text, anchor };
        let mut ticks = vec![tick(0.0, "0".into(), "middle")];
        for (end, anchor) in [(low, "start"), (high, "end")] {
            if end.abs() > CLOSEST * scale.span {
                ticks.push(tick(end, signed(end), anchor));
            }
        }
        Some(Self {
            first: first.into(),
            ticks,
            zero: scale.percent(0.0),
            rows: entries.iter().map(|entry| scale.row(entry)).collect(),
        })
    }
}

struct Scale {
    low: f64,
    span: f64,
}

impl Scale {
    fn percent(&self, value: f64) -> String {
        decimal(100.0 * (value - self.low) / self.span)
    }

    fn row(&self, entry: &Entry) -> LeadRow {
        let mark = |against: &Against| {
            let d = against.difference;
            Mark {
                left: self.percent(d.low),
                width: decimal(100.0 * (d.high - d.low) / self.span),
                point: self.percent(d.value),
                side: match d {
                    d if d.high < 0.0 => "below",
                    d if d.low > 0.0 => "above",
                    _ => "across",
                },
            }
        };
        let p: Vec<String> = entry.against.iter().map(|against| probability(against.p_better)).collect();
        LeadRow {
            name: entry.name.clone(),
            detail: entry.detail.clone(),
            marks: entry.against.iter().map(mark).collect(),
            difference: mean_difference(&entry.against).map_or("—".into(), signed),
            bounds: least_sure(&entry.against).map_or(String::new(), |a| interval(a.difference.low, a.difference.high)),
            p: if p.is_empty() { "—".into() } else { p.join(" / ") },
        }
    }
}

/// One decimal, and none where it is 0.
fn decimal(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), String::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Estimate;

    fn against(value: f64, low: f64, high: f64, p_better: f64) -> Against {
        Against { difference: Estimate { value, low, high }, p_better }
    }

    fn entry(name: &str, against: Vec<Against>) -> Entry {
        Entry { name: name.into(), detail: String::new(), against }
    }

    #[test]
    fn the_scale_holds_every_interval_and_zero() {
        let two = vec![against(-0.5, -0.75, -0.25, 1.0), against(-0.25, -0.5, 0.25, 0.8)];
        let lead = Lead::new("method", vec![entry("a", two), entry("none", Vec::new())]).unwrap();
        // from −0.81 to 0.31, a span of 1.12
        let ticks: Vec<(&str, &str)> = lead.ticks.iter().map(|tick| (tick.at.as_str(), tick.text.as_str())).collect();
        assert_eq!((lead.zero.as_str(), ticks), ("72.3", vec![("72.3", "0"), ("5.4", "−0.750")]));
        let row = &lead.rows[0];
        let mark = |left: &str, width: &str, point: &str, side| Mark {
            left: left.into(),
            width: width.into(),
            point: point.into(),
            side,
        };
        assert_eq!(row.marks, [mark("5.4", "44.6", "27.7", "below"), mark("27.7", "67", "50", "across")]);
        assert_eq!((row.difference.as_str(), row.p.as_str()), ("−0.375", ">0.99 / 0.80"));
        // that of the second seed
        assert_eq!(row.bounds, "[−0.500, 0.250]");
        assert_eq!((lead.rows[1].marks.len(), lead.rows[1].difference.as_str()), (0, "—"));
    }

    #[test]
    fn without_differences_there_is_a_scale_and_without_comparisons_none() {
        let lead = Lead::new("method", vec![entry("a", vec![against(0.0, 0.0, 0.0, 0.5)])]).unwrap();
        assert_eq!(lead.ticks.len(), 1);
        assert_eq!((lead.zero.as_str(), lead.rows[0].marks[0].point.as_str()), ("50", "50"));
        assert!(Lead::new("method", vec![entry("a", Vec::new())]).is_none());
    }
}
