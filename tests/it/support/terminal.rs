//! A program in a pseudo-terminal, and the screen that it draws.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use super::{MINUTE, eventually};

/// A program in a pseudo-terminal of its own. It is killed when it is dropped.
pub struct Terminal {
    child: Child,
    keyboard: File,
    /// The terminal's other end: kept, so that its state can be read after the program has ended.
    line: File,
    output: Receiver<Vec<u8>>,
    /// All bytes that the program has written.
    pub written: Vec<u8>,
    screen: vt100::Parser,
    before: Termios,
}

/// A sequence without effect on the screen (OSC), written after the program has ended.
const LAST: &[u8] = b"\x1b]777;end\x07";

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

impl Terminal {
    /// Starts `ess <arguments>` in a terminal of this size, with this environment only.
    pub fn start(
        arguments: &[&str],
        environment: &[(String, String)],
        folder: &Path,
        (columns, rows): (u16, u16),
    ) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        tcsetwinsize(&master, size(columns, rows)).unwrap();
        let line = File::options().read(true).write(true).open(name).unwrap();
        let before = tcgetattr(&line).unwrap();
        // It becomes the leader of a session whose terminal is this one, so that Ctrl-C and changes of size reach it.
        let mut command = Command::new("setsid");
        command.args(["--ctty", env!("CARGO_BIN_EXE_ess")]).args(arguments);
        let child = command
            .current_dir(folder)
            .env_clear()
            .env("TERM", "xterm-256color")
            .envs(environment.iter().cloned())
            .stdin(Stdio::from(line.try_clone().unwrap()))
            .stdout(Stdio::from(line.try_clone().unwrap()))
            .stderr(Stdio::from(line.try_clone().unwrap()))
            .spawn()
            .unwrap();
        let mut reader = File::from(master);
        let keyboard = reader.try_clone().unwrap();
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 16_384];
            while let Ok(count) = reader.read(&mut bytes) {
                if count == 0 || sender.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let screen = vt100::Parser::new(rows, columns, 0);
        Self { child, keyboard, line, output, written: Vec::new(), screen, before }
    }

    fn read(&mut self) {
        while let Ok(bytes) = self.output.try_recv() {
            self.screen.process(&bytes);
            self.written.extend(bytes);
        }
    }

    /// Lines of the screen as they are now.
    pub fn lines(&mut self) -> Vec<String> {
        self.read();
        let columns = self.screen.screen().size().1;
        self.screen.screen().rows(0, columns).collect()
    }

    /// Waits until the screen shows something.
    pub fn wait_for(&mut self, what: &str, check: impl Fn(&[String]) -> bool) -> Vec<String> {
        let started = std::time::Instant::now();
        loop {
            let lines = self.lines();
            if check(&lines) {
                return lines;
            }
            assert!(started.elapsed() < MINUTE, "{what}: not within a minute: {lines:#?}");
            std::thread::sleep(Duration::from_millis(25));
        }
    }

    /// Waits until a line of the screen contains a text.
    pub fn wait_text(&mut self, text: &str) -> Vec<String> {
        self.wait_for(text, |lines| lines.iter().any(|line| line.contains(text)))
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Gives the terminal another size.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        self.read();
        self.screen.screen_mut().set_size(rows, columns);
        tcsetwinsize(&self.line, size(columns, rows)).unwrap();
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    /// Waits until the program has ended by itself; checks that the terminal is as it was before.
    pub fn wait_end(&mut self) -> ExitStatus {
        let ended = eventually("the end of the program", MINUTE, || {
            self.read();
            self.child.try_wait().unwrap()
        });
        // What it wrote last may still be on its way: this comes after it.
        self.line.write_all(LAST).unwrap();
        let length = eventually("all that it wrote", MINUTE, || {
            self.read();
            self.written.windows(LAST.len()).rposition(|bytes| bytes == LAST)
        });
        self.written.truncate(length);
        let screen = self.screen.screen();
        assert!(!screen.alternate_screen(), "the screen of before is back");
        assert!(!screen.hide_cursor(), "the cursor shows");
        assert_eq!(ended.signal(), None, "{:#?}", self.lines());
        let after = tcgetattr(&self.line).unwrap();
        let modes = |of: &Termios| (of.input_modes, of.output_modes, of.control_modes, of.local_modes);
        assert_eq!(modes(&after), modes(&self.before), "the modes of the terminal");
        ended
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            self.read();
            eprintln!("--- the screen: {:#?}", self.lines());
        }
    }
}
