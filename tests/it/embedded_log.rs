//! The embedded log: damaged, cut, removed, full and short of room, what it acknowledged is stored or told.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ess::config::{Config, LogSettings, Variables};
use ess::event::Source;
use ess::log::embedded::Embedded;
use ess::log::recover::{Recovery, recover};
use ess::log::{AppendError, Frame, FrameWriter, Log, LogError, Origin, Piece, Topic};
use futures::StreamExt;
use tempfile::TempDir;

use crate::support::events::simple;
use crate::support::process::ess;
use crate::support::system::System;
use crate::support::{MINUTE, block_on, eventually, http};

const TOPIC: Topic = Topic::Events(Source::FACEBOOK);

fn settings(pairs: &[(&str, &str)]) -> LogSettings {
    Config::from_variables(&Variables::from_pairs(pairs.iter().copied()).unwrap()).unwrap().log
}

/// Frames of valid events, in their order.
struct Frames(FrameWriter, u64);

impl Frames {
    fn new() -> Self {
        Self(FrameWriter::default(), 0)
    }

    fn next(&mut self, events: usize) -> (String, bytes::Bytes) {
        let origin = Origin { correlation_id: "c".to_owned(), traceparent: None, accepted_at: 1 };
        let mut body = Vec::new();
        let mut ranges = Vec::new();
        for _ in 0..events {
            self.1 += 1;
            let begin = body.len();
            body.extend(simple(&format!("e-{}", self.1), "facebook").to_string().into_bytes());
            ranges.push(begin..body.len());
        }
        self.0.write(&[Piece { origin: &origin, body: &body, events: &ranges }])
    }
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("log.redb")
    }

    async fn open(&self, settings: LogSettings) -> Embedded {
        let started = Instant::now();
        loop {
            match Embedded::open(&self.file(), settings.clone()) {
                // The file is free again when the last user of the log before is gone.
                Err(LogError::Misconfigured(why))
                    if why.contains("in use") && started.elapsed() < Duration::from_secs(10) =>
                {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                other => return other.unwrap(),
            }
        }
    }

    /// Waits until nobody has the file: a log that was dropped closes it a little later.
    fn closed(&self) {
        eventually("the file is closed", MINUTE, || {
            std::fs::File::open(self.file()).unwrap().try_lock().ok()
        });
    }

    /// Appends a number of frames of ten events each.
    async fn filled(&self, frames: usize) -> Vec<u64> {
        let log = self.open(settings(&[])).await;
        let mut made = Frames::new();
        let mut numbers = Vec::new();
        for _ in 0..frames {
            let (id, frame) = made.next(10);
            numbers.push(Frame::read(frame.clone()).unwrap().number);
            log.append(TOPIC, id, frame).await.unwrap();
        }
        numbers
    }

    /// Numbers of the frames that the log holds.
    async fn held(&self) -> Vec<u64> {
        let log = self.open(settings(&[])).await;
        let state = log.state(TOPIC).await.unwrap();
        let mut numbers = Vec::new();
        for sequence in state.first..=state.last {
            if let Some(frame) = log.peek(TOPIC, sequence).await.unwrap() {
                numbers.push(Frame::read(frame).unwrap().number);
            }
        }
        numbers.sort_unstable();
        numbers
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn overwrite(file: &Path, at: u64, bytes: &[u8]) {
    let mut file = std::fs::File::options().write(true).open(file).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

/// Settles the next frames as a collector does.
async fn process(log: &Embedded, frames: usize) {
    let mut pull = log.pull(TOPIC, frames).await.unwrap();
    for _ in 0..frames {
        pull.next().await.unwrap().unwrap().receipt.ack().await.unwrap();
    }
}

#[test]
fn a_recovery_loses_no_file_and_no_frame_however_often_it_runs() {
    block_on(async {
        let folder = Folder::new();
        let numbers = folder.filled(12).await;
        folder.closed();
        overwrite(&folder.file(), 0, &[0; 64]);
        let damaged = std::fs::read(folder.file()).unwrap();
        let done = recover(&folder.file(), None, false).unwrap();
        let kept = done.kept.clone().unwrap();
        assert_eq!((done.frames, done.events, done.lost, done.whole), (12, 120, 0, false), "{done:?}");
        assert!(std::fs::read(&kept).unwrap() == damaged, "the damaged file is as it was");
        assert_eq!(folder.held().await, numbers);
        folder.closed();
        // Within the same second, and the damaged file again and again.
        let again = recover(&folder.file(), None, false).unwrap();
        assert_eq!(again, Recovery { whole: true, ..Recovery::default() });
        for _ in 0..3 {
            overwrite(&folder.file(), 0, &[0; 64]);
            assert_eq!(recover(&folder.file(), None, false).unwrap().frames, 12);
            assert_eq!(folder.held().await, numbers);
            folder.closed();
        }
        assert_eq!(folder.names().iter().filter(|name| name.starts_with("log.broken-")).count(), 4);
        // From a file that was kept: nothing is there twice.
        let more = recover(&folder.file(), Some(&kept), false).unwrap();
        assert_eq!((more.frames, more.kept), (0, None));
        assert_eq!(folder.held().await, numbers);
        assert!(std::fs::read(&kept).unwrap() == damaged);
    });
}

#[test]
fn a_recovery_that_is_killed_at_any_step_loses_nothing() {
    block_on(async {
        let folder = Folder::new();
        let numbers = folder.filled(60).await;
        folder.closed();
        overwrite(&folder.file(), 0, &[0; 64]);
        let environment = [("ESS_DATA_DIR".to_owned(), folder.0.path().display().to_string())];
        // One run for each step, a frame being one, until a run has fewer steps and so ends by itself.
        let (mut killed, mut done) = (0, false);
        while !done {
            let output = ess(&["log", "recover"], &environment, folder.0.path())
                .env("ESS_FAULT_RECOVERY_STEP", killed.to_string())
                .output()
                .unwrap();
            done = output.status.success();
            let aborted = output.status.code().is_none();
            assert!(done || aborted, "{}", String::from_utf8_lossy(&output.stderr));
            killed += usize::from(aborted);
        }
        assert!(killed > numbers.len() + 4, "it was killed {killed} times");
        assert_eq!(folder.held().await, numbers);
        folder.closed();
        // A log that is whole is left as it is.
        let before = (std::fs::read(folder.file()).unwrap(), folder.names());
        let whole = ess(&["log", "recover"], &environment, folder.0.path()).output().unwrap();
        let told = String::from_utf8_lossy(&whole.stdout).into_owned();
        assert!(whole.status.success() && told.contains("nothing to do"), "{told}");
        let after: Vec<String> = folder.names();
        assert!(std::fs::read(folder.file()).unwrap() == before.0 && after == before.1, "{after:?}");
    });
}

#[test]
fn a_recovery_without_room_changes_nothing() {
    block_on(async {
        let folder = Folder::new();
        let numbers = folder.filled(6).await;
        folder.closed();
        overwrite(&folder.file(), 0, &[0; 64]);
        let damaged = std::fs::read(folder.file()).unwrap();
        // A folder that is not empty blocks the path of the new log.
        let taken = folder.0.path().join("log.redb.recovering");
        std::fs::create_dir(&taken).unwrap();
        std::fs::write(taken.join("x"), b"x").unwrap();
        let error = recover(&folder.file(), None, false).unwrap_err();
        assert!(std::fs::read(folder.file()).unwrap() == damaged, "{error}");
        std::fs::remove_dir_all(&taken).unwrap();
        // Killed on the way: what was begun is not taken for a log.
        std::fs::write(&taken, b"half of it").unwrap();
        assert_eq!(recover(&folder.file(), None, false).unwrap().frames, 6);
        assert_eq!(folder.held().await, numbers);
    });
}

#[test]
fn a_recovery_tells_what_is_gone_and_leaves_out_what_was_processed() {
    block_on(async {
        let folder = Folder::new();
        folder.filled(20).await;
        let log = folder.open(settings(&[])).await;
        process(&log, 5).await;
        drop(log);
        folder.closed();
        // One frame that waits is damaged.
        let mut bytes = std::fs::read(folder.file()).unwrap();
        let text = b"\"eventId\":\"e-155\"";
        let mut from = 0;
        let mut damaged = 0;
        while let Some(at) = bytes[from..].windows(text.len()).position(|found| found == text) {
            from += at + 1;
            bytes[from + 12] ^= 1;
            damaged += 1;
        }
        assert!(damaged > 0);
        std::fs::write(folder.file(), &bytes).unwrap();
        let done = recover(&folder.file(), None, false).unwrap();
        assert_eq!((done.frames, done.lost), (14, 1), "{done:?}");
        let expected: Vec<u64> = (6..=20).filter(|number| *number != 16).collect();
        assert_eq!(folder.held().await, expected);
        folder.closed();
        // For a store that was lost as well.
        let kept = done.kept.unwrap();
        let all = recover(&folder.file(), Some(&kept), true).unwrap();
        assert!(all.frames <= 5, "{all:?}");
        let log = folder.open(settings(&[])).await;
        let marks = log.state(TOPIC).await.unwrap().acknowledged;
        let mark = marks.values().next().unwrap();
        assert_eq!(
            (marks.len(), mark.number, mark.total),
            (1, 20, 200),
            "what was acknowledged is known for ever"
        );
    });
}

#[test]
fn a_log_that_is_removed_or_cut_is_told_by_its_marks() {
    block_on(async {
        for damage in ["removed", "emptied"] {
            let folder = Folder::new();
            folder.filled(9).await;
            let log = folder.open(settings(&[])).await;
            process(&log, 4).await;
            drop(log);
            folder.closed();
            match damage {
                "removed" => std::fs::remove_file(folder.file()).unwrap(),
                _ => std::fs::write(folder.file(), b"").unwrap(),
            }
            let log = folder.open(settings(&[])).await;
            let state = log.state(TOPIC).await.unwrap();
            assert_eq!((state.last, state.acknowledged.len()), (0, 1), "{damage}");
            let mark = state.acknowledged.values().next().unwrap();
            assert_eq!((mark.number, mark.total), (9, 90), "{damage}");
            // The next frame is of another writer.
            let (id, frame) = Frames::new().next(3);
            log.append(TOPIC, id, frame).await.unwrap();
            assert_eq!(log.state(TOPIC).await.unwrap().acknowledged.len(), 2);
        }
    });
}

#[test]
fn a_log_that_was_emptied_gives_back_its_space() {
    const FRAMES: usize = 90;
    let folder = Folder::new();
    block_on(async {
        let log = folder.open(settings(&[])).await;
        let size = || std::fs::metadata(folder.file()).unwrap().len();
        for round in 0..2 {
            for frame in 0..FRAMES {
                let bytes = vec![1; 1 << 20].into();
                log.append(TOPIC, format!("{round}-{frame}"), bytes).await.unwrap();
            }
            let full = size();
            assert!(full > FRAMES as u64 * (1 << 20), "{full} bytes");
            process(&log, FRAMES - 1).await;
            assert!(size() > 64 << 20, "with a frame it keeps its space");
            process(&log, 1).await;
            // The writing thread does it after its answers, at most every ten seconds.
            let started = Instant::now();
            while size() > 8 << 20 {
                assert!(started.elapsed() < MINUTE, "{} bytes of {full} are kept", size());
                tokio::time::sleep(Duration::from_millis(100)).await;
                if round > 0 {
                    // Something has to be written for that.
                    let id = started.elapsed().as_nanos().to_string();
                    log.append(TOPIC, id, vec![1; 10].into()).await.unwrap();
                    process(&log, 1).await;
                }
            }
        }
        log.append(TOPIC, "last".to_owned(), vec![1; 10].into()).await.unwrap();
        let state = log.state(TOPIC).await.unwrap();
        assert_eq!(log.peek(TOPIC, state.last).await.unwrap().unwrap().len(), 10, "and works as before");
    });
}

#[test]
fn a_frame_that_was_refused_is_not_acknowledged() {
    block_on(async {
        let folder = Folder::new();
        let log = folder.open(settings(&[("ESS_LOG_MAX_BYTES", "1MiB")])).await;
        let mut frames = Frames::new();
        let mut taken = 0;
        let refused = loop {
            let (id, frame) = frames.next(900);
            match log.append(TOPIC, id, frame).await {
                Ok(_) => taken += 900,
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, AppendError::Full(_)) && taken > 0, "{refused:?}");
        process(&log, 1).await;
        let (id, frame) = frames.next(7);
        log.append(TOPIC, id, frame).await.unwrap();
        let marks = log.state(TOPIC).await.unwrap().acknowledged;
        assert_eq!(marks.values().next().unwrap().total, taken + 7);
    });
}

/// A file system of its own, so small that it is full soon; none where the test may not mount one.
struct Small(TempDir);

impl Small {
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(folder.path())
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(folder))
    }

    fn resize(&self, size: &str) {
        let resized = std::process::Command::new("mount")
            .args(["-o", &format!("remount,size={size}")])
            .arg(self.0.path())
            .status();
        assert!(resized.unwrap().success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn batch(name: &str, events: usize) -> String {
    let events: Vec<_> = (0..events).map(|n| simple(&format!("{name}-{n}"), "facebook")).collect();
    serde_json::Value::from(events).to_string()
}

/// Posts until the answer is 503; gives how many events were accepted.
fn fill(system: &System, name: &str) -> u64 {
    for n in 0..2_000 {
        let answer = system.post(&batch(&format!("{name}{n}"), 200));
        match answer.status {
            202 => {}
            503 => return n * 200,
            other => panic!("{other}: {}", answer.text),
        }
    }
    panic!("it never fills");
}

#[test]
fn a_disk_that_was_full_and_has_room_again_takes_events_again_by_itself() {
    let Some(small) = Small::mount("24m") else {
        eprintln!("not run: no file system may be mounted here");
        return;
    };
    let data = small.0.path().join("data").display().to_string();
    let mut system = System::embedded(&[("ESS_DATA_DIR", &data), ("ESS_DRAIN_TIMEOUT", "10s")]);
    let mut accepted = fill(&system, "a");
    assert!(accepted > 0);
    // While it is full: at once, with the reason.
    for n in 0..5 {
        let begun = Instant::now();
        let answer = system.post(&batch(&format!("full{n}"), 200));
        if answer.status == 202 {
            // A collector made room.
            accepted += 200;
            continue;
        }
        assert_eq!(answer.status, 503, "{}", answer.text);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
    eventually("readiness names it", MINUTE, || {
        let ready = http::get(&system.gateway_url("/ready")).ok()?;
        (ready.status == 503 && ready.text.contains("No space left")).then_some(())
    });
    small.resize("400m");
    eventually("it takes events again", MINUTE, || {
        let answer = system.post(&batch("after", 10));
        (answer.status == 202).then_some(())
    });
    accepted += 10;
    let ledger = system.settle();
    assert_eq!(ledger["sources"][0]["missing"], 0, "{ledger}");
    assert!(system.count_rows() >= accepted, "{} of {accepted}", system.count_rows());
    // And a stop while it is full ends within its time, and cleanly: what is not stored comes again.
    let mut filler = std::fs::File::create(small.0.path().join("filler")).unwrap();
    while filler.write_all(&[1; 65_536]).is_ok() {}
    let _ = fill(&system, "b");
    let begun = Instant::now();
    let process = &mut system.services[0].process;
    process.signal("TERM");
    assert_eq!(process.wait(MINUTE).code(), Some(0), "{}", process.output());
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn a_size_limit_is_a_503_and_no_end() {
    let mut system = System::embedded(&[]);
    let process = system.services[0].process.id().to_string();
    let limited =
        std::process::Command::new("prlimit").args(["--pid", &process, "--fsize=12000000"]).status();
    assert!(limited.unwrap().success());
    let accepted = fill(&system, "a");
    assert!(accepted > 0);
    assert!(system.services[0].process.running(), "{}", system.services[0].process.output());
    assert_eq!(system.post(&batch("more", 200)).status, 503);
    let health = http::get(&system.gateway_url("/health")).unwrap();
    assert_eq!(health.status, 200);
}

#[test]
fn a_forgotten_person_is_in_no_file_after_the_next_clean_stop() {
    const PERSON: &str = "Ada Quixote-Unmistakable";
    let mut system = System::embedded(&[]);
    for n in 0..40 {
        let mut event = simple(&format!("e-{n}"), "facebook");
        if n % 4 == 0 {
            event["data"]["user"]["name"] = PERSON.into();
            event["data"]["user"]["userId"] = "ada-4711".into();
        }
        assert_eq!(system.post(&event.to_string()).status, 202);
    }
    system.settle();
    let holders = |system: &System| -> Vec<String> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(system.folder.path().join("data")).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = Vec::new();
            std::fs::File::open(&path).unwrap().read_to_end(&mut bytes).unwrap();
            for text in [PERSON, "ada-4711"] {
                if bytes.windows(text.len()).any(|found| found == text.as_bytes()) {
                    found.push(format!("{}: {text}", path.display()));
                }
            }
        }
        found
    };
    assert!(!holders(&system).is_empty(), "nothing was looked for");
    let done = system.ess(&["forget", "--source", "facebook", "--user", "ada-4711"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let process = &mut system.services[0].process;
    process.signal("TERM");
    assert_eq!(process.wait(MINUTE).code(), Some(0), "{}", process.output());
    assert_eq!(holders(&system), Vec::<String>::new());
    system.services[0].start_again();
    system.wait_ready();
    assert_eq!(system.count_rows(), 40);
    system.post(&simple("later", "facebook").to_string());
    let ledger = system.settle();
    assert_eq!(
        (&ledger["sources"][0]["missing"], &ledger["sources"][0]["stored"]),
        (&0.into(), &41.into()),
        "{ledger}"
    );
    // Without a running system it is done at once.
    system.post(&{
        let mut event = simple("again", "facebook");
        event["data"]["user"]["name"] = PERSON.into();
        event["data"]["user"]["userId"] = "ada-4711".into();
        event.to_string()
    });
    system.settle();
    let process = &mut system.services[0].process;
    process.signal("TERM");
    assert_eq!(process.wait(MINUTE).code(), Some(0), "{}", process.output());
    assert!(!holders(&system).is_empty(), "nothing was looked for");
    let done = system.ess(&["forget", "--source", "facebook", "--user", "ada-4711"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(holders(&system), Vec::<String>::new());
}

#[test]
fn a_damaged_page_of_the_database_is_named_by_readiness_and_accepted_events_wait_in_the_log() {
    let mut system = System::embedded(&[]);
    assert_eq!(system.post(&simple("before", "facebook").to_string()).status, 202);
    system.settle();
    let page = &system.database.query("SELECT rootpage FROM sqlite_master WHERE name = 'event_rows'")[0];
    let page: u64 = page.parse().unwrap();
    let process = &mut system.services[0].process;
    process.signal("TERM");
    assert_eq!(process.wait(MINUTE).code(), Some(0), "{}", process.output());
    let file = system.folder.path().join("data/ess.db");
    let size = u64::from(u16::from_be_bytes(std::fs::read(&file).unwrap()[16..18].try_into().unwrap()));
    overwrite(&file, (page - 1) * size, &[0xff; 512]);
    system.services[0].start_again();
    eventually("the gateway takes events", MINUTE, || {
        let answer = http::post(&system.gateway_url("/webhook"), &simple("after", "facebook").to_string());
        answer.is_ok_and(|answer| answer.status == 202).then_some(())
    });
    let port = system.environment.iter().find(|(name, _)| name == "ESS_FACEBOOK_COLLECTOR_PORT");
    let ready = format!("http://127.0.0.1:{}/ready", port.unwrap().1);
    eventually("readiness names the damage", MINUTE, || {
        let answer = http::get(&ready).ok().filter(|answer| answer.status == 503)?;
        (answer.text.contains("storing") && answer.text.contains("malformed")).then_some(())
    });
    let ledger = eventually("it is in flight", MINUTE, || {
        let ledger = http::get(&system.reporter_url("/ledger")).ok()?.json();
        (ledger["sources"][0]["inFlight"].as_u64()? >= 1).then_some(ledger)
    });
    assert_eq!(ledger["sources"][0]["missing"], 0, "{ledger}");
}
