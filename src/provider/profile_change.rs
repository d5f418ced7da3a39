//! The difference between two profiles by meaning: which keys say something else once `extends` is resolved.
//!
//! Order of keys, comments and the split over parents do not count, except where order goes out on the wire (bodies) or
//! decides (lists of conditions, of pointers). Items of a list are matched by content first, then by what names them,
//! such as their header, then by place.

use std::sync::Arc;

use crate::provider::pack::ProfilePack;
use crate::provider::profile::Profile;
use crate::provider::template::is_name;
use crate::syntax::{Diagnostics, Kind, Node, SourceText, Table, TableEntry};

/// Lists whose product of lengths is larger are compared item by item, in place.
const MOST_PAIRS: usize = 250_000;

/// Keys whose lists are sets: their order says nothing.
const SETS: [&str; 6] = ["client_headers", "equals", "guarded", "status", "strip", "token_types"];

/// Keys by which an item of a list is known.
const NAMES: [&str; 5] = ["header", "query", "cookie", "field", "name"];

/// One difference.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProfileChange {
    /// The key, dotted: `token.request.body.scope`. An item of a list by what names it or by its number, from 1:
    /// `request.inject[x-request-id].value`, `refusal.match[2].status`.
    pub path: String,
    pub kind: ChangeKind,
    /// The value before, in TOML; `None` if there was none.
    pub old: Option<String>,
    /// The value after, in TOML; `None` if there is none.
    pub new: Option<String>,
    /// The consequence of it; empty: it is text for people.
    pub meaning: &'static str,
}

/// The way in which a key differs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChangeKind {
    Added,
    Changed,
    /// The same value at another place of an order that counts.
    Moved,
    Removed,
}

impl ChangeKind {
    /// The word for it in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Moved => "moved",
            Self::Removed => "removed",
        }
    }
}

/// A profile's text, with the pack that it stands in, if in any.
#[derive(Clone, Copy, Debug)]
pub struct ProfileText<'a> {
    pub source: &'a Arc<SourceText>,
    pub pack: Option<&'a ProfilePack>,
}

/// Compares two profiles, parents included. `None` if one of them has mistakes, all of which were reported.
pub fn profile_changes(old: ProfileText<'_>, new: ProfileText<'_>, report: &Diagnostics) -> Option<Vec<ProfileChange>> {
    let whole = |text: ProfileText<'_>| {
        Profile::parse_in(text.source, text.pack, report)?;
        Profile::resolved(text.source, text.pack, &Diagnostics::new())
    };
    let (old, new) = (whole(old), whole(new));
    Some(changes(&old?, &new?))
}

fn changes(old: &Node, new: &Node) -> Vec<ProfileChange> {
    let mut found = Vec::new();
    compare(&mut Vec::new(), old, new, &mut found);
    // That a parent is named says nothing by itself: its content is compared.
    found.retain(|change| change.path != "extends");
    found
}

/// One step of a path: a key, or an item of a list.
#[derive(Clone)]
enum PathStep {
    Item(String),
    Key(String),
}

fn compare(path: &mut Vec<PathStep>, old: &Node, new: &Node, found: &mut Vec<ProfileChange>) {
    match (&old.kind, &new.kind) {
        (Kind::Table(old), Kind::Table(new)) => compare_tables(path, old, new, found),
        (Kind::Array(old), Kind::Array(new)) => compare_lists(path, old, new, found),
        // One value may stand alone in the place of a list, but not in a body.
        (Kind::Array(items), _) if !is_verbatim(path) && alone(items).is_some() => {
            compare_lists(path, items, std::slice::from_ref(new), found);
        }
        (_, Kind::Array(items)) if !is_verbatim(path) && alone(items).is_some() => {
            compare_lists(path, std::slice::from_ref(old), items, found);
        }
        (_, _) if equal(old, new) => {}
        (_, _) => note(path, ChangeKind::Changed, Some(old), Some(new), found),
    }
}

const fn alone(items: &[Node]) -> Option<&Node> {
    if let [only] = items { Some(only) } else { None }
}

