//! The manual as a whole: its pages are all in the book, links lead somewhere, configs and commands in them are good,
//! and the tutorial goes as printed.

mod book;
mod command_lines;
mod links;
mod markdown;
mod toml_blocks;
mod tutorial;
mod typed;
