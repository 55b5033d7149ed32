//! The rules that ARCHITECTURE.md states, held against the tree: floors and
//! their imports, lengths, names, who may print, nothing left unfinished.
//!
//! It works on tokens: comments are gone, and a literal is one token whatever
//! it says. So a needle in a string, such as those in this file, finds nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const MAIN_LINES_MAX: usize = 49;
const FILE_LINES_MAX: usize = 700;
const FUNCTION_LINES_MAX: usize = 80;
const PAGE: &str = "ARCHITECTURE.md";
/// What the library is called from outside; the program may use either name.
const CRATE_NAMES: [&str; 2] = ["crate", "estrato"];

// ---- tokens ----

/// A word, `::`, a single sign, or [`LITERAL`].
#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    text: String,
    line: usize,
}

const LITERAL: &str = "\"";

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c == '_' || c.is_alphanumeric())
}

/// Length of the comment, literal or lifetime at the start of `rest`, if one is there. `Some((n, true))` for a literal.
fn skipped(rest: &[char]) -> Option<(usize, bool)> {
    let starts = |text: &str| text.chars().enumerate().all(|(i, c)| rest.get(i) == Some(&c));
    if starts("//") {
        return Some((rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()), false));
    }
    if starts("/*") {
        return Some((block_comment(rest), false));
    }
    let prefix = ["br", "cr", "r", "b", "c", ""].into_iter().find(|p| starts(p)).unwrap_or("");
    let after = &rest[prefix.len()..];
    let hashes = after.iter().take_while(|c| **c == '#').count();
    if prefix.ends_with('r') && after.get(hashes) == Some(&'"') {
        return Some((prefix.len() + raw_string(after, hashes), true));
    }
    match after.first() {
        Some('"') => Some((prefix.len() + quoted(after, '"'), true)),
        // `'a'` and `'\n'` are characters, `'a` is a lifetime.
        Some('\'') if after.get(1) == Some(&'\\') || after.get(2) == Some(&'\'') => {
            Some((prefix.len() + quoted(after, '\''), true))
        }
        Some('\'') => Some((prefix.len() + 1, false)),
        _ => None,
    }
}

