//! The console in a real browser, against a running system with known events.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::events::simple;
use crate::support::http;
use crate::support::system::System;
use crate::support::{MINUTE, block_on, eventually};

const ADMIN: &str = "an-admin-token-of-the-tests";
const PAGES: [&str; 6] = ["", "reports", "live", "event", "dead-letters", "actors"];

/// Markup that would show itself: as an id, a name and a campaign of an event.
const MARKUP: &str = "<img src=x onerror=document.title=1><b>bold</b>";

/// An event of a few minutes ago.
fn recent(id: &str, source: &str, kind: &str, data: impl Fn(&mut Value)) -> Value {
    let at = chrono::Utc::now() - chrono::TimeDelta::minutes(5);
    let at = at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let bottom = ["checkout.complete", "ad.click", "follow", "purchase"].contains(&kind);
    let engagement = match (source, bottom) {
        ("facebook", false) => json!({"actionTime": at, "referrer": "newsfeed", "videoId": null}),
        ("facebook", true) => json!({"adId": "ad-1", "campaignId": "camp-1", "clickPosition": "center",
            "device": "mobile", "browser": "Firefox", "purchaseAmount": null}),
        (_, false) => json!({"watchTime": 3.5, "percentageWatched": 50, "device": "iOS", "country": "Kenya",
            "videoId": "v"}),
        _ => json!({"actionTime": at, "profileId": null, "purchasedItem": null, "purchaseAmount": null}),
    };
    let mut event = simple(id, source);
    event["timestamp"] = json!(at);
    event["eventType"] = json!(kind);
    event["funnelStage"] = json!(if bottom { "bottom" } else { "top" });
    event["data"]["engagement"] = engagement;
    data(&mut event["data"]);
    event
}

/// Seven events of one source and four of the other, and one that is refused.
fn known_events() -> Value {
    let mut all = Vec::new();
    for (number, amount) in [(1, "10.50"), (2, "20.25")] {
        all.push(recent(&format!("sale-{number}"), "facebook", "checkout.complete", |data| {
            data["user"]["userId"] = json!(format!("buyer-{number}"));
            data["engagement"]["purchaseAmount"] = json!(amount);
        }));
    }
    all.push(recent(MARKUP, "facebook", "ad.click", |data| {
        data["user"]["name"] = json!(MARKUP);
        data["engagement"]["campaignId"] = json!(MARKUP);
    }));
    for number in 1..=4 {
        all.push(recent(&format!("view-{number}"), "facebook", "ad.view", |_| {}));
        all.push(recent(&format!("follow-{number}"), "tiktok", "follow", |_| {}));
    }
    let mut bad = recent("bad", "tiktok", "follow", |_| {});
    bad["data"]["user"]["followers"] = json!(MARKUP);
    bad["data"]["user"]["large"] = json!(12_345_678_901_234_567_890_u64);
    all.push(bad);
    Value::from(all)
}

/// The figure of the overview with this label.
fn figure(browser: &Browser, label: &str) -> String {
    let script = "const found = [...document.querySelectorAll('.figure')].find((one) => \
        one.querySelector('.label').textContent === arguments[0]); \
        return found ? found.querySelector('.value').firstChild.textContent.trim() : ''";
    browser.script(script, vec![json!(label)]).as_str().unwrap().to_owned()
}

fn page(world: &System, path: &str) -> String {
    world.reporter_url(&format!("/#/{path}"))
}

/// Fails if the page complained, asked another host, or ran markup of an event.
fn check_behaviour(world: &System, browser: &Browser) {
    let mut complaints = browser.complaints();
    // The browser writes each answer of 404 to its console; one was asked for.
    complaints.retain(|line| !line.contains("/events/nobody"));
    assert!(complaints.is_empty(), "{complaints:?}");
    let (own, mut asked) = (world.reporter_url("/"), 0);
    for url in browser.requests() {
        assert!(url.starts_with(&own) || url.starts_with("blob:"), "{url} is another host");
        asked += 1;
    }
    assert!(asked > 5, "{asked} requests");
    assert_eq!(browser.script("return document.querySelectorAll('img, b').length", Vec::new()), 0);
    let title = browser.script("return document.title", Vec::new());
    assert!(title.as_str().unwrap().ends_with("ESS"), "{title}");
}