fn compare_tables(path: &mut Vec<PathStep>, old: &Table, new: &Table, found: &mut Vec<ProfileChange>) {
    for entry in &old.entries {
        path.push(PathStep::Key(entry.key.clone()));
        match new.find(&entry.key) {
            Some(other) => compare(path, &entry.value, &other.value, found),
            None => leaves(path, &entry.value, ChangeKind::Removed, found),
        }
        path.pop();
    }
    for entry in new.entries.iter().filter(|entry| old.find(&entry.key).is_none()) {
        path.push(PathStep::Key(entry.key.clone()));
        leaves(path, &entry.value, ChangeKind::Added, found);
        path.pop();
    }
    if is_verbatim(path) {
        let common = |table: &Table, other: &Table| -> Vec<String> {
            let entries = table.entries.iter().filter(|entry| other.find(&entry.key).is_some());
            entries.map(|entry| entry.key.clone()).collect()
        };
        let (before, after) = (common(old, new), common(new, old));
        if before != after {
            push(path, ChangeKind::Moved, Some(before.join(", ")), Some(after.join(", ")), found);
        }
    }
}

/// Notes a value that only one side has: a table key by key, anything else whole.
fn leaves(path: &mut Vec<PathStep>, node: &Node, kind: ChangeKind, found: &mut Vec<ProfileChange>) {
    if let ([PathStep::Key(section), PathStep::Key(_)], Some(table)) = (path.as_slice(), node.as_table())
        && section == "settings"
    {
        // A setting is there or not, whatever is said about it.
        let may_lack = ["default", "optional"].iter().any(|key| table.find(key).is_some());
        let meaning = match (kind, may_lack) {
            (ChangeKind::Removed, _) => "a config that sets it is refused: take it out there",
            (_, true) => "a config may set it",
            (_, false) => "a config has to set it",
        };
        let text = Some(value_text(node));
        let (old, new) = if kind == ChangeKind::Removed { (text, None) } else { (None, text) };
        found.push(ProfileChange { path: path_text(path), kind, old, new, meaning });
        return;
    }
    match &node.kind {
        Kind::Table(table) if !table.entries.is_empty() && !matches!(path.last(), Some(PathStep::Item(_))) => {
            for entry in &table.entries {
                path.push(PathStep::Key(entry.key.clone()));
                leaves(path, &entry.value, kind, found);
                path.pop();
            }
        }
        Kind::Array(items) if items.iter().any(|item| item.as_table().is_some()) => {
            for (at, item) in (1..).zip(items) {
                path.push(item_step(item, at));
                leaves(path, item, kind, found);
                path.pop();
            }
        }
        Kind::Array(_) | Kind::Boolean(_) | Kind::Float(_) | Kind::Integer(_) | Kind::String(_) | Kind::Table(_) => {
            let is_old = kind == ChangeKind::Removed;
            note(path, kind, Some(node).filter(|_| is_old), Some(node).filter(|_| !is_old), found);
        }
    }
}

/// An item of a list that the other list does not have at this place.
struct Rest {
    /// From 0.
    at: usize,
    /// The number of items before it that both lists have: items with the same number may be one that was changed.
    gap: usize,
}