fn block_comment(rest: &[char]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < rest.len() {
        match (rest[at], rest.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn raw_string(rest: &[char], hashes: usize) -> usize {
    let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let from = hashes + 1;
    let inside = rest[from..].windows(close.len()).position(|w| w == close);
    inside.map_or(rest.len(), |n| from + n + close.len())
}

fn quoted(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let (mut out, mut at, mut line) = (Vec::new(), 0, 1);
    while at < chars.len() {
        let rest = &chars[at..];
        let word = rest.iter().take_while(|c| **c == '_' || c.is_alphanumeric()).count();
        let (len, text) = match skipped(rest) {
            Some((len, literal)) => (len, literal.then(|| LITERAL.to_owned())),
            None if rest.starts_with(&['r', '#']) => (2, None),
            None if word > 0 => (word, Some(rest[..word].iter().collect())),
            None if rest.starts_with(&[':', ':']) => (2, Some("::".to_owned())),
            None if rest[0].is_whitespace() => (1, None),
            None => (1, Some(rest[0].to_string())),
        };
        out.extend(text.map(|text| Token { text, line }));
        line += rest[..len].iter().filter(|c| **c == '\n').count();
        at += len;
    }
    out
}

// ---- paths ----

/// A path as it is written, each member of a `use` group by itself, and the modules that it stands in.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    path: Vec<String>,
    inside: Vec<String>,
    line: usize,
}

/// True for what may be part of a path; a keyword before `::name` is none.
fn is_part(word: &str) -> bool {
    is_word(word) && !["as", "dyn", "else", "if", "impl", "in", "match", "mut", "return", "use"].contains(&word)
}

/// Every path of two or more parts, and every `use` of one, in a file that is the module `file`.
fn paths(tokens: &[Token], file: &[String]) -> Vec<Named> {
    let text = |at: usize| tokens.get(at).map_or("", |t| t.text.as_str());
    let before = |at: usize, back: usize| at.checked_sub(back).map_or("", |at| text(at));
    let mut modules: Vec<(String, usize)> = Vec::new();
    let (mut out, mut depth, mut at) = (Vec::new(), 0, 0);
    while at < tokens.len() {
        match text(at) {
            "{" => depth += 1,
            "}" => {
                depth = usize::saturating_sub(depth, 1);
                modules.retain(|(_, outside)| *outside < depth);
            }
            "mod" if text(at + 2) == "{" => modules.push((text(at + 1).to_owned(), depth)),
            _ => {}
        }
        let used = before(at, 1) == "use" || before(at, 1) == "::" && before(at, 2) == "use";
        let follows = before(at, 1) == "::" && (is_part(before(at, 2)) || before(at, 2) == ">");
        let named = is_part(text(at)) && !follows && (used || text(at + 1) == "::");
        if named || used && text(at) == "{" {
            let inside: Vec<String> = file.iter().cloned().chain(modules.iter().map(|m| m.0.clone())).collect();
            let mut found = Vec::new();
            at = expand(tokens, at, &mut Vec::new(), &mut found);
            out.extend(found.into_iter().map(|(path, line)| Named { path, inside: inside.clone(), line }));
        } else {
            at += 1;
        }
    }
    out
}

/// Reads the path, or group of paths, at `at` and appends what it names; returns where it ends.
fn expand(tokens: &[Token], mut at: usize, prefix: &mut Vec<String>, out: &mut Vec<(Vec<String>, usize)>) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |t| t.text.as_str());
    let (line, kept) = (tokens[at].line, prefix.len());
    if text(at) == "{" {
        at += 1;
        while at < tokens.len() && text(at) != "}" {
            let member = is_word(text(at)) && text(at) != "as" && text(at - 1) != "as";
            let starts = member || text(at) == "{" || text(at) == "*";
            at = if starts { expand(tokens, at, prefix, out) } else { at + 1 };
        }
        return at + 1;
    }
    prefix.push(text(at).to_owned());
    at += 1;
    let next = text(at + 1);
    if text(at) == "::" && (is_word(next) || next == "{" || next == "*") {
        at = expand(tokens, at + 1, prefix, out);
    } else {
        out.push((prefix.clone(), line));
    }
    prefix.truncate(kept);
    at
}

impl Named {
    /// The path from the crate's root, if it is one of ours.
    fn in_crate(&self) -> Option<Vec<String>> {
        let mut path = self.path.as_slice();
        let mut from = match path.first()?.as_str() {
            first if CRATE_NAMES.contains(&first) => Vec::new(),
            "self" | "super" => self.inside.clone(),
            _ => return None,
        };
        if path[0] != "super" {
            path = &path[1..];
        }
        while path.first().is_some_and(|part| part == "super") {
            from.pop();
            path = &path[1..];
        }
        from.extend_from_slice(path);
        Some(from)
    }
}

// ---- the table of floors ----

struct Floor {
    floor: u32,
    module: String,
    /// Modules of the same floor that it may import.
    also: Vec<String>,
    line: usize,
}

