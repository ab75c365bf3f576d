//! Compiles an expression's tree into instructions and runs them with backtracking, within a number of steps.

use super::set::{Set, folded, is_word};
use super::syntax::{Expression, Node, Place};

/// Most instructions of an expression: `(a{500}){500}` would have 250,000.
const MAX_INSTRUCTIONS: usize = 20_000;
/// Most steps of one match. Ordinary targets take hundreds for a path; every one more of `(a+)+b` doubles them. A million take
/// some milliseconds and 16 MB.
const MAX_STEPS: usize = 1_000_000;

#[derive(Debug)]
enum Op {
    One(Set),
    Place(Place),
    /// Goes to the first; to the second if that fails.
    Split(usize, usize),
    Jump(usize),
    /// Keeps the position.
    Keep(usize),
    /// Goes on if the position differs from the one kept, and leaves the loop otherwise.
    Moved(usize, usize),
    Again(usize, bool),
    If(usize, usize),
    /// The instructions from the next on, up to an `Accept`, as one; it goes on at the place given.
    Atomic(usize),
    Look {
        end: usize,
        behind: bool,
        negated: bool,
    },
    Accept,
}

/// Instructions, with a slot for the start and the end of every group and for the start of a round of every loop.
#[derive(Debug)]
pub(super) struct Program {
    ops: Vec<Op>,
    n_groups: usize,
    n_slots: usize,
}

/// Start and end of every group, group 0 being the whole match.
pub(super) type Spans = Vec<Option<(usize, usize)>>;

impl Program {
    pub(super) fn new(expression: &Expression) -> Result<Self, String> {
        let n_groups = expression.n_groups + 1;
        let mut program = Self { ops: Vec::new(), n_groups, n_slots: 2 * n_groups };
        program.add(&expression.node)?;
        program.push(Op::Accept)?;
        Ok(program)
    }

    fn push(&mut self, op: Op) -> Result<usize, String> {
        if self.ops.len() >= MAX_INSTRUCTIONS {
            return Err(format!("it has more than {MAX_INSTRUCTIONS} instructions when compiled"));
        }
        self.ops.push(op);
        Ok(self.ops.len() - 1)
    }

    fn add(&mut self, node: &Node) -> Result<(), String> {
        match node {
            Node::One(set) => self.push(Op::One(set.clone())).map(|_| ()),
            Node::Place(place) => self.push(Op::Place(*place)).map(|_| ()),
            Node::Again(group, ignores_case) => self.push(Op::Again(*group, *ignores_case)).map(|_| ()),
            Node::Sequence(nodes) => nodes.iter().try_for_each(|node| self.add(node)),
            Node::Choice(nodes) => self.choice(nodes),
            Node::Group(group, node) => {
                self.push(Op::Keep(2 * group))?;
                self.add(node)?;
                self.push(Op::Keep(2 * group + 1)).map(|_| ())
            }
            Node::Repeat { node, min, max, lazy } => self.repeat(node, *min, *max, *lazy),
            Node::Atomic(node) => {
                let start = self.push(Op::Atomic(0))?;
                self.add(node)?;
                let end = self.push(Op::Accept)? + 1;
                self.ops[start] = Op::Atomic(end);
                Ok(())
            }
            Node::Look { node, behind, negated } => {
                let start = self.push(Op::Accept)?;
                self.add(node)?;
                let end = self.push(Op::Accept)? + 1;
                self.ops[start] = Op::Look { end, behind: *behind, negated: *negated };
                Ok(())
            }
            Node::If(group, both) => {
                let start = self.push(Op::If(*group, 0))?;
                self.add(&both[0])?;
                let jump = self.push(Op::Jump(0))?;
                self.ops[start] = Op::If(*group, jump + 1);
                self.add(&both[1])?;
                self.ops[jump] = Op::Jump(self.ops.len());
                Ok(())
            }
        }
    }

    fn choice(&mut self, nodes: &[Node]) -> Result<(), String> {
        let mut jumps = Vec::new();
        for (i, node) in nodes.iter().enumerate() {
            if i + 1 == nodes.len() {
                self.add(node)?;
                break;
            }
            let split = self.push(Op::Split(0, 0))?;
            self.add(node)?;
            jumps.push(self.push(Op::Jump(0))?);
            self.ops[split] = Op::Split(split + 1, self.ops.len());
        }
        let end = self.ops.len();
        jumps.into_iter().for_each(|jump| self.ops[jump] = Op::Jump(end));
        Ok(())
    }

    fn repeat(&mut self, node: &Node, min: usize, max: Option<usize>, lazy: bool) -> Result<(), String> {
        let ordered = |inside, outside| if lazy { Op::Split(outside, inside) } else { Op::Split(inside, outside) };
        for _ in 0..min {
            let before = self.ops.len();
            self.add(node)?;
            if self.ops.len() == before {
                break;
            }
        }
        let Some(max) = max else {
            let split = self.push(Op::Split(0, 0))?;
            let slot = self.n_slots;
            self.n_slots += 1;
            self.push(Op::Keep(slot))?;
            self.add(node)?;
            let moved = self.push(Op::Moved(slot, 0))?;
            let end = self.push(Op::Jump(split))? + 1;
            self.ops[moved] = Op::Moved(slot, end);
            self.ops[split] = ordered(split + 1, end);
            return Ok(());
        };
        let mut splits = Vec::new();
        for _ in min..max {
            splits.push(self.push(Op::Split(0, 0))?);
            self.add(node)?;
        }
        let end = self.ops.len();
        splits.into_iter().for_each(|split| self.ops[split] = ordered(split + 1, end));
        Ok(())
    }

