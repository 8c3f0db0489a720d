//! `outrigger completion`

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::Arguments;
use crate::failure::Failure;

/// For example: `outrigger completion bash > /etc/bash_completion.d/outrigger`
#[derive(clap::Args)]
pub struct Completion {
    /// Which shell.
    shell: Shell,
}

impl Completion {
    pub(super) fn run(self) -> Result<(), Failure> {
        clap_complete::generate(self.shell, &mut Arguments::command(), "outrigger", &mut std::io::stdout());
        Ok(())
    }
}
