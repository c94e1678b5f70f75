//! A headless Chromium, spoken to through pipes.
//!
//! The browser's own protocol: JSON messages that end with a zero byte, on its descriptors 3 and 4,
//! which a shell makes of our pipes. It is given an empty profile and no way to any network. Which
//! browser: `AEGIS_BROWSER`, else one on `PATH`, else what `cargo xtask runtimes --browser` unpacked.
//! Without any, the test fails and says so.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

/// The longest silence of a browser that still works.
const PATIENCE: Duration = Duration::from_secs(60);
const NAMES: [&str; 5] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome-headless-shell",
];
const FLAGS: [&str; 8] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-pipe",
];

/// A running browser with one page.
pub(crate) struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    sent: u64,
    session: Option<String>,
    /// What the browser said without being asked.
    pub(crate) events: Vec<Value>,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub(crate) fn start() -> Self {
        let program = find();
        let profile = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new("sh");
        let pipes = "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1";
        command.args(["-c", pipes, "sh"]).arg(&program).args(FLAGS);
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        let libraries = program.with_file_name("lib");
        if libraries.is_dir() {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("sh is everywhere");
        let to = child.stdin.take().expect("it was piped");
        let from = BufReader::new(child.stdout.take().expect("it was piped"));
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for message in from.split(0).map_while(Result::ok) {
                let message = serde_json::from_slice(&message).expect("the protocol is JSON");
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let (events, session) = (Vec::new(), None);
        let mut browser =
            Self { child, to, from: receiver, sent: 0, session, events, _profile: profile };
        browser.attach();
        browser
    }

    fn attach(&mut self) {
        let target = self.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = self.call("Target.attachToTarget", &attach);
        self.session = Some(session["sessionId"].as_str().expect("a session").to_owned());
        for domain in ["Page", "Network", "Log", "Runtime"] {
            self.call(&format!("{domain}.enable"), &json!({}));
        }
    }

    /// Shows `page` in a window of this width, in dark or light, and waits until it is laid out.
    pub(crate) fn show(&mut self, page: &Path, width: u32, is_dark: bool) {
        let size =
            json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", &size);
        let scheme = if is_dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", &media);
        self.events.clear();
        self.call("Page.navigate", &json!({ "url": format!("file://{}", page.display()) }));
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.receive();
            self.events.push(event);
        }
    }

    /// What `script` comes to on the page.
    pub(crate) fn evaluate(&mut self, script: &str) -> Value {
        let ask = json!({ "expression": script, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", &ask);
        assert!(answer.get("exceptionDetails").is_none(), "the script failed: {answer:#}");
        answer["result"]["value"].clone()
    }

    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.sent += 1;
        let mut message = json!({ "id": self.sent, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).and_then(|()| self.to.flush()).expect("the browser listens");
        loop {
            let mut answer = self.receive();
            if answer["id"] != self.sent {
                self.events.push(answer);
                continue;
            }
            assert!(answer.get("error").is_none(), "{method} failed: {answer:#}");
            return answer["result"].take();
        }
    }

    fn receive(&self) -> Value {
        self.from.recv_timeout(PATIENCE).expect("the browser answers, or did not start at all")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn find() -> PathBuf {
    if let Some(named) = std::env::var_os("AEGIS_BROWSER") {
        return named.into();
    }
    let search = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&search)
        .flat_map(|folder| NAMES.map(|name| folder.join(name)))
        .find(|path| path.is_file());
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let runtimes = here.ancestors().map(|folder| folder.join(".aegis/runtimes"));
    let unpacked = runtimes.filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    let mut unpacked = unpacked.map(|entry| entry.path().join("chromium"));
    on_path
        .or_else(|| unpacked.find(|path| path.is_file()))
        .expect("pages are tested in a browser; fetch one: cargo xtask runtimes --browser")
}
