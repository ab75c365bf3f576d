//! Parses the regular expressions of Python's `re` into trees.

use super::set::{Class, Set};
use std::collections::BTreeMap;

/// Deepest nesting of groups, so that neither parsing nor matching exhausts the stack.
const MAX_DEPTH: usize = 50;
/// Largest number in a repetition that is read; larger ones would not fit a program anyway.
const MAX_REPEAT: usize = 1 << 16;

/// What an expression means, its flags resolved.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// One character of a set.
    One(Set),
    /// A place between characters.
    Place(Place),
    /// One after another.
    Sequence(Vec<Node>),
    /// The first that leads to a match.
    Choice(Vec<Node>),
    /// A capturing group.
    Group(usize, Box<Node>),
    /// What an earlier group captured; true to ignore case.
    Again(usize, bool),
    /// `min` to `max` times.
    Repeat { node: Box<Node>, min: usize, max: Option<usize>, lazy: bool },
    /// Entered once: no second way through it is tried.
    Atomic(Box<Node>),
    /// Something (or, negated, nothing) that matches from here or up to here.
    Look { node: Box<Node>, behind: bool, negated: bool },
    /// The first if the group has captured, the second if not.
    If(usize, Box<[Node; 2]>),
}

/// A place that takes up no character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Start,
    LineStart,
    End,
    /// The end, or before a newline there.
    BeforeEnd,
    LineEnd,
    WordBoundary,
    NoWordBoundary,
}

/// The letters of `(?…)` that change what follows.
#[derive(Debug, Clone, Copy, Default)]
struct Flags {
    ignore_case: bool,
    multi_line: bool,
    dot_all: bool,
    verbose: bool,
}

impl Flags {
    fn set(&mut self, letter: char, to: bool) -> Parsed<()> {
        match letter {
            'i' => self.ignore_case = to,
            'm' => self.multi_line = to,
            's' => self.dot_all = to,
            'x' => self.verbose = to,
            'u' => {}
            other => return Err(format!("the flag `{other}` is not known")),
        }
        Ok(())
    }
}

type Parsed<T> = Result<T, String>;

/// An expression with the names of its groups.
#[derive(Debug)]
pub(super) struct Expression {
    pub(super) node: Node,
    pub(super) n_groups: usize,
    pub(super) names: BTreeMap<String, usize>,
}

pub(super) fn parse(pattern: &str) -> Parsed<Expression> {
    let mut parser =
        Parser { text: pattern.chars().collect(), at: 0, n_groups: 0, open: Vec::new(), names: BTreeMap::new() };
    let node = parser.choice(Flags::default(), 0)?;
    match parser.peek() {
        None => Ok(Expression { node, n_groups: parser.n_groups, names: parser.names }),
        Some(_) => Err("a `)` that nothing opens".into()),
    }
}

struct Parser {
    text: Vec<char>,
    at: usize,
    n_groups: usize,
    /// Groups that are not closed yet.
    open: Vec<usize>,
    names: BTreeMap<String, usize>,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Parsed<char> {
        let c = self.peek().ok_or("it ends too soon")?;
        self.at += 1;
        Ok(c)
    }

    fn takes(&mut self, word: &str) -> bool {
        let found = word.chars().enumerate().all(|(i, c)| self.text.get(self.at + i) == Some(&c));
        self.at += if found { word.chars().count() } else { 0 };
        found
    }

    fn until(&mut self, end: char) -> Parsed<String> {
        let mut word = String::new();
        loop {
            match self.next()? {
                c if c == end => return Ok(word),
                c => word.push(c),
            }
        }
    }

    /// Alternatives up to `)` or the end.
    fn choice(&mut self, mut flags: Flags, depth: usize) -> Parsed<Node> {
        if depth > MAX_DEPTH {
            return Err(format!("groups are nested more than {MAX_DEPTH} deep"));
        }
        let mut all = vec![self.sequence(&mut flags, depth, depth == 0)?];
        while self.takes("|") {
            all.push(self.sequence(&mut flags, depth, false)?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Node::Choice(all) })
    }

