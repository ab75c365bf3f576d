//! Sets a report as one HTML page.

use super::answer::{Answer, all_tasks, answers};
#[cfg(feature = "plot")]
use super::figures::{forests, pictures};
use super::format::{count, percent};
use super::lead::Lead;
use super::matrix::{Matrix, matrices};
use super::numbers::Report;
use super::picture::{Picture, Pictures};
use super::row::RunReport;
use super::table::Table;
use super::{overview, tables};
use crate::compare::setting::RECIPE;
use crate::error::{Error, Result};
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// What the page's template reads.
#[derive(Serialize)]
struct Page<'a> {
    style: &'static str,
    script: &'static str,
    title: &'a str,
    protocol: &'a str,
    crate_version: &'a str,
    level: String,
    has_pictures: bool,
    /// The best of every task, where there are several.
    tasks: Option<Lead>,
    /// All tasks of a model side by side.
    overview: Vec<Table>,
    groups: Vec<Group<'a>>,
}

#[derive(Serialize)]
struct Group<'a> {
    model: &'a str,
    task: &'a str,
    answer: Option<Answer>,
    seeds: Option<Table>,
    /// Scores of all rows and seeds with their intervals.
    forests: Vec<Picture>,
    runs: Vec<RunPage<'a>>,
}

#[derive(Serialize)]
struct RunPage<'a> {
    /// Unique in the page, of letters and digits.
    id: String,
    heading: String,
    facts: Vec<(String, String)>,
    prompt_example: &'a str,
    tables: Vec<Table>,
    pictures: Vec<Pictures>,
    matrices: Vec<Matrix>,
}

/// What was run, a name and a value each.
pub(super) fn facts(run: &RunReport) -> Vec<(String, String)> {
    let info = &run.info;
    let class = |c: &crate::compare::cell::ClassName| match c.token {
        Some(token) => format!("{} (token {token})", c.name),
        None => c.name.clone(),
    };
    let mut sizes = format!("{} training", count(info.n_train));
    match info.n_calibration + info.n_sets {
        0 => sizes.push_str(", no held-out"),
        n if info.classes.is_empty() => sizes.push_str(&format!(", {} held-out for the noise", count(n))),
        _ => sizes.push_str(&format!(
            ", {} held-out for calibrators, {} held-out for sets",
            count(info.n_calibration),
            count(info.n_sets)
        )),
    }
    sizes.push_str(&format!(", {} test", count(info.n_test)));
    for split in &info.shifted {
        sizes.push_str(&format!(", {} of “{}”", count(split.n_items), split.name));
    }
    // the settings of the recipe have a line of words
    let data = info.identity.iter().filter(|(name, _)| !name.starts_with(RECIPE));
    let identity: Vec<String> = data.map(|(name, hash)| format!("{name} {hash}")).collect();
    let facts = [
        ("recipe", info.recipe.clone()),
        ("seed", info.seed.to_string()),
        ("items", sizes),
        ("classes", info.classes.iter().map(class).collect::<Vec<_>>().join(", ")),
        ("prompt hash", info.prompt_hash.clone()),
        ("data and weights", identity.join(", ")),
        ("answers by bayes-lora", info.crate_version.clone()),
    ];
    facts.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name.to_string(), value)).collect()
}

/// Sets the page.
pub(super) fn html(report: &Report) -> Result<String> {
    let mut groups = Vec::new();
    for (group, answer) in report.groups.iter().zip(answers(report)) {
        let runs = report
            .runs
            .iter()
            .enumerate()
            .filter(|(_, run)| (&run.info.model, &run.info.task) == (&group.model, &group.task));
        groups.push(Group {
            model: &group.model,
            task: &group.task,
            answer,
            seeds: tables::of_seeds(group, &report.options),
            forests: forests(report, group)?,
            runs: runs.map(|(index, run)| run_page(report, index, run)).collect::<Result<_>>()?,
        });
    }
    let page = Page {
        style: STYLE,
        script: SCRIPT,
        title: &report.options.title,
        protocol: &report.protocol,
        crate_version: &report.crate_version,
        level: percent(report.options.scores.level),
        has_pictures: cfg!(feature = "plot"),
        tasks: all_tasks(report),
        overview: overview::overview(&report.groups),
        groups,
    };
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.render_str(TEMPLATE, &page).map_err(|e| Error::format("page of the report", e))
}

fn run_page<'a>(report: &Report, index: usize, run: &'a RunReport) -> Result<RunPage<'a>> {
    Ok(RunPage {
        id: format!("run{index}"),
        heading: format!("Seed {}", run.info.seed),
        facts: facts(run),
        prompt_example: &run.info.prompt_example,
        tables: tables::of_run(run, &report.options),
        pictures: pictures(run)?,
        matrices: matrices(run),
    })
}

#[cfg(not(feature = "plot"))]
fn forests(_report: &Report, _group: &crate::compare::SeedGroup) -> Result<Vec<Picture>> {
    Ok(Vec::new())
}

#[cfg(not(feature = "plot"))]
fn pictures(_run: &RunReport) -> Result<Vec<Pictures>> {
    Ok(Vec::new())
}
