//! The console: a page that shows the system live. Its files are embedded in the program, and nothing is loaded from
//! elsewhere.

use std::sync::LazyLock;

use actix_web::http::header::{self, ETag, EntityTag};
use actix_web::{HttpRequest, HttpResponse, web};
use sha2::{Digest, Sha256};

use crate::ops::http::{client_has, not_found};

/// Only files of this server may be loaded, and no script that stands in a page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the console.
struct File {
    path: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

macro_rules! files {
    ($($path:literal: $kind:expr;)+) => {
        &[$(File { path: $path, kind: $kind, bytes: include_bytes!(concat!("page/", $path)) }),+]
    };
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

const FILES: &[File] = files! {
    "index.html": HTML;
    "icon.svg": "image/svg+xml";
    "style.css": STYLE;
    "api.js": SCRIPT;
    "catalog.js": SCRIPT;
    "exact.js": SCRIPT;
    "feed.js": SCRIPT;
    "format.js": SCRIPT;
    "main.js": SCRIPT;
    "state.js": SCRIPT;
    "store.js": SCRIPT;
    "theme.js": SCRIPT;
    "pages/actors.js": SCRIPT;
    "pages/dead_letters.js": SCRIPT;
    "pages/event.js": SCRIPT;
    "pages/live.js": SCRIPT;
    "pages/overview.js": SCRIPT;
    "pages/reports.js": SCRIPT;
    "parts/chart.js": SCRIPT;
    "parts/json.js": SCRIPT;
    "parts/parts.js": SCRIPT;
    "parts/replay.js": SCRIPT;
    "vendor/htm-preact-3.1.1.js": SCRIPT;
    "vendor/uplot-1.6.32.css": STYLE;
    "vendor/uplot-1.6.32.js": SCRIPT;
    "vendor/LICENSES.txt": "text/plain; charset=utf-8";
};

/// Entity tags of [`FILES`], each computed once.
static TAGS: LazyLock<Vec<String>> =
    LazyLock::new(|| FILES.iter().map(|file| hex::encode(&Sha256::digest(file.bytes)[..12])).collect());

/// Adds the page at `/` and its files below `/console`. They hold no figures, so that they ask for no token: the page
/// asks for one where the reporter does.
pub fn routes(config: &mut web::ServiceConfig) {
    config.service(web::resource("/").get(page).head(page));
    config.service(web::resource("/console/{file:.*}").get(file).head(file));
}

async fn page(request: HttpRequest) -> HttpResponse {
    answer(&request, "index.html")
}

async fn file(request: HttpRequest, path: web::Path<String>) -> HttpResponse {
    answer(&request, &path)
}

fn answer(request: &HttpRequest, path: &str) -> HttpResponse {
    let Some((file, tag)) = FILES.iter().zip(TAGS.iter()).find(|(file, _)| file.path == path) else {
        return not_found(request);
    };
    let tag = EntityTag::new_strong(tag.clone());
    let known = client_has(request, &tag);
    let mut answer = if known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    answer
        .insert_header(ETag(tag))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"));
    if known {
        return answer.finish();
    }
    answer.content_type(file.kind).body(file.bytes)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    fn on_disk(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { on_disk(&path, into) } else { into.push(path) }
        }
    }

    #[test]
    fn every_file_of_the_page_is_served() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/console/page");
        let mut found = Vec::new();
        on_disk(&folder, &mut found);
        let mut found: Vec<_> =
            found.iter().map(|path| path.strip_prefix(&folder).unwrap().display().to_string()).collect();
        found.retain(|path| !["vendor/CHECKSUMS", "vendor/renew"].contains(&path.as_str()));
        let mut served: Vec<_> = FILES.iter().map(|file| file.path.to_owned()).collect();
        found.sort();
        served.sort();
        assert_eq!(found, served);
    }

