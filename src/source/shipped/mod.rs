//! Source files that come with the binary, each with the bodies of its examples.
//!
//! `NAME.yaml` is the source file; the folder `NAME` holds the bodies that its examples name. Every value in them is
//! invented. `ess sources add NAME` writes both into the folder of `ESS_SOURCES`.

/// A source file that comes with the binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shipped {
    /// Name of the source, which is also the name of its file and folder.
    pub name: &'static str,
    /// Text of `NAME.yaml`.
    pub file: &'static str,
    /// Bodies of the examples in the folder `NAME`: name and text of each file.
    pub examples: &'static [(&'static str, &'static str)],
}

impl Shipped {
    /// Returns bodies of the examples by their names.
    pub fn reader(&self) -> impl Fn(&str) -> std::io::Result<Vec<u8>> + use<> {
        let examples = self.examples;
        move |name| {
            let found = examples.iter().find(|(known, _)| *known == name);
            found.map(|(_, text)| text.as_bytes().to_vec()).ok_or_else(|| std::io::ErrorKind::NotFound.into())
        }
    }
}

/// Embeds the files that are named, relative to this folder.
macro_rules! shipped {
    ($($name:literal: [$($example:literal),*];)*) => {
        &[$(Shipped {
            name: $name,
            file: include_str!(concat!($name, ".yaml")),
            examples: &[$(($example, include_str!(concat!($name, "/", $example)))),*],
        }),*]
    };
}

/// All source files that come with the binary, sorted by name.
pub const ALL: &[Shipped] = shipped! {
    "adjust": ["install.query", "purchase.query"];
    "appsflyer": ["install.json", "purchase.json", "purchase.query"];
    "generic": ["two-events.json"];
    "google_leads": ["lead-test.json", "lead.json"];
    "linkedin_leads": ["challenge.query", "lead-created.json", "lead-deleted.json", "social-actions.json"];
    "meta_ads": ["ad-account.json", "handshake.query"];
    "meta_leads": [
        "changed-fields-only.json", "handshake.query", "leadgen-batch.json", "leadgen-dashboard-test.json", "leadgen.json"
    ];
    "shopify_orders": ["orders-paid.json"];
    "snapchat_leads": ["lead.json"];
    "standard_webhooks": ["lead-created.json"];
    "stripe": ["charge-succeeded-jpy.json", "charge-succeeded.json"];
    "tiktok_events": ["authorization-removed.json", "video-publish-completed.json"];
    "tiktok_leads": ["lead.json"];
};

/// The shipped source file of this name.
pub fn find(name: &str) -> Option<&'static Shipped> {
    ALL.iter().find(|shipped| shipped.name == name)
}

#[cfg(test)]
mod tests;