#[test]
fn every_page_shows_the_events_that_were_sent_and_their_markup_as_text() {
    let world = System::real(&[]);
    assert_eq!(world.post(&known_events().to_string()).json()["accepted"], 11);
    world.settle();
    let browser = Browser::start();
    browser.open(&page(&world, ""));
    overview_has_the_ledger(&browser);
    reports_have_the_events(&world, &browser);
    live_has_what_comes(&world, &browser);
    an_event_has_its_way(&world, &browser);
    browser.open(&page(&world, "actors"));
    browser.sees("gateway.ingest");
    let shown: Vec<String> = browser.rows().into_iter().map(|row| row[0].clone()).collect();
    for name in ["collector.facebook.batch_write", "collector.tiktok.consume", "reporter.report.4"] {
        assert!(shown.iter().any(|row| row == name), "{name} is not in {shown:?}");
    }
    check_behaviour(&world, &browser);
    no_page_is_wider_than_its_window(&world, &browser);
}

fn overview_has_the_ledger(browser: &Browser) {
    eventually("the figures are those of the ledger", MINUTE, || {
        let shown = [figure(browser, "Missing"), figure(browser, "Stored"), figure(browser, "In the log")];
        (shown == ["0", "11", "0"]).then_some(())
    });
    let stored = |source: &str| browser.row(&[source])[8].clone();
    assert_eq!((stored("facebook").as_str(), stored("tiktok").as_str()), ("7", "4"));
    browser.sees("all well");
    for service in ["gateway", "collector.facebook", "collector.tiktok", "reporter"] {
        assert!(
            browser.rows().iter().any(|row| row[0].starts_with(service) && row[1] == "ready"),
            "{service}"
        );
    }
}

fn reports_have_the_events(world: &System, browser: &Browser) {
    browser.open(&page(world, "reports?range=1h"));
    browser.sees("11 events");
    assert_eq!(browser.row(&["facebook", "top", "ad.view"])[3], "4");
    assert_eq!(browser.row(&["facebook", "bottom", "checkout.complete"])[3], "2");
    assert_eq!(browser.row(&["tiktok", "bottom", "follow"])[3], "4");
    browser.sees("30.75");
    browser.sees("2 transactions");
    assert_eq!(browser.row(&["facebook", "camp-1", "2"])[3], "30.75");
    browser.sees("3 users in 7 events");
    let before = browser.requests();
    assert!(before.iter().any(|url| url.contains("/reports/revenue?")), "{before:?}");
    // The source is chosen by keys alone, and stands in the address.
    browser.open(&page(world, "reports?range=1h&source=tiktok"));
    browser.sees("4 events");
    browser.sees("No revenue in this range");
    // Exact values are in the legend that follows the pointer.
    let legend = "return [...document.querySelectorAll('.u-legend')].length";
    assert_eq!(browser.script(legend, Vec::new()), 1, "a chart only where there is something to see");
}

fn live_has_what_comes(world: &System, browser: &Browser) {
    browser.open(&page(world, "live"));
    browser.sees("No event yet");
    let cell = eventually("the event is sampled", MINUTE, || {
        world.post(&known_events().to_string());
        std::thread::sleep(Duration::from_millis(300));
        browser.rows().into_iter().find(|row| row.get(3).is_some_and(|cell| cell == MARKUP))
    });
    assert_eq!((cell[1].as_str(), cell[2].as_str(), cell[4].as_str()), ("facebook", "ad.click", "accepted"));
    browser.open(&page(world, "live?outcome=refused"));
    eventually("the refused event is sampled", MINUTE, || {
        world.post(&known_events().to_string());
        std::thread::sleep(Duration::from_millis(300));
        browser.rows().into_iter().find(|row| row.get(3).is_some_and(|cell| cell == "bad"))
    });
    browser.click("//tr[td[normalize-space()='bad']]");
    browser.sees("data:");
    let json = browser.script("return document.querySelector('.json').innerText", Vec::new());
    let json = json.as_str().unwrap();
    assert!(json.contains(&format!("followers: {}", Value::from(MARKUP))) && json.contains('←'), "{json}");
    assert!(json.contains("large: 12345678901234567890"), "digits beyond 2^53 are shown as sent: {json}");
    let still = browser.sees("The list is still");
    assert!(still.contains("Go on"), "{still}");
}

