//! Reads archives: parameters for a server's `UpdateController`, controllers for its `SetController`.

use std::collections::HashSet;
use std::sync::Arc;

use tenon_pickle::Dialect;

use super::class_text::{ClassText, Method};
use super::zip::ZipArchive;
use super::{ArchiveError, Dict, FormatError, LIMITS, Object, TensorValue, Value};

/// Custom classes are implemented in the server and have no text in the archive.
const CUSTOM_CLASS_PREFIX: &str = "__torch__.torch.classes.";
const TENSOR_DICT: &str = "Dict[str, Tensor]";

/// Any TorchScript archive: its root module and its sources.
#[derive(Debug, Clone)]
pub struct Archive {
    /// The root module.
    pub root: Arc<Object>,
    /// Module path (`__torch__.a.b`) and text of every source file.
    pub sources: Vec<(String, String)>,
}

impl Archive {
    /// Reads an archive and checks what the loader checks (§6.1): one top folder, version 1…10,
    /// `data.pkl`, `constants.pkl`, a text for every class, every declared attribute present.
    ///
    /// # Errors
    /// Any [`ArchiveError`]; never panics, whatever the bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, ArchiveError> {
        let zip = ZipArchive::open(bytes, &LIMITS)?;
        check_version(zip.entry("version")?)?;
        zip.entry("constants.pkl")?;
        let (root, classes) = tenon_pickle::machine::read(zip.entry("data.pkl")?, &zip, Dialect::TorchScript, &LIMITS)?;
        let sources = read_sources(&zip)?;
        let Value::Object(root) = root else {
            let reason = format!("the root is {}, not a module", root.kind());
            return Err(FormatError::Pickle { offset: 0, reason }.into());
        };
        let archive = Self { root, sources };
        for class in classes.iter().filter(|c| !c.starts_with(CUSTOM_CLASS_PREFIX)) {
            archive.class_text(class)?;
        }
        let given: HashSet<&str> = attribute_names(&archive.root).collect();
        for (name, _) in archive.class_text(&archive.root.class)?.attributes() {
            if !given.contains(name) {
                return Err(archive.class_error(format!("attribute {name} is not in the pickle")));
            }
        }
        Ok(archive)
    }

    /// The text of a class by its dotted name.
    ///
    /// # Errors
    /// [`FormatError::MissingEntry`] without a source file, [`ArchiveError::Class`] where the file
    /// does not define it.
    pub fn class_text(&self, class: &str) -> Result<ClassText<'_>, ArchiveError> {
        let (module, name) = class.rsplit_once('.').unwrap_or((class, ""));
        let source = self
            .sources
            .iter()
            .find(|(path, _)| path == module)
            .ok_or_else(|| FormatError::MissingEntry { entry: format!("code/{}.py", module.replace('.', "/")) })?;
        ClassText::find(&source.1, name).ok_or_else(|| ArchiveError::Class {
            class: class.to_owned(),
            reason: format!("not defined in the text of {module}"),
        })
    }

    /// A method of the root module.
    fn method(&self, name: &str) -> Result<Method<'_>, ArchiveError> {
        self.class_text(&self.root.class)?.method(name).ok_or_else(|| self.class_error(format!("has no method {name}")))
    }

    fn class_error(&self, reason: String) -> ArchiveError {
        ArchiveError::Class { class: self.root.class.to_string(), reason }
    }
}

/// Names of a module's attributes in written order; none for the state of a custom class.
fn attribute_names(object: &Object) -> impl Iterator<Item = &str> {
    let entries = object.state.as_dict().map_or(&[][..], |dict| &dict.entries);
    entries.iter().filter_map(|(key, _)| key.as_str())
}

fn check_version(content: &[u8]) -> Result<(), ArchiveError> {
    let version = std::str::from_utf8(content).ok().and_then(|t| t.trim().parse::<u32>().ok());
    match version {
        Some(1..=10) => Ok(()),
        _ => {
            let reason = "must be a decimal number from 1 to 10".into();
            Err(FormatError::Entry { entry: "version".into(), reason }.into())
        }
    }
}

fn read_sources(zip: &ZipArchive<'_>) -> Result<Vec<(String, String)>, ArchiveError> {
    let mut sources = Vec::new();
    for (name, content) in zip.entries() {
        let Some(path) = name.strip_prefix("code/").and_then(|n| n.strip_suffix(".py")) else {
            continue;
        };
        let text = std::str::from_utf8(content)
            .map_err(|_| FormatError::Entry { entry: name.to_owned(), reason: "is not UTF-8".into() })?;
        sources.push((path.replace('/', "."), text.to_owned()));
    }
    Ok(sources)
}

