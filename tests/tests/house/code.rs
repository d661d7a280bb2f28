//! What the rules need to know of a file's code.
//! What is compiled for tests alone is not looked at.

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, File, Meta, Signature, Type, UseTree, Visibility};

/// A function or a method.
pub(crate) struct Function<'a> {
    /// With the type that it belongs to, if any.
    pub(crate) name: String,
    pub(crate) signature: &'a Signature,
    /// It is `pub`, or belongs to a trait that is.
    pub(crate) is_public: bool,
    /// It implements a trait, which says what it takes.
    pub(crate) is_dictated: bool,
}

/// What a `use` brings.
pub(crate) struct Import {
    pub(crate) path: Vec<String>,
    /// None brings all that is there.
    pub(crate) name: Option<String>,
}

#[derive(Default)]
pub(crate) struct Code<'a> {
    pub(crate) functions: Vec<Function<'a>>,
    pub(crate) imports: Vec<Import>,
    /// In expressions, types and patterns, and in what macros are given.
    pub(crate) paths: Vec<Vec<String>>,
    owner: Owner,
    /// How many modules within the file are around what is visited.
    inner_modules: usize,
}

/// What the methods that are visited belong to.
#[derive(Default)]
struct Owner {
    name: String,
    is_public: bool,
    is_dictated: bool,
}

pub(crate) fn parse(source: &str) -> File {
    syn::parse_file(source).expect("Rust")
}

pub(crate) fn code(file: &File) -> Code<'_> {
    let mut code = Code::default();
    code.visit_file(file);
    code
}

/// `cfg(any(test, …))` is in the product, too.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => {
            let condition = list.tokens.to_string().replace(' ', "");
            condition == "test" || condition.starts_with("all(test,")
        }
        _ => false,
    })
}

fn type_name(implementor: &Type) -> String {
    let last = match implementor {
        Type::Path(path) => path.path.segments.last(),
        _ => None,
    };
    last.map_or_else(|| "_".to_owned(), |segment| segment.ident.to_string())
}

fn is_pub(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

impl<'a> Code<'a> {
    fn method(&self, signature: &'a Signature, is_pub: bool) -> Function<'a> {
        Function {
            name: format!("{}::{}", self.owner.name, signature.ident),
            signature,
            is_public: is_pub || self.owner.is_public,
            is_dictated: self.owner.is_dictated,
        }
    }

    fn within(&mut self, owner: Owner, visit: impl FnOnce(&mut Self)) {
        let outer = std::mem::replace(&mut self.owner, owner);
        visit(self);
        self.owner = outer;
    }

    /// To a rule a module within a file is the file, so what is above it is the file.
    fn seen_from_file(&self, mut path: Vec<String>) -> Vec<String> {
        let above = path.iter().take_while(|name| *name == "super").count();
        let within = above.min(self.inner_modules);
        path.drain(..within);
        if within > 0 && within == above {
            path.insert(0, "self".to_owned());
        }
        path
    }

    fn import(&mut self, tree: &UseTree, before: &[String]) {
        let with = |name: String| [before, &[name]].concat();
        match tree {
            UseTree::Path(path) => self.import(&path.tree, &with(path.ident.to_string())),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, before);
                }
            }
            UseTree::Glob(_) => self.imports.push(Import {
                path: self.seen_from_file(before.to_vec()),
                name: None,
            }),
            UseTree::Name(name) => self.import_as(name.ident.to_string(), None, before),
            UseTree::Rename(name) => {
                self.import_as(
                    name.ident.to_string(),
                    Some(name.rename.to_string()),
                    before,
                );
            }
        }
    }

    fn import_as(&mut self, name: String, other_name: Option<String>, before: &[String]) {
        let mut path = before.to_vec();
        // `a::{self}` brings a.
        if name != "self" || before.is_empty() {
            path.push(name);
        }
        let name = other_name.or_else(|| path.last().cloned());
        let path = self.seen_from_file(path);
        self.imports.push(Import { path, name });
    }

    /// What a macro is given need not be Rust; its paths can be told all the same.
    fn paths_in(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.end_path(&mut path);
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Group(group) => {
                    self.end_path(&mut path);
                    self.paths_in(group.stream());
                }
                _ => self.end_path(&mut path),
            }
        }
        self.end_path(&mut path);
    }

    /// A name alone may be anything in a macro.
    fn end_path(&mut self, path: &mut Vec<String>) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.paths.push(self.seen_from_file(path));
        }
    }
}

