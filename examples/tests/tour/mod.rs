//! A page of one shell, followed section by section, at loopback addresses of its own.

use std::collections::VecDeque;

use outrider_examples::network::Network;
use tempfile::TempDir;

use crate::page::{Block, Shell, blocks};

/// The network that pages are written for.
const WRITTEN: &str = "127.0.0.";

/// A page that is being followed. Dropped, everything that it started is gone.
pub(crate) struct Tour {
    /// The shell that its commands are run in.
    shell: Shell,
    /// `127.x.y.`: what stands for [`WRITTEN`].
    pub(crate) network: String,
    blocks: VecDeque<Block>,
    _home: TempDir,
}

impl Tour {
    /// Begins with the page; `needed` are the hosts and ports that its programs listen at.
    pub(crate) fn start(page: &str, needed: &[(u8, u16)]) -> Self {
        let addresses = |network: Network| needed.iter().map(|at| network.address(at.0, at.1)).collect();
        let network = Network::free(addresses).expect("free loopback addresses");
        assert_eq!(network.port_offset, 0, "the page's ports are taken in every network");
        let (x, y) = network.place;
        let home = tempfile::tempdir().expect("a folder");
        Self {
            shell: Shell::start("the shell", home.path()),
            network: format!("127.{x}.{y}."),
            blocks: blocks(page).into(),
            _home: home,
        }
    }

    /// Follows the page to the end of the section of this number; returns what that section said.
    pub(crate) fn through(&mut self, number: u32) -> String {
        let heading = format!("## {number}. ");
        let (mut said, mut found) = (String::new(), false);
        while let Some(block) = self.blocks.front() {
            let is_it = block.section.starts_with(&heading);
            if found && !is_it {
                break;
            }
            found = is_it;
            let block = self.blocks.pop_front().expect("it is there");
            assert_eq!(block.shell, None, "{}: there is one shell", block.section);
            let output = self.follow(&block.commands, block.is_refused);
            if is_it {
                said.push_str(&output);
            }
        }
        assert!(found, "no section {number} is left");
        said
    }

    /// Runs commands as if they stood on the page.
    pub(crate) fn follow(&mut self, commands: &str, is_refused: bool) -> String {
        let said = self.shell.follow(&commands.replace(WRITTEN, &self.network), is_refused);
        if commands.starts_with("cp -r examples/") {
            let (written, network) = (WRITTEN.replace('.', "\\."), &self.network);
            self.shell.follow(&format!("sed -i 's/{written}/{network}/g' *.yaml"), false);
        }
        said
    }

    /// Ends the tour, of which nothing may be left.
    pub(crate) fn end(self) {
        let left = self.blocks.front().map(|block| block.section.as_str());
        assert_eq!(left, None, "the page is not over");
    }
}
