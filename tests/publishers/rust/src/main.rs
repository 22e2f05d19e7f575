//! Publishes with one of Rust's libraries: `publishers NAME URL`. Each logs what README.md says.

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use std::io::Write;
use std::sync::{Arc, Mutex};
use tracing_subscriber::fmt::MakeWriter;

const DEBUG: &str = "cache is warm";
const INFO: &str = "order 4711 is paid";
const WARNING: &str = "disk is 91 % full";
const ERROR: &str = "payment failed";
const LINES: &str = "two lines:\nthe second";

const NAMES: [&str; 5] =
    ["tracing-text", "tracing-colour", "tracing-compact", "tracing-json", "env-logger"];

/// Keeps each write, as these libraries write a record at once.
#[derive(Clone, Default)]
struct Records(Arc<Mutex<Vec<Vec<u8>>>>);

impl Write for Records {
    fn write(&mut self, record: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().push(record.to_vec());
        Ok(record.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Records {
    type Writer = Records;

    fn make_writer(&'a self) -> Records {
        self.clone()
    }
}

fn with_tracing() {
    let order = 4711;
    let error = std::io::Error::other("card declined");
    tracing::debug!(order, "{DEBUG}");
    tracing::info!(order, "{INFO}");
    tracing::warn!("{WARNING}");
    tracing::error!(%error, "{ERROR}");
    tracing::info!("{LINES}");
}

fn with_log() {
    log::debug!("{DEBUG}");
    log::info!("{INFO}");
    log::warn!("{WARNING}");
    log::error!("{ERROR}");
    log::info!("{LINES}");
}

fn logged(name: &str) -> Vec<Vec<u8>> {
    let records = Records::default();
    let fmt = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(records.clone());
    match name {
        "tracing-text" => fmt.with_ansi(false).init(),
        "tracing-colour" => fmt.with_ansi(true).init(),
        "tracing-compact" => fmt.with_ansi(false).compact().init(),
        "tracing-json" => fmt.json().init(),
        _ => env_logger::Builder::new()
            .filter_level(log::LevelFilter::Debug)
            .target(env_logger::Target::Pipe(Box::new(records.clone())))
            .init(),
    }
    if name == "env-logger" { with_log() } else { with_tracing() }
    let mut kept = records.0.lock().unwrap();
    std::mem::take(&mut *kept)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> lapin::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, url] = arguments.as_slice() else {
        println!("{}", NAMES.join("\n"));
        return Ok(());
    };
    let records = logged(name);
    let options = ConnectionProperties::default()
        .with_executor(tokio_executor_trait::Tokio::current())
        .with_reactor(tokio_reactor_trait::Tokio);
    let connection = Connection::connect(url, options).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    for record in records {
        channel
            .basic_publish("logs", "", BasicPublishOptions::default(), &record, BasicProperties::default())
            .await?
            .await?;
    }
    connection.close(200, "done").await
}