/// Reads an update archive: the tensors that its `forward` returns, in written order.
///
/// # Errors
/// [`ArchiveError::ForwardNeedsArguments`] where `forward` wants arguments (the real server answers
/// `UNKNOWN`), [`ArchiveError::UntaggedDict`] where the dict lacks its tag (the real server fails in
/// `update`), [`ArchiveError::NotParameters`] where `forward` does not return an attribute, and
/// any other [`ArchiveError`] for a broken archive.
pub fn read_parameters(bytes: &[u8]) -> Result<Vec<(String, TensorValue)>, ArchiveError> {
    let archive = Archive::parse(bytes)?;
    let class = archive.root.class.to_string();
    let forward = archive.method("forward")?;
    if !forward.arguments.is_empty() {
        return Err(ArchiveError::ForwardNeedsArguments { class });
    }
    let refuse = |reason: String| ArchiveError::NotParameters { class: class.clone(), reason };
    if forward.returns != TENSOR_DICT {
        return Err(refuse(format!("forward returns {}, not {TENSOR_DICT}", forward.returns)));
    }
    let attribute = match forward.body.as_slice() {
        [line] => line.strip_prefix("return self."),
        _ => None,
    };
    let Some(attribute) = attribute else {
        return Err(refuse("forward must be one line, return self.<attribute>".into()));
    };
    let Some(dict) = archive.root.attribute(attribute).and_then(Value::as_dict) else {
        return Err(refuse(format!("attribute {attribute} is not a dict")));
    };
    tensor_entries(attribute, dict).map_err(|e| match e {
        Ok(error) => error,
        Err(reason) => refuse(reason),
    })
}

/// The entries of a tagged dict; an error is either final or a reason to be put in context.
fn tensor_entries(attribute: &str, dict: &Dict) -> Result<Vec<(String, TensorValue)>, Result<ArchiveError, String>> {
    if dict.type_tag.as_deref() != Some(TENSOR_DICT) {
        return Err(Ok(ArchiveError::UntaggedDict {
            attribute: attribute.to_owned(),
            tag: dict.type_tag.as_deref().unwrap_or("not at all").to_owned(),
        }));
    }
    dict.entries
        .iter()
        .map(|(key, value)| match (key, value) {
            (Value::Str(key), Value::Tensor(tensor)) => Ok((key.to_string(), TensorValue::clone(tensor))),
            _ => Err(Err(format!(
                "attribute {attribute} maps {} to {}, not a string to a tensor",
                key.kind(),
                value.kind()
            ))),
        })
        .collect()
}

/// Reads a controller archive and checks that it has the methods a server calls: `forward` with the
/// state as its argument, `is_terminated`.
///
/// # Errors
/// Any [`ArchiveError`].
pub fn read_controller(bytes: &[u8]) -> Result<ControllerArchive, ArchiveError> {
    let archive = Archive::parse(bytes)?;
    let forward = archive.method("forward")?;
    if forward.arguments.len() != 1 {
        return Err(archive.class_error(format!(
            "forward takes {} arguments besides self, must take the state",
            forward.arguments.len()
        )));
    }
    let ended = archive.method("is_terminated")?;
    if !ended.arguments.is_empty() || ended.returns != "bool" {
        return Err(archive.class_error("is_terminated must take no argument, return bool".into()));
    }
    Ok(ControllerArchive { archive })
}

/// A controller as uploaded.
#[derive(Debug, Clone)]
pub struct ControllerArchive {
    archive: Archive,
}

impl ControllerArchive {
    /// Dotted class name of the root module, for example `__torch__.C`.
    pub fn class_name(&self) -> &str {
        &self.archive.root.class
    }

    /// The archive.
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// Names and values of the root module's attributes, in written order.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &Value)> {
        let entries = self.archive.root.state.as_dict().map_or(&[][..], |d| &d.entries);
        entries.iter().filter_map(|(key, value)| Some((key.as_str()?, value)))
    }

    /// An attribute of the root module.
    pub fn attribute(&self, name: &str) -> Option<&Value> {
        self.archive.root.attribute(name)
    }

    /// Module path and text of every source file.
    pub fn sources(&self) -> &[(String, String)] {
        &self.archive.sources
    }

    /// Whether the controller has an `update` method, so that UpdateController reaches it.
    pub fn accepts_updates(&self) -> bool {
        self.archive.method("update").is_ok()
    }
}