fn an_event_has_its_way(world: &System, browser: &Browser) {
    browser.open(&page(world, "event"));
    browser.write("input[name=id]", "sale-1\n");
    let text = browser.sees("from POST to row");
    for step in ["accepted", "in the log", "collected", "stored"] {
        assert!(text.contains(step), "{step}: {text}");
    }
    // Times are in the viewer's zone, and in UTC on hover.
    let zone = browser.script("return document.querySelector('.zone').innerText", Vec::new());
    assert_eq!(zone, "UTC+5:45");
    let time = "const time = document.querySelector('.step time'); return [time.title, time.innerText]";
    let time = browser.script(time, Vec::new());
    let (utc, shown) = (time[0].as_str().unwrap(), time[1].as_str().unwrap());
    let at = chrono::DateTime::parse_from_rfc3339(utc.trim_end_matches(" (UTC)")).unwrap();
    let local = at.with_timezone(&chrono::FixedOffset::east_opt((5 * 60 + 45) * 60).unwrap());
    assert_eq!(shown, local.format("%Y-%m-%d %H:%M:%S").to_string());
    browser.write("input[name=id]", "nobody\n");
    browser.sees("No event has this id");
}

fn no_page_is_wider_than_its_window(world: &System, browser: &Browser) {
    browser.resize(390, 844);
    for path in PAGES {
        browser.open(&page(world, path));
        browser.sees("ESS");
        eventually("the page is there", MINUTE, || {
            browser
                .script("return document.querySelector('main')?.innerText.length > 40", Vec::new())
                .as_bool()?
                .then_some(())
        });
        let width = "return [document.documentElement.scrollWidth, window.innerWidth]";
        assert_eq!(browser.script(width, Vec::new()), json!([390, 390]), "{path}");
    }
}

#[test]
fn a_refused_event_is_found_opened_and_replayed_and_an_actor_is_restarted() {
    let world = System::real(&[("ESS_ADMIN_TOKEN", ADMIN)]);
    let mut bad = recent("bad", "tiktok", "follow", |_| {});
    bad["data"]["user"]["followers"] = json!("many");
    assert_eq!(world.post(&bad.to_string()).status, 422);
    let browser = Browser::start();
    browser.open(&page(&world, "dead-letters"));
    browser.row(&["data.user.followers"]);
    // By keys alone: the first group, then its first letter.
    browser.keys("j\u{e007}");
    browser.sees("these 1");
    browser.keys("jj\u{e007}");
    let mark = eventually("the error stands at its path", MINUTE, || {
        let mark = browser.script("return document.querySelector('.json .marked')?.innerText", Vec::new());
        mark.as_str().map(str::to_owned)
    });
    assert!(mark.starts_with("followers: \"many\"") && mark.contains("expected an integer"), "{mark}");
    browser.click("//button[normalize-space()='Try to replay this letter']");
    browser.write("input[name=admin]", "another\n");
    browser.sees("That is not the admin token");
    browser.write("input[name=admin]", &format!("{ADMIN}\n"));
    browser.sees("0 would pass, 1 refused again");
    // The letter becomes valid, as if the contract had changed.
    bad["data"]["user"]["followers"] = json!(12);
    let hex: String = bad.to_string().bytes().map(|byte| format!("{byte:02x}")).collect();
    let length = bad.to_string().len();
    world.damage(&format!("UPDATE dead_letters SET payload = '\\x{hex}', payload_length = {length}"));
    browser.click("//button[normalize-space()='Try to replay this letter']");
    browser.sees("1 would pass");
    assert_eq!(world.count_rows(), 0, "a trial changes nothing");
    browser.click("//button[normalize-space()='Replay 1']");
    browser.sees("1 event is in the log");
    world.settle();
    assert_eq!(world.count_rows(), 1);

    browser.open(&page(&world, "actors"));
    browser.click("button[aria-label='Restart gateway.ingest']");
    browser.sees("restarted");
    assert_eq!(browser.row(&["gateway.ingest"])[5], "1");
    assert_eq!(world.post(&simple("after", "facebook").to_string()).status, 202);
    // A wrong token is the one complaint: the browser writes each 401 to its console.
    let complaints = browser.complaints();
    assert!(complaints.iter().all(|line| line.contains("401")), "{complaints:?}");
}

