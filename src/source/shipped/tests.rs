use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::*;

/// Sample bodies of the platforms, with their signatures.
fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples/platforms")
}

/// Entries of `signatures.json`: one for each sample.
fn signatures() -> Vec<Value> {
    let text = std::fs::read_to_string(samples().join("signatures.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// HMAC-SHA256 of the parts, end to end.
fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

fn file_names(folder: &Path) -> BTreeSet<String> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn every_file_of_the_folder_comes_with_the_binary() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/source/shipped");
    let mut expected = BTreeSet::from(["mod.rs".to_owned(), "tests.rs".to_owned()]);
    for shipped in ALL {
        expected.insert(format!("{}.yaml", shipped.name));
        if shipped.examples.is_empty() {
            continue;
        }
        expected.insert(shipped.name.to_owned());
        let examples = shipped.examples.iter().map(|(name, _)| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(file_names(&folder.join(shipped.name)), examples, "{}", shipped.name);
    }
    assert_eq!(file_names(&folder), expected);
    assert!(ALL.is_sorted_by_key(|shipped| shipped.name));
}

#[test]
fn a_file_is_found_by_the_name_that_it_declares() {
    for shipped in ALL {
        assert_eq!(find(shipped.name), Some(shipped));
        assert!(shipped.file.contains(&format!("\nsource: {}\n", shipped.name)), "{}", shipped.name);
    }
    assert_eq!(find("facebook"), None);
}

#[test]
fn every_example_that_lies_beside_a_file_is_used_in_it() {
    for shipped in ALL {
        for (name, _) in shipped.examples {
            assert!(shipped.file.contains(&format!("file: {name}")), "{} never uses {name}", shipped.name);
        }
    }
}

#[test]
fn the_samples_are_the_bytes_that_were_signed() {
    let entries = signatures();
    assert!(entries.len() >= 28, "{} samples", entries.len());
    for entry in entries {
        let file = entry["file"].as_str().unwrap();
        let body = std::fs::read(samples().join(file)).unwrap();
        assert_eq!(entry["bytes"].as_u64().unwrap(), body.len() as u64, "{file}");
        assert_eq!(entry["sha256"].as_str().unwrap(), hex::encode(Sha256::digest(&body)), "{file}");
    }
}

#[test]
fn the_signatures_of_the_samples_are_right() {
    let mut checked = 0;
    for entry in signatures() {
        let text = |key: &str| entry[key].as_str().unwrap_or_default();
        let header = |name: &str| entry["headers"][name].as_str().unwrap_or_default();
        let body = std::fs::read(samples().join(text("file"))).unwrap();
        let secret = text("secret");
        let hex_of = |parts: &[&[u8]]| hex::encode(hmac_sha256(secret.as_bytes(), parts));
        let (given, expected) = match text("file").split_once('/').unwrap().0 {
            _ if text("file").ends_with(".query") => continue,
            "meta" => (header("X-Hub-Signature-256"), format!("sha256={}", hex_of(&[&body]))),
            "tiktok" => (
                header("TikTok-Signature"),
                format!("t={0},s={1}", text("t"), hex_of(&[text("t").as_bytes(), b".", &body])),
            ),
            "tiktok-lead" => (header("X-Open-Signature"), hex_of(&[&body])),
            "tiktok-shop" => (header("Authorization"), hex_of(&[text("app_key").as_bytes(), &body])),
            "linkedin" => (header("X-LI-Signature"), hex_of(&[b"hmacsha256=", &body])),
            "snapchat" => (header("signature"), hex_of(&[text("t").as_bytes(), b".", &body])),
            "shopify" => {
                (header("X-Shopify-Hmac-Sha256"), STANDARD.encode(hmac_sha256(secret.as_bytes(), &[&body])))
            }
            "stripe" => (
                header("Stripe-Signature"),
                format!("t={0},v1={1}", text("t"), hex_of(&[text("t").as_bytes(), b".", &body])),
            ),
            "standard-webhooks" => {
                let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
                let signed = format!("{}.{}.", header("webhook-id"), header("webhook-timestamp"));
                let signature = STANDARD.encode(hmac_sha256(&key, &[signed.as_bytes(), &body]));
                (header("webhook-signature"), format!("v1,{signature}"))
            }
            // The secret of these is a token or a field of the body.
            "google-ads" | "appsflyer" => continue,
            other => panic!("no rule for the signatures of {other}"),
        };
        assert_eq!(given, expected, "{}", text("file"));
        checked += 1;
    }
    assert!(checked >= 18, "{checked} signatures");
}

#[test]
fn the_examples_of_shipped_files_are_the_samples_byte_for_byte() {
    let folders = [
        ("adjust", "adjust"),
        ("appsflyer", "appsflyer"),
        ("google_leads", "google-ads"),
        ("linkedin_leads", "linkedin"),
        ("meta_ads", "meta"),
        ("meta_leads", "meta"),
        ("shopify_orders", "shopify"),
        ("snapchat_leads", "snapchat"),
        ("standard_webhooks", "standard-webhooks"),
        ("stripe", "stripe"),
        ("tiktok_events", "tiktok"),
        ("tiktok_leads", "tiktok-lead"),
    ];
    for (name, folder) in folders {
        for (file, text) in find(name).unwrap().examples {
            let sample = std::fs::read_to_string(samples().join(folder).join(file)).unwrap();
            assert_eq!(*text, sample, "{name}/{file}");
        }
    }
}
