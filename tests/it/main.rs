//! Behaviour through public doors: the `estrato` program, and the library as a program would use it.

mod bad_input;
mod delta;
mod faults;
mod files;
mod fraud;
mod fuzz;
mod golden;
mod journal;
mod keys;
mod matrix;
mod model;
mod order;
mod power;
mod rollback;
mod screens;
mod session;
mod sftp;
mod signers;
mod state;
mod stores;
mod streams;
mod support;
mod testdata;
mod tree;
mod warm;
mod world;