#[test]
fn a_process_that_is_killed_is_told_within_3_s_and_so_is_its_return() {
    let mut world = System::real(&[]);
    let browser = Browser::start();
    browser.open(&page(&world, ""));
    browser.sees("all well");
    // Silence counts once the page has looked for 3 s; it has a point of its line for each second.
    eventually("the page has looked for some seconds", MINUTE, || {
        let points = "return document.querySelector('.spark path')?.getAttribute('d').split('L').length ?? 0";
        (browser.script(points, Vec::new()).as_u64()? >= 6).then_some(())
    });
    world.service("collector-tiktok").process.kill();
    let said = browser.sees(": nothing heard for");
    let line = said.lines().find(|line| line.contains(": nothing heard for")).unwrap();
    let seconds: f64 = line.split("heard for ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(line.contains("collector.tiktok") && (2.0..4.0).contains(&seconds), "{line}");
    let state = "return document.querySelector('.state').innerText";
    let state = |text: &str| {
        eventually(text, MINUTE, || {
            let shown = browser.script(state, Vec::new());
            shown.as_str().filter(|shown| shown.contains(text)).map(str::to_owned)
        })
    };
    state("collector.tiktok");
    world.service("collector-tiktok").start_again();
    world.wait_ready();
    state("all well");
    // The reporter itself: the last figures stay, and the page comes back by itself.
    assert_eq!(world.post(&recent("one", "facebook", "ad.view", |_| {}).to_string()).status, 202);
    eventually("it is stored", MINUTE, || (figure(&browser, "Stored") == "1").then_some(()));
    world.service("reporter").process.kill();
    state("no live figures");
    assert_eq!(figure(&browser, "Stored"), "1");
    browser.sees("comes back by itself");
    world.service("reporter").start_again();
    world.wait_ready();
    state("all well");
    lose_three_events(&mut world);
    state("facebook: 3 events are missing");
    eventually("the figure of missing events is red", MINUTE, || {
        let red = "return document.querySelector('.figure .value.red')?.innerText";
        (browser.script(red, Vec::new()) == "3").then_some(())
    });
}

/// Takes accepted events out of the log before they are collected.
fn lose_three_events(world: &mut System) {
    world.service("collector-facebook").process.kill();
    let send = |world: &System, count: usize, name: &str| {
        let all = (0..count).map(|number| recent(&format!("{name}-{number}"), "facebook", "ad.view", |_| {}));
        assert_eq!(world.post(&Value::from(all.collect::<Vec<_>>()).to_string()).status, 202);
    };
    send(world, 3, "lost");
    let url = world.nats().url();
    block_on(async {
        let context = async_nats::jetstream::new(async_nats::connect(url).await.unwrap());
        context.get_stream("ESS_FACEBOOK").await.unwrap().purge().await.unwrap();
    });
    // A later frame tells that the lost one was acknowledged.
    send(world, 2, "kept");
    world.service("collector-facebook").start_again();
    world.wait_ready();
}

#[test]
fn a_page_asks_for_the_token_and_is_used_with_keys_alone() {
    let token = "a-token-of-the-tests-for-reports";
    let world = System::embedded(&[("ESS_REPORTER_TOKEN", token)]);
    let browser = Browser::start();
    browser.open(&page(&world, ""));
    browser.write("input[name=token]", "wrong\n");
    browser.sees("The token that was given is not the one");
    browser.write("input[name=token]", &format!("{token}\n"));
    browser.sees("No events yet");
    browser.script("document.activeElement.blur()", Vec::new());
    for (key, text) in [
        ("r", "No events in this range"),
        ("l", "No event yet"),
        ("e", "Find an event by its eventId"),
        ("d", "There are none"),
        ("a", "gateway.ingest"),
        ("o", "Nothing to look at"),
    ] {
        browser.keys(&format!("g{key}"));
        browser.sees(text);
    }
    browser.keys("?");
    browser.sees("Next and previous row");
    // The key Escape, by its code point in WebDriver.
    browser.keys("\u{e00c}");
    browser.keys("ge");
    browser.sees("Find an event");
    browser.keys("/");
    browser.keys("nobody\u{e007}");
    browser.sees("No event has this id");
    // The token lasts as long as the tab.
    browser.open("about:blank");
    browser.open(&page(&world, "reports"));
    browser.sees("No events in this range");
    // What has the focus is visible.
    browser.script("document.activeElement.blur()", Vec::new());
    browser.keys("\u{e004}");
    let outline = "const style = getComputedStyle(document.activeElement); return [document.activeElement.tagName, style.outlineStyle, style.outlineWidth]";
    assert_eq!(browser.script(outline, Vec::new()), json!(["A", "solid", "2px"]));
    let complaints = browser.complaints();
    let expected = |line: &String| line.contains("401") || line.contains("/events/nobody");
    assert!(complaints.iter().all(expected), "{complaints:?}");
    assert_eq!(http::get(&world.reporter_url("/reports/events")).unwrap().status, 401);
}
