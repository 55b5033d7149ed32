//! The `estrato` program: hands its arguments to [`estrato::cli`] and exits as that says.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    estrato::cli::main()
}