fn compare_lists(path: &mut Vec<PathStep>, old: &[Node], new: &[Node], found: &mut Vec<ProfileChange>) {
    if old.len() == new.len() && old.iter().zip(new).all(|(old, new)| equal(old, new)) {
        return;
    }
    if old.iter().chain(new).all(|item| item.as_table().is_none()) {
        // A list of plain values is one value.
        let key =
            path.iter().rev().find_map(|step| if let PathStep::Key(key) = step { Some(key.as_str()) } else { None });
        let is_set = key.is_some_and(|key| SETS.contains(&key)) && !is_verbatim(path);
        let within = |items: &[Node], others: &[Node]| items.iter().all(|item| others.iter().any(|o| equal(item, o)));
        if !(is_set && within(old, new) && within(new, old)) {
            push(path, ChangeKind::Changed, Some(list_text(old)), Some(list_text(new)), found);
        }
        return;
    }
    let (mut gone, mut come) = unmatched(old, new);
    // What has a name is matched by it, then what was moved, then what stands in the same gap.
    let pick = |at: usize, items: &[Node]| items.get(at).cloned();
    let by_name = |old: &Node, new: &Node| name_of(old).is_some() && name_of(old) == name_of(new);
    let mut pairs = matched(&mut gone, &mut come, |a, b| {
        pick(a.at, old).zip(pick(b.at, new)).is_some_and(|(old, new)| by_name(&old, &new))
    });
    pairs.extend(matched(&mut gone, &mut come, |a, b| {
        pick(a.at, old).zip(pick(b.at, new)).is_some_and(|(old, new)| equal(&old, &new))
    }));
    pairs.extend(matched(&mut gone, &mut come, |a, b| {
        let both = pick(a.at, old).zip(pick(b.at, new));
        a.gap == b.gap && both.is_some_and(|(old, new)| name_of(&old).is_none() && name_of(&new).is_none())
    }));
    pairs.sort_unstable();
    for (before, after) in pairs {
        let (Some(was), Some(is)) = (old.get(before), new.get(after)) else { continue };
        path.push(item_step(is, after + 1));
        if equal(was, is) {
            push(path, ChangeKind::Moved, Some((before + 1).to_string()), Some((after + 1).to_string()), found);
        } else {
            compare(path, was, is, found);
        }
        path.pop();
    }
    for (rest, items, kind) in [(gone, old, ChangeKind::Removed), (come, new, ChangeKind::Added)] {
        for (at, item) in rest.iter().filter_map(|rest| Some((rest.at, items.get(rest.at)?))) {
            path.push(item_step(item, at + 1));
            leaves(path, item, kind, found);
            path.pop();
        }
    }
}

/// Takes out of both lists what fits together, in order.
fn matched(gone: &mut Vec<Rest>, come: &mut Vec<Rest>, fits: impl Fn(&Rest, &Rest) -> bool) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    gone.retain(|old| match come.iter().position(|new| fits(old, new)) {
        Some(at) => {
            pairs.push((old.at, come.remove(at).at));
            false
        }
        None => true,
    });
    pairs
}

/// The items of both lists that do not belong to a longest common subsequence.
fn unmatched(old: &[Node], new: &[Node]) -> (Vec<Rest>, Vec<Rest>) {
    let mut common = Vec::new();
    if old.len().saturating_mul(new.len()) <= MOST_PAIRS {
        let width = new.len() + 1;
        let mut lengths = vec![0_u32; (old.len() + 1) * width];
        let length = |lengths: &[u32], a: usize, b: usize| lengths.get(a * width + b).copied().unwrap_or_default();
        for (a, was) in old.iter().enumerate().rev() {
            for (b, is) in new.iter().enumerate().rev() {
                let best = if equal(was, is) {
                    length(&lengths, a + 1, b + 1) + 1
                } else {
                    length(&lengths, a + 1, b).max(length(&lengths, a, b + 1))
                };
                if let Some(cell) = lengths.get_mut(a * width + b) {
                    *cell = best;
                }
            }
        }
        let (mut a, mut b) = (0, 0);
        while let (Some(was), Some(is)) = (old.get(a), new.get(b)) {
            if equal(was, is) {
                common.push((a, b));
                (a, b) = (a + 1, b + 1);
            } else if length(&lengths, a + 1, b) >= length(&lengths, a, b + 1) {
                a += 1;
            } else {
                b += 1;
            }
        }
    } else {
        let both = old.iter().zip(new).enumerate();
        common.extend(both.filter(|(_, (was, is))| equal(was, is)).map(|(at, _)| (at, at)));
    }
    let rest = |length: usize, side: fn(&(usize, usize)) -> usize| {
        let free = (0..length).filter(|at| !common.iter().any(|pair| side(pair) == *at));
        free.map(|at| Rest { at, gap: common.iter().filter(|pair| side(pair) < at).count() }).collect()
    };
    (rest(old.len(), |pair| pair.0), rest(new.len(), |pair| pair.1))
}

/// The word by which an item of a list is known.
fn name_of(item: &Node) -> Option<&str> {
    let table = item.as_table()?;
    NAMES.iter().find_map(|key| table.find(key)?.value.as_str())
}

fn item_step(item: &Node, number: usize) -> PathStep {
    PathStep::Item(name_of(item).map_or_else(|| number.to_string(), |name| name.to_ascii_lowercase()))
}

