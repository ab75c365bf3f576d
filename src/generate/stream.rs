//! Generates batch by batch, a token of every row at a time.

use super::answer::{Answer, Piece};
use super::choice::{choose, penalise};
use super::next_token::{NextTokens, averaged};
use super::request::Request;
use super::row::Row;
use super::setup::Setup;
use crate::error::Result;
use crate::models::KeyValueCache;
use crate::progress::Control;
use std::collections::VecDeque;
use std::ops::Range;

/// Pieces of answers as they come, those of a batch by turns. Whoever drops it or asks no more stops the work.
///
/// After an error, [`Error::Cancelled`](crate::error::Error::Cancelled) included, there are no more pieces; [`Stream::answers`] has what came
/// before.
#[derive(Debug)]
pub struct Stream<'a> {
    setup: &'a Setup<'a>,
    control: Control,
    rows: Vec<Row>,
    /// Requests whose batch has not begun.
    waiting: Range<usize>,
    batch: Option<Batch>,
    ready: VecDeque<Piece>,
    is_over: bool,
}

/// The rows that grow at present.
#[derive(Debug)]
struct Batch {
    rows: Vec<usize>,
    cache: KeyValueCache,
}

impl<'a> Stream<'a> {
    pub(super) fn new(setup: &'a Setup<'a>, requests: &[Request], control: &Control) -> Result<Self> {
        let network = &setup.network;
        requests.iter().try_for_each(|request| request.check(network.vocabulary(), network.context()))?;
        Ok(Self {
            setup,
            control: control.clone(),
            rows: requests.iter().map(|request| Row::new(request.clone(), setup)).collect(),
            waiting: 0..requests.len(),
            batch: None,
            ready: VecDeque::new(),
            is_over: false,
        })
    }

    /// The answers as they stand, one a request.
    pub fn answers(&self) -> Vec<Answer> {
        self.rows.iter().map(Row::answer).collect()
    }

    /// Generates one token of every row of the batch; false where nothing is left.
    fn step(&mut self) -> Result<bool> {
        let Setup { network, config, .. } = self.setup;
        let mut batch = match self.batch.take() {
            Some(batch) => batch,
            None => {
                let rows: Vec<usize> = self.waiting.by_ref().take(config.batch_size).collect();
                if rows.is_empty() {
                    return Ok(false);
                }
                Batch { cache: network.start(rows.len()), rows }
            }
        };
        let done = self.rows.iter().filter(|row| row.has_ended()).count();
        self.control.check("generate", done, self.rows.len())?;
        let new: Vec<Vec<u32>> = batch.rows.iter().map(|&row| self.rows[row].unseen()).collect();
        let mut logits = network.extend(&mut batch.cache, &new)?;
        let next = NextTokens::new(&logits)?;
        let penalised = match config.repetition_penalty {
            1.0 => None,
            penalty => {
                for mut draw in logits.outer_iter_mut() {
                    for (&row, logits) in batch.rows.iter().zip(draw.outer_iter_mut()) {
                        penalise(logits, self.rows[row].seen(), penalty);
                    }
                }
                Some(averaged(&logits)?)
            }
        };
        let mut stay = Vec::new();
        for (place, &index) in batch.rows.iter().enumerate() {
            let row = &mut self.rows[index];
            let logs = penalised.as_ref().map_or_else(|| next.log_probabilities(place), |logs| logs.row(place));
            let id = choose(logs, config, row.request.place(), row.n_tokens() as u64);
            self.ready.extend(row.push(index, next.token(place, id), self.setup)?);
            if !row.has_ended() {
                stay.push(place);
            }
        }
        if !stay.is_empty() {
            network.keep(&mut batch.cache, &stay, batch.rows.len())?;
            batch.rows = stay.into_iter().map(|place| batch.rows[place]).collect();
            self.batch = Some(batch);
        }
        Ok(true)
    }
}

impl Iterator for Stream<'_> {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Result<Piece>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Some(Ok(piece));
            }
            if self.is_over {
                return None;
            }
            match self.step() {
                Ok(more) => self.is_over = !more,
                Err(error) => {
                    self.is_over = true;
                    return Some(Err(error));
                }
            }
        }
    }
}
