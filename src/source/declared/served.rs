//! Declared sources with their secrets, as a gateway serves them.

use std::path::PathBuf;
use std::sync::Arc;

use super::file::Declared;
use super::secrets::Secrets;
use crate::source::{DeclareError, Source};

/// A declared source, its file and its secrets.
#[derive(Debug)]
pub struct Served {
    /// The source in the registry.
    pub source: Source,
    /// The file.
    pub file: Declared,
    /// Values of the secrets that the file names.
    pub secrets: Secrets,
}

/// Reasons that declared sources cannot be served, all of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ServeError(pub Vec<Unserved>);

/// Reason that a declared source cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unserved {
    /// A secret is not set, or a part of it is empty.
    #[error("{}: the secret {name} of the source `{source_name}` is not set", .path.display())]
    Secret {
        /// The file.
        path: PathBuf,
        /// Name of the source.
        source_name: String,
        /// Name of the variable.
        name: String,
    },
    /// The registry does not take the source.
    #[error("{}: {error}", .path.display())]
    Declaration {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        error: DeclareError,
    },
}

/// Declares sources in the registry, with their secrets from `lookup`, which returns a variable's value.
///
/// # Errors
///
/// With every secret that is missing, and every source that the registry does not take.
pub fn serve(
    files: Vec<(PathBuf, Declared)>,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<Vec<Arc<Served>>, ServeError> {
    let (mut served, mut errors) = (Vec::new(), Vec::new());
    for (path, file) in files {
        let secrets = Secrets::load(file.secrets(), &lookup).unwrap_or_else(|missing| {
            errors.extend(missing.into_iter().map(|name| Unserved::Secret {
                path: path.clone(),
                source_name: file.name().to_owned(),
                name: name.as_str().to_owned(),
            }));
            Secrets::default()
        });
        match Source::declare(file.name(), file.title()) {
            Ok(source) => served.push(Arc::new(Served { source, file, secrets })),
            Err(error) => errors.push(Unserved::Declaration { path, error }),
        }
    }
    if errors.is_empty() { Ok(served) } else { Err(ServeError(errors)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::shipped;

    fn file(name: &str) -> (PathBuf, Declared) {
        let file = format!("{name}.yaml");
        let declared = Declared::parse(&file, shipped::find(name).unwrap().file).unwrap();
        (file.into(), declared)
    }

    #[test]
    fn every_secret_that_is_missing_is_named() {
        let error = serve(vec![file("meta_leads"), file("stripe")], |_| None).unwrap_err().to_string();
        for part in
            ["meta_leads.yaml: the secret ESS_META_LEADS_SECRET", "ESS_META_LEADS_VERIFY_TOKEN", "ESS_STRIPE"]
        {
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(error.lines().count(), 3, "{error}");
        let served = serve(vec![file("meta_leads")], |_| Some("s3cret-one,s3cret-two".to_owned())).unwrap();
        assert_eq!(served[0].source.name(), "meta_leads");
        assert!(serve(vec![file("meta_leads")], |_| Some("a,,b".to_owned())).is_err());
        assert!(!format!("{served:?}").contains("s3cret"), "no output shows a secret");
    }
}
