//! The `estrato` program: hands its arguments to [`estrato::cli`] and exits as that says.

fn main() -> std::process::ExitCode {
    estrato::cli::main()
}
