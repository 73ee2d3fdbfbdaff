//! Child processes in namespaces, with their output in files.
//!
//! Invariant: a child dies with this process. The kernel ties that to the *thread* that forked, so one thread that lives
//! as long as the process does all the forking.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{ending, repo};

/// How long a child may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(5);

/// What to start, and where.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The namespace to be in.
    pub netns: PathBuf,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its whole environment, besides PATH.
    pub environment: Vec<(String, String)>,
    /// Gets stderr, and stdout unless that is piped. Appended to.
    pub log: PathBuf,
    /// Whether stdin and stdout are for the harness.
    pub piped: bool,
}

/// A running child; dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
    record: Option<PathBuf>,
}

impl Process {
    /// Starts it.
    pub fn start(plan: &Plan) -> Result<Self> {
        let _making = ending::making();
        let log = File::options()
            .create(true)
            .append(true)
            .open(&plan.log)
            .with_context(|| format!("cannot write {}", plan.log.display()))?;
        let mut command = Command::new(repo::binary("mesh-app")?);
        command
            .args(["exec", "--parent", &std::process::id().to_string(), "--netns"])
            .arg(&plan.netns)
            .arg("--")
            .arg(&plan.program)
            .args(&plan.arguments)
            .env_clear()
            .envs(plan.environment.iter().map(|(name, value)| (name, value)))
            .stderr(log.try_clone()?);
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        if plan.piped {
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
        } else {
            command.stdin(Stdio::null()).stdout(log);
        }
        let child = spawn(command).with_context(|| format!("cannot start {}", plan.program.display()))?;
        Ok(Self { child, log: plan.log.clone(), record: None })
    }

    /// Notes the process in `folder`, for whoever must clean up after a killed harness.
    pub fn recorded_in(mut self, folder: &Path) -> Result<Self> {
        let pid = self.pid();
        let file = folder.join(pid.to_string());
        fs::write(&file, format!("{pid} {}", start_time(pid).unwrap_or_default()))?;
        self.record = Some(file);
        Ok(self)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The other end of its stdin.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// The other end of its stdout.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGKILL: as a crash, nothing is tidied up by the process itself.
    pub fn kill(&mut self) {
        // It may have ended already; both calls then have nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.forget();
    }

    /// SIGTERM, then SIGKILL if it does not end in time.
    pub fn terminate(&mut self) -> Option<ExitStatus> {
        let _ = kill(Pid::from_raw(self.pid() as i32), Signal::SIGTERM);
        let status = self.wait(GRACE).ok();
        self.kill();
        status
    }

    /// Sends any signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid() as i32), signal).context("cannot signal")
    }

    /// Waits for its end.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.forget();
                return Ok(status);
            }
            if begun.elapsed() >= deadline {
                bail!("process {} does not end", self.pid());
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Reads stdout to its end and waits; kills it after `deadline`.
    pub fn output(mut self, deadline: Duration) -> Result<String> {
        let mut stdout = self.take_stdout().context("its stdout is not piped")?;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut text = String::new();
            let read = stdout.read_to_string(&mut text).map(|_| text);
            // The receiver is gone after the deadline; nobody wants the text then.
            let _ = sender.send(read);
        });
        let text = match receiver.recv_timeout(deadline) {
            Ok(text) => text?,
            Err(_) => {
                self.kill();
                bail!("no end of output within {deadline:?}");
            }
        };
        let status = self.wait(GRACE)?;
        if !status.success() {
            bail!("{status}: {}", tail(&self.log, 20));
        }
        Ok(text)
    }

    fn forget(&mut self) {
        if let Some(file) = self.record.take() {
            let _ = fs::remove_file(file);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last lines of a log.
pub fn tail(log: &Path, lines: usize) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// When a process started, in ticks since boot: with the pid, a name that is not re-used.
pub fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything; field 22 counts from behind it.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

type Request = (Command, mpsc::Sender<std::io::Result<Child>>);

fn spawn(command: Command) -> Result<Child> {
    static FORKER: OnceLock<Mutex<mpsc::Sender<Request>>> = OnceLock::new();
    let forker = FORKER.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Request>();
        thread::spawn(move || {
            for (mut command, answer) in receiver {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (sender, receiver) = mpsc::channel();
    let gone = || anyhow!("the forking thread is gone");
    forker.lock().map_err(|_| gone())?.send((command, sender)).map_err(|_| gone())?;
    Ok(receiver.recv().map_err(|_| gone())??)
}
