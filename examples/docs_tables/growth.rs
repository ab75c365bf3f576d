//! Tables of the study of growth.

use crate::data::{Data, Failure, Spec};
use crate::table::Table;

/// A line a stage: the exponents of seconds and of bytes over each quantity, with the seconds and bytes at its largest size.
pub fn growth(spec: &Spec, data: &mut Data) -> Result<String, Failure> {
    let file = data.json(spec.file()?)?;
    let (mut axes, mut stages): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    let mut cells = Vec::new();
    for growth in file.list("growths")? {
        let (stage, axis) = (growth.text("stage")?, growth.text("axis")?);
        let exponents = (growth.number("seconds_exponent")?, growth.number("bytes_exponent")?);
        let mut range = Vec::new();
        for point in growth.list("points")? {
            range.push(point.number("size")?);
        }
        let (Some(first), Some(last)) = (range.first(), range.last()) else { continue };
        let heading = format!("{axis}, {first} to {last}");
        for (list, name) in [(&mut axes, &heading), (&mut stages, &stage)] {
            if !list.contains(name) {
                list.push(name.clone());
            }
        }
        cells.push((stage, heading, exponents));
    }
    let mut table = Table::new(["stage".to_string(), "of".to_string()].into_iter().chain(axes.iter().cloned()));
    for stage in &stages {
        for (what, pick) in [("seconds", 0), ("memory", 1)] {
            let of = |axis: &String| {
                let found = cells.iter().find(|(s, a, _)| s == stage && a == axis);
                found.map_or("–".into(), |(_, _, (seconds, bytes))| format!("{:.2}", [seconds, bytes][pick]))
            };
            table.row([stage.clone(), what.to_string()].into_iter().chain(axes.iter().map(of)));
        }
    }
    Ok(table.markdown())
}