/// The words in backticks.
fn ticked(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The rows `| floor | module | purpose | also imports |`, and what is wrong with them.
fn floors(page: &str) -> (Vec<Floor>, Vec<String>) {
    let (mut table, mut wrong): (Vec<Floor>, Vec<String>) = (Vec::new(), Vec::new());
    let mut here = false;
    for (line, row) in page.lines().enumerate().map(|(i, row)| (i + 1, row)) {
        if row.starts_with('#') {
            here = row == "## Floors";
        }
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let Some(floor) = cells.get(1).filter(|_| here).and_then(|cell| cell.parse().ok()) else { continue };
        let module = ticked(cells.get(2).unwrap_or(&""));
        let ([module], 6) = (module.as_slice(), cells.len()) else {
            wrong.push(format!("{PAGE}:{line}: not `| floor | module | purpose | also imports |`: one module a row"));
            continue;
        };
        let also = ticked(cells[4]);
        for name in &also {
            if !table.iter().any(|f| f.module == *name && f.floor == floor) {
                wrong.push(format!(
                    "{PAGE}:{line}: `{module}` may import `{name}` only if it stands on the same floor, above it in the table"
                ));
            }
        }
        if table.last().is_some_and(|above| above.floor > floor) || table.iter().any(|f| f.module == *module) {
            wrong.push(format!("{PAGE}:{line}: `{module}` stands twice or out of order: sort the rows by floor"));
        }
        table.push(Floor { floor, module: module.clone(), also, line });
    }
    if table.is_empty() && wrong.is_empty() {
        wrong.push(format!("{PAGE}:1: no rows below a heading `## Floors`"));
    }
    (table, wrong)
}

// ---- files ----

struct File {
    /// Below the project's folder, with `/`.
    path: String,
    text: String,
    tokens: Vec<Token>,
    /// The line of the `#[cfg(test)] mod tests {` that ends the code; past the end if there is none.
    tests_from: usize,
}

impl File {
    fn new(path: &str, text: &str) -> Self {
        let tokens = tokens(text);
        let marks: Vec<&str> = tokens.iter().map(|t| t.text.as_str()).collect();
        let opening = ["#", "[", "cfg", "(", "test", ")", "]", "mod", "tests", "{"];
        let tests_from =
            marks.windows(opening.len()).position(|w| w == opening).map_or(usize::MAX, |at| tokens[at].line);
        Self { path: path.to_owned(), text: text.to_owned(), tokens, tests_from }
    }

    /// The module that the file is: `src/a/mod.rs` is `a`, `src/a/b.rs` is `a::b`, a crate's root is nothing.
    fn module(&self) -> Vec<String> {
        let path = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let mut parts: Vec<String> = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        if parts.last().is_some_and(|last| last == "mod") || parts == ["lib"] || parts == ["main"] {
            parts.pop();
        }
        parts
    }

    /// The top-level module that the file belongs to: `main` for the program's root, nothing for the library's.
    fn top(&self) -> Option<String> {
        let path = self.path.strip_prefix("src/")?;
        let top = path.split('/').next().unwrap_or(path).trim_end_matches(".rs");
        (top != "lib").then(|| top.to_owned())
    }

    fn is_program(&self) -> bool {
        self.path.starts_with("src/cli/") || self.path == "src/cli.rs" || self.path == "src/main.rs"
    }

    fn is_test(&self, line: usize) -> bool {
        line >= self.tests_from || self.path.split('/').any(|part| part == "tests" || part == "tests.rs")
    }

    fn at(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }

    /// Lines at which these tokens stand in a row.
    fn lines_of(&self, row: &[&str]) -> Vec<usize> {
        let here = |w: &&[Token]| w.iter().zip(row).all(|(token, text)| token.text == *text);
        self.tokens.windows(row.len()).filter(here).map(|w| w[0].line).collect()
    }
}

struct Project {
    src: Vec<File>,
    /// Those of `tests`, `benches` and the fuzz targets.
    beside: Vec<File>,
    page: String,
}

fn rust_files(root: &Path, folder: &Path, out: &mut Vec<File>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut entries: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            rust_files(root, &path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            out.push(File::new(path.strip_prefix(root).unwrap().to_str().unwrap(), &text));
        }
    }
}

impl Project {
    fn load() -> Self {
        // Asked when it runs: a build folder may serve several checkouts.
        let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("run by cargo"));
        let files = |folders: &[&str]| {
            let mut out = Vec::new();
            folders.iter().for_each(|f| rust_files(&root, &root.join(f), &mut out));
            out
        };
        let page = std::fs::read_to_string(root.join(PAGE)).unwrap_or_default();
        let beside = files(&["tests", "benches", "fuzz/src", "fuzz/fuzz_targets"]);
        Self { src: files(&["src"]), beside, page }
    }

    fn all(&self) -> impl Iterator<Item = &File> {
        self.src.iter().chain(&self.beside)
    }
}