    /// A match from the start of `text`, up to its end if `whole`; `Err` where it would take too many steps.
    pub(super) fn run(&self, text: &[char], whole: bool) -> Result<Option<Spans>, String> {
        let mut run = Run { ops: &self.ops, text, slots: vec![None; self.n_slots], trail: Vec::new(), steps: 0 };
        let Some(end) = run.from(0, 0, whole.then_some(text.len()))? else { return Ok(None) };
        (run.slots[0], run.slots[1]) = (Some(0), Some(end));
        let groups = run.slots.chunks_exact(2).take(self.n_groups).map(|both| Some((both[0]?, both[1]?)));
        Ok(Some(groups.collect()))
    }
}

/// What going back does.
enum Step {
    Try(usize, usize),
    Restore(usize, Option<usize>),
}

struct Run<'a> {
    ops: &'a [Op],
    text: &'a [char],
    slots: Vec<Option<usize>>,
    trail: Vec<Step>,
    steps: usize,
}

impl Run<'_> {
    /// Where the instructions from `at` on accept, starting at `position`: anywhere, or at `goal` alone.
    fn from(&mut self, mut at: usize, mut position: usize, goal: Option<usize>) -> Result<Option<usize>, String> {
        let bottom = self.trail.len();
        loop {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return Err(format!("it takes more than {MAX_STEPS} steps"));
            }
            let next = match &self.ops[at] {
                Op::Accept if goal.is_none_or(|goal| goal == position) => {
                    let mut index = 0;
                    // what was captured is given up if something before this fails, other ways to accept are not tried
                    self.trail.retain(|step| {
                        index += 1;
                        index <= bottom || matches!(step, Step::Restore(..))
                    });
                    return Ok(Some(position));
                }
                Op::Accept => None,
                Op::One(set) => {
                    let found = self.text.get(position).is_some_and(|c| set.contains(*c));
                    position += usize::from(found);
                    found.then_some(at + 1)
                }
                Op::Place(place) => self.is_at(*place, position).then_some(at + 1),
                Op::Split(first, second) => {
                    self.trail.push(Step::Try(*second, position));
                    Some(*first)
                }
                Op::Jump(to) => Some(*to),
                Op::Keep(slot) => {
                    self.trail.push(Step::Restore(*slot, self.slots[*slot]));
                    self.slots[*slot] = Some(position);
                    Some(at + 1)
                }
                Op::Moved(slot, end) => Some(if self.slots[*slot] == Some(position) { *end } else { at + 1 }),
                Op::Again(group, ignores_case) => {
                    let length = self.again(*group, *ignores_case, position);
                    position += length.unwrap_or(0);
                    length.map(|_| at + 1)
                }
                Op::If(group, otherwise) => Some(if self.captured(*group).is_some() { at + 1 } else { *otherwise }),
                Op::Atomic(end) => {
                    let end = *end;
                    let found = self.from(at + 1, position, None)?;
                    position = found.unwrap_or(position);
                    found.map(|_| end)
                }
                Op::Look { end, behind, negated } => {
                    let (end, behind, negated) = (*end, *behind, *negated);
                    (self.looks(at + 1, position, behind, negated)? != negated).then_some(end)
                }
            };
            at = match next {
                Some(next) => next,
                None => match self.back(bottom) {
                    Some((to, place)) => {
                        position = place;
                        to
                    }
                    None => return Ok(None),
                },
            };
        }
    }

    /// Undoes what was kept, up to the last choice above `bottom`.
    fn back(&mut self, bottom: usize) -> Option<(usize, usize)> {
        while self.trail.len() > bottom {
            match self.trail.pop()? {
                Step::Try(at, position) => return Some((at, position)),
                Step::Restore(slot, old) => self.slots[slot] = old,
            }
        }
        None
    }

    /// True if the instructions match from here, or up to here; what a negated one captured is forgotten.
    fn looks(&mut self, at: usize, position: usize, behind: bool, negated: bool) -> Result<bool, String> {
        let bottom = self.trail.len();
        let starts = if behind { 0..=position } else { position..=position };
        let mut found = false;
        for start in starts.rev() {
            found = self.from(at, start, behind.then_some(position))?.is_some();
            if found {
                break;
            }
        }
        if negated {
            self.back(bottom);
        }
        Ok(found)
    }

    fn is_at(&self, place: Place, position: usize) -> bool {
        let (before, after) = (position.checked_sub(1).map(|i| self.text[i]), self.text.get(position).copied());
        let is_boundary = before.is_some_and(is_word) != after.is_some_and(is_word);
        match place {
            Place::Start => before.is_none(),
            Place::LineStart => before.is_none_or(|c| c == '\n'),
            Place::End => after.is_none(),
            Place::BeforeEnd => after.is_none() || (after == Some('\n') && position + 1 == self.text.len()),
            Place::LineEnd => after.is_none_or(|c| c == '\n'),
            Place::WordBoundary => is_boundary,
            // Python: an empty text has neither
            Place::NoWordBoundary => !is_boundary && !self.text.is_empty(),
        }
    }

    fn captured(&self, group: usize) -> Option<(usize, usize)> {
        Some((self.slots[2 * group]?, self.slots[2 * group + 1]?)).filter(|(start, end)| start <= end)
    }

    /// The length of what a group captured, if it stands here again.
    fn again(&self, group: usize, ignores_case: bool, position: usize) -> Option<usize> {
        let (start, end) = self.captured(group)?;
        let (expected, found) = (&self.text[start..end], self.text.get(position..position + end - start)?);
        let same = |(a, b): (&char, &char)| a == b || (ignores_case && folded(*a) == folded(*b));
        expected.iter().zip(found).all(same).then_some(end - start)
    }
}
