//! One visible step of work: a spinner on a terminal, plain lines elsewhere, the command's output only when it failed.
//!
//! Invariant: a step that fails shows everything its command said; nobody has to run it again to learn why.

use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// A log without a terminal gets a sign of life this often, so that a long compilation is not taken for a hang.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

/// Runs `command` as one step called `label`; its output is kept back unless it fails.
pub fn quietly(label: &str, command: &mut Command) -> Result<()> {
    let started = Instant::now();
    let show = Show::begin(label);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", line_of(command)))?;

    let (lines, said) = mpsc::channel();
    let readers = [
        child.stdout.take().map(|pipe| forward(pipe, lines.clone())),
        child.stderr.take().map(|pipe| forward(pipe, lines)),
    ];
    let mut output = Vec::new();
    let mut quiet_since = Instant::now();
    loop {
        match said.recv_timeout(Duration::from_millis(500)) {
            Ok(line) => {
                show.last(&line);
                output.push(line);
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
        if quiet_since.elapsed() >= SIGN_OF_LIFE {
            show.alive(label, started.elapsed(), output.last().map_or("", String::as_str));
            quiet_since = Instant::now();
        }
    }
    for reader in readers.into_iter().flatten() {
        // A reader ends when its pipe closes; it has nothing to report.
        let _ = reader.join();
    }
    let status = child.wait().with_context(|| format!("cannot wait for {}", line_of(command)))?;
    show.end(label, status.success(), started.elapsed());
    if !status.success() {
        eprintln!("{}", output.join("\n"));
        bail!("{label}: `{}` ended with {status}", line_of(command));
    }
    Ok(())
}

/// Does something of ours as one step called `label`.
pub fn work<T>(label: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let show = Show::begin(label);
    let result = work();
    show.end(label, result.is_ok(), started.elapsed());
    result.with_context(|| label.to_owned())
}

/// Asks again and again until `done`, as one step called `label`. The error, or the last reason for waiting, is told after `patience`.
pub fn wait(label: &str, patience: Duration, mut done: impl FnMut() -> Result<Wait>) -> Result<()> {
    const PAUSE: Duration = Duration::from_millis(100);
    // What is there already is no step: an `up` of a cluster that runs says nothing.
    if matches!(done()?, Wait::Done) {
        return Ok(());
    }
    work(label, || {
        let deadline = Instant::now() + patience;
        loop {
            let reason = match done()? {
                Wait::Done => return Ok(()),
                Wait::For(reason) => reason,
            };
            if Instant::now() > deadline {
                bail!("still not after {} s: {reason}", patience.as_secs());
            }
            thread::sleep(PAUSE);
        }
    })
}

/// Whether waiting is over.
pub enum Wait {
    /// It is.
    Done,
    /// It is not, for this reason.
    For(String),
}

/// Runs `command` with its output going straight to the reader: for linters, whose output is the point.
pub fn openly(label: &str, command: &mut Command) -> Result<bool> {
    eprintln!("-> {label}: {}", line_of(command));
    let status = command.status().with_context(|| format!("cannot start {}", line_of(command)))?;
    Ok(status.success())
}

/// Runs `command` and gives back what it wrote to stdout.
pub fn output_of(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", line_of(command)))?;
    if !output.status.success() {
        bail!("`{}` ended with {}", line_of(command), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as a person would type it.
pub fn line_of(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

fn forward(pipe: impl Read + Send + 'static, lines: mpsc::Sender<String>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    })
}

/// The two ways of showing a step.
enum Show {
    Spinner(ProgressBar),
    Lines,
}

impl Show {
    fn begin(label: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            eprintln!("-> {label}");
            return Self::Lines;
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg:.dim}") {
            bar.set_style(style);
        }
        bar.set_prefix(label.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        Self::Spinner(bar)
    }

    fn last(&self, line: &str) {
        if let Self::Spinner(bar) = self {
            bar.set_message(line.trim().to_owned());
        }
    }

    fn alive(&self, label: &str, elapsed: Duration, line: &str) {
        if let Self::Lines = self {
            eprintln!("   {label}: {} s, {}", elapsed.as_secs(), line.trim());
        }
    }

    fn end(&self, label: &str, good: bool, elapsed: Duration) {
        let sign = if good { "ok" } else { "FAILED" };
        let line = format!("{sign} {label} ({:.1} s)", elapsed.as_secs_f32());
        match self {
            Self::Spinner(bar) => {
                bar.finish_and_clear();
                eprintln!("{line}");
            }
            Self::Lines => eprintln!("   {line}"),
        }
    }
}