fn hold(problems: Vec<String>) {
    assert!(problems.is_empty(), "{} to mend:\n{}\n", problems.len(), problems.join("\n"));
}

// ---- the rules ----

/// Imports that the table does not allow. Every exception that is used is added to `used`.
fn imports(file: &File, table: &[Floor], used: &mut BTreeSet<(String, String)>) -> Vec<String> {
    let Some(top) = file.top() else { return Vec::new() };
    let find = |name: &str| table.iter().find(|f| f.module == name);
    // A module that the table lacks is told of by `modules`.
    let Some(here) = find(&top) else { return Vec::new() };
    let mut problems = Vec::new();
    for named in paths(&file.tokens, &file.module()) {
        let Some(path) = named.in_crate() else { continue };
        let written = named.path.join("::");
        let said = |what: &str| file.at(named.line, &format!("`{written}`: {what}"));
        let to = match path.first().map(String::as_str) {
            Some(first) if first != "*" && first != "self" => first,
            // `use super::*` right in a root's own tests.
            _ if named.path[0] == "super" && file.module().is_empty() => continue,
            _ => {
                problems.push(said("takes the whole crate: name the module"));
                continue;
            }
        };
        let Some(there) = find(to) else {
            // What a root's own tests call by `super::name` is in that root.
            if !file.module().is_empty() || CRATE_NAMES.contains(&named.path[0].as_str()) {
                problems.push(said(&format!("{PAGE} has no module `{to}`: name the module where it is defined")));
            }
            continue;
        };
        if here.also.contains(&there.module) {
            used.insert((here.module.clone(), there.module.clone()));
        } else if there.module != here.module && there.floor >= here.floor {
            problems.push(said(&format!(
                "`{top}` (floor {}) may not import `{to}` (floor {}): move what both need further down, or have it passed in",
                here.floor, there.floor
            )));
        }
    }
    problems
}

/// Where the table and the tree name different modules.
fn modules(table: &[Floor], src: &[File]) -> Vec<String> {
    let mut problems = Vec::new();
    let declared = |name: &str| {
        let mut roots = src.iter().filter(|f| f.module().is_empty());
        name == "main" || roots.any(|root| !root.lines_of(&["mod", name]).is_empty())
    };
    let found: BTreeSet<String> = src.iter().filter_map(File::top).collect();
    for floor in table {
        if !found.contains(&floor.module) {
            let name = &floor.module;
            problems.push(format!("{PAGE}:{}: there is no src/{name}.rs or src/{name}/: mend the table", floor.line));
        }
    }
    for name in &found {
        let first = src.iter().find(|f| f.top().as_ref() == Some(name)).map_or("src", |f| &f.path);
        if !table.iter().any(|f| f.module == *name) {
            problems.push(format!("{first}:1: {PAGE} gives `{name}` no floor: add a row"));
        }
        if !declared(name) {
            problems.push(format!(
                "{first}:1: neither src/lib.rs nor src/main.rs declares `mod {name}`: it is not built"
            ));
        }
    }
    problems
}

