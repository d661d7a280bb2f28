//! Which module of a crate a path leads to.

use std::collections::{BTreeMap, BTreeSet};

use crate::code::{code, parse};

/// The names from the crate's root, which itself has none.
pub(crate) type ModulePath = Vec<String>;

/// Re-exports lead on to others, and imports of everything may lead back.
const STEPS_MAX: u8 = 8;

#[derive(Default)]
struct Module {
    /// Where a name that is imported leads.
    imports: BTreeMap<String, Vec<String>>,
    /// From where everything is imported.
    globs: Vec<Vec<String>>,
    paths: Vec<Vec<String>>,
}

pub(crate) struct ModuleTree {
    modules: BTreeMap<ModulePath, Module>,
}

impl ModuleTree {
    pub(crate) fn new(files: &[(ModulePath, String)]) -> Self {
        let mut modules: BTreeMap<ModulePath, Module> = BTreeMap::new();
        for (path, source) in files {
            let file = parse(source);
            let code = code(&file);
            // A library and its binary are both the root.
            let module = modules.entry(path.clone()).or_default();
            for import in code.imports {
                module.paths.push(import.path.clone());
                match import.name {
                    Some(name) => drop(module.imports.insert(name, import.path)),
                    None => module.globs.push(import.path),
                }
            }
            module
                .paths
                .extend(code.paths.into_iter().filter(|path| may_lead_away(path)));
        }
        Self { modules }
    }

    /// Who uses whom.
    pub(crate) fn uses(&self) -> BTreeSet<(ModulePath, ModulePath)> {
        let mut uses = BTreeSet::new();
        for (user, module) in &self.modules {
            let used = module
                .paths
                .iter()
                .filter_map(|path| self.target(user, path, STEPS_MAX));
            uses.extend(used.map(|used| (user.clone(), used)));
        }
        uses
    }

    /// The module that holds what a path names, if it is of this crate.
    fn target(&self, from: &[String], path: &[String], steps: u8) -> Option<ModulePath> {
        let steps = steps.checked_sub(1)?;
        let (first, rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" => ModulePath::new(),
            name => self.step(from, name, steps)?,
        };
        for name in rest {
            // Who leads no further is an item, perhaps with items of its own.
            let Some(next) = self.step(&at, name, steps) else {
                break;
            };
            at = next;
        }
        Some(at)
    }

    fn step(&self, at: &[String], name: &str, steps: u8) -> Option<ModulePath> {
        match name {
            "self" => return Some(at.to_vec()),
            "super" => return at.split_last().map(|(_, parent)| parent.to_vec()),
            _ => {}
        }
        let child = [at, &[name.to_owned()]].concat();
        if self.modules.contains_key(&child) {
            return Some(child);
        }
        let module = self.modules.get(at)?;
        if let Some(path) = module.imports.get(name) {
            return self.target(at, path, steps);
        }
        let mut globs = module.globs.iter();
        globs.find_map(|path| {
            let from = self.target(at, path, steps)?;
            self.step(&from, name, steps.checked_sub(1)?)
        })
    }
}

/// One small name alone is mostly a variable.
fn may_lead_away(path: &[String]) -> bool {
    path.len() > 1 || path.iter().any(|name| name.starts_with(char::is_uppercase))
}