macro_rules! skip_for_tests {
    ($($visit:ident: $node:ident,)*) => {
        $(fn $visit(&mut self, node: &'ast syn::$node) {
            if !is_for_tests(&node.attrs) {
                visit::$visit(self, node);
            }
        })*
    };
}

impl<'ast> Visit<'ast> for Code<'ast> {
    skip_for_tests! {
        visit_arm: Arm,
        visit_expr_block: ExprBlock,
        visit_field: Field,
        visit_field_value: FieldValue,
        visit_impl_item_const: ImplItemConst,
        visit_item_const: ItemConst,
        visit_item_enum: ItemEnum,
        visit_item_macro: ItemMacro,
        visit_item_static: ItemStatic,
        visit_item_struct: ItemStruct,
        visit_item_type: ItemType,
        visit_local: Local,
        visit_stmt_macro: StmtMacro,
        visit_variant: Variant,
    }

    /// Attributes name macros, not modules of ours.
    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_for_tests(&module.attrs) {
            self.inner_modules += 1;
            visit::visit_item_mod(self, module);
            self.inner_modules -= 1;
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_for_tests(&item.attrs) {
            self.import(&item.tree, &[]);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        if !is_for_tests(&function.attrs) {
            self.functions.push(Function {
                name: function.sig.ident.to_string(),
                signature: &function.sig,
                is_public: is_pub(&function.vis),
                is_dictated: false,
            });
            visit::visit_item_fn(self, function);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if !is_for_tests(&item.attrs) {
            let owner = Owner {
                name: type_name(&item.self_ty),
                is_public: false,
                is_dictated: item.trait_.is_some(),
            };
            self.within(owner, |code| visit::visit_item_impl(code, item));
        }
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        if !is_for_tests(&item.attrs) {
            let owner = Owner {
                name: item.ident.to_string(),
                is_public: is_pub(&item.vis),
                is_dictated: false,
            };
            self.within(owner, |code| visit::visit_item_trait(code, item));
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_for_tests(&function.attrs) {
            let method = self.method(&function.sig, is_pub(&function.vis));
            self.functions.push(method);
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if !is_for_tests(&function.attrs) {
            let method = self.method(&function.sig, false);
            self.functions.push(method);
            visit::visit_trait_item_fn(self, function);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string());
        let path_seen_from_file = self.seen_from_file(names.collect());
        self.paths.push(path_seen_from_file);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.paths_in(call.tokens.clone());
        visit::visit_macro(self, call);
    }
}

#[test]
fn code_for_tests_is_left_out() {
    let file = parse(
        "use a::A;\n#[cfg(test)]\nuse b::B;\n#[cfg(all(test, unix))]\nmod tests { fn c() {} }\n\
         enum D {\n#[cfg(test)]\nE(f::F),\n}\nfn g() { match h {\n#[cfg(test)]\nD::E => i::j(),\nk => {} } }",
    );
    let code = code(&file);
    let imported: Vec<_> = code
        .imports
        .iter()
        .map(|import| import.path.join("::"))
        .collect();
    assert_eq!(imported, ["a::A"]);
    let named: Vec<_> = code
        .functions
        .iter()
        .map(|function| &function.name)
        .collect();
    assert_eq!(named, ["g"]);
    assert!(
        code.paths.iter().all(|path| path.len() == 1),
        "{:?}",
        code.paths
    );
}

#[test]
fn imports_paths_and_what_macros_are_given_are_read() {
    let file = parse(
        "use a::{self, b::{C as D, *}};\nfn f() { g!(x.y, { crate::h::i(j); }); }\n\
         mod k { use super::l; use super::super::m; }",
    );
    let code = code(&file);
    let imported: Vec<_> = code
        .imports
        .iter()
        .map(|import| {
            (
                import.path.join("::"),
                import.name.as_deref().unwrap_or("*"),
            )
        })
        .collect();
    let expected = [
        ("a", "a"),
        ("a::b::C", "D"),
        ("a::b", "*"),
        ("self::l", "l"),
        ("super::m", "m"),
    ];
    assert_eq!(
        imported,
        expected.map(|(path, name)| (path.to_owned(), name))
    );
    assert!(
        code.paths
            .contains(&["crate", "h", "i"].map(str::to_owned).to_vec())
    );
}