/// The name, first line and length of each function that is longer than it may be.
fn long_functions(file: &File) -> Vec<(String, usize, usize)> {
    let text = |at: usize| file.tokens.get(at).map_or("", |t| t.text.as_str());
    let mut out = Vec::new();
    for at in (0..file.tokens.len()).filter(|at| text(*at) == "fn" && is_word(text(at + 1))) {
        let (mut depth, mut round) = (0usize, 0usize);
        for (end, token) in file.tokens.iter().enumerate().skip(at) {
            match token.text.as_str() {
                "(" | "[" => round += 1,
                ")" | "]" => round = round.saturating_sub(1),
                "{" => depth += 1,
                "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
            let declared_only = text(end) == ";" && depth == 0 && round == 0;
            if declared_only || text(end) == "}" && depth == 0 {
                let lines = token.line - file.tokens[at].line + 1;
                if lines > FUNCTION_LINES_MAX {
                    out.push((text(at + 1).to_owned(), file.tokens[at].line, lines));
                }
                break;
            }
        }
    }
    out
}

fn lengths(file: &File) -> Vec<String> {
    let lines = file.text.lines().count().min(file.tests_from - 1);
    let max = if file.path == "src/main.rs" { MAIN_LINES_MAX } else { FILE_LINES_MAX };
    let mut problems = Vec::new();
    if lines > max {
        problems.push(file.at(max + 1, &format!("{lines} lines of code, at most {max}: divide it by what it does")));
    }
    for (name, line, lines) in long_functions(file) {
        let what = format!("fn {name} has {lines} lines, at most {FUNCTION_LINES_MAX}: divide it");
        problems.push(file.at(line, &what));
    }
    problems
}

fn names(file: &File) -> Vec<String> {
    let empty = |name: &str| ["util", "utils", "helper", "helpers", "misc", "common"].contains(&name);
    let mut problems = Vec::new();
    if file.path.trim_end_matches(".rs").split('/').any(empty) {
        problems.push(file.at(1, "a name that says nothing: call it what it does"));
    }
    for pair in file.tokens.windows(2).filter(|w| w[0].text == "mod" && empty(&w[1].text)) {
        problems.push(file.at(pair[0].line, &format!("mod {}: call it what it does", pair[1].text)));
    }
    problems
}

fn printing(file: &File) -> Vec<String> {
    if file.is_program() {
        return Vec::new();
    }
    let mut problems = Vec::new();
    for name in ["println", "eprintln", "print", "eprint", "dbg"] {
        for line in file.lines_of(&[name, "!"]).into_iter().filter(|l| !file.is_test(*l)) {
            problems
                .push(file.at(line, &format!("{name}!: the library tells its monitor or returns; only cli prints")));
        }
    }
    for named in paths(&file.tokens, &file.module()) {
        let called = |outer: &str, name: &str| named.path.windows(2).any(|w| w[0] == outer && w[1] == name);
        if called("process", "exit") {
            problems.push(file.at(named.line, "process::exit: return an error; only cli chooses an exit code"));
        }
        if called("io", "stdout") || called("io", "stderr") {
            problems.push(file.at(named.line, "io::stdout, io::stderr: take a `Write`; only cli prints"));
        }
    }
    problems
}

fn errors(file: &File) -> Vec<String> {
    let named = paths(&file.tokens, &file.module());
    let anyhow = named.iter().filter(|n| n.path[0] == "anyhow" && !file.is_program() && !file.is_test(n.line));
    anyhow.map(|n| file.at(n.line, "anyhow: the library's errors are `error::Error`")).collect()
}

fn unfinished(file: &File) -> Vec<String> {
    let mut problems = Vec::new();
    for name in ["todo", "unimplemented"] {
        problems.extend(file.lines_of(&[name, "!"]).into_iter().map(|l| file.at(l, &format!("{name}!: finish it"))));
    }
    for line in file.lines_of(&["#", "[", "ignore"]) {
        problems.push(file.at(line, "an ignored test: mend or remove it; a long one asks for ESTRATO_LONG_TESTS"));
    }
    // In comments too, so in the bare text; put together here, so that this file does not find itself.
    let needles = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), "X".repeat(3)];
    for (i, line) in file.text.lines().enumerate() {
        let word = |w: &str| needles.iter().any(|needle| w == needle);
        if line.split(|c: char| c != '_' && !c.is_alphanumeric()).any(word) {
            problems.push(file.at(i + 1, "a note to self: do it, or open an issue"));
        }
    }
    problems
}

