//! A browser that a test drives through WebDriver: Debian's Chromium, without a window.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::process::Process;
use super::{MINUTE, eventually, free_port};

const DRIVER: &str = "/usr/bin/chromedriver";

/// Time zone of the browser: 5 h 45 min before UTC, so that no time of it equals one of UTC.
pub const ZONE: &str = "Asia/Kathmandu";

/// A command of Chromium's driver beside those of the standard.
#[derive(Debug)]
struct Chromium {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Chromium {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.body.to_string()))
    }
}

/// A browser with one page. Fields are dropped in order: the driver ends before its folder is deleted.
pub struct Browser {
    runtime: tokio::runtime::Runtime,
    client: Client,
    driver: Process,
    _folder: TempDir,
}

impl Browser {
    pub fn start() -> Self {
        assert!(Path::new(DRIVER).exists(), "{DRIVER} is missing: ./test installs it");
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut command = Command::new(DRIVER);
        command.arg(format!("--port={port}")).env("TZ", ZONE).env("TMPDIR", folder.path());
        command.env("HOME", folder.path()).current_dir(folder.path());
        let driver = Process::spawn(command, &folder.path().join("chromedriver.log"));
        let url = format!("http://127.0.0.1:{port}");
        eventually("the browser's driver answers", MINUTE, || {
            super::http::get(&format!("{url}/status")).ok()
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let arguments = [
            "--headless=new",
            // Tests run as root, in containers too.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            "--lang=en-US",
        ];
        let mut wanted = Map::new();
        wanted.insert("goog:chromeOptions".to_owned(), json!({"args": arguments}));
        wanted.insert("goog:loggingPrefs".to_owned(), json!({"browser": "ALL", "performance": "ALL"}));
        let client = runtime.block_on(async {
            ClientBuilder::new(HttpConnector::new()).capabilities(wanted).connect(&url).await
        });
        let client = client.unwrap_or_else(|error| panic!("{error}: {}", driver.output()));
        let browser = Self { runtime, client, driver, _folder: folder };
        browser.resize(1_440, 1_000);
        browser
    }

    pub fn open(&self, url: &str) {
        self.runtime.block_on(self.client.goto(url)).unwrap();
    }

    /// Size of the page's window, in CSS pixels.
    pub fn resize(&self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.command(
            "goog/cdp/execute",
            json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": size}),
        );
    }

    fn command(&self, path: &'static str, body: Value) -> Value {
        self.runtime.block_on(self.client.issue_cmd(Chromium { path, body })).unwrap()
    }

    /// Result of a script; `arguments` has the arguments.
    pub fn script(&self, script: &str, arguments: Vec<Value>) -> Value {
        self.runtime.block_on(self.client.execute(script, arguments)).unwrap()
    }

    /// The first element that a selector of CSS, or an XPath from `//`, finds.
    fn find(&self, selector: &str) -> Option<fantoccini::elements::Element> {
        let locator =
            if selector.starts_with("//") { Locator::XPath(selector) } else { Locator::Css(selector) };
        self.runtime.block_on(self.client.find(locator)).ok()
    }

    /// Clicks an element as soon as it is there; a page that renders meanwhile may replace it.
    pub fn click(&self, selector: &str) {
        eventually(&format!("{selector} can be clicked"), MINUTE, || {
            self.runtime.block_on(self.find(selector)?.click()).ok()
        });
    }

    /// Types into an input in place of its text; a line break is the key Enter.
    pub fn write(&self, selector: &str, text: &str) {
        eventually(&format!("{selector} can be written"), MINUTE, || {
            let element = self.find(selector)?;
            self.runtime.block_on(element.clear()).ok()?;
            self.runtime.block_on(element.send_keys(text)).ok()
        });
    }

    /// Types keys without a look at what has the focus.
    pub fn keys(&self, keys: &str) {
        let element = self.runtime.block_on(self.client.active_element()).unwrap();
        self.runtime.block_on(element.send_keys(keys)).unwrap();
    }

    /// Text of the page as a reader sees it.
    pub fn text(&self) -> String {
        self.script("return document.body.innerText", Vec::new()).as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the page has a text; returns all of its text.
    pub fn sees(&self, text: &str) -> String {
        let mut last = String::new();
        let started = std::time::Instant::now();
        while started.elapsed() < MINUTE {
            last = self.text();
            if last.contains(text) {
                return last;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the page never said {text:?}: {last}");
    }

    /// Cells of the rows of all tables, as text.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let rows = self.script(
            "return [...document.querySelectorAll('tbody tr')].map((row) => [...row.cells].map((cell) => cell.innerText.trim()))",
            Vec::new(),
        );
        serde_json::from_value(rows).unwrap()
    }

    /// Waits for a row whose cells begin with these texts.
    pub fn row(&self, cells: &[&str]) -> Vec<String> {
        let fits = |row: &Vec<String>| cells.iter().zip(row).all(|(cell, shown)| shown == cell);
        eventually(&format!("a row {cells:?}; there are {:?}", self.rows()), MINUTE, || {
            self.rows().into_iter().find(|row| row.len() >= cells.len() && fits(row))
        })
    }

    fn log(&self, kind: &str) -> Vec<Value> {
        self.command("se/log", json!({"type": kind})).as_array().cloned().unwrap_or_default()
    }

    /// Warnings and errors of the browser's console since the last call.
    pub fn complaints(&self) -> Vec<String> {
        let lines = self.log("browser").into_iter();
        let bad = lines.filter(|line| ["SEVERE", "WARNING"].contains(&line["level"].as_str().unwrap()));
        bad.map(|line| line["message"].as_str().unwrap().to_owned()).collect()
    }

    /// Addresses that the page has asked for since the last call.
    pub fn requests(&self) -> Vec<String> {
        let mut requests = Vec::new();
        for line in self.log("performance") {
            let message: Value = serde_json::from_str(line["message"].as_str().unwrap()).unwrap();
            if message["message"]["method"] == "Network.requestWillBeSent" {
                let url = &message["message"]["params"]["request"]["url"];
                requests.push(url.as_str().unwrap().to_owned());
            }
        }
        requests
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Chromium ends with its session; what is left ends with the driver's group.
        let closing =
            async { tokio::time::timeout(Duration::from_secs(10), self.client.clone().close()).await };
        let _ = self.runtime.block_on(closing);
        let group = format!("-{}", self.driver.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
    }
}
