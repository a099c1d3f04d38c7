//! The command line: `difftest --lab "pagelab run --"`.
//!
//! Exit status: 0 if all programs agree, 1 if some do not, 2 if the comparison
//! could not be made.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use difftest::batch::{Programs, compare_batch, run_both};
use difftest::folder::Folder;
use difftest::side::{PLACE, Side, SideError};
use difftest::{report, shrink};

/// How many runs shrinking one program may take.
const SHRINK_ATTEMPTS: u32 = 400;

/// Runs random memory programs on two kernels and compares what they see.
#[derive(Debug, Parser)]
#[command(name = "difftest")]
struct Options {
    /// Command that runs a program in the lab, such as "pagelab run --".
    #[arg(long, default_value = "")]
    lab: String,
    /// Command that runs a program on the reference kernel; nothing for this
    /// machine's own Linux.
    #[arg(long, default_value = "")]
    reference: String,
    /// The tester, as built by scripts/programs.
    #[arg(long, default_value = "target/programs/difftest")]
    program: PathBuf,
    /// Seed of the first program.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many programs to compare; without it, one batch, or as many as the
    /// budget allows.
    #[arg(long)]
    seeds: Option<u64>,
    /// Programs of each batch, that is, of each start of the lab.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    programs: u64,
    /// Operations of each program.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=4096))]
    ops: u32,
    /// Begin no further batch after so many seconds.
    #[arg(long)]
    budget: Option<u64>,
    /// Seconds after which a run is given up; it then counts as different.
    #[arg(long, default_value_t = 120)]
    timeout: u64,
    /// Shrink and show so many programs that differ, and begin no further batch
    /// after them.
    #[arg(long, default_value_t = 1)]
    max_differences: usize,
    /// Kinds of operations to use, such as "write,madvise"; without it, all.
    #[arg(long)]
    only: Option<String>,
    /// Kinds of operations to leave out.
    #[arg(long)]
    without: Option<String>,
    /// Let programs work on files and map them, each side in a folder of its own,
    /// and compare what is left there. In the lab's command, {folder} stands for
    /// its folder.
    #[arg(long)]
    files: bool,
    /// Where the lab's programs find their folder, as in
    /// --lab "pagelab run --share {folder}:/files --" --lab-files /files; or a
    /// folder of its own, in which only its programs look.
    #[arg(long, requires = "files")]
    lab_files: Option<String>,
    /// Make these folders in this one, which decides on the file system.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    work: PathBuf,
    /// Shrink and show the program with this seed, and nothing else.
    #[arg(long)]
    replay: Option<u64>,
    /// Make the lab's side wrong, to see that it is noticed.
    #[arg(long)]
    break_lab: bool,
}

impl Options {
    fn sides(&self) -> Result<[Side; 2], SideError> {
        let side = |name, command: &str, files: &Option<String>| {
            // Without a path of its own, a side finds the folder where it is.
            let here = self.files && (files.is_none() || command.contains(PLACE));
            let folder = here.then(|| Folder::new(&self.work)).transpose()?;
            let path = folder.as_ref().map(|folder| folder.path().display().to_string());
            Ok::<_, SideError>(Side {
                name,
                prefix: command.split_whitespace().map(str::to_owned).collect(),
                program: self.program.clone(),
                extra: Vec::new(),
                timeout: Duration::from_secs(self.timeout),
                folder,
                files: files.clone().or(path),
            })
        };
        let reference = side("linux", &self.reference, &None)?;
        let mut lab = side("lab", &self.lab, &self.lab_files)?;
        if self.break_lab {
            lab.extra.push("--break".to_owned());
        }
        Ok([reference, lab])
    }

    fn made_from(&self) -> Programs {
        let mut options = Vec::new();
        for (name, kinds) in [("--only", &self.only), ("--without", &self.without)] {
            if let Some(kinds) = kinds {
                options.extend([name.to_owned(), kinds.clone()]);
            }
        }
        Programs { operations: self.ops, options }
    }
}

/// What all batches gave together.
#[derive(Debug, Default)]
struct Totals {
    programs: u64,
    operations: u64,
    differing: Vec<u64>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let result = options.sides().and_then(|sides| match options.replay {
        Some(seed) => examine(&sides, &options.made_from(), seed),
        None => compare(&sides, &options),
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            eprintln!("difftest: {error}{}", cause.unwrap_or_default());
            ExitCode::from(2)
        }
    }
}

/// Compares batch after batch; true if all programs agree.
fn compare(sides: &[Side; 2], options: &Options) -> Result<bool, SideError> {
    let programs = options.made_from();
    let started = Instant::now();
    let budget = options.budget.map(Duration::from_secs);
    let end = match (options.seeds, budget) {
        (Some(count), _) => options.seed.saturating_add(count),
        (None, Some(_)) => u64::MAX,
        (None, None) => options.seed.saturating_add(options.programs),
    };
    let mut totals = Totals::default();
    let mut seed = options.seed;

    while seed < end && budget.is_none_or(|budget| started.elapsed() < budget) {
        let count = options.programs.min(end - seed);
        let result = compare_batch(sides, &programs, seed, count)?;
        totals.operations += result.operations;
        let next = result.stopped_at.map_or(seed + count, |stopped| stopped + 1);
        totals.programs += next - seed;
        seed = next;
        for &differing in &result.differing {
            if totals.differing.len() < options.max_differences {
                examine(sides, &programs, differing)?;
            }
            totals.differing.push(differing);
        }
        if !totals.differing.is_empty() && totals.differing.len() >= options.max_differences {
            break;
        }
    }
    summarize(&totals, started.elapsed());
    Ok(totals.differing.is_empty())
}

fn summarize(totals: &Totals, time: Duration) {
    println!(
        "{} programs, {} agreeing operations, {} programs differ, {:.1} s",
        totals.programs,
        totals.operations,
        totals.differing.len(),
        time.as_secs_f64()
    );
    if !totals.differing.is_empty() {
        println!("seeds that differ: {:?}", totals.differing);
    }
}

/// Shrinks and shows one program; true if both sides agree on it.
fn examine(sides: &[Side; 2], programs: &Programs, seed: u64) -> Result<bool, SideError> {
    let run = |kept: &[u32]| run_both(sides, &programs.replay(seed, kept));
    let all: Vec<u32> = (0..programs.operations).collect();
    let [one, other] = run(&all)?;

    if one.agrees_with(&other) {
        println!("seed {seed}: run alone, both sides agree");
        return Ok(true);
    }
    // Nothing after the first difference is needed for it.
    let last = report::first_difference(&one.output, &other.output);
    let mut kept = all.clone();
    if let Some(last) = last {
        kept.truncate(usize::try_from(last).map_or(usize::MAX, |last| last + 1));
        let [one, other] = run(&kept)?;
        if one.agrees_with(&other) {
            kept = all;
        }
    }
    let kept = shrink::shrink(kept, SHRINK_ATTEMPTS, |kept| {
        let [one, other] = run(kept)?;
        Ok::<_, SideError>(!one.agrees_with(&other))
    })?;

    let [one, other] = run(&kept)?;
    let names = [sides[0].name, sides[1].name];
    println!("seed {seed}: the sides differ; the smallest program that shows it:");
    print!("{}", report::program_of(&one.output));
    println!("transcripts:");
    print!("{}", report::side_by_side(names, [&one, &other]));
    println!("again: {}", sides[1].words(&programs.replay(seed, &kept)).join(" "));
    Ok(false)
}