fn header(file: &File) -> Vec<String> {
    if file.text.starts_with("//!") {
        return Vec::new();
    }
    vec![file.at(1, "begins with no `//!`: say what the module is for, and what it is not")]
}

// ---- the tree ----

#[test]
fn modules_import_from_lower_floors_only() {
    let project = Project::load();
    let (table, mut problems) = floors(&project.page);
    let mut used = BTreeSet::new();
    for file in &project.src {
        problems.extend(imports(file, &table, &mut used));
    }
    // The program's root may reach a module by declaring it.
    let main = project.src.iter().filter(|f| f.path == "src/main.rs");
    let declares = |name: &str| main.clone().any(|f| !f.lines_of(&["mod", name]).is_empty());
    for (floor, name) in table.iter().flat_map(|f| f.also.iter().map(move |name| (f, name))) {
        let declared = floor.module == "main" && declares(name);
        if !declared && !used.contains(&(floor.module.clone(), name.clone())) {
            let module = &floor.module;
            problems
                .push(format!("{PAGE}:{}: `{module}` does not import `{name}`: remove the exception", floor.line));
        }
    }
    hold(problems);
}

#[test]
fn the_table_names_every_module_and_no_other() {
    let project = Project::load();
    hold(modules(&floors(&project.page).0, &project.src));
}

#[test]
fn files_and_functions_are_short() {
    hold(Project::load().src.iter().flat_map(lengths).collect());
}

#[test]
fn names_say_something() {
    hold(Project::load().all().flat_map(names).collect());
}

#[test]
fn only_the_command_line_prints_and_exits() {
    hold(Project::load().src.iter().flat_map(printing).collect());
}

#[test]
fn the_library_has_typed_errors() {
    hold(Project::load().src.iter().flat_map(errors).collect());
}

#[test]
fn nothing_is_left_unfinished() {
    hold(Project::load().all().flat_map(unfinished).collect());
}

#[test]
fn every_module_says_what_it_is() {
    hold(Project::load().src.iter().flat_map(header).collect());
}

// ---- the rules themselves ----

const TABLE: &str = "\
## Floors
| floor | module | purpose | also imports |
|---|---|---|---|
| 0 | `error` | | |
| 1 | `format` | | |
| 1 | `crypto` | | `format` |
| 1 | `store` | | |
| 3 | `repo` | | |
| 6 | `cli` | | |
| 6 | `main` | | `cli` |
## Other
| 9 | `not_this` | | |
";

fn imports_of(path: &str, text: &str) -> Vec<String> {
    let (table, wrong) = floors(TABLE);
    assert_eq!(wrong, Vec::<String>::new());
    imports(&File::new(path, text), &table, &mut BTreeSet::new())
}

#[test]
fn imports_that_must_fail() {
    let snippets = [
        ("src/format/a.rs", "use crate::store::Store;"),
        ("src/format/a.rs", "use crate::crypto;"),
        ("src/format/a.rs", "use crate::{error::{Error, Result}, repo::Repository as R}};"),
        ("src/format/a.rs", "use {crate::repo::Repository, std::fmt};"),
        ("src/format/a.rs", "use ::estrato::repo::Repository;"),
        ("src/format/a.rs", "fn f() { return ::estrato::repo::f() }"),
        ("src/format/a.rs", "fn f() -> Vec<crate::repo::R> { todo() }"),
        ("src/format/a.rs", "fn f() { let x = <crate::repo::R as T>::new(); }"),
        ("src/format/a.rs", "macro_rules! m { () => { $crate::repo::R } }"),
        ("src/format/a.rs", "pub(in crate::repo) fn f() {}"),
        ("src/format/a.rs", "use super::super::repo::R;"),
        ("src/format/mod.rs", "use super::repo::R;"),
        ("src/format/mod.rs", "mod tests { use super::super::repo::R; }"),
        ("src/format/mod.rs", "mod inner { fn f() {} } use super::store::Store;"),
        ("src/format.rs", "use self::super::repo::R;"),
        ("src/error.rs", "use crate::*;"),
        ("src/error.rs", "use crate::{*};"),
        ("src/error.rs", "use super::*;"),
        ("src/error.rs", "use crate as everything;"),
        ("src/error.rs", "use crate::{self as everything};"),
        ("src/error.rs", "use crate::Repository;"),
        ("src/store/mod.rs", "use crate::crypto::seal;"),
        ("src/repo/mod.rs", "fn f() { crate::cli::run::<u8>() }"),
        ("src/cli/mod.rs", "use crate::main::x;"),
        ("src/cli/mod.rs", "use estrato::*;"),
        ("src/main.rs", "fn main() { estrato::everything() }"),
    ];
    for (path, text) in snippets {
        let problems = imports_of(path, text);
        assert_eq!(problems.len(), 1, "{path}: {text}: {problems:?}");
        assert!(problems[0].starts_with(&format!("{path}:1: ")), "{problems:?}");
    }
}

