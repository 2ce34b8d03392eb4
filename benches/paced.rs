//! A load that comes evenly, as that of many agents does: single requests at a fixed rate, whatever becomes of them.
//!
//! `paced ADDRESS PATH BODY CONNECTIONS RATE SECONDS` posts the file BODY so often a second, over so many connections in turn;
//! prints the median and the 99th percentile in seconds. A request's time begins when it is due, not when its connection is
//! free, so what waits behind a slow answer counts as slow. Each connection has a thread that sleeps until then: timers of
//! event loops are too coarse, and send what is due within a millisecond, or ten, at once.

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    // `cargo bench` adds an argument of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [address, path, body, connections, rate, seconds] = &arguments[..] else {
        // So that `cargo bench` passes over it.
        eprintln!("usage: paced ADDRESS PATH BODY CONNECTIONS RATE SECONDS; see benches/paced.rs");
        return Ok(());
    };
    let body = std::fs::read_to_string(body)?;
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let (connections, rate): (u32, f64) = (connections.parse()?, rate.parse()?);
    let (count, gap) = ((rate * seconds.parse::<f64>()?) as u32, Duration::from_secs_f64(1.0 / rate));
    let started = Instant::now() + Duration::from_millis(100);
    let times = thread::scope(|scope| {
        let senders: Vec<_> = (0..connections)
            .map(|first| {
                let due = (first..count).step_by(connections as usize).map(move |number| started + gap * number);
                scope.spawn(|| send(address, request.as_bytes(), due))
            })
            .collect();
        senders.into_iter().map(|sender| sender.join().map_err(|_| "a sender panicked")?).collect::<Outcome<Vec<_>>>()
    })?;
    let mut times = times.concat();
    times.sort_unstable();
    println!("{} {}", times[times.len() / 2].as_secs_f64(), times[times.len() * 99 / 100].as_secs_f64());
    Ok(())
}

/// Sends a request at each of these moments, or as soon as the one before it is answered; returns how late each answer was.
fn send(address: &str, request: &[u8], due: impl Iterator<Item = Instant>) -> Outcome<Vec<Duration>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut answer = vec![0; 64 << 10];
    due.map(|due| {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        stream.write_all(request)?;
        read_answer(&mut stream, &mut answer)?;
        Ok(due.elapsed())
    })
    .collect()
}

/// Reads an answer, which has to be a 2xx, to its end.
fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) -> Outcome<()> {
    let mut len = 0;
    loop {
        match stream.read(&mut buffer[len..])? {
            0 => return Err("an answer was cut off, or is too long".into()),
            more => len += more,
        }
        let Some(head) = buffer[..len].windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let text = std::str::from_utf8(&buffer[..head])?.to_ascii_lowercase();
        if !text.starts_with("http/1.1 2") {
            return Err(text.into());
        }
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        if len == head + 4 + length.ok_or("no content-length")?.parse::<usize>()? {
            return Ok(());
        }
    }
}
