//! What is going on, on standard error: a moving line on a terminal, one line per change elsewhere.

use std::{
    io::{IsTerminal, stderr, stdin},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{exit::Failure, print};

/// One activity at a time.
pub struct Progress {
    bar: Option<ProgressBar>,
    last: String,
}

impl Progress {
    /// Nothing is shown yet.
    pub fn new() -> Self {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar, last: String::new() }
    }

    /// What is being done or waited for now.
    pub fn now(&mut self, what: &str) {
        if what == self.last {
            return;
        }
        what.clone_into(&mut self.last);
        let what = print::printable(what);
        match &self.bar {
            Some(bar) => bar.set_message(what),
            None => print::stderr(&format!("… {what}")),
        }
    }

    /// Something is done.
    pub fn done(&mut self, what: &str) {
        self.line(&format!("✓ {what}"));
    }

    /// Something is not as one would wish, and it goes on.
    pub fn warn(&mut self, what: &str) {
        self.line(&format!("! {what}"));
    }

    fn line(&mut self, text: &str) {
        let text = print::printable(text);
        match &self.bar {
            Some(bar) => bar.suspend(|| print::stderr(&text)),
            None => print::stderr(&text),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Asks on the terminal; where there is none, `--yes` must say it.
pub fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !(stdin().is_terminal() && stderr().is_terminal()) {
        return Err(Failure::usage("this changes the cluster and nobody can be asked").hint("say --yes"));
    }
    print::stderr(&format!("{} [y/N]", print::printable(question)));
    let mut answer = String::new();
    let read = stdin().read_line(&mut answer);
    match read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
        true => Ok(()),
        false => Err(Failure::runtime("not confirmed: nothing was changed")),
    }
}
