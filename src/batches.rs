//! Works on several batches at once and takes the results in order, so that nothing depends on how many workers there are.

use crate::error::{Error, Result};
use crate::hash::fnv1a_words;
use crate::progress::Control;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;

/// Runs `work` on every batch of item indices, on `control.workers()` threads, and hands each result to `consume` in the
/// order of `batches`, on the calling thread, under a bar named `what`.
///
/// # Errors
/// The first error in that order, or [`Error::Cancelled`].
///
/// # Panics
/// If `work` panics.
pub(crate) fn for_each_batch<T: Send>(
    what: &'static str,
    batches: &[Vec<usize>],
    control: &Control,
    work: impl Fn(&[usize]) -> Result<T> + Sync,
    mut consume: impl FnMut(&[usize], T) -> Result<()>,
) -> Result<()> {
    let mut bar = control.bar(what, batches.iter().map(Vec::len).sum());
    in_order(
        what,
        batches.len(),
        control.workers(),
        |index| work(&batches[index]),
        |index, result| {
            consume(&batches[index], result)?;
            bar.advance(batches[index].len(), String::new)
        },
    )
}

/// A hash of which items lie in which batch.
pub(crate) fn batches_hash(batches: &[Vec<usize>]) -> u64 {
    let numbers = batches.iter().flat_map(|batch| std::iter::once(batch.len()).chain(batch.iter().copied()));
    fnv1a_words(numbers.map(|n| n as u64))
}

/// Runs `work` for 0, 1, …, `n − 1` on `workers` threads, and hands each result to `consume` in that order, on the calling
/// thread.
///
/// Each worker has its share of the cores to itself: where all workers hand their products to one pool of threads, they wait for each other.
///
/// # Errors
/// The first error in that order.
///
/// # Panics
/// If `work` panics.
pub(crate) fn in_order<T: Send>(
    what: &'static str,
    n: usize,
    workers: usize,
    work: impl Fn(usize) -> Result<T> + Sync,
    mut consume: impl FnMut(usize, T) -> Result<()>,
) -> Result<()> {
    if workers.min(n) <= 1 {
        return (0..n).try_for_each(|index| consume(index, work(index)?));
    }
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // a worker waits while its result is not fetched, so that few results exist at a time
        let (sender, receiver) = sync_channel(0);
        let (next, stop, work) = (&next, &stop, &work);
        let share = (rayon::current_num_threads() / workers.min(n)).max(1);
        for _ in 0..workers.min(n) {
            let sender = sender.clone();
            let own = rayon::ThreadPoolBuilder::new().num_threads(share).build();
            let own = own.map_err(|e| Error::numerical(what, format!("a worker has no threads: {e}")))?;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= n || sender.send((index, own.install(|| work(index)))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut waiting = BTreeMap::new();
        let mut take = || -> Result<()> {
            for index in 0..n {
                let result = loop {
                    if let Some(result) = waiting.remove(&index) {
                        break result;
                    }
                    let (found, result) = receiver
                        .recv()
                        .map_err(|_| Error::numerical(what, "a worker thread stopped without a result"))?;
                    waiting.insert(found, result);
                };
                consume(index, result?)?;
            }
            Ok(())
        };
        let outcome = take();
        stop.store(true, Ordering::Relaxed);
        drop(receiver);
        outcome
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(workers: usize, fail_at: Option<usize>) -> Result<Vec<usize>> {
        let batches: Vec<Vec<usize>> = (0..20).map(|i| vec![i]).collect();
        let mut seen = Vec::new();
        let work = |batch: &[usize]| {
            std::thread::sleep(std::time::Duration::from_micros(((batch[0] * 7) % 5) as u64 * 200));
            if Some(batch[0]) == fail_at { Err(Error::empty("batch")) } else { Ok(batch[0] * 2) }
        };
        for_each_batch("test", &batches, &Control::silent().with_workers(workers)?, work, |_, doubled| {
            seen.push(doubled);
            Ok(())
        })?;
        Ok(seen)
    }

    #[test]
    fn results_come_in_order_whatever_the_number_of_workers() {
        let expected: Vec<usize> = (0..20).map(|i| 2 * i).collect();
        for workers in [1, 2, 5, 40] {
            assert_eq!(run(workers, None).unwrap(), expected);
        }
    }

    #[test]
    fn an_error_stops_all_workers() {
        for workers in [1, 3] {
            assert!(matches!(run(workers, Some(11)), Err(Error::Empty { .. })));
        }
    }
}
