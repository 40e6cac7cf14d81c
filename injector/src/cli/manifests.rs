//! `outrider-injector inject` and `uninject`: manifests in, manifests out.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{Target, check_version};
use crate::{
    documents::{self, Format, MAX_BYTES},
    pod::{self, Context, Existing, Outcome},
    workload,
};

#[derive(Debug, Args)]
pub(super) struct Inject {
    #[command(flatten)]
    manifests: Manifests,
    #[command(flatten)]
    target: Target,
    /// Version of Kubernetes that the pods are for: one that has no sidecar containers (before 1.29) is refused
    #[arg(long, value_name = "VERSION")]
    kubernetes_version: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Uninject {
    #[command(flatten)]
    manifests: Manifests,
}

#[derive(Debug, Args)]
struct Manifests {
    /// Manifests in YAML or JSON, with any number of documents; `-` is standard input; may be given several times
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    filename: Vec<PathBuf>,
    /// What to write; otherwise what was read, which is YAML if there is both
    #[arg(long, short, value_name = "FORMAT")]
    output: Option<Output>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// YAML, documents separated by `---`
    Yaml,
    /// JSON, one document after the other
    Json,
}

/// What there is to tell of the pods, beside the manifests.
#[derive(Default)]
struct Told {
    /// Why pods were refused; nothing is written if there is any.
    refused: Vec<String>,
    /// What their owners should know.
    notes: Vec<String>,
}

impl Inject {
    pub(super) fn run(self) -> Result<ExitCode> {
        check_version(self.kubernetes_version.as_deref())?;
        let installation = self.target.installation()?;
        self.manifests.change(|found, told| {
            let context =
                Context { owner: found.owner, existing: Existing::Replace, installation: &installation };
            match pod::inject(found.pod, &context) {
                Ok(Outcome::Injected { pod, warnings }) => {
                    *found.pod = pod;
                    told.notes.extend(warnings.iter().map(|warning| format!("{}: {warning}", found.place)));
                }
                Ok(Outcome::Left(reason)) => {
                    told.notes.push(format!("{}: left as it is: {reason}", found.place));
                }
                Err(denial) => {
                    let reasons = denial.reasons().iter();
                    told.refused.extend(reasons.map(|reason| format!("{}: {reason}", found.place)));
                }
            }
        })
    }
}

impl Uninject {
    pub(super) fn run(self) -> Result<ExitCode> {
        self.manifests.change(|found, told| match pod::uninject(found.pod) {
            Ok(pod) => *found.pod = pod,
            Err(denial) => told.refused.push(format!("{}: {denial}", found.place)),
        })
    }
}

impl Manifests {
    fn change(&self, mut change: impl FnMut(workload::Found<'_>, &mut Told)) -> Result<ExitCode> {
        let (mut all, mut formats) = (Vec::new(), Vec::new());
        for path in &self.filename {
            let (documents, format) = read(path)?;
            all.extend(documents);
            formats.push(format);
        }
        let mut told = Told::default();
        let mut pods = 0_usize;
        for manifest in &mut all {
            workload::each(manifest, &mut |found| {
                pods += 1;
                change(found, &mut told);
            });
        }
        if pods == 0 {
            told.notes.push("no pod and no workload is in these manifests".to_owned());
        }
        for line in told.notes.iter().chain(&told.refused) {
            complain(line)?;
        }
        if !told.refused.is_empty() {
            complain("nothing was written: mend what is said above")?;
            return Ok(ExitCode::FAILURE);
        }
        let format = match self.output {
            Some(Output::Yaml) => Format::Yaml,
            Some(Output::Json) => Format::Json,
            None if formats.iter().all(|format| *format == Format::Json) => Format::Json,
            None => Format::Yaml,
        };
        let text = documents::write(&all, format);
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .context("standard output cannot be written")?;
        Ok(ExitCode::SUCCESS)
    }
}

fn complain(line: &str) -> Result<()> {
    writeln!(io::stderr(), "outrider-injector: {line}").context("standard error cannot be written")
}

fn read(path: &Path) -> Result<(Vec<Value>, Format)> {
    let is_stdin = path.as_os_str() == "-";
    let place = if is_stdin { "standard input".to_owned() } else { path.display().to_string() };
    let bound = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut text = String::new();
    let read = if is_stdin {
        io::stdin().lock().take(bound).read_to_string(&mut text)
    } else {
        File::open(path).and_then(|file| file.take(bound).read_to_string(&mut text))
    };
    read.with_context(|| format!("{place} cannot be read"))?;
    documents::read(&text).with_context(|| place)
}