    #[test]
    fn vendored_files_are_those_of_their_checksums() {
        let checksums = include_str!("page/vendor/CHECKSUMS");
        let vendored: Vec<_> = FILES.iter().filter(|file| file.path.starts_with("vendor/")).collect();
        let mut checked = 0;
        for line in checksums.lines().filter(|line| !line.starts_with('#')) {
            let (checksum, name) = line.split_once("  ").unwrap();
            let file = vendored.iter().find(|file| file.path == format!("vendor/{name}")).unwrap();
            assert_eq!(hex::encode(Sha256::digest(file.bytes)), checksum, "{name}");
            checked += 1;
        }
        assert_eq!(checked, vendored.len() - 1, "all but the licences have a checksum");
    }

    /// Values of the colours in a block of the style sheet that begins with a text.
    fn colors(style: &str, block: &str) -> std::collections::BTreeMap<String, [f64; 3]> {
        let block = style.split_once(block).unwrap().1.split('}').next().unwrap();
        let variables = block.split(';').filter_map(|line| line.trim().strip_prefix("--")?.split_once(": #"));
        let color = |hex: &str| {
            let part = |at: usize| f64::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap()) / 255.0;
            [part(0), part(2), part(4)]
        };
        variables.map(|(name, hex)| (name.to_owned(), color(hex))).collect()
    }

    /// Contrast of two colours (WCAG 2.2, "contrast ratio").
    fn contrast(one: [f64; 3], other: [f64; 3]) -> f64 {
        let luminance = |color: [f64; 3]| {
            let linear = color.map(|part| match part {
                ..=0.04045 => part / 12.92,
                _ => ((part + 0.055) / 1.055).powf(2.4),
            });
            0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        };
        let (one, other) = (luminance(one) + 0.05, luminance(other) + 0.05);
        one.max(other) / one.min(other)
    }

    #[test]
    fn text_and_marks_have_enough_contrast_in_both_themes() {
        let style = include_str!("page/style.css");
        let dark = colors(style, ":root[data-theme=\"dark\"] {");
        let by_system = colors(style, ":root:not([data-theme=\"light\"]) {");
        assert_eq!(dark, by_system, "the dark theme is the same, whoever chose it");
        let mut compared = 0;
        for (theme, colors) in [("light", colors(style, ":root {")), ("dark", dark)] {
            let mut check = |text: &str, ground: &str, least: f64| {
                let found = contrast(colors[text], colors[ground]);
                assert!(found >= least, "{theme}: {text} on {ground} has {found:.2}, and needs {least}");
                compared += 1;
            };
            for ground in ["ground", "surface", "hover"] {
                // AA of text is 4.5, of graphics and of the mark of the focus 3.
                for text in ["text", "second", "accent", "amber", "red"] {
                    check(text, ground, 4.5);
                }
                for hue in 0..8 {
                    check(&format!("hue-{hue}"), ground, 3.0);
                }
            }
            check("amber", "amber-ground", 4.5);
            for text in ["text", "red", "second"] {
                check(text, "red-ground", 4.5);
            }
            // JSON has these as text.
            for text in ["hue-0", "hue-2"] {
                check(text, "surface", 4.5);
                check(text, "red-ground", 4.5);
            }
        }
        assert_eq!(compared, 94);
    }

    #[test]
    fn no_file_of_ours_loads_from_elsewhere_or_writes_markup_from_values() {
        let ours: Vec<_> = FILES.iter().filter(|file| !file.path.starts_with("vendor/")).collect();
        assert!(ours.len() > 15);
        for file in ours {
            let text = std::str::from_utf8(file.bytes).unwrap();
            let addresses = text.matches("http://").count() + text.matches("https://").count();
            let allowed = text.matches("http://www.w3.org/").count();
            assert_eq!(addresses, allowed, "{}", file.path);
            for forbidden in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "dangerously"]
            {
                assert!(!text.contains(forbidden), "{}: {forbidden}", file.path);
            }
        }
    }
}
