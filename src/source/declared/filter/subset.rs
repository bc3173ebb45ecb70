//! The part of jq that filters may use.

use jaq_core::load::parse::{BinaryOp, Def, Pattern, Term};
use jaq_core::load::{self, lex};
use jaq_core::path::Part;

use super::mistake::{Mistake, mistake};
use crate::source::declared::functions::HIDDEN;

/// Deepest nesting of brackets, those in texts included.
pub(super) fn nesting(text: &str) -> usize {
    let (mut depth, mut most) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        most = most.max(depth);
    }
    most
}

/// Finds definitions that call themselves, and calls of functions that filters do not have. Without recursion of
/// the author's own the closures and paths of a run, which jaq frees by recursion, cannot grow.
pub(super) fn subset(text: &str) -> Vec<Mistake> {
    // What the lexer or the parser refuses, the loader tells again, with its place.
    let Ok(tokens) = load::Lexer::new(text).lex() else { return Vec::new() };
    let Ok(term) = load::Parser::new(&tokens).parse(|parser| parser.term()) else { return Vec::new() };
    let mut check = Check { text, defined: Vec::new(), mistakes: Vec::new() };
    check.term(&term);
    check.mistakes
}

struct Check<'a> {
    text: &'a str,
    /// Definitions around the place, each with its number of arguments.
    defined: Vec<(&'a str, usize)>,
    mistakes: Vec<Mistake>,
}

impl<'a> Check<'a> {
    fn definition(&mut self, definition: &Def<&'a str, Term<&'a str>>) {
        self.defined.push((definition.name, definition.args.len()));
        self.term(&definition.body);
        self.defined.pop();
    }

    fn call(&mut self, name: &'a str, arguments: usize) {
        if self.defined.contains(&(name, arguments)) {
            let message = format!(
                "`{name}` calls itself: a filter has no recursion of its own, but recurse, walk and until"
            );
            self.mistakes.push(mistake(self.text, name, message));
        } else if HIDDEN.contains(&name) {
            self.mistakes.push(mistake(
                self.text,
                name,
                format!("the function `{name}/{arguments}` does not exist here"),
            ));
        }
    }

    fn pattern(&mut self, pattern: &Pattern<&'a str>) {
        match pattern {
            Pattern::Var(_) => {}
            Pattern::Arr(parts) => parts.iter().for_each(|part| self.pattern(part)),
            Pattern::Obj(parts) => parts.iter().for_each(|(key, part)| {
                self.term(key);
                self.pattern(part);
            }),
        }
    }

    fn term(&mut self, term: &Term<&'a str>) {
        match term {
            Term::Id | Term::Recurse | Term::Num(_) | Term::Break(_) | Term::Var(_) => {}
            Term::Str(_, parts) => {
                for part in parts {
                    if let lex::StrPart::Term(term) = part {
                        self.term(term);
                    }
                }
            }
            Term::Arr(inner) => inner.iter().for_each(|inner| self.term(inner)),
            Term::Obj(members) => members.iter().for_each(|(key, value)| {
                self.term(key);
                value.iter().for_each(|value| self.term(value));
            }),
            Term::Neg(inner) | Term::Label(_, inner) => self.term(inner),
            Term::BinOp(left, operation, right) => {
                self.term(left);
                if let BinaryOp::Pipe(Some(pattern)) = operation {
                    self.pattern(pattern);
                }
                self.term(right);
            }
            Term::Fold(_, source, pattern, parts) => {
                self.term(source);
                self.pattern(pattern);
                parts.iter().for_each(|part| self.term(part));
            }
            Term::TryCatch(inner, handler) => {
                self.term(inner);
                handler.iter().for_each(|handler| self.term(handler));
            }
            Term::IfThenElse(branches, otherwise) => {
                for (condition, branch) in branches {
                    self.term(condition);
                    self.term(branch);
                }
                otherwise.iter().for_each(|otherwise| self.term(otherwise));
            }
            Term::Def(definitions, rest) => {
                definitions.iter().for_each(|definition| self.definition(definition));
                self.term(rest);
            }
            Term::Call(name, arguments) => {
                self.call(name, arguments.len());
                arguments.iter().for_each(|argument| self.term(argument));
            }
            Term::Path(inner, path) => {
                self.term(inner);
                for (part, _) in &path.0 {
                    match part {
                        Part::Index(index) => self.term(index),
                        Part::Range(from, to) => from.iter().chain(to).for_each(|bound| self.term(bound)),
                    }
                }
            }
        }
    }
}
