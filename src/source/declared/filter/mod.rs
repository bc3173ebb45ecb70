//! Filters in jq: one body, any number of events.
//!
//! A filter sees the body as `.`, and three variables: `$headers` (an object of texts, names in lower case, values of
//! one name joined by a comma), `$query` (an object of texts) and `$received` (the arrival as RFC 3339 text).

mod mistake;
mod subset;

use jaq_core::load::{self, Arena, File, Loader, lex};
use jaq_core::{Compiler, Ctx, Vars};

use mistake::{Mistake, mistake};
use subset::{nesting, subset};

use super::budget::{self, Bound, Limits};
use super::fault::nearest;
use super::functions;
use super::prelude::PRELUDE;
use super::program::{Counted, Data};
use super::value::Value;

/// A compiled filter.
pub(super) struct Filter {
    compiled: jaq_core::Filter<Data>,
    /// True if the filter names `$headers`.
    pub uses_headers: bool,
    /// True if the filter names `$query`.
    pub uses_query: bool,
}

/// Variables of a run.
#[derive(Debug, Default)]
pub(super) struct Variables {
    pub headers: Value,
    pub query: Value,
    pub received: Value,
}

const VARIABLES: [&str; 3] = ["$headers", "$query", "$received"];

/// A body that a filter makes no events of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failed {
    #[error(transparent)]
    Bound(#[from] Bound),
    /// An error of the filter, or one that it makes itself.
    #[error("{0}")]
    Error(String),
}

/// Longest text of a filter, in bytes.
const MAX_TEXT: usize = 32 * 1024;

/// Deepest nesting of brackets in a filter.
const MAX_BRACKETS: usize = 64;

/// Longest message of a filter's error, in characters.
const MAX_MESSAGE: usize = 300;

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filter").finish_non_exhaustive()
    }
}

impl Filter {
    /// Compiles a filter. The error names every mistake that the parser tells.
    pub fn compile(text: &str) -> Result<Self, Vec<Mistake>> {
        let whole = |message: String| vec![Mistake { at: 0, length: 1, message }];
        if text.len() > MAX_TEXT {
            return Err(whole(format!("the filter is longer than {MAX_TEXT} bytes")));
        }
        if nesting(text) > MAX_BRACKETS {
            return Err(whole(format!("the filter nests brackets deeper than {MAX_BRACKETS} levels")));
        }
        let found = subset(text);
        if !found.is_empty() {
            return Err(found);
        }
        let prelude = load::parse(PRELUDE, |parser| parser.defs()).unwrap_or_default();
        let arena = Arena::default();
        let loader = Loader::new(jaq_core::defs().chain(prelude));
        let modules = loader.load(&arena, File { code: text, path: () });
        let modules = modules.map_err(|errors| load_mistakes(text, errors))?;
        let functions = jaq_core::funs::<Data>().chain(functions::functions());
        let compiler = Compiler::default().with_funs(functions).with_global_vars(VARIABLES);
        let compiled = compiler.compile(modules).map_err(|errors| {
            errors
                .into_iter()
                .flat_map(|(_, errors)| errors)
                .map(|(name, kind)| undefined(text, name, &kind))
                .collect::<Vec<_>>()
        })?;
        Ok(Self { compiled, uses_headers: text.contains("$headers"), uses_query: text.contains("$query") })
    }

    /// Runs the filter, and hands each output to `take` until that returns false.
    pub fn run(
        &self,
        input: Value,
        variables: Variables,
        limits: Limits,
        mut take: impl FnMut(Value) -> bool,
    ) -> Result<(), Failed> {
        let Variables { headers, query, received } = variables;
        let ended = budget::run(limits, || {
            let context =
                Ctx::<Data>::new(Counted(&self.compiled.lut), Vars::new([headers, query, received]));
            for output in self.compiled.id.run((context, input)) {
                match output {
                    Ok(value) => {
                        if !take(value) {
                            break;
                        }
                    }
                    Err(exception) => {
                        return Some(match exception.get_err() {
                            Ok(error) => match error.into_val() {
                                Value::Text(text) => text.to_string(),
                                other => other.to_json(),
                            },
                            Err(_) => "break without its label".to_owned(),
                        });
                    }
                }
            }
            None
        })?;
        match ended {
            None => Ok(()),
            Some(message) => Err(Failed::Error(message.chars().take(MAX_MESSAGE).collect())),
        }
    }
}

/// Part of a text that a parser stopped at, in messages.
fn found(part: &str) -> String {
    match part.split_whitespace().next() {
        Some(word) => format!("`{}`", super::yaml::shortened(word)),
        None => "the end".to_owned(),
    }
}

fn load_mistakes(text: &str, errors: load::Errors<&str, ()>) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for (_, error) in errors {
        match error {
            load::Error::Io(errors) => mistakes.extend(
                errors
                    .into_iter()
                    .map(|(path, _)| mistake(text, path, "a filter cannot include files".to_owned())),
            ),
            load::Error::Lex(errors) => mistakes.extend(errors.into_iter().map(|(expected, part)| {
                let expected = match &expected {
                    lex::Expect::Delim(_) => "the closing bracket or quote",
                    other => other.as_str(),
                };
                mistake(text, part, format!("in jq, {} stands where {expected} is expected", found(part)))
            })),
            load::Error::Parse(errors) => mistakes.extend(errors.into_iter().map(|(expected, part)| {
                mistake(
                    text,
                    part,
                    format!("in jq, {} stands where {} is expected", found(part), expected.as_str()),
                )
            })),
        }
    }
    mistakes
}