/// Returns whether the value stands in the body of a request, where its order and form count. `body` of a condition
/// stands in an item of a list.
fn is_verbatim(path: &[PathStep]) -> bool {
    path.windows(2).any(|pair| matches!(pair, [PathStep::Key(_), PathStep::Key(key)] if key == "body"))
}

fn equal(old: &Node, new: &Node) -> bool {
    match (&old.kind, &new.kind) {
        (Kind::Array(old), Kind::Array(new)) => {
            old.len() == new.len() && old.iter().zip(new).all(|(old, new)| equal(old, new))
        }
        (Kind::Boolean(old), Kind::Boolean(new)) => old == new,
        (Kind::Float(old), Kind::Float(new)) => old.to_bits() == new.to_bits(),
        (Kind::Integer(old), Kind::Integer(new)) => old == new,
        (Kind::String(old), Kind::String(new)) => old == new,
        (Kind::Table(old), Kind::Table(new)) => {
            let same = |entry: &TableEntry| new.find(&entry.key).is_some_and(|other| equal(&entry.value, &other.value));
            old.entries.len() == new.entries.len() && old.entries.iter().all(same)
        }
        (
            Kind::Array(_) | Kind::Boolean(_) | Kind::Float(_) | Kind::Integer(_) | Kind::String(_) | Kind::Table(_),
            _,
        ) => false,
    }
}

fn note(path: &[PathStep], kind: ChangeKind, old: Option<&Node>, new: Option<&Node>, found: &mut Vec<ProfileChange>) {
    push(path, kind, old.map(value_text), new.map(value_text), found);
}

fn push(path: &[PathStep], kind: ChangeKind, old: Option<String>, new: Option<String>, found: &mut Vec<ProfileChange>) {
    found.push(ProfileChange { path: path_text(path), kind, old, new, meaning: meaning(path) });
}

fn path_text(path: &[PathStep]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            PathStep::Item(name) => text += &format!("[{name}]"),
            PathStep::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text += &if is_name(key) { key.clone() } else { string_text(key) };
            }
        }
    }
    text
}

