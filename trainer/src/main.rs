//! `tenon-train`: demonstrations, pre-training, fine-tuning, evaluation, export.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