fn undefined(text: &str, name: &str, kind: &jaq_core::compile::Undefined) -> Mistake {
    use jaq_core::compile::Undefined;
    let message = match kind {
        Undefined::Filter(arguments) => {
            let known = functions::names();
            let hint = match nearest(name, known.iter().copied()) {
                Some(near) if near == name => ", with another number of arguments it does".to_owned(),
                Some(near) => format!(", did you mean `{near}`?"),
                None => String::new(),
            };
            format!("the function `{name}/{arguments}` does not exist{hint}")
        }
        Undefined::Var => {
            format!("the variable `{name}` does not exist: expected one of {}", VARIABLES.join(", "))
        }
        other => format!("the {} `{name}` does not exist", other.as_str()),
    };
    mistake(text, name, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str, input: &str) -> Result<Vec<String>, String> {
        let filter = Filter::compile(text).unwrap_or_else(|mistakes| panic!("{text}: {mistakes:?}"));
        let input = super::super::json::parse(input.as_bytes()).unwrap();
        let variables = Variables { received: Value::text("now"), ..Variables::default() };
        let mut outputs = Vec::new();
        let ended = filter.run(input, variables, Limits::for_body(100), |value| {
            outputs.push(value.to_json());
            outputs.len() < 1_000
        });
        ended.map(|()| outputs).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn yields(text: &str, input: &str, expected: &str) {
        assert_eq!(run(text, input).map(|outputs| outputs.join(" ")).as_deref(), Ok(expected), "{text}");
    }

    #[test]
    fn filters_make_events_of_bodies() {
        let body = r#"{"entry":[{"id":"p","changes":[{"field":"leadgen","value":{"a":1}},{"field":"x"}]}]}"#;
        let leads = r#".entry[] as $e | $e.changes[] | select(.field=="leadgen") | .value + {page: $e.id}"#;
        yields(leads, body, r#"{"a":1,"page":"p"}"#);
        yields(
            ".id, .amount, (.id | tostring)",
            r#"{"id":7400000000000000777,"amount":0.10}"#,
            r#"7400000000000000777 0.10 "7400000000000000777""#,
        );
        yields(".[0] - 500, .[0] / 2, .[0] % 7, -.[0]", "[1990]", "1490 995 2 -1990");
        yields("$received, $headers, $query", "1", r#""now" null null"#);
    }

    #[test]
    fn the_functions_are_those_of_jq() {
        yields("map(length)", r#"["äb",[1,2],{"a":1},null,-3]"#, "[2,2,1,0,3]");
        yields(
            "[.[] | type]",
            r#"[null,true,1,"",[],{}]"#,
            r#"["null","boolean","number","string","array","object"]"#,
        );
        yields("sort, group_by(.), unique, min, max, add", "[3,1,3]", "[1,3,3] [[1],[3,3]] [1,3] 1 3 7");
        yields(
            "to_entries, keys, has(\"a\"), with_entries(.value += 1)",
            r#"{"a":1}"#,
            r#"[{"key":"a","value":1}] ["a"] true {"a":2}"#,
        );
        yields(
            r#"split(","), ltrimstr("a"), rtrimstr("c"), startswith("a"), ascii_upcase, explode[0]"#,
            r#""a,b,c""#,
            r#"["a","b","c"] ",b,c" "a,b," true "A,B,C" 97"#,
        );
        yields(
            r##"test("X"; "i"), [scan("[0-9]")], sub("(?<d>[0-9])"; "<\(.d)>"), gsub("[0-9]"; "#")"##,
            r#""autumn (2x0)""#,
            r##"true ["2","0"] "autumn (<2>x0)" "autumn (#x#)""##,
        );
        yields(
            r#"capture("(?<name>[a-z]+) \\((?<id>[0-9]+)\\)")"#,
            r#""autumn (20)""#,
            r#"{"id":"20","name":"autumn"}"#,
        );
        yields(
            "@uri, (@uri | @urid), @base64, (@base64 | @base64d), tojson, (tojson | fromjson)",
            r#""é/ ""#,
            r#""%C3%A9%2F%20" "é/ " "w6kvIA==" "é/ " "\"é/ \"" "é/ ""#,
        );
        yields(
            "[flatten, reverse, contains([1]), index(1), indices(1)]",
            "[1,[2,[1]]]",
            "[[1,2,1],[[2,[1]],1],true,0,[0]]",
        );
        yields(
            "(.a.b = 1), (.c[0] |= 5), del(.d), .x?, [.[]?], (.d // 7), ([paths] | length), getpath([\"d\",\"e\"])",
            r#"{"c":[1],"d":{"e":2}}"#,
            r#"{"a":{"b":1},"c":[1],"d":{"e":2}} {"c":[5],"d":{"e":2}} {"c":[1]} null [[1],{"e":2}] {"e":2} 4 2"#,
        );
        yields(".[:-2], .[1:], .[-1:], (explode | implode)", r#""abcd""#, r#""ab" "bcd" "d" "abcd""#);
        yields(
            "[limit(3; range(10))], first(range(5;9)), [.[] | if . > 1 then \"big\" else . end], any(.[]; . > 1)",
            "[1,2]",
            r#"[0,1,2] 5 [1,"big"] true"#,
        );
        yields(
            "try error(\"x\") catch ., (.a? // \"none\"), ([1.5, -1.5] | map(floor, ceil, round)), (\"12\" | tonumber)",
            "[]",
            r#""x" "none" [1,2,2,-2,-1,-2] 12"#,
        );
        assert_eq!(run("error(\"not a lead\")", "1"), Err("not a lead".to_owned()));
        assert!(run(".a", "[]").is_err());
    }

    #[test]
    fn no_filter_runs_away() {
        for (text, bound) in [
            ("range(1e12) | select(false)", "more than"),
            ("[range(1e12)] | length", "more than"),
            ("[limit(1e9; repeat(1))]", "more than"),
            ("last(range(1e12))", "more than"),
            ("reduce range(60) as $i (\"ab\"; . + .)", "more than"),
            ("\"ab\" * 1e12", "more than"),
            ("reduce range(60) as $i ([1]; . + .)", "more than"),
            ("[range(1000)] as $a | reduce ($a[] | $a[] | $a[]) as $x (0; . + 1)", "more than"),
            ("[range(20)] | [.[] as $a | .[] as $b | .[] as $c | .[] as $d | .[] as $e | 1]", "more than"),
            ("def a: .,.; def b: a|a|a|a; def c: b|b|b|b; def d: c|c|c|c; [d]", "more than"),
            ("reduce range(1e6) as $i (null; [.])", "levels"),
            ("reduce range(1e6) as $i (null; {a: .})", "levels"),
            ("first(1 | recurse(. + 1) | select(. < 0))", "more than"),
            ("until(false; .)", "more than"),
            ("[recurse([.])]", "levels"),
            ("first(repeat(.) | select(false))", "more than"),
            ("while(true; .) | select(false)", "more than"),
            ("\"a\" * 100000 | [range(100000) as $i | test(\"a*b\")]", "more than"),
            ("\"a\" * 100000 | [., .] | [range(10000) as $i | .[0] == .[1]] | length", "more than"),
            ("[range(3000)] | [.[] as $i | sort] | length", "more than"),
            ("[range(3000)] | . - (map(. + 5000)) | [range(1000) as $i | . - .]", "more than"),
            (
                "[range(1e4)] | map(tostring) | reduce .[] as $x (\"\"; . + $x + (. | ascii_downcase))",
                "more than",
            ),
            ("[limit(1e5; repeat(\"x\"))] | join(\"-\") | [range(1e5) as $i | split(\"-\")] | length", ""),
            ("def f($x): $x | walk(.); [range(1e5)] | f(.) | .. |= .", ""),
        ] {
            let refused = run(text, "{}").expect_err(text);
            assert!(refused.contains(bound), "{text}: {refused}");
        }
        // A loop of outputs ends when no more are taken.
        assert_eq!(run("repeat(1)", "{}").map(|outputs| outputs.len()), Ok(1_000));
        assert_eq!(run("range(1e12)", "{}").map(|outputs| outputs.len()), Ok(1_000));
    }

    #[test]
    fn a_quadratic_filter_is_taken_on_small_bodies_and_refused_on_large_ones() {
        let filter = "[.[] as $a | .[] as $b | select($a == $b)] | length";
        let body = |items: usize| format!("[{}]", vec!["1"; items].join(","));
        assert!(run(filter, &body(50)).is_ok());
        assert!(run(filter, &body(1_000)).is_err_and(|error| error.contains("steps")));
    }

    #[test]
    fn mistakes_have_their_place() {
        for (text, at, part) in [
            ("def f: f; f", 7, "calls itself"),
            ("def f(g): f(g | .); f(.)", 10, "calls itself"),
            (".a | lenght", 5, "did you mean `length`?"),
            (".a | env", 5, "does not exist"),
            ("path(.a)", 0, "does not exist"),
            ("input", 0, "does not exist"),
            ("halt", 0, "does not exist"),
            ("$header", 0, "expected one of $headers"),
            ("include \"x\"; .", 9, "cannot include"),
            (".a |", 4, "stands where"),
            ("(.a", 3, "closing"),
            ("map(1; 2)", 0, "map"),
        ] {
            let mistakes = Filter::compile(text).expect_err(text);
            assert!(mistakes.iter().any(|mistake| mistake.message.contains(part)), "{text}: {mistakes:?}");
            assert!(mistakes.iter().any(|mistake| mistake.at == at), "{text}: {mistakes:?}");
        }
        assert!(Filter::compile(&"(".repeat(1_000)).is_err());
        assert!(Filter::compile(&".".repeat(100_000)).is_err());
    }
}