/// A value as TOML on one line.
fn value_text(node: &Node) -> String {
    match &node.kind {
        Kind::Array(items) => list_text(items),
        Kind::Boolean(yes) => yes.to_string(),
        Kind::Float(number) => number.to_string(),
        Kind::Integer(number) => number.to_string(),
        Kind::String(text) => string_text(text),
        Kind::Table(table) if table.entries.is_empty() => "{}".to_owned(),
        Kind::Table(table) => {
            let key = |key: &String| if is_name(key) { key.clone() } else { string_text(key) };
            let entries =
                table.entries.iter().map(|entry| format!("{} = {}", key(&entry.key), value_text(&entry.value)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
    }
}

fn list_text(items: &[Node]) -> String {
    format!("[{}]", items.iter().map(value_text).collect::<Vec<_>>().join(", "))
}

fn string_text(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// The consequence of a change, by the first keys of its path.
fn meaning(path: &[PathStep]) -> &'static str {
    let keys = path.iter().filter_map(|step| if let PathStep::Key(key) = step { Some(key.as_str()) } else { None });
    let keys: Vec<&str> = keys.collect();
    // Text for people, wherever it stands; in a body it is a field like any other.
    if matches!(keys.last(), Some(&("note" | "confirmed" | "description"))) && !is_verbatim(path) {
        return "";
    }
    match keys.as_slice() {
        ["title" | "version" | "basis" | "sources", ..] => "",
        ["name", ..] => "logs name it so, and every token is fetched anew",
        ["settings", _, "secret"] => "decides whether the value is masked, and where it may go",
        ["settings", ..] => "other values are accepted, or another one is the default",
        ["environments", ..] => "providers with this environment call another place",
        ["guarded", ..] => "other paths are refused to routes",
        ["times" | "ids", ..] => "values that requests carry are made differently",
        ["dpop", ..] => "requests carry other proofs of possession",
        ["challenge", ..] => "other answers are a challenge, after which a call goes out once more",
        ["token", "request", "sign", ..] | ["token", "request", "client_auth", ..] => {
            "the token request proves who asks in another way"
        }
        ["token", "request", ..] => "the token request is another one",
        ["token", "steps", ..] => "the requests before the token request are others",
        ["token", "response", ..] => "the token, its life or its type is read from another place of the answer",
        ["token", "failure", ..] => "token failures are classed, and rested after, differently",
        ["token", "success" | "codes", ..] => "other token answers count as success, or other codes are logged",
        ["token", "coexistence", ..] => "tokens are renewed earlier or later, and replicas share them or not",
        ["token", ..] => "tokens are fetched or read differently",
        ["request", "inject", ..] => "every call carries other fields",
        ["request", "strip", ..] => "other headers of clients are taken off",
        ["request", "sign", ..] => "calls are signed differently",
        ["request", "jose", ..] => "bodies of calls are signed or encrypted differently",
        ["request", "replay_id", ..] => "a replay keeps its id or gets a new one: a payment may be made twice",
        ["request", ..] => "every call is dressed differently",
        ["refusal", ..] => "other answers refuse a token: after them it is fetched anew and the call is replayed",
        ["response", ..] => "answers are verified or decrypted differently, or withheld",
        ["webhook", ..] => "calls of the bank are verified differently",
        ["consent", ..] => "users consent, or their tokens are renewed, differently",
        _ => "it may be seen on the wire",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tree(text: &str) -> Node {
        Node::parse(&SourceText::new("test", text), &Diagnostics::new())
    }

    fn lines(old: &str, new: &str) -> Vec<String> {
        let shown = |change: ProfileChange| {
            let side = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
            format!("{} {}: {} → {}", change.kind.as_str(), change.path, side(change.old), side(change.new))
        };
        changes(&tree(old), &tree(new)).into_iter().map(shown).collect()
    }

    #[test]
    fn keys_are_compared_and_not_lines() {
        let old = "name = \"a\"\n# why\n[token.request]\npath = \"/a\"\nheaders = { x-one = \"1\", x-two = \"2\" }\n";
        let new = "[token]\nrequest = { headers.x-two = \"2\", headers.x-one = \"1\", path = \"/b\", method = \"GET\" }\n\
                   # other\n";
        assert_eq!(
            lines(old, &format!("name = 'a'\n{new}")),
            ["changed token.request.path: \"/a\" → \"/b\"", "added token.request.method: - → \"GET\"",]
        );
        assert_eq!(lines(old, old), [""; 0]);
        assert_eq!(lines("status = 401", "status = [401]"), [""; 0]);
        assert_eq!(lines("[x]\nstatus = [401, 403]", "[x]\nstatus = [403, 401]"), [""; 0]);
        assert_eq!(
            lines("codes = [\"/a\", \"/b\"]", "codes = [\"/b\", \"/a\"]"),
            ["changed codes: [\"/a\", \"/b\"] → [\"/b\", \"/a\"]"]
        );
    }

    #[test]
    fn items_of_a_list_are_known_by_their_name() {
        let old = "[request]\ninject = [{ header = \"X-A\", value = \"1\" }, { header = \"x-b\", value = \"2\" }]";
        let new = "[request]\ninject = [{ header = \"x-0\", value = \"0\" }, { header = \"X-A\", value = \"9\" }]";
        assert_eq!(
            lines(old, new),
            [
                "changed request.inject[x-a].value: \"1\" → \"9\"",
                "removed request.inject[x-b]: { header = \"x-b\", value = \"2\" } → -",
                "added request.inject[x-0]: - → { header = \"x-0\", value = \"0\" }",
            ]
        );
    }

    #[test]
    fn conditions_are_known_by_their_place_and_their_order_counts() {
        let rule =
            |status: u16, pointer: &str| format!("{{ status = {status}, json = [{{ pointer = \"{pointer}\" }}] }}");
        let list = |rules: &[String]| format!("[refusal]\nmatch = [{}]", rules.join(", "));
        let (a, b, c) = (rule(401, "/a"), rule(401, "/b"), rule(403, "/c"));
        let old = list(&[a.clone(), b.clone(), c.clone()]);
        assert_eq!(
            lines(&old, &list(&[a.clone(), rule(400, "/b"), c.clone()])),
            ["changed refusal.match[2].status: 401 → 400"]
        );
        assert_eq!(lines(&old, &list(&[b, c.clone(), a.clone()])), ["moved refusal.match[3]: 1 → 3"]);
        assert_eq!(lines(&old, &list(&[a, c])).len(), 1);
    }

    #[test]
    fn the_order_and_form_of_a_body_count() {
        let body = |body: &str| format!("[token.request]\nbody = {body}\n");
        assert_eq!(
            lines(&body("{ a = 1, b = 2 }"), &body("{ b = 2, a = 1 }")),
            ["moved token.request.body: a, b → b, a"]
        );
        assert_eq!(lines(&body("{ a = 1 }"), &body("{ a = [1] }")), ["changed token.request.body.a: 1 → [1]"]);
    }

    #[test]
    fn what_is_text_for_people_has_no_consequence() {
        let found = changes(
            &tree(
                "title = \"a\"\n[settings.x]\ndescription = \"a\"\nsecret = true\n[token.request.body]\nnote = \"1\"",
            ),
            &tree(
                "title = \"b\"\n[settings.x]\ndescription = \"b\"\nsecret = false\n[token.request.body]\nnote = \"2\"",
            ),
        );
        let seen: Vec<(&str, bool)> =
            found.iter().map(|change| (change.path.as_str(), !change.meaning.is_empty())).collect();
        assert_eq!(
            seen,
            [
                ("title", false),
                ("settings.x.description", false),
                ("settings.x.secret", true),
                ("token.request.body.note", true)
            ]
        );
    }

    #[test]
    fn a_setting_that_comes_or_goes_says_what_a_config_has_to_do() {
        let found = changes(
            &tree("[settings.a]\ndescription = \"a\""),
            &tree("[settings.b]\ndescription = \"b\"\n[settings.c]\noptional = true"),
        );
        let seen: Vec<(&str, &str)> = found.iter().map(|change| (change.path.as_str(), change.meaning)).collect();
        assert_eq!(
            seen,
            [
                ("settings.a", "a config that sets it is refused: take it out there"),
                ("settings.b", "a config has to set it"),
                ("settings.c", "a config may set it")
            ]
        );
    }

    #[test]
    fn a_child_is_compared_with_its_parents_under_it() {
        let text = |name: &str, text: &str| SourceText::new(name, text);
        let parent = Profile::builtin_text("oauth2").unwrap();
        let parent = text("parent", parent);
        let child = text("child", "name = \"oauth2\"\nextends = \"oauth2\"\n[token.request]\nmethod = \"PUT\"\n");
        let report = Diagnostics::new();
        let of = |source| ProfileText { source, pack: None };
        let found = profile_changes(of(&parent), of(&child), &report).unwrap();
        let paths: Vec<&str> = found.iter().filter(|c| !c.meaning.is_empty()).map(|c| c.path.as_str()).collect();
        assert_eq!(paths, ["token.request.method"]);
        let broken = text("broken", "name = 7");
        assert!(profile_changes(of(&parent), of(&broken), &report).is_none());
        assert!(report.errors() > 0);
    }

    /// Profiles that are drawn from the built-in ones.
    fn any_profile() -> impl Strategy<Value = Node> {
        let names = Profile::builtin_names();
        (0..names.len()).prop_map(move |at| {
            let text = Profile::builtin_text(names[at]).unwrap();
            Profile::resolved(&SourceText::new("p", text), None, &Diagnostics::new()).unwrap()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn a_profile_is_equal_to_itself_and_differences_go_both_ways(a in any_profile(), b in any_profile()) {
            prop_assert!(changes(&a, &a).is_empty());
            let (there, back) = (changes(&a, &b), changes(&b, &a));
            prop_assert_eq!(there.is_empty(), back.is_empty());
            // A list may be matched in more than one way, so single items may be counted on either side.
            let keys = |found: &[ProfileChange], kind| {
                found.iter().filter(|change| change.kind == kind && !change.path.contains('[')).count()
            };
            prop_assert_eq!(keys(&there, ChangeKind::Added), keys(&back, ChangeKind::Removed));
        }
    }
}
