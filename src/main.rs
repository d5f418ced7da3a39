//! The entry point of the `countersign` command.

fn main() -> std::process::ExitCode {
    countersign::cli::main()
}
