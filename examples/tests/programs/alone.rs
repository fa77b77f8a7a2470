//! The examples that run without any other program.

use crate::program::Program;

const NO_ARGUMENTS: [&str; 0] = [];

/// Each worker's records and gaps together are all records, and the slow one's gap is large.
#[test]
fn worker_threads() {
    let mut program = Program::start("worker_threads", NO_ARGUMENTS);
    program.succeed();
    let mut workers = Vec::new();
    for line in &program.seen {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [name, "read", read, "(sum", _, "missed", missed] => {
                workers.push((name, number(read), number(missed), 0));
            }
            ["missed", gap] => {
                let (start, end) = gap.split_once("..").expect("a range");
                workers.last_mut().expect("a worker").3 += number(end) - number(start);
            }
            _ => {}
        }
    }
    let names: Vec<_> = workers.iter().map(|worker| worker.0).collect();
    assert_eq!(names, ["ann", "bob", "cho", "slow"]);
    for (name, read, missed, in_gaps) in workers {
        assert_eq!(read + missed, 5_000_000, "{name}");
        assert_eq!(missed, in_gaps, "{name}");
        assert!(name != "slow" || missed > 1_000_000, "it missed {missed}");
    }
}

/// Memory grows while a reader does not read, and is released once the last reader has passed.
#[test]
fn readers_come_and_go() {
    let mut program = Program::start("readers_come_and_go", NO_ARGUMENTS);
    program.succeed();
    // Readers, records kept, KiB of memory, KiB held back.
    let mut table = Vec::new();
    for line in &program.seen[1..] {
        let mut numbers: Vec<u64> = line.split_whitespace().rev().take(4).map(number).collect();
        numbers.reverse();
        let [readers, kept, memory, held] = numbers[..] else { panic!("{line}") };
        table.push((readers, kept, memory, held));
    }
    let readers: Vec<_> = table.iter().map(|line| line.0).collect();
    assert_eq!(readers, [0, 1, 2, 2, 2, 3, 2, 0], "{:#?}", program.seen);
    for (line, (_, kept, memory, held)) in table.iter().enumerate() {
        match line {
            // The audit has read nothing, or half; the backup nothing.
            2 | 5 => assert!(*kept >= 200_000 && *memory > 1_500 && *held > 1_500, "{line}"),
            3 => assert!((90_000..110_000).contains(kept) && *memory < 1_000, "{line}"),
            _ => assert!(*kept < 10_000 && *memory < 200 && *held == 0, "{line}"),
        }
    }
}

/// The program kills its own runs, and the balances are correct.
#[test]
fn position_in_database() {
    let mut program = Program::start("position_in_database", NO_ARGUMENTS);
    program.succeed();
    let said = program.seen.join("\n");
    assert_eq!(said.matches("starting at").count(), 4, "{said}");
    if cfg!(unix) {
        assert!(said.matches("SIGKILL").count() == 3, "{said}");
    }
    assert!(said.contains("balance of ann: 18757500"), "{said}");
    assert!(said.contains("balance of bob: 18750000"), "{said}");
}

/// The workers crash on purpose, and every letter is sent; the letters at which they crashed are sent twice.
#[test]
fn at_least_once() {
    let mut program = Program::start("at_least_once", NO_ARGUMENTS);
    program.succeed();
    for letter in 1..=8 {
        let times = program.said(&format!("letter {letter} was sent"));
        let expected = if letter == 3 || letter == 6 { "2 times" } else { "1 times" };
        assert_eq!(times, [expected], "letter {letter}: {:#?}", program.seen);
    }
}

fn number(word: &str) -> u64 {
    let digits = word.trim_end_matches([')', ',']);
    digits.parse().unwrap_or_else(|_| panic!("{word:?} is no number"))
}
