//! `ess sources`: the sources that the system knows, and work on source files.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};

use super::failure::Failure;
use crate::config::Config;
use crate::service::Ending;
use crate::source::declared::{
    Declared, FolderError, Method, Outcome, Request, Served, files_of, read_files, serve,
};
use crate::source::{Source, shipped};

/// Largest body that `ess sources try` reads, in bytes.
const MAX_BODY: u64 = 64 * 1024 * 1024;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the sources: built in, declared in ESS_SOURCES, and shipped with the binary
    List {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Check source files; each mistake is shown with its line and column
    Lint(Files),
    /// Run the examples of source files
    Test(Files),
    /// Show the events that a body would become; nothing is stored
    Try(Try),
    /// Write a shipped source file and its examples into ESS_SOURCES
    Add {
        /// Name of the shipped source, as `ess sources list` shows it
        name: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Files {
    /// Source files [default: all of ESS_SOURCES]
    files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Try {
    /// Source file
    file: PathBuf,
    /// File with the body; `-` for standard input
    body: Option<PathBuf>,
    /// Header of the request, as `Name: value`; can be given several times
    #[arg(long, value_parser = header)]
    header: Vec<(String, String)>,
    /// Query of the request's URL; without a body the request is a GET
    #[arg(long)]
    query: Option<String>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("must be written as `Name: value`")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

pub(super) fn run(config: &Config, command: Command) -> Result<Ending, Failure> {
    match command {
        Command::List { json } => list(&config.source_folder, json),
        Command::Lint(files) => lint(&of(config, files)?),
        Command::Test(files) => test(&of(config, files)?),
        Command::Try(arguments) => try_body(&arguments),
        Command::Add { name } => add(&config.source_folder, &name),
    }
}

/// The files that were named, or those of the folder.
fn of(config: &Config, named: Files) -> Result<Vec<PathBuf>, Failure> {
    if !named.files.is_empty() {
        return Ok(named.files);
    }
    let files = files_of(&config.source_folder).map_err(folder_failed)?;
    if files.is_empty() {
        let folder = config.source_folder.display();
        return Err(Failure::Usage(format!(
            "there is no source file in {folder}: name one, or set ESS_SOURCES"
        )));
    }
    Ok(files)
}

fn list(folder: &Path, json: bool) -> Result<Ending, Failure> {
    let line = |name: &str, origin: &str, title: &str, types: &[String]| {
        if json {
            println!(
                "{}",
                serde_json::json!({"name": name, "origin": origin, "title": title, "types": types})
            );
        } else {
            println!("{name:<20} {origin:<10} {title}");
        }
    };
    for source in Source::built_in() {
        let types: Vec<String> = source.event_types().map(|kind| kind.name().to_owned()).collect();
        line(source.name(), "built in", source.title(), &types);
    }
    let types = |source: &Declared| source.types().iter().map(ToString::to_string).collect::<Vec<_>>();
    let (mut names, mut is_wrong) = (Vec::new(), false);
    for path in files_of(folder).map_err(folder_failed)? {
        match read_files(std::slice::from_ref(&path)) {
            Ok(sources) => {
                for (_, source) in sources {
                    line(source.name(), "declared", source.title(), &types(&source));
                    names.push(source.name().to_owned());
                }
            }
            Err(error) => {
                eprintln!("{error}\n");
                is_wrong = true;
            }
        }
    }
    for shipped in shipped::ALL.iter().filter(|shipped| !names.iter().any(|name| name == shipped.name)) {
        if let Ok(source) = Declared::parse(shipped.name, shipped.file) {
            line(shipped.name, "shipped", source.title(), &types(&source));
        }
    }
    if is_wrong {
        return Err(Failure::Other(format!("a source file of {} is wrong", folder.display())));
    }
    Ok(Ending::Clean)
}

/// Reads all files and prints their mistakes. The error has their number.
fn read_all(paths: &[PathBuf]) -> Result<Vec<(PathBuf, Declared)>, Failure> {
    match read_files(paths) {
        Ok(sources) => Ok(sources),
        Err(FolderError::Mistakes(mistakes)) => {
            mistakes.iter().for_each(|mistake| eprintln!("{mistake}\n"));
            Err(Failure::Other(match mistakes.len() {
                1 => "1 mistake".to_owned(),
                mistakes => format!("{mistakes} mistakes"),
            }))
        }
        Err(error) => Err(Failure::Usage(error.to_string())),
    }
}

/// Failure of reading the folder `ESS_SOURCES`.
fn folder_failed(error: FolderError) -> Failure {
    Failure::Usage(format!("ESS_SOURCES: {error}"))
}

/// Reads the source files of `ESS_SOURCES`, and declares them with their secrets.
pub(super) fn served(config: &Config) -> Result<Vec<Arc<Served>>, Failure> {
    let files = files_of(&config.source_folder).map_err(folder_failed)?;
    let sources = read_files(&files).map_err(|error| match error {
        FolderError::Mistakes(_) => Failure::Usage(format!("a source file is wrong\n\n{error}")),
        error => folder_failed(error),
    })?;
    let served = serve(sources, |name| config.source_secret(name));
    served.map_err(|error| Failure::Usage(format!("a source file names a secret that is missing\n{error}")))
}

/// Names of the secrets that source files of `ESS_SOURCES` name, as far as the files can be read.
pub(super) fn secret_names(config: &Config) -> Vec<String> {
    let files = files_of(&config.source_folder).unwrap_or_default();
    let sources = files.iter().filter_map(|file| read_files(std::slice::from_ref(file)).ok()).flatten();
    let names = |(_, source): (PathBuf, Declared)| {
        source.secrets().iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>()
    };
    sources.flat_map(names).collect()
}

fn lint(paths: &[PathBuf]) -> Result<Ending, Failure> {
    for (path, source) in read_all(paths)? {
        println!("{}: `{}` is right; {} examples", path.display(), source.name(), source.examples());
    }
    Ok(Ending::Clean)
}

fn test(paths: &[PathBuf]) -> Result<Ending, Failure> {
    let mut failed = 0;
    for (path, source) in read_all(paths)? {
        let folder = path.with_extension("");
        let beside = path.parent().unwrap_or(Path::new(".")).to_owned();
        // Bodies lie in a folder of the source's name, or beside the file.
        let file =
            |name: &str| std::fs::read(folder.join(name)).or_else(|_| std::fs::read(beside.join(name)));
        match source.run_examples(&file) {
            Ok(()) => println!("{}: {} examples come out as they say", path.display(), source.examples()),
            Err(failures) => {
                failures.iter().for_each(|failure| eprintln!("{}: {failure}", path.display()));
                failed += failures.len();
            }
        }
    }
    match failed {
        0 => Ok(Ending::Clean),
        1 => Err(Failure::Other("1 example fails".to_owned())),
        _ => Err(Failure::Other(format!("{failed} examples fail"))),
    }
}

fn try_body(arguments: &Try) -> Result<Ending, Failure> {
    let Some((_, source)) = read_all(std::slice::from_ref(&arguments.file))?.pop() else {
        return Err(Failure::Usage("name a source file".to_owned()));
    };
    let body = arguments.body.as_deref().map(read_body).transpose()?;
    if body.is_none() && arguments.query.is_none() {
        return Err(Failure::Usage("name a file with the body, or give --query".to_owned()));
    }
    let headers: Vec<(&str, &str)> =
        arguments.header.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let request = Request {
        method: if body.is_some() { Method::Post } else { Method::Get },
        headers: &headers,
        query: arguments.query.as_deref().unwrap_or_default(),
        body: body.as_deref().unwrap_or_default(),
        received: chrono::Utc::now().timestamp_micros(),
    };
    let outcomes = source
        .events(&request)
        .map_err(|refused| Failure::Other(format!("the body is refused: {refused}")))?;
    let mut refused = 0;
    for outcome in &outcomes {
        if let Outcome::Refused(event) = outcome {
            refused += 1;
            if !arguments.json {
                println!("refused");
                event.errors.iter().for_each(|error| println!("  {}: {}", error.path, error.message));
                println!("  event: {}", event.raw);
                continue;
            }
        }
        match outcome.to_json(arguments.json) {
            text if arguments.json => println!("{text}"),
            text => println!("event\n{text}"),
        }
    }
    if !arguments.json {
        println!("{} events, {refused} refused", outcomes.len() - refused);
    }
    if refused > 0 {
        return Err(Failure::Other(format!("{refused} of {} events are refused", outcomes.len())));
    }
    Ok(Ending::Clean)
}

fn read_body(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    let read = match path == Path::new("-") {
        true => std::io::stdin().lock().take(MAX_BODY).read_to_end(&mut body),
        false => std::fs::File::open(path).and_then(|file| file.take(MAX_BODY).read_to_end(&mut body)),
    };
    read.map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
    Ok(body)
}

fn add(folder: &Path, name: &str) -> Result<Ending, Failure> {
    let Some(shipped) = shipped::find(name) else {
        let names: Vec<&str> = shipped::ALL.iter().map(|shipped| shipped.name).collect();
        return Err(Failure::Usage(format!(
            "no source `{name}` is shipped: it must be one of {}",
            names.join(", ")
        )));
    };
    let file = folder.join(format!("{name}.yaml"));
    let failed = |error: std::io::Error| Failure::Other(format!("{}: {error}", file.display()));
    let bodies = folder.join(name);
    std::fs::create_dir_all(if shipped.examples.is_empty() { folder } else { &bodies }).map_err(failed)?;
    // The source's file comes first: where it exists already, nothing is written.
    write_new(&file, shipped.file)?;
    for (name, text) in shipped.examples {
        write_new(&bodies.join(name), text)?;
    }
    println!("{} is written; its first lines say how to set it up", file.display());
    Ok(Ending::Clean)
}

/// Writes a file that must not exist yet.
fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    use std::io::Write;
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::Other(format!("{} exists already: nothing was overwritten", path.display()))
        }
        _ => Failure::Other(format!("{}: {error}", path.display())),
    })
}
