//! The command `psa`. Its code is in the library beside this file.

use std::process::ExitCode;

fn main() -> ExitCode {
    psa_cli::main()
}