#[test]
fn imports_that_must_pass() {
    let snippets = [
        ("src/crypto/a.rs", "use crate::{error::Error, format::{self, header::*}};"),
        ("src/format/a.rs", "use super::b::{C, d::E}; use crate::format::f; pub(crate) fn f() {}"),
        ("src/format/a.rs", "mod tests { use super::*; mod more { use super::super::*; } } use super::b;"),
        ("src/format/a.rs", "// crate::repo\n/// [`crate::repo`]\n/* /* crate::repo */ crate::repo */"),
        ("src/format/a.rs", "fn f<'a>(x: &'a str) { g(\"crate::repo\", r#\"\" crate::repo\"#, b'\"', '\\'') }"),
        (
            "src/format/a.rs",
            "use std::fmt; fn f() { repo::x(); a.repo(); other::crate_::repo(); Vec::<repo::X>::new() }",
        ),
        ("src/repo/mod.rs", "use crate::{store, crypto::{seal as s, open}, error::Error};"),
        ("src/cli/mod.rs", "use estrato::repo::R; use crate::cli::args;"),
        ("src/main.rs", "mod cli; fn main() { estrato::cli::run(); crate::cli::run() } mod tests { use super::*; }"),
        ("src/lib.rs", "pub mod error; pub use crate::repo::Repository;"),
    ];
    for (path, text) in snippets {
        assert_eq!(imports_of(path, text), Vec::<String>::new(), "{path}: {text}");
    }
}

#[test]
fn groups_and_lines_are_read() {
    let found = paths(&tokens("use crate::{\n    a::b,\n    c::{self, d as e, *},\n};\n\n::std::f();"), &[]);
    let found: Vec<(String, usize)> = found.into_iter().map(|n| (n.path.join("::"), n.line)).collect();
    let expected = [("crate::a::b", 2), ("crate::c::self", 3), ("crate::c::d", 3), ("crate::c::*", 3), ("std::f", 6)];
    assert_eq!(found, expected.map(|(path, line)| (path.to_owned(), line)));
}

#[test]
fn tables_that_must_fail() {
    let row = |floor: u32, module: &str, also: &str| format!("| {floor} | `{module}` | x | {also} |\n");
    let tables = [
        String::new(),
        row(0, "a", "`b`") + &row(0, "b", ""),
        row(0, "a", "") + &row(1, "b", "`a`"),
        row(1, "a", "") + &row(0, "b", ""),
        row(0, "a", "") + &row(0, "a", ""),
        "| 0 | `a`, `b` | x | |\n".to_owned(),
        "| 0 | `a` | x |\n".to_owned(),
    ];
    for table in tables {
        assert_eq!(floors(&format!("# Page\n## Floors\n{table}")).1.len(), 1, "{table}");
    }
}