    fn sequence(&mut self, flags: &mut Flags, depth: usize, is_first: bool) -> Parsed<Node> {
        let mut all = Vec::new();
        while let Some(c) = self.peek().filter(|c| !matches!(c, '|' | ')')) {
            self.at += 1;
            let node = match c {
                _ if flags.verbose && c.is_whitespace() => continue,
                '#' if flags.verbose => {
                    while self.peek().is_some_and(|c| c != '\n') {
                        self.at += 1;
                    }
                    continue;
                }
                '(' => match self.group(flags, depth, is_first && all.is_empty())? {
                    Some(node) => node,
                    None => continue,
                },
                '[' => self.set(*flags)?,
                '\\' => self.escape(*flags)?,
                '.' => Node::One(Set::any(flags.dot_all)),
                '^' => Node::Place(if flags.multi_line { Place::LineStart } else { Place::Start }),
                '$' => Node::Place(if flags.multi_line { Place::LineEnd } else { Place::BeforeEnd }),
                '*' | '+' | '?' | '{' => match self.repetition(c)? {
                    None => Node::One(Set::of('{', false)),
                    Some((min, max)) => {
                        let node = all.pop().filter(|node| !matches!(node, Node::Place(_)));
                        let node: Box<Node> = Box::new(node.ok_or(format!("nothing before `{c}` to repeat"))?);
                        if matches!(*node, Node::Repeat { .. }) {
                            return Err("a repetition is repeated".into());
                        }
                        if self.takes("+") {
                            // Python goes back into no single round either
                            let node = Box::new(Node::Atomic(node));
                            Node::Atomic(Box::new(Node::Repeat { node, min, max, lazy: false }))
                        } else {
                            Node::Repeat { node, min, max, lazy: self.takes("?") }
                        }
                    }
                },
                c => Node::One(Set::of(c, flags.ignore_case)),
            };
            all.push(node);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Node::Sequence(all) })
    }

    /// The bounds of a repetition whose first character was `c`; `None` for a brace that is a letter.
    fn repetition(&mut self, c: char) -> Parsed<Option<(usize, Option<usize>)>> {
        match c {
            '*' => return Ok(Some((0, None))),
            '+' => return Ok(Some((1, None))),
            '?' => return Ok(Some((0, Some(1)))),
            _ => {}
        }
        let start = self.at;
        let number = |parser: &mut Self| {
            let mut digits = String::new();
            while let Some(digit) = parser.peek().filter(char::is_ascii_digit) {
                parser.at += 1;
                digits.push(digit);
            }
            match digits.parse() {
                Ok(n) if n <= MAX_REPEAT => Ok(Some(n)),
                _ if digits.is_empty() => Ok(None),
                _ => Err(format!("it repeats {digits} times, the limit is {MAX_REPEAT}")),
            }
        };
        let is_empty = self.peek() == Some('}');
        let low = number(self)?;
        let high = if self.takes(",") { number(self)? } else { low };
        if is_empty || !self.takes("}") {
            self.at = start;
            return Ok(None);
        }
        match (low.unwrap_or(0), high) {
            (min, Some(max)) if max < min => Err(format!("`{{{min},{max}}}` has its bounds the wrong way round")),
            bounds => Ok(Some(bounds)),
        }
    }

    /// What an opened parenthesis holds; `None` for comments and flags, which change those of the rest.
    fn group(&mut self, flags: &mut Flags, depth: usize, is_start: bool) -> Parsed<Option<Node>> {
        let start = self.at;
        let inside = |parser: &mut Self, flags: Flags| {
            let node = parser.choice(flags, depth + 1)?;
            if parser.takes(")") { Ok(Box::new(node)) } else { Err("a group is not closed".to_string()) }
        };
        if !self.takes("?") || self.takes("P<") {
            self.n_groups += 1;
            let group = self.n_groups;
            if self.at != start {
                let name = self.until('>')?;
                if self.names.insert(name.clone(), group).is_some() {
                    return Err(format!("two groups are named `{name}`"));
                }
            }
            self.open.push(group);
            let node = inside(self, *flags)?;
            self.open.pop();
            return Ok(Some(Node::Group(group, node)));
        }
        for (mark, behind, negated) in
            [("=", false, false), ("!", false, true), ("<=", true, false), ("<!", true, true)]
        {
            if self.takes(mark) {
                return Ok(Some(Node::Look { node: inside(self, *flags)?, behind, negated }));
            }
        }
        if self.takes("#") {
            return self.until(')').map(|_| None);
        }
        if self.takes(">") {
            return Ok(Some(Node::Atomic(inside(self, *flags)?)));
        }
        if self.takes("P=") {
            let name = self.until(')')?;
            return self.again(&name, *flags).map(Some);
        }
        if self.takes("(") {
            let name = self.until(')')?;
            let group = self.numbered(&name)?;
            let both = match *inside(self, *flags)? {
                Node::Choice(mut both) if both.len() == 2 => [both.remove(0), both.remove(0)],
                Node::Choice(_) => return Err("a condition has more than two branches".into()),
                yes => [yes, Node::Sequence(vec![])],
            };
            return Ok(Some(Node::If(group, Box::new(both))));
        }
        let (mut inner, mut to) = (*flags, true);
        loop {
            match self.next()? {
                '-' if to => to = false,
                ':' => return Ok(Some(Node::Sequence(vec![*inside(self, inner)?]))),
                ')' if is_start && to => {
                    *flags = inner;
                    return Ok(None);
                }
                ')' => return Err("flags for the whole expression are not at its start".into()),
                letter => inner.set(letter, to)?,
            }
        }
    }

    /// The number of a group that is known by now.
    fn numbered(&self, name: &str) -> Parsed<usize> {
        let group = self.names.get(name).copied().or_else(|| name.parse().ok());
        group.filter(|group| (1..=self.n_groups).contains(group)).ok_or(format!("there is no group `{name}` yet"))
    }

    fn again(&self, name: &str, flags: Flags) -> Parsed<Node> {
        match self.numbered(name)? {
            group if self.open.contains(&group) => Err(format!("the group `{name}` is not closed yet")),
            group => Ok(Node::Again(group, flags.ignore_case)),
        }
    }

    fn escape(&mut self, flags: Flags) -> Parsed<Node> {
        let place = |place| Ok(Node::Place(place));
        match self.peek() {
            Some('A') => self.next().and_then(|_| place(Place::Start)),
            Some('Z') => self.next().and_then(|_| place(Place::End)),
            Some('b') => self.next().and_then(|_| place(Place::WordBoundary)),
            Some('B') => self.next().and_then(|_| place(Place::NoWordBoundary)),
            Some('1'..='9') => {
                let mut digits = self.next()?.to_string();
                if let Some(second) = self.peek().filter(char::is_ascii_digit) {
                    self.at += 1;
                    digits.push(second);
                }
                self.again(&digits, flags)
            }
            _ => Ok(Node::One(match self.escaped()? {
                Ok(class) => Set::class(class),
                Err(c) => Set::of(c, flags.ignore_case),
            })),
        }
    }

    /// A class or a character behind a backslash.
    fn escaped(&mut self) -> Parsed<Result<Class, char>> {
        Ok(Err(match self.next()? {
            c @ ('d' | 's' | 'w') => return Ok(Ok(Class(c, false))),
            c @ ('D' | 'S' | 'W') => return Ok(Ok(Class(c.to_ascii_lowercase(), true))),
            'a' => '\x07',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            'x' => self.hexadecimal(2)?,
            'u' => self.hexadecimal(4)?,
            'U' => self.hexadecimal(8)?,
            c if c.is_ascii_alphanumeric() => return Err(format!("the escape `\\{c}` is not known")),
            c => c,
        }))
    }

    fn hexadecimal(&mut self, digits: usize) -> Parsed<char> {
        let text = (0..digits).map(|_| self.next()).collect::<Parsed<String>>()?;
        let code = u32::from_str_radix(&text, 16).ok().filter(|_| text.chars().all(|c| c.is_ascii_hexdigit()));
        code.and_then(char::from_u32).ok_or(format!("`{text}` is no character"))
    }

    fn set(&mut self, flags: Flags) -> Parsed<Node> {
        let mut set = Set { negated: self.takes("^"), ignores_case: flags.ignore_case, ..Set::default() };
        let mut is_first = true;
        loop {
            let c = self.next()?;
            if c == ']' && !is_first {
                return Ok(Node::One(set));
            }
            is_first = false;
            let member = |parser: &mut Self, c: char| match c {
                '\\' if parser.takes("b") => Ok(Err('\x08')),
                '\\' => parser.escaped(),
                c => Ok(Err(c)),
            };
            match member(self, c)? {
                Ok(class) => set.classes.push(class),
                Err(first) => {
                    let is_range = self.peek() == Some('-') && self.text.get(self.at + 1).is_some_and(|c| *c != ']');
                    let mut last = first;
                    if is_range {
                        self.at += 1;
                        let c = self.next()?;
                        last = member(self, c)?.err().ok_or("a range ends in a class")?;
                    }
                    if last < first {
                        return Err(format!("the range `{first}-{last}` has its ends the wrong way round"));
                    }
                    set.ranges.push((first, last));
                }
            }
        }
    }
}