#[test]
fn modules_that_must_fail() {
    let src = |files: &[(&str, &str)]| files.iter().map(|(path, text)| File::new(path, text)).collect::<Vec<_>>();
    let table = floors("## Floors\n| 0 | `a` | x | |\n| 1 | `main` | x | |\n").0;
    let good = [("src/lib.rs", "pub mod a;"), ("src/main.rs", ""), ("src/a/b.rs", "")];
    assert_eq!(modules(&table, &src(&good)), Vec::<String>::new());
    assert_eq!(
        modules(&table, &src(&good[..2])),
        [format!("{PAGE}:2: there is no src/a.rs or src/a/: mend the table")]
    );
    assert_eq!(modules(&table[1..], &src(&good)), [format!("src/a/b.rs:1: {PAGE} gives `a` no floor: add a row")]);
    assert_eq!(modules(&table, &src(&good[1..])).len(), 1);
}

#[test]
fn other_rules_that_must_fail() {
    let long = format!("fn a() {{}}\nfn f(x: [u8; 2])\nwhere\n{{\n{}}}\n", "    x(\"}\"); // }\n".repeat(80));
    let file = format!("//!\n{}#[cfg(test)]\nmod tests {{}}\n", "\n".repeat(FILE_LINES_MAX));
    let note = format!("// {}: later", ["FIX", "ME"].concat());
    type Rule = fn(&File) -> Vec<String>;
    let snippets: [(Rule, &str, &str); 18] = [
        (lengths, "src/a.rs", &long),
        (lengths, "src/a.rs", &file),
        (lengths, "src/main.rs", &"\n".repeat(50)),
        (names, "src/a/util.rs", ""),
        (names, "tests/common/mod.rs", ""),
        (names, "src/a.rs", "mod helpers {}"),
        (printing, "src/a.rs", "fn f() { println!(\"x\") }"),
        (printing, "src/climate.rs", "fn f() { dbg!(1); }"),
        (printing, "src/a.rs", "fn f() { std::process::exit(1) }"),
        (printing, "src/a.rs", "use std::{process::{exit, Command}, fs};"),
        (printing, "src/a.rs", "fn f() { io::stdout().lock() }"),
        (errors, "src/a.rs", "use anyhow::Context;"),
        (errors, "src/a.rs", "fn f() -> anyhow::Result<()> { g() }"),
        (unfinished, "src/a.rs", "fn f() { todo!() }"),
        (unfinished, "tests/it/a.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}"),
        (unfinished, "benches/a.rs", &note),
        (header, "src/a.rs", "use std::fmt;"),
        (header, "src/a.rs", "\n//! Late.\n"),
    ];
    for (rule, path, text) in snippets {
        let problems = rule(&File::new(path, text));
        assert_eq!(problems.len(), 1, "{path}: {text}: {problems:?}");
    }
}

#[test]
fn other_rules_that_must_pass() {
    let file = format!("//!\n{}#[cfg(test)]\nmod tests {{\n{}}}\n", "\n".repeat(600), "\n".repeat(600));
    let functions = format!("fn f();\nlet g: fn(u8);\n{}fn h() {{}}\n", "\n".repeat(100));
    type Rule = fn(&File) -> Vec<String>;
    let snippets: [(Rule, &str, &str); 7] = [
        (lengths, "src/a.rs", &file),
        (lengths, "src/a.rs", &functions),
        (printing, "src/cli/a.rs", "fn f() { println!(); std::process::exit(1) }"),
        (printing, "src/a.rs", "// println!()\nfn f() { c.stdout(Stdio::piped()); s(\"println!()\"); io::stdin() }"),
        (errors, "src/a.rs", "#[cfg(test)]\nmod tests { use anyhow::Context; }"),
        (errors, "src/cli/a.rs", "use anyhow::Context;"),
        (unfinished, "src/a.rs", "fn todo() { mkstemp(\"XXXXXX\"); ignore::walk() }"),
    ];
    for (rule, path, text) in snippets {
        assert_eq!(rule(&File::new(path, text)), Vec::<String>::new(), "{path}: {text}");
    }
}
